"""Whether what a request changed can be merged with what another request stored meanwhile. Pure: no I/O happens here.

Merging by value alone mixes what one request decided with what another changed under it. Two requests load
``{"reset_for": "mallory", "code_ok": False}``, and the code that was mailed to mallory is right::

    /code                                         /forgot/bob
    reads reset_for: it is "mallory"
                                                  sets reset_for = "bob" and code_ok = False, is saved
    sets code_ok = True, is saved: by value that would be reset_for = "bob", code_ok = True

So a session notes which keys were read and which were changed (:class:`KeyUse`), and a change that followed from what
is not so any more is refused. With R for the keys that the request read before it changed them, W for those that it
changed, and T for those that are stored otherwise than they were loaded:

1. W is empty: there is nothing to refuse. (An equal value that was assigned counts only beside another request's.)
2. A key of R and T that is not in W: refused. Above, ``reset_for``.
3. A key of R, T and W: the request's value stands where T lies within W (the result is this request's whole session),
   or where the key is all of W and adds up (a counter, a cart, a removal: one of two counts is lost). Otherwise
   refused: a one-time code that was popped, or is now ``"verified"``, must not verify the account that a new code is
   for. Neither does a request bring back what it read and another request removed: ``session.pop("user")`` is a logout.
4. Everything else is merged: W over T.

A **late request** is one whose id was rotated away. It never overwrites what the rotated session holds otherwise: an
old id must not undo a login. Where W lies within T its change is dropped as a whole; otherwise it is refused where it
depends on a key of T, or shares one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: The item that says when a session began, in seconds since the epoch. It is stored, and the app does not see it.
CREATED = "_lazysession_created"
PERMANENT = "_permanent"
_OF_THE_SESSION = frozenset({PERMANENT, CREATED})  # no decision of an app depends on them

Items = Mapping[str, Any]
Keys = frozenset[str]
Same = Callable[[Any, Any], bool]


class KeyUse:
    """Which keys of a session a request read before it changed them itself, and which it changed.

    Threads may share a session: a read is noted before the value is taken, and a change when it is made, so that no
    read of an older value goes unnoticed. Adding to a set is atomic.
    """

    __slots__ = ("_all_but", "changed", "emptiness", "read")

    def __init__(self) -> None:
        self.read: set[Any] = set()  # one by one
        self.changed: set[Any] = set()  # assigned or removed; what changed inside a value is found by comparing
        self._all_but: list[frozenset[Any]] = []  # what had been changed when all keys were read
        self.emptiness = False  # whether it was read if the session is empty, before anything was changed

    def note_read(self, key: object) -> None:
        """Note that a key is about to be read; an absent one counts as well."""
        if key not in self.changed:
            self.read.add(key)

    def note_read_all(self) -> None:
        """Note that all keys are about to be read."""
        if not self._all_but:
            self._all_but.append(frozenset(self.changed))

    def note_emptiness(self, session: Items) -> None:
        """Note that the request is about to read whether the session is empty.

        Once it has removed keys itself, that depends on all others: of ``{"a": 1, "b": 1}`` something is left without
        ``a``, unless another request has removed ``b``.
        """
        if not self.changed:
            self.emptiness = True
        elif self.changed.isdisjoint(session):
            self.note_read_all()

    def after_save(self) -> KeyUse:
        """Return what to go on with after a save: what was known before it may be out of date at the next one."""
        later = KeyUse()
        later.read = self.read | self.changed
        if self._all_but:
            later.note_read_all()
        return later

    def was_read(self, key: object) -> bool:
        """Return whether a key was read before it was changed."""
        return key in self.read or any(key not in changed for changed in self._all_but)


class Change(NamedTuple):
    """What one request did to a session; the items are as the store keeps them.

    :param before: the items that were loaded.
    :param after: the items that the session has now.
    :param keys: what the request read and changed.
    :param hidden: keys that the request was not shown: it is late, and the rotated session holds them otherwise.
    """

    before: Items
    after: Items
    keys: KeyUse
    hidden: Keys = frozenset()

    def emptiness_differs(self, stored: Items) -> bool:
        """Return whether the request read that the session is empty, or that it is not, and this is different now."""
        return self.keys.emptiness and has_content(self.before) is not has_content(stored)


class Merged(NamedTuple):
    """What to store.

    :param contested: the keys that both requests changed, to different values.
    """

    items: dict[str, Any]
    contested: tuple[str, ...] = ()


class Refused(NamedTuple):
    """The change must not be stored.

    :param keys: what another request changed, sorted.
    :param strictly: CONFLICT is ``raise``.
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
    """How the changes of an app's requests are merged.

    :param same: returns whether two values are stored as the same bytes.
    :param conflict: ``"merge"``, ``"overwrite"`` or ``"raise"`` (CONFLICT).
    :param exempt: keys that nothing else depends on (CONFLICT_EXEMPT_KEYS).
    """

    same: Same
    conflict: str = "merge"
    exempt: Keys = frozenset()

    def merge(self, change: Change, stored: Items, *, late: bool = False, strict: bool = True) -> Merged | Refused:
        """Merge a change with what another request has stored, or refuse it, by the rules at the top of this file.

        :param late: the request's id was rotated away, and ``stored`` is the session under its new id.
        :param strict: with CONFLICT ``raise``, refuse every change; False for a late request that loaded the session
            after its rotation: that alone is no conflict.
        """
        sets = self._compare(change, stored)
        if self.conflict == "overwrite" and (sets.wanted or not late):
            whole = stored if late and sets.others else change.after
            return Merged(dict(whole), _sorted(sets.wanted) if whole is stored else ())
        if strict and self._is_refused_strictly(sets):
            return Refused(_sorted(sets.others), strictly=True)
        if late:
            refused = _refused_late(sets)
        else:
            in_both = sets.stale & sets.wanted
            brought_back = frozenset(key for key in in_both if key in change.after and key not in stored)
            refused = brought_back or _refused(sets, self._adds_up(change, stored, sets.wanted))
        if refused:
            return Refused(_sorted(refused))
        taken = sets.changed - sets.contested if late else sets.changed
        return Merged(_put_together(change.after, stored, taken), _sorted(sets.contested - {CREATED}))

    def refuse_rotation(self, change: Change, stored: Items, *, strict: bool = True) -> Refused | None:
        """Return why a late request must not begin a session of its own with what it changed; None where it may."""
        sets = self._compare(change, stored)
        if strict and self._is_refused_strictly(sets):
            return Refused(_sorted(sets.others), strictly=True)
        refused = frozenset[str]() if self.conflict == "overwrite" else _out_of_date(sets)
        return Refused(_sorted(refused)) if refused else None

    def without(self, stored: Items, before: Items, removed: Keys) -> dict[str, Any]:
        """Return what is stored less the keys that a late request removed, but for those that were changed since."""
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
        # An equal value that was assigned undoes what another request made of the key; without that it does nothing.
        changed = different_keys(change.before, change.after, self.same) | (differs & change.keys.changed)
        contested = frozenset(key for key in changed & differs if not _equal(key, stored, change.after, self.same))
        uncounted = self.exempt | _OF_THE_SESSION
        others = differs - uncounted
        read = others if change.emptiness_differs(stored) else frozenset(filter(change.keys.was_read, others))
        return _Sets(changed, contested, changed - uncounted, others, read)

    def _adds_up(self, change: Change, stored: Items, wanted: Keys) -> bool:
        """Return whether all that was changed is a single key that was removed, or holds a number or a collection.

        Text and booleans are states: ``session["code"] = "verified"`` must not stand beside another account's code.
        """
        if len(wanted) != 1:
            return False
        (key,) = wanted
        if key not in change.after or _equal(key, stored, change.after, self.same):
            return True
        sides = [side[key] for side in (change.before, stored, change.after) if key in side]
        return all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in sides) or all(
            isinstance(side, (list, dict)) for side in sides
        )

    def _is_refused_strictly(self, sets: _Sets) -> bool:
        return self.conflict == "raise" and bool(sets.wanted and sets.others)


class _Sets(NamedTuple):
    """Sets of keys that decide a merge; the last three without those that nothing depends on.

    :param changed: by the request.
    :param contested: by the request and in the store, to different values.
    :param wanted: W of the rules.
    :param others: T of the rules.
    :param stale: T and R of the rules.
    """

    changed: Keys
    contested: Keys
    wanted: Keys
    others: Keys
    stale: Keys


def _out_of_date(sets: _Sets) -> Keys:
    """Return the keys for which a change is refused by rule 2."""
    return sets.stale - sets.wanted if sets.wanted else frozenset()


def _refused(sets: _Sets, adds_up: bool) -> Keys:
    """Return the keys for which a change is refused, by rules 2 and 3."""
    stands = not sets.wanted or adds_up or sets.others <= sets.wanted
    return _out_of_date(sets) or (frozenset() if stands else sets.stale)


def _refused_late(sets: _Sets) -> Keys:
    """Return the keys for which a late change is refused: no half of it may be applied.

    ``/code`` sets code_ok = True and rotates the id. A late ``/forgot/bob``, which sets reset_for = "bob" and code_ok =
    False, would otherwise leave reset_for = "bob" beside code_ok = True.
    """
    is_dropped_whole = sets.wanted <= sets.others
    return frozenset() if is_dropped_whole else sets.stale | (sets.contested & sets.wanted)


def different_keys(one: Items, other: Items, same: Same) -> Keys:
    """Return the keys that two sessions hold differently; one that is absent in one of them differs, too."""
    return frozenset(key for key in {**one, **other} if not _equal(key, one, other, same))


def has_content(items: Items) -> bool:
    """Return whether a session is worth a record: Flask-Session stores none that holds only whether it is permanent."""
    return any(key not in _OF_THE_SESSION for key in items)


def _put_together(after: Items, stored: Items, taken: Keys) -> dict[str, Any]:
    sides = ((key, after if key in taken else stored) for key in {**stored, **after})
    return {key: side[key] for key, side in sides if key in side}


def _equal(key: str, one: Items, other: Items, same: Same) -> bool:
    if key not in one or key not in other:
        return (key in one) is (key in other)
    return one[key] is other[key] or same(one[key], other[key])


def _sorted(keys: Keys) -> tuple[str, ...]:
    return tuple(sorted(keys, key=str))  # keys of an app's own making may be numbers
