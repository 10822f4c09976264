"""Merging what a request changed with what another request stored meanwhile, or refusing it. Pure: no I/O happens here.

Merging by value alone is not safe: one request may decide by a value that another one changes at the same time. Two
requests load ``{"reset_for": "mallory", "code_ok": False}``, and the first sends the code that was mailed to mallory::

    /code                                         /forgot/bob
    reads reset_for: it is "mallory"
                                                  sets reset_for = "bob" and code_ok = False, is saved
    sets code_ok = True, is saved: by value that would be reset_for = "bob", code_ok = True

So :class:`KeyUse` records which keys a request read and which it changed, and a change that may depend on an outdated
value is refused. R are the keys that the request read before it changed them, W those that it changed, and T those
whose stored values differ from the loaded ones:

1. W is empty: nothing is refused. (A key that was assigned the value it had is in W only if it is in T as well.)
2. A key is in R and T, but not in W: refused. Above, ``reset_for``.
3. A key is in R, T and W: the value of this request is stored if T is a subset of W (the result is then exactly this
   request's session), or if the key is the only one in W and is removed, or holds a number or a collection (a counter,
   a cart: one of two counts is lost). Otherwise refused: a one-time code that was popped, or set to ``"verified"``,
   must not verify the account that a new code is for. A request never restores a key that it read and another request
   removed: ``session.pop("user")`` is a logout.
4. Otherwise merged: the values of W over those of T.

A **late request** is one whose id was rotated away. It never overwrites a key of T: a stale id must not undo a login.
If W is a subset of T, its whole change is dropped; otherwise it is refused if it read a key of T, or changed one to
another value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: The item with the time at which a session began, in seconds since the epoch. It is stored, but hidden from the app.
CREATED = "_lazysession_created"
PERMANENT = "_permanent"
_OF_THE_SESSION = frozenset({PERMANENT, CREATED})  # apps do not decide by them: they are in none of R, W and T

Items = Mapping[str, Any]
Keys = frozenset[str]
Same = Callable[[Any, Any], bool]


class KeyUse:
    """Which keys of a session a request read before it changed them itself, and which it changed.

    Threads may share a session. So a read is recorded before the value is returned, and a change after it is made: no
    read of the older value is missed. Adding to a set is atomic.
    """

    __slots__ = ("_all_but", "changed", "emptiness", "read")

    def __init__(self) -> None:
        self.read: set[Any] = set()  # one by one
        self.changed: set[Any] = set()  # assigned or removed; changes inside a value are found by comparing payloads
        self._all_but: list[frozenset[Any]] = []  # the keys that had been changed when all keys were read
        self.emptiness = False  # the request read whether the session is empty, before it changed anything

    def add_read(self, key: object) -> None:
        """Record that a key is about to be read, even if it is absent."""
        if key not in self.changed:
            self.read.add(key)

    def add_read_all(self) -> None:
        """Record that all keys are about to be read."""
        if not self._all_but:
            self._all_but.append(frozenset(self.changed))

    def add_emptiness_read(self, session: Items) -> None:
        """Record that the request is about to read whether the session is empty.

        After the request has removed a key, this depends on all others. Example: it removed ``a`` of
        ``{"a": 1, "b": 1}``; the session is then empty if another request has removed ``b``.
        """
        if not self.changed:
            self.emptiness = True
        elif self.changed.isdisjoint(session):
            self.add_read_all()

    def after_save(self) -> KeyUse:
        """Return the key use to go on with after a save: the values read before it may be outdated at the next save."""
        later = KeyUse()
        later.read = self.read | self.changed
        if self._all_but:
            later.add_read_all()
        return later

    def was_read(self, key: object) -> bool:
        """Return whether a key was read before it was changed."""
        return key in self.read or any(key not in changed for changed in self._all_but)


class Change(NamedTuple):
    """What one request did to a session; the items are as a load decodes them.

    :param before: the items that were loaded.
    :param after: the items that the session has now.
    :param keys: what the request read and changed.
    :param hidden: keys that a late request did not get, as the rotated session has removed or changed them.
    """

    before: Items
    after: Items
    keys: KeyUse
    hidden: Keys = frozenset()

    def emptiness_differs(self, stored: Items) -> bool:
        """Return whether the request read if the session is empty, and the stored session differs in that."""
        return self.keys.emptiness and has_content(self.before) is not has_content(stored)


class Merged(NamedTuple):
    """The items to store.

    :param contested: the keys that both requests changed, to different values.
    """

    items: dict[str, Any]
    contested: tuple[str, ...] = ()


class Refused(NamedTuple):
    """The change must not be stored.

    :param keys: the keys that another request changed, sorted.
    :param strictly: refused only because CONFLICT is ``raise``.
    """

    keys: tuple[str, ...]
    strictly: bool = False

    def explain(self) -> str:
        """Return what happened and what to do, for a log."""
        named = ", ".join(map(repr, self.keys[:5])) + (", ..." if len(self.keys) > 5 else "")
        if self.strictly:
            return f"Another request changed {named} meanwhile, and LAZYSESSION_CONFLICT is 'raise'."
        return (
            f"Another request changed {named} meanwhile, and this one depends on that. Name keys that nothing depends "
            "on in LAZYSESSION_CONFLICT_EXEMPT_KEYS."
        )


class Merging(NamedTuple):
    """Merges the changes of one app's requests.

    :param same: returns whether two values have the same encoding.
    :param conflict: ``"merge"``, ``"overwrite"`` or ``"raise"`` (CONFLICT).
    :param exempt: keys that are in none of R, W and T (CONFLICT_EXEMPT_KEYS).
    """

    same: Same
    conflict: str = "merge"
    exempt: Keys = frozenset()

    def merge(self, change: Change, stored: Items, *, late: bool = False, strict: bool = True) -> Merged | Refused:
        """Merge a change with what another request has stored, or refuse it, by the rules at the top of this file.

        :param late: the request's id was rotated away, and ``stored`` is the session under its new id.
        :param strict: with CONFLICT ``raise``, refuse every change; False for a request that was late when it loaded
            the session: the rotation alone is no conflict.
        """
        sets = self._compare(change, stored)
        if self.conflict == "overwrite" and (sets.written or not late):
            whole = stored if late and sets.differing else change.after
            return Merged(dict(whole), _sorted(sets.written) if whole is stored else ())
        if strict and self._is_refused_strictly(sets):
            return Refused(_sorted(sets.differing), strictly=True)
        if late:
            refused = _refused_late(sets)
        else:
            in_all = sets.outdated & sets.written
            restored = frozenset(key for key in in_all if key in change.after and key not in stored)
            refused = restored or _refused(sets, self._is_single_update(change, stored, sets.written))
        if refused:
            return Refused(_sorted(refused))
        taken = sets.changed - sets.contested if late else sets.changed
        return Merged(_put_together(change.after, stored, taken), _sorted(sets.contested - {CREATED}))

    def refuse_rotation(self, change: Change, stored: Items, *, strict: bool = True) -> Refused | None:
        """Return why a late request must not begin a separate session with what it changed; None if it may."""
        sets = self._compare(change, stored)
        if strict and self._is_refused_strictly(sets):
            return Refused(_sorted(sets.differing), strictly=True)
        refused = frozenset[str]() if self.conflict == "overwrite" else _refused_by_rule_2(sets)
        return Refused(_sorted(refused)) if refused else None

    def without(self, stored: Items, before: Items, removed: Keys) -> dict[str, Any]:
        """Return the stored items without the keys that a late request removed; those changed since stay."""
        return {
            key: value
            for key, value in stored.items()
            if key not in removed or not _equal(key, stored, before, self.same)
        }

    def changed_keys(self, change: Change) -> tuple[str, ...]:
        """Return the keys that a request changed, sorted."""
        changed = different_keys(change.before, change.after, self.same) | change.keys.changed
        return _sorted(changed - _OF_THE_SESSION)

    def _compare(self, change: Change, stored: Items) -> _Sets:
        differs = different_keys(change.before, stored, self.same) | change.hidden
        # Assigning the value that was loaded is a change only if another request has changed the key.
        changed = different_keys(change.before, change.after, self.same) | (differs & change.keys.changed)
        contested = frozenset(key for key in changed & differs if not _equal(key, stored, change.after, self.same))
        exempt = self.exempt | _OF_THE_SESSION
        differing = differs - exempt
        outdated = differing if change.emptiness_differs(stored) else frozenset(filter(change.keys.was_read, differing))
        return _Sets(changed, contested, changed - exempt, differing, outdated)

    def _is_single_update(self, change: Change, stored: Items, written: Keys) -> bool:
        """Return whether only one key was changed, and is removed or holds a number or a collection (rule 3).

        Texts and booleans are states: ``session["code"] = "verified"`` must not replace another account's code.
        """
        if len(written) != 1:
            return False
        (key,) = written
        if key not in change.after or _equal(key, stored, change.after, self.same):
            return True
        sides = [side[key] for side in (change.before, stored, change.after) if key in side]
        return all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in sides) or all(
            isinstance(side, (list, dict)) for side in sides
        )

    def _is_refused_strictly(self, sets: _Sets) -> bool:
        return self.conflict == "raise" and bool(sets.written and sets.differing)


class _Sets(NamedTuple):
    """The sets of keys that decide a merge; the last three without the exempt keys.

    :param changed: changed by the request.
    :param contested: changed by the request and in the store, to different values.
    :param written: W of the rules.
    :param differing: T of the rules.
    :param outdated: the keys in both R and T.
    """

    changed: Keys
    contested: Keys
    written: Keys
    differing: Keys
    outdated: Keys


def _refused_by_rule_2(sets: _Sets) -> Keys:
    """Return the keys in R and T, but not in W, if anything was changed."""
    return sets.outdated - sets.written if sets.written else frozenset()


def _refused(sets: _Sets, is_single_update: bool) -> Keys:
    """Return the keys for which a change is refused by rules 1 to 3."""
    is_allowed = not sets.written or is_single_update or sets.differing <= sets.written
    return _refused_by_rule_2(sets) or (frozenset() if is_allowed else sets.outdated)


def _refused_late(sets: _Sets) -> Keys:
    """Return the keys for which a late request's change is refused; half of a change is never stored.

    Example: ``/code`` sets code_ok = True and rotates the id. A late ``/forgot/bob`` sets reset_for = "bob" and code_ok
    = False. Storing only reset_for would give bob's account the code_ok = True that mallory's code earned.
    """
    is_dropped = sets.written <= sets.differing
    return frozenset() if is_dropped else sets.outdated | (sets.contested & sets.written)


def different_keys(one: Items, other: Items, same: Same) -> Keys:
    """Return the keys whose values differ between two sessions, or that only one of them has."""
    return frozenset(key for key in {**one, **other} if not _equal(key, one, other, same))


def has_content(items: Items) -> bool:
    """Return whether a session has items of the app: Flask-Session stores none that has only ``_permanent``."""
    return any(key not in _OF_THE_SESSION for key in items)


def _put_together(after: Items, stored: Items, taken: Keys) -> dict[str, Any]:
    sides = ((key, after if key in taken else stored) for key in {**stored, **after})
    return {key: side[key] for key, side in sides if key in side}


def _equal(key: str, one: Items, other: Items, same: Same) -> bool:
    if key not in one or key not in other:
        return (key in one) is (key in other)
    return one[key] is other[key] or same(one[key], other[key])


def _sorted(keys: Keys) -> tuple[str, ...]:
    return tuple(sorted(keys, key=str))  # apps may use numbers as keys
