"""The decision at the end of a request: a pure function."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lazysession.modes import Mode
from lazysession.records.plan import Cookie, Owed, Store, decide

FACTS: dict[str, Any] = {
    "had_record": True,
    "empty": False,
    "moved": False,
    "changed": False,
    "refreshed": False,
    "permanent": True,
    "mode": Mode.NORMAL,
}


@pytest.mark.parametrize(
    ("facts", "owed"),
    [
        ({"had_record": False, "empty": True}, Owed(Store.NOTHING, Cookie.KEEP)),
        ({"had_record": False, "empty": True, "moved": True}, Owed(Store.NOTHING, Cookie.KEEP)),
        ({"had_record": False}, Owed(Store.CREATE, Cookie.SET)),
        ({"empty": True}, Owed(Store.DELETE, Cookie.DELETE)),
        ({"empty": True, "moved": True}, Owed(Store.DELETE, Cookie.DELETE)),
        ({"moved": True}, Owed(Store.MOVE, Cookie.SET)),
        ({"moved": True, "changed": True}, Owed(Store.MOVE, Cookie.SET)),
        ({"changed": True}, Owed(Store.REPLACE, Cookie.SET)),
        ({"changed": True, "mode": Mode.PASSIVE}, Owed(Store.REPLACE, Cookie.KEEP)),
        ({}, Owed(Store.NOTHING, Cookie.KEEP)),
        ({"refreshed": True}, Owed(Store.NOTHING, Cookie.RENEW)),
        ({"refreshed": True, "permanent": False}, Owed(Store.NOTHING, Cookie.KEEP)),
    ],
)
def test_each_row(facts: dict[str, Any], owed: Owed) -> None:
    """Each row of the table in the docstring."""
    assert decide(**FACTS | facts) == owed


def test_every_combination_is_consistent() -> None:
    """A cookie is deleted with its record and only then; nothing is replaced or deleted that was not there."""
    for had, empty, moved, changed, refreshed, permanent in itertools.product([False, True], repeat=6):
        owed = decide(
            had_record=had, empty=empty, moved=moved, changed=changed, refreshed=refreshed, permanent=permanent,
            mode=Mode.NORMAL,
        )  # fmt: skip
        assert (owed.cookie is Cookie.DELETE) == (owed.store is Store.DELETE)
        assert had or owed.store in (Store.NOTHING, Store.CREATE)
        assert not (empty and owed.cookie in (Cookie.SET, Cookie.RENEW))
