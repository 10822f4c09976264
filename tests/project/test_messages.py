"""The messages and the docs: what a message names is there, and docs/reference/messages.rst has every message."""

from __future__ import annotations

import pytest

from lazysession.pages import Page
from tests.project.test_house import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", Page)
def test_what_a_message_names_is_there(page: Page) -> None:
    """Each page that a message can name exists, and has the label on it."""
    name, _, label = page.value.partition("#")
    text = (DOCS / f"{name}.rst").read_text(encoding="utf-8")
    assert not label or f"\n.. _{label}:\n" in text
