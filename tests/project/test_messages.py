"""The messages and the docs: what a message names is there, and docs/reference/messages.rst has every message."""

from __future__ import annotations

import re

import pytest

from lazysession.pages import Page
from tests.project.test_house import ADAPTERS, CORE, ROOT
from tests.support.messages import Message, messages_of

DOCS = ROOT / "docs"
PAGE = (DOCS / "reference" / "messages.rst").read_text(encoding="utf-8")
#: Those of the page: what is logged, with the line below it, and the texts of exceptions.
LOGGED = dict(re.findall(r"^``(.+)``\n   (.+)$", PAGE, re.M))
RAISED = re.findall(r"^- ``(.+)``$", PAGE, re.M)
#: A part of every message that is logged once per endpoint; what a contract suite says; findings of a command.
OTHERS = ("logs.py", "testing.py", "app.py")


def messages() -> list[Message]:
    """Return the messages of the code."""
    found = [each for path in [*CORE.values(), *ADAPTERS.values()] for each in messages_of(path)]
    return [each for each in found if not each.place.startswith(OTHERS)]


MESSAGES = messages()


@pytest.mark.parametrize("page", Page)
def test_what_a_message_names_is_there(page: Page) -> None:
    """Each page that a message can name exists, and has the label on it."""
    name, _, label = page.value.partition("#")
    text = (DOCS / f"{name}.rst").read_text(encoding="utf-8")
    assert not label or f"\n.. _{label}:\n" in text


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.place)
def test_every_message_is_on_the_page(message: Message) -> None:
    """What is logged stands with its level and how often it is logged; an exception stands with its text."""
    logged = message.kind.startswith(("Info", "Warning", "Error", "Python"))
    found = LOGGED.get(message.text, "").startswith(message.kind) if logged else message.text in [*RAISED, *LOGGED]
    how = f"the line below it must begin with {message.kind!r}" if logged else f"a list has those of {message.kind}"
    assert found, f"put the message of {message.place} into docs/reference/messages.rst ({how}): {message.text}"


def test_nothing_else_is_on_the_page() -> None:
    """No message of the page is gone from the code."""
    stale = {*LOGGED, *RAISED} - {message.text for message in MESSAGES}
    assert not stale, f"remove from docs/reference/messages.rst what the code does not say any more: {stale}"
    assert len(MESSAGES) > 100


def test_there_is_one_logger() -> None:
    """The page names the only logger."""
    texts = [path.read_text(encoding="utf-8") for path in [*CORE.values(), *ADAPTERS.values()]]
    assert {name for text in texts for name in re.findall(r"getLogger\((.*)\)", text)} == {'"lazysession"'}
