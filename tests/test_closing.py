"""The decision at the end of a request, and the merge: pure functions."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazysession.closing import Cookie, Mode, Owed, Store, decide, merge
from lazysession.codec import Codec

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


VALUES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))


@given(base=VALUES, mine=VALUES, theirs=VALUES)
def test_merge(base: dict[str, int], mine: dict[str, int], theirs: dict[str, int]) -> None:
    """Each key is mine where I changed it, and theirs elsewhere; contested are those that both changed apart."""
    merged, contested = merge(base, mine, theirs)
    for key in "abcd":
        before, wanted, found = (side.get(key) for side in (base, mine, theirs))
        assert merged.get(key) == (found if wanted == before else wanted)
        assert (key in contested) == (wanted != before and found != before and wanted != found)


@given(base=VALUES, mine=VALUES)
def test_merge_without_a_conflict(base: dict[str, int], mine: dict[str, int]) -> None:
    """When nobody else changed anything, the merge is mine; when I changed nothing, it is theirs."""
    assert merge(base, mine, base) == (mine, ())
    assert merge(base, base, mine) == (mine, ())


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        ({"flag": 0}, {"flag": False}, {"flag": 0, "x": 1}, {"flag": False, "x": 1}),
        ({"p": float("inf")}, {"p": float("inf"), "x": 1}, {"p": 5}, {"p": 5, "x": 1}),
        ({"n": 1}, {"n": 1.0}, {"n": 1, "x": 1}, {"n": 1.0, "x": 1}),
    ],
)
def test_values_are_compared_as_they_are_stored(base: Any, mine: Any, theirs: Any, merged: Any) -> None:
    """0 and False, 1 and 1.0 are different values, although Python calls them equal; NaN is the same as itself."""
    answer = merge(base, mine, theirs, same=Codec("msgpack").same).data
    assert repr(answer) == repr({key: merged[key] for key in answer})
    nan = float("nan")
    assert merge({"p": nan}, {"p": nan, "x": 1}, {"p": 5}, same=Codec("msgpack").same).data == {"p": 5, "x": 1}
