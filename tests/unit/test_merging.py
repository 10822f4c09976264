"""What may be merged with what another request stored meanwhile, and what is refused: pure functions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flask import Flask, session
from hypothesis import given
from hypothesis import strategies as st

from lazysession.codec import Codec
from lazysession.records.merging import Change, KeyUse, Merged, Merging, Refused

MakeApp = Callable[..., Flask]
Items = dict[str, Any]
SAME = Codec("msgpack").same


def keys(read: Iterable[str] = (), changed: Iterable[str] = (), *, everything: bool = False) -> KeyUse:
    """Return what a request did that read some keys, or everything, and then changed some."""
    used = KeyUse()
    for key in read:
        used.add_read(key)
    if everything:
        used.add_read_all()
    used.changed.update(changed)
    return used


def merge(base: Items, mine: Items, theirs: Items, used: KeyUse | None = None, **options: Any) -> Merged | Refused:
    """Merge with the default settings."""
    merging = Merging(SAME, exempt=frozenset({"_flashes"}))
    return merging.merge(Change(base, mine, used or keys()), theirs, **options)


# The rules

RESET = {"reset_for": "mallory", "code_ok": False}
BOB = {"reset_for": "bob", "code_ok": False}


def test_a_decision_that_is_out_of_date_is_refused() -> None:
    """Rule 2: /code read reset_for, which has another value now."""
    mine = {**RESET, "code_ok": True}
    assert merge(RESET, mine, BOB, keys(["reset_for"], ["code_ok"])) == Refused(("reset_for",))


def test_an_equal_value_is_a_change() -> None:
    """Rule 4: /forgot/bob assigned code_ok = False, which it was: it stands over the True of /code."""
    theirs = {**RESET, "code_ok": True}
    assert merge(RESET, BOB, theirs, keys((), BOB)) == Merged(BOB, ("code_ok",))


def test_a_one_time_code_verifies_once() -> None:
    """Rule 3: popped here, and replaced by another request: this request must not verify with it."""
    base, theirs = {"pending": "mallory", "otp": 1}, {"pending": "bob", "otp": 2}
    mine = {"pending": "mallory", "verified": True}
    assert merge(base, mine, theirs, keys(["otp"], ["otp", "verified"])) == Refused(("otp",))


@pytest.mark.parametrize("everything", [True, False])
def test_a_whole_session_may_stand(everything: bool) -> None:
    """Rule 3: what another request changed lies within what this one changed: the result is this one's session."""
    used = keys(["a"], ["a", "b"], everything=everything)
    assert merge({"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 3, "b": 1}, used) == Merged({"a": 2, "b": 2}, ("a",))


def test_a_counter_stands() -> None:
    """Rule 3: a single key that both read and changed, which is all that this one changed: one count is lost."""
    used = keys(["n"], ["n"])
    assert merge({"n": 1}, {"n": 2}, {"n": 2, "x": 1}, used) == Merged({"n": 2, "x": 1}, ())
    assert merge({"n": 1}, {"n": 2}, {"n": 5, "x": 1}, used) == Merged({"n": 2, "x": 1}, ("n",))


@pytest.mark.parametrize(
    ("before", "mine", "theirs"), [("sent", "verified", "new"), (False, True, None), (1, True, 2), (1, "1", 2)]
)
def test_a_single_state_does_not_stand(before: Any, mine: Any, theirs: Any) -> None:
    """Rule 3: a code that became "verified" is no counter: it is refused where the account of a new code was stored."""
    used = keys(["otp"], ["otp"])
    base, now = {"user": "mallory", "otp": before}, {"user": "bob", "otp": theirs}
    assert merge(base, {**base, "otp": mine}, now, used) == Refused(("otp",))
    assert merge(base, {**base, "otp": mine}, {**base, "otp": theirs}, used) == Merged({**base, "otp": mine}, ("otp",))
    assert merge(base, {**base, "otp": theirs}, now, used) == Merged(now, ())


@pytest.mark.parametrize(("before", "mine", "theirs"), [(1, 2, 2.5), ([1], [1, 2], [1, 3]), ({}, {"a": 1}, {"b": 1})])
def test_a_single_sum_stands(before: Any, mine: Any, theirs: Any) -> None:
    """Rule 3: numbers and collections, also where one side has none yet, and a removal."""
    used = keys(["n"], ["n"])
    assert merge({"n": before}, {"n": mine}, {"n": theirs, "x": 1}, used) == Merged({"n": mine, "x": 1}, ("n",))
    assert merge({}, {"n": mine}, {"n": theirs, "x": 1}, used) == Merged({"n": mine, "x": 1}, ("n",))
    assert merge({"n": before}, {}, {"n": theirs, "x": 1}, used) == Merged({"x": 1}, ("n",))


def test_a_removal_is_not_undone() -> None:
    """Rule 3: another request popped the user, this one changed something inside what it had read."""
    used = keys(["user"], [])
    assert merge({"user": [1]}, {"user": [1, 2]}, {}, used) == Refused(("user",))
    assert merge({"user": [1]}, {"user": [3]}, {}, keys((), ["user"])) == Merged({"user": [3]}, ("user",))
    assert merge({"user": [1]}, {}, {}, keys(["user"], ["user"])) == Merged({}, ())
    assert merge({"user": [1]}, {"user": [1]}, {"b": 1}, keys(["user"])) == Merged({"b": 1}, ())


def test_what_changes_nothing_is_no_change() -> None:
    """Rule 1: an equal value that was assigned, and an absent key that was popped, that no other request changed."""
    base = {"_flashes": ["hello"], "identity": "ada", "user": 1}
    used = keys(["user", "next"], ["identity", "next", "_flashes"])
    assert merge(base, {"identity": "ada", "user": 1}, {**base, "user": 2}, used) == Merged(
        {"identity": "ada", "user": 2}, ()
    )


def test_nothing_changed_is_never_refused() -> None:
    """Rule 1: a page that shows messages stores their removal, whatever it read."""
    base = {"_flashes": ["hello"], "user": 1}
    used = keys(["user"], ["_flashes"], everything=True)
    assert merge(base, {"user": 1}, {**base, "user": 2}, used) == Merged({"user": 2}, ())


def test_what_nothing_depends_on_is_no_reason() -> None:
    """Exempt keys, permanence and the time of creation refuse nothing, whichever request changed them."""
    mine = {"_permanent": True, "a": 1}
    theirs = {"_permanent": False, "_lazysession_created": 5.0, "_flashes": ["hello"]}
    used = keys(["_permanent", "_flashes"], ["a"])
    assert merge({"_permanent": True}, mine, theirs, used) == Merged({**theirs, "a": 1}, ())


def test_an_absent_key_counts() -> None:
    """A key that was looked for in vain, and is there now."""
    assert merge({"b": 1}, {"b": 2}, {"b": 1, "a": 1}, keys(["a"], ["b"])) == Refused(("a",))
    assert merge({"b": 1}, {"b": 2}, {"b": 1, "a": 1}, keys((), ["b"], everything=True)) == Refused(("a",))


def test_a_read_after_the_own_change_is_none() -> None:
    """A read after the request's own change reads its own value."""
    used = KeyUse()
    used.changed.add("a")
    used.add_read("a")
    used.add_read_all()
    assert merge({"a": 1}, {"a": 2, "b": 1}, {"a": 3}, used) == Merged({"a": 2, "b": 1}, ("a",))
    assert merge({"a": 1}, {"a": 2, "b": 1}, {"a": 1, "c": 1}, used) == Refused(("c",))


def test_whether_anything_is_left() -> None:
    """After the request's own removal, emptiness depends on every other key."""
    used = keys(["a"], ["a"])
    used.add_emptiness_read({"b": 1})
    assert merge({"a": 1, "b": 1}, {"b": 1, "c": 1}, {"a": 1}, used) == Refused(("b",))
    asked_with_content = keys((), ["c"])
    asked_with_content.add_emptiness_read({"c": 1})
    assert merge({"b": 1}, {"b": 1, "c": 1}, {}, asked_with_content) == Merged({"c": 1}, ())


# Late requests


def test_late_changes() -> None:
    """Applied where the rotated session changed none of their keys, dropped where it changed all of them."""
    base, now = {"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 1}
    assert merge(base, {**base, "c": 3}, now, late=True) == Merged({**now, "c": 3}, ())
    assert merge(base, {**base, "a": 3, "b": 2}, now, late=True) == Merged(now, ("a",))
    assert merge(base, {**base, "a": 3}, now, keys(["b"]), late=True) == Merged(now, ("a",))


def test_half_of_a_late_change() -> None:
    """Refused: /code verified and rotated, and /forgot/bob comes with the old id."""
    now = {**RESET, "code_ok": True}
    assert merge(RESET, BOB, now, keys((), BOB), late=True) == Refused(("code_ok",))


def test_hidden_keys() -> None:
    """A key that a late request was not shown counts as changed, also where both hold none."""
    change = Change({}, {"a": 1, "b": 1}, keys((), ["a", "b"]), frozenset({"a"}))
    assert Merging(SAME).merge(change, {}, late=True) == Refused(("a",))


def test_a_late_rotation_that_depends_on_an_old_value() -> None:
    """Its own session may not follow from a key that the rotated session holds otherwise."""
    change = Change({"user": 1}, {"user": 1, "ok": True}, keys(["user"], ["ok"]))
    assert Merging(SAME).refuse_rotation(change, {"user": 2}) == Refused(("user",))
    assert Merging(SAME).refuse_rotation(change, {"user": 1, "x": 1}) is None
    assert Merging(SAME, "overwrite").refuse_rotation(change, {"user": 2}) is None


# CONFLICT


def test_raise() -> None:
    """Every change is refused where another was stored, but those of keys that nothing depends on."""
    strict = Merging(SAME, "raise", frozenset({"_flashes"}))
    change = Change({"a": 1}, {"a": 2}, keys())
    assert strict.merge(change, {"a": 1, "b": 1}) == Refused(("b",), strictly=True)
    assert strict.merge(change, {"a": 1, "b": 1}, late=True, strict=False) == Merged({"a": 2, "b": 1}, ())
    assert strict.merge(change, {"a": 1, "_flashes": []}) == Merged({"a": 2, "_flashes": []}, ())
    assert strict.merge(Change({}, {"_flashes": []}, keys()), {"b": 1}) == Merged({"b": 1, "_flashes": []}, ())


def test_overwrite() -> None:
    """One of the two sessions, whole; a late one never in the place of what another request changed."""
    overwriting = Merging(SAME, "overwrite")
    change = Change({"a": 1, "b": 1}, {"a": 2, "b": 1}, keys(["b"]))
    assert overwriting.merge(change, {"a": 1, "b": 3}) == Merged({"a": 2, "b": 1}, ())
    assert overwriting.merge(change, {"a": 1, "b": 3}, late=True) == Merged({"a": 1, "b": 3}, ("a",))
    assert overwriting.merge(change, {"a": 1, "b": 1}, late=True) == Merged({"a": 2, "b": 1}, ())
    flash = Change({"a": 1}, {"a": 1, "_flashes": []}, keys((), ["_flashes"]))
    late = Merging(SAME, "overwrite", frozenset({"_flashes"})).merge(flash, {"a": 2}, late=True)
    assert late == Merged({"a": 2, "_flashes": []}, ())


# Values

VALUES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))


@given(base=VALUES, mine=VALUES, theirs=VALUES)
def test_blind_changes(base: Items, mine: Items, theirs: Items) -> None:
    """A request that read nothing is merged: each key is its own where it changed it, and the other's elsewhere."""
    merged = merge(base, mine, theirs)
    assert isinstance(merged, Merged)
    for key in "abcd":
        before, wanted, found = (side.get(key) for side in (base, mine, theirs))
        assert merged.items.get(key) == (found if wanted == before else wanted)
        assert (key in merged.contested) == (wanted != before and found != before and wanted != found)


@given(base=VALUES, mine=VALUES, used=st.builds(keys, VALUES, VALUES, everything=st.booleans()))
def test_without_a_conflict(base: Items, mine: Items, used: KeyUse) -> None:
    """Where nothing else changed, the merge is the request's own session; late or not."""
    for late in (False, True):
        assert merge(base, mine, base, used, late=late) == Merged(mine, ())


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
    answer = merge(base, mine, theirs)
    assert isinstance(answer, Merged)
    assert repr(answer.items) == repr({key: merged[key] for key in answer.items})
    nan = float("nan")
    assert merge({"p": nan}, {"p": nan, "x": 1}, {"p": 5}) == Merged({"p": 5, "x": 1}, ())


def test_the_order_of_the_keys_is_theirs() -> None:
    """The same merge is the same bytes in every process."""
    merged = merge({"z": 1, "a": 1}, {"z": 2, "a": 1, "new": 1}, {"z": 1, "m": 1, "a": 3})
    assert isinstance(merged, Merged)
    assert list(merged.items) == ["z", "m", "a", "new"]


# What counts as a read and as a change of the session

READS: list[tuple[Callable[[], Any], set[str] | None]] = [
    (lambda: session.get("a"), {"a"}),
    (lambda: session["a"], {"a"}),
    (lambda: "a" in session, {"a"}),
    (lambda: session.get("absent"), {"absent"}),
    (lambda: session.setdefault("a", 1), {"a"}),
    (lambda: session.pop("a"), {"a"}),
    (lambda: session.__delitem__("a"), {"a"}),
    (lambda: list(session), None),
    (lambda: list(session.items()), None),
    (lambda: list(session.keys()), None),
    (lambda: list(session.values()), None),
    (lambda: list(reversed(session)), None),  # type: ignore[call-overload]
    (lambda: len(session), None),
    (lambda: dict(session), None),
    (lambda: {**session}, None),
    (lambda: session == {}, None),
    (lambda: session.copy(), None),  # type: ignore[attr-defined]
    (lambda: copy.copy(session), None),
    (lambda: copy.deepcopy(session._get_current_object()), None),  # type: ignore[attr-defined]
    (lambda: session._get_current_object().__reduce_ex__(2), None),  # type: ignore[attr-defined]
    (lambda: session | {}, None),  # type: ignore[operator]
    (lambda: {} | session, None),  # type: ignore[operator]
    (lambda: session.popitem(), None),
    (lambda: session.sid, set()),  # type: ignore[attr-defined]
    (lambda: session.modified, set()),
    (lambda: session.permanent, set()),
    (lambda: session.new, set()),
    (lambda: repr(session), set()),
    (lambda: isinstance(session, dict), set()),
    (lambda: bool(session), set()),
]


def used_by(app: Flask, act: Callable[[], Any]) -> KeyUse:
    """Return the keys that an act on a stored session reads and changes."""
    used: list[KeyUse] = []

    def view() -> str:
        assert session.sid  # type: ignore[attr-defined]
        act()
        used.append(session.lazy_use.keys)  # type: ignore[attr-defined]
        return ""

    app.add_url_rule("/start", "start", lambda: session.update(a=1, b=[1]) or "")
    app.add_url_rule("/", "act", view)
    client = app.test_client()
    client.get("/start")
    client.get("/")
    return used[0]


@pytest.mark.parametrize(("read", "expected"), READS)
def test_reads(memory_app: MakeApp, read: Callable[[], Any], expected: set[str] | None) -> None:
    """Each way to read records the keys that it depends on; None is all of them, the absent ones included."""
    used = used_by(memory_app(), read)
    known = {key for key in ("a", "b", "absent") if used.was_read(key)}
    assert known == ({"a", "b", "absent"} if expected is None else expected)
    assert used.emptiness is (read is READS[-1][0])


CHANGES: list[tuple[Callable[[], Any], set[str]]] = [
    (lambda: session.__setitem__("a", 1), {"a"}),
    (lambda: session.update({"a": 1}), {"a"}),
    (lambda: session.update([("a", 1)], b=2), {"a", "b"}),
    (lambda: session.update(arg=1, self=2), {"arg", "self"}),
    (lambda: session._get_current_object().__ior__({"a": 1}), {"a"}),  # type: ignore[attr-defined]
    (lambda: session._get_current_object().__ior__([("a", 1)]), {"a"}),  # type: ignore[attr-defined]
    (lambda: session.pop("a"), {"a"}),
    (lambda: session.pop("absent", None), {"absent"}),
    (lambda: session.__delitem__("a"), {"a"}),
    (lambda: session.setdefault("absent", 1), {"absent"}),
    (lambda: session.setdefault("a", 2), set()),
    (lambda: session.popitem(), {"b"}),
    (lambda: session["b"].append(2), set()),  # found by its bytes
    (lambda: setattr(session, "modified", True), set()),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_changes(memory_app: MakeApp, change: Callable[[], Any], expected: set[str]) -> None:
    """Each way to change records the keys, also where the value stays equal."""
    assert used_by(memory_app(), change).changed == expected


def test_a_method_of_the_session_class(memory_app: MakeApp) -> None:
    """What an app's session class does by itself may depend on any key."""
    app = memory_app()

    class Session(app.session_interface.session_class):  # type: ignore[name-defined,misc]
        def is_admin(self) -> bool:
            return bool(self.get("a"))

    app.session_interface.handler._interface.session_class = Session  # type: ignore[attr-defined]
    assert used_by(app, lambda: session.is_admin()).was_read("anything")  # type: ignore[attr-defined]


def test_what_was_known_before_a_save(memory_app: MakeApp) -> None:
    """What a request read and changed before a save by hand still counts: the next save may depend on it."""
    app = memory_app()

    def save() -> None:
        session["c"] = session.get("a")
        app.session_interface.save_session(app, session._get_current_object(), app.response_class())  # type: ignore[attr-defined]

    used = used_by(app, save)
    assert (used.read, used.changed) == ({"a", "c"}, set())
