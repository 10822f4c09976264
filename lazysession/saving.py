"""Bringing the store up to date with a session, beside others who do the same: merged, never lost, never revived."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from flask import Flask

from .backend import Backend, Outcome, Replaced
from .closing import Opened, Store, merge
from .codec import Codec
from .cookies import SessionIds
from .errors import SessionConflict
from .signals import session_conflict, session_write_dropped

logger = logging.getLogger("lazysession")

#: How often a change is merged with what someone else stored meanwhile, before it counts as failed.
MERGES = 100
_FREE_IDS = 3

Act = Callable[["bytes | None", bytes], Replaced]


class RecordGone(Exception):
    """The record that a change was made to has ended: the change is dropped, and the cookie is left alone."""


class Saving:
    """Takes the steps of :class:`lazysession.closing.Store` for the sessions of one app.

    :param conflict: ``"merge"``, ``"overwrite"`` or ``"raise"`` (CONFLICT).
    """

    def __init__(self, backend: Backend, codec: Codec, ids: SessionIds, conflict: str) -> None:
        self.backend = backend
        self._codec = codec
        self._ids = ids
        self._conflict = conflict

    def settle(
        self, app: Flask, opened: Opened, step: Store, payload: bytes, lifetime: float, keep: bool
    ) -> bytes | None:
        """Take one step for an opened session; answer the payload that is stored now, None when there is none.

        :param payload: the session as it is now.
        :param lifetime: seconds to live from now.
        :param keep: a replaced record keeps what it has left instead.
        :raises RecordGone: when the record has ended since it was read.
        :raises SessionConflict: when others kept changing it, or CONFLICT is ``raise``.
        """
        if step is Store.CREATE:
            return self._create(opened, payload, lifetime)
        if step is Store.MOVE:
            return self._move(app, opened, payload, lifetime)
        if step is Store.DELETE and (opened.payload is None or opened.ended):
            if opened.sid is not None:
                self.backend.delete(self._ids.key(opened.sid))
            return None
        key, new_lifetime = self._ids.key(opened.sid or ""), None if keep else lifetime

        def act(wanted: bytes | None, seen: bytes) -> Replaced:
            if wanted is None:
                return self.backend.delete(key, seen)
            return self.backend.replace(key, wanted, new_lifetime, seen)

        return self._change_what_was_read(app, opened, None if step is Store.DELETE else payload, act)

    def _create(self, opened: Opened, payload: bytes, lifetime: float) -> bytes:
        session: Any = opened.session
        for _ in range(_FREE_IDS):
            if self.backend.create(self._ids.key(session.sid), payload, lifetime):
                return payload
            session.sid = self._ids.new()
        raise SessionConflict("The session could not be stored: every new session id was taken.")

    def _move(self, app: Flask, opened: Opened, payload: bytes, lifetime: float) -> bytes:
        """Store the session under its new id, then delete the old record if that is still the one that was read.

        When it is not, its changes come along; when it has ended, so has the new one: a rotation revives nothing.
        """
        stored = self._create(opened, payload, lifetime)
        session: Any = opened.session
        old, new = opened.sid and self._ids.key(opened.sid), self._ids.key(session.sid)
        if opened.cleared:
            if old is not None:
                self.backend.delete(old)
            return stored

        def act(wanted: bytes | None, seen: bytes) -> Replaced:
            nonlocal stored
            if wanted is not None and wanted != stored:
                self.backend.replace(new, wanted, None, stored)
                stored = wanted
            return self.backend.delete(old or "", seen)

        try:
            self._change_what_was_read(app, opened, payload, act)
        except (RecordGone, SessionConflict):
            self.backend.delete(new)
            raise
        return stored

    def _change_what_was_read(self, app: Flask, opened: Opened, mine: bytes | None, act: Act) -> bytes | None:
        """Act on the record as it was read; when someone else changed it meanwhile, merge and act again."""
        wanted, seen = mine, opened.payload or b""
        for _ in range(MERGES):
            outcome, found = act(wanted, seen)
            if outcome is Outcome.STORED:
                return wanted
            if outcome is Outcome.CHANGED and found is None:
                record = self.backend.read(self._ids.key(opened.sid or ""), None)
                found = record.payload if record is not None else None
            if found is None:
                logger.warning("A change of the session was dropped: the stored session ended while the request ran.")
                session_write_dropped.send(app)
                raise RecordGone
            wanted, seen = self._reconcile(app, opened, mine, found), found
        raise SessionConflict(f"The session kept changing: {MERGES} attempts to merge this request's changes failed.")

    def _reconcile(self, app: Flask, opened: Opened, mine: bytes | None, found: bytes) -> bytes | None:
        """Answer what to store in the place of ``found``, which someone else stored since this request read."""
        if self._conflict == "raise":
            raise SessionConflict(
                "The stored session was changed by another request (LAZYSESSION_CONFLICT is 'raise')."
            )
        base, theirs = self._codec.decode(opened.payload or b""), self._codec.decode(found)
        ours = {} if mine is None else self._codec.decode(mine)
        if self._conflict == "overwrite" or base is None or ours is None or theirs is None:
            return mine
        merged = merge(base, ours, theirs, same=self._codec.same)
        if merged.contested:
            session_conflict.send(app, keys=merged.contested)
        return self._codec.encode(merged.data) if has_content(merged.data) else None


def has_content(data: dict[str, Any]) -> bool:
    """Tell whether a session is worth a record: Flask-Session stores none with nothing but the permanent mark."""
    return any(key != "_permanent" for key in data)
