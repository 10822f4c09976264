"""Bringing the store up to date with a session, beside others who do the same: merged, never lost, never revived."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from flask import Flask

from .backend import Backend, Outcome, Replaced
from .closing import Opened, Store, changed_keys, merge
from .codec import Codec
from .cookies import SessionIds
from .errors import SessionConflict
from .forwarding import NOTE_LIFETIME, Forwarding, Note
from .late import LateChanges
from .merging import MERGES, Merging, RecordGone, Settled, too_many
from .signals import session_write_dropped
from .trace import this_place
from .turns import turn

logger = logging.getLogger("lazysession")

_FREE_IDS = 3

Act = Callable[["bytes | None", bytes], Replaced]


class _Change(NamedTuple):
    """What a request did: the items before (None when they cannot be decoded) and after, and the keys that differ."""

    base: dict[str, Any] | None
    items: dict[str, Any]
    keys: tuple[str, ...]


class Saving:
    """Takes the steps of :class:`lazysession.closing.Store` for the sessions of one app.

    :param conflict: ``"merge"``, ``"overwrite"`` or ``"raise"`` (CONFLICT).
    """

    def __init__(self, backend: Backend, codec: Codec, ids: SessionIds, forwarding: Forwarding, conflict: str) -> None:
        self.backend = backend
        self._codec = codec
        self._ids = ids
        self._forwarding = forwarding
        self._merging = Merging(codec, conflict)
        self._late = LateChanges(backend, forwarding, self._merging)

    def settle(self, app: Flask, opened: Opened, step: Store, payload: bytes, lifetime: float, keep: bool) -> Settled:
        """Take one step for an opened session.

        :param payload: the session as it is now.
        :param lifetime: seconds to live from now.
        :param keep: a replaced record keeps what it has left instead.
        :raises SessionConflict: when others kept changing the record, or CONFLICT is ``raise``.
        """
        try:
            if step is Store.CREATE:
                return Settled(self._create(opened, payload, lifetime))
            if step is Store.MOVE:
                return self._move(app, opened, payload, lifetime)
            if step is Store.DELETE and (opened.cleared or opened.ended):
                self._end(opened)
                return Settled(None)
            return self._change(app, opened, payload, None if keep else lifetime, empty=step is Store.DELETE)
        except RecordGone:
            logger.warning(
                "A change of the session by %s was dropped: the stored session ended while the request ran.",
                this_place(),
            )
            session_write_dropped.send(app)
            return Settled(payload, here=False)

    # The steps

    def _create(self, opened: Opened, payload: bytes, lifetime: float) -> bytes:
        session: Any = opened.session
        for _ in range(_FREE_IDS):
            if self.backend.create(self._ids.key(session.sid), payload, lifetime):
                return payload
            session.sid = self._ids.new()
        raise SessionConflict("The session could not be stored: every new id was taken. Raise SESSION_ID_LENGTH.")

    def _change(self, app: Flask, opened: Opened, mine: bytes, lifetime: float | None, *, empty: bool) -> Settled:
        """Put the session in the place of its record, or delete that; a rotated one gets the change where it is now."""
        key = self._ids.key(opened.sid or "")

        def act(wanted: bytes | None, seen: bytes) -> Replaced:
            if wanted is None:
                return self.backend.delete(key, seen)
            return _unless_done(self.backend.replace(key, wanted, lifetime, seen), wanted)

        stored = self._change_what_was_read(app, opened, mine, act, empty=empty)
        return self._late.change(app, opened, mine, stored) if isinstance(stored, Note) else Settled(stored)

    def _move(self, app: Flask, opened: Opened, payload: bytes, lifetime: float) -> Settled:
        """Store the session under its new id, then retire the old record if that is still the one that was read.

        When it is not, its changes come along; when it has ended, so has the new one: a rotation revives nothing.
        """
        stored = self._create(opened, payload, lifetime)
        if opened.cleared or opened.ended:
            until = self._end(opened)
            if until is not None and opened.sid is not None:
                self.backend.create(self._ids.key(opened.sid), self._forwarding.note_of_end(until), NOTE_LIFETIME)
            return Settled(stored)
        session: Any = opened.session
        old, new = self._ids.key(opened.sid or ""), self._ids.key(session.sid)

        def store(wanted: bytes) -> None:
            nonlocal stored
            if wanted != stored:
                self.backend.replace(new, wanted, None, stored)
                stored = wanted

        def retire(wanted: bytes | None, seen: bytes) -> Replaced:
            if wanted is None:
                return self.backend.delete(old, seen)
            store(wanted)
            note = self._forwarding.note_for(session.sid, seen)
            return _unless_done(self.backend.replace(old, note, NOTE_LIFETIME, seen), note)

        try:
            result = self._change_what_was_read(app, opened, payload, retire)
            own = self._late.own_part(opened, payload, result) if isinstance(result, Note) else result
        except (RecordGone, SessionConflict):
            self.backend.delete(new)
            raise
        if own is not None:
            store(own)
            if isinstance(result, Note):
                self._late.remove(app, opened, payload, result)
            return Settled(own)
        self.backend.delete(new)
        return self._late.change(app, opened, payload, result) if isinstance(result, Note) else Settled(None)

    def _end(self, opened: Opened) -> float | None:
        """Delete the session, also under an id that others gave it.

        :returns: until when a note may say so under the old id; None when there was nothing: ids may be made up.
        """
        if opened.sid is None:
            return None
        key, seen, until = self._ids.key(opened.sid), opened.payload, None
        for _ in range(MERGES):
            replaced = self.backend.delete(key, seen)
            found = self._found(key, replaced)
            there = seen if found is None and replaced.outcome is Outcome.STORED else found
            if until is None and there is not None:
                until = self._forwarding.until(there)
            if found is None:
                return until
            note = self._forwarding.note_of(found)
            rotated = None if note is None else self._forwarding.follow(note)
            if rotated is not None:
                if seen is not None:  # else the note is deleted
                    self.backend.delete(key, found)
                key, seen = rotated.key, rotated.payload
            elif seen is None:
                return until
            else:
                seen = found
        self.backend.delete(key)
        return until

    # Beside others

    def _change_what_was_read(
        self, app: Flask, opened: Opened, mine: bytes, act: Act, *, empty: bool = False
    ) -> bytes | Note | None:
        """Act on the record as it was read; when someone else changed it meanwhile, merge and act again.

        :returns: what is stored now, None for nothing; the note, when the record was rotated away.
        """
        wanted = None if empty else mine
        replaced = act(wanted, opened.payload or b"")
        if replaced.outcome is Outcome.STORED:
            return wanted
        key = self._ids.key(opened.sid or "")
        found = self._still_there(key, replaced)
        if isinstance(found, Note):
            return found
        change = self._change_of(opened, mine)
        with turn(key):  # threads that merge side by side only make each other merge again
            for _ in range(MERGES - 1):
                wanted, contested = self._reconcile(change, mine, found, empty=empty)
                replaced = act(wanted, found)
                if replaced.outcome is Outcome.STORED:
                    self._merging.tell(app, contested)
                    return wanted
                found = self._still_there(key, replaced)
                if isinstance(found, Note):
                    return found
        raise too_many()

    def _still_there(self, key: str, replaced: Replaced) -> bytes | Note:
        """Answer what is stored instead of what was seen, or the note that this is.

        :raises RecordGone: when nothing is.
        """
        found = self._found(key, replaced)
        if found is None:
            raise RecordGone
        return self._forwarding.note_of(found) or found

    def _found(self, key: str, replaced: Replaced) -> bytes | None:
        """Answer what is stored instead of what was seen, asking where the store did not tell; None for nothing."""
        if replaced.outcome is not Outcome.CHANGED or replaced.found is not None:
            return replaced.found
        record = self.backend.read(key, None)
        return None if record is None else record.payload

    def _change_of(self, opened: Opened, mine: bytes) -> _Change:
        """Answer what the request changed, once, however often it is merged."""
        base, ours = self._codec.decode(opened.payload or b""), self._merging.items(mine)
        return _Change(base, ours, changed_keys(base or {}, ours, self._codec.same))

    def _reconcile(
        self, change: _Change, mine: bytes, found: bytes, *, empty: bool
    ) -> tuple[bytes | None, tuple[str, ...]]:
        """Answer what to store in the place of ``found``, which someone else stored, and the contested keys."""
        self._merging.refuse_conflict()
        theirs = self._codec.decode(found)
        if self._merging.conflict == "overwrite" or change.base is None or theirs is None:
            return (None if empty else mine), ()
        merged = merge(change.base, change.items, theirs, same=self._codec.same, keys=change.keys)
        return self._merging.payload(merged), merged.contested


def _unless_done(replaced: Replaced, wanted: bytes) -> Replaced:
    """Answer STORED as well when what was wanted is there: clients repeat a command whose answer was lost."""
    return Replaced(Outcome.STORED) if replaced.found == wanted else replaced
