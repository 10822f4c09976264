"""Requests that are on their way with an old session id when the session gets a new one: a note leads them there.

A rotation leaves a note under the old id, for :data:`NOTE_LIFETIME` seconds. A late request, one that read the session
before or asks for it after, is served **as though it had come just before the rotation**. Whoever holds the old id may
be its user, whose browser sent several requests at once, or somebody who planted the id to fix a session. Nothing that
they send tells them apart, so the note must be worth no more to them than the old id was a moment earlier:

- They see what the old record held, less what the session no longer holds or holds differently: nothing that the
  rotation (a login, above all) brought, and nothing that it took away.
- Their changes reach the session, but where the rotation or anything after it changed the same key, that stands.
- They are never told the new id: no cookie is sent to them. One that asks for a new id itself, as a login does, begins
  a session with what it brings and nothing else: whoever rotated first may be the one who planted the id, and no login
  may go to a session whose id it is not told.
- When the session has ended since, or the seconds are over, the old id is as good as unknown.
- After ``clear()`` there is nothing to go on with: late requests are shown nothing, and their changes are dropped.

A note is a session with nothing but the permanent mark, which Flask-Session takes for an empty one: it neither saves it
nor sends a cookie for it. Where it stores a session over a note, because a view wrote to it, that is no session here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lazysession.backend import Record
from lazysession.codec import Codec
from lazysession.ids import SessionIds

from .expiry import as_time
from .store import RecordStore

#: How long an old id leads to the session that was rotated, in seconds.
FORWARDING_LIFETIME = 10.0
#: How many rotations in a row a late request is led along.
ROTATIONS = 20
_MARK = "_permanent"


class ForwardingRecord(NamedTuple):
    """What a rotation leaves under the old id.

    :param sid: the new id; empty when the old session ended with the rotation.
    :param until: when it ends, in seconds since the epoch: some stores would give it a session's lifetime when read.
    :param before: the items that the old record held last.
    """

    sid: str
    until: float
    before: Mapping[str, Any]

    def to_items(self) -> dict[str, Any]:
        """Return the note as the items of a session."""
        return {_MARK: {"moved_to": self.sid, "until": self.until, "before": self.before}}


#: What is left of a note when somebody who knows none stored a session over it: it leads nowhere.
SPOILT = ForwardingRecord("", 0.0, {})


def forwarding_in(items: Mapping[str, Any]) -> ForwardingRecord | None:
    """Return the note that the items of a session are, or None for any other session."""
    inside = items.get(_MARK)
    if not isinstance(inside, dict):
        return None
    sid, until, before = inside.get("moved_to"), as_time(inside.get("until")), inside.get("before")
    if len(items) != 1 or not isinstance(sid, str) or until is None or not isinstance(before, dict):
        return SPOILT
    return ForwardingRecord(sid, until, before)


def still_held(before: Mapping[str, Any], now: Mapping[str, Any], same: Callable[[Any, Any], bool]) -> dict[str, Any]:
    """Return those items of an old record that the session holds unchanged; any, as sessions hold anything."""
    return {key: value for key, value in before.items() if key in now and same(value, now[key])}


class Rotated(NamedTuple):
    """The session that a note led to.

    :param key: its store key.
    :param payload: what is stored there now, and ``items``, the same decoded.
    """

    key: str
    payload: bytes
    items: dict[str, Any]


NOTHING = Rotated("", b"", {})


class Forwarding:
    """Writes the notes of one app's sessions, and follows them.

    :param clock: seconds since the epoch.
    """

    def __init__(self, store: RecordStore, codec: Codec, ids: SessionIds, clock: Callable[[], float]) -> None:
        self._store = store
        self._codec = codec
        self._ids = ids
        self.clock = clock

    def forwarding_to(self, sid: str, before: bytes) -> bytes:
        """Return the payload of a note that leads to the new id, from now on.

        :param before: the payload of the old record.
        """
        note = ForwardingRecord(sid, self.clock() + FORWARDING_LIFETIME, self._codec.decode(before) or {})
        try:
            return self._codec.encode(note.to_items())
        except TypeError:  # an old pickle held what has no form in the format
            return self._codec.encode(note._replace(before={}).to_items())

    def forwarding_of_end(self, until: float) -> bytes:
        """Return the payload of a note about a session that ended with the rotation."""
        return self._codec.encode(ForwardingRecord("", until, {}).to_items())

    def until(self, payload: bytes) -> float | None:
        """Return until when a note about the end of what is in a payload may stand; None for no session and no note.

        A note never prolongs another: whoever holds an old id could keep it from others for ever.
        """
        items = self._codec.decode(payload)
        note = None if items is None else forwarding_in(items)
        if note is not None:
            return None if self.is_over(note) else note.until
        return None if items is None else self.clock() + FORWARDING_LIFETIME

    def is_over(self, note: ForwardingRecord) -> bool:
        """Return whether a note's time is over."""
        return note.until <= self.clock()

    def forwarding_of(self, payload: bytes) -> ForwardingRecord | None:
        """Return the note that a payload is, or None."""
        items = self._codec.decode(payload)
        return None if items is None else forwarding_in(items)

    def follow(self, note: ForwardingRecord) -> Rotated | None:
        """Return the session that a note leads to; None when it has ended, or the note's time is over."""
        for _ in range(ROTATIONS):
            if self.is_over(note) or not self._ids.may_be(note.sid):
                return None
            key = self._ids.key(note.sid)
            record = self._store.read(key)
            items = None if record is None else self._codec.decode(record.payload)
            if record is None or items is None:
                return None
            further = forwarding_in(items)
            if further is None:
                return Rotated(key, record.payload, items)
            note = further
        return None

    def keep_short(self, key: str, record: Record, note: ForwardingRecord) -> None:
        """Take back the refresh that reading a note gave it, and remove one whose time is over."""
        if self.is_over(note):
            self._store.delete(key, record.payload)
        elif record.touched:
            rest = min(note.until - self.clock(), FORWARDING_LIFETIME if record.ttl is None else record.ttl)
            self._store.replace(key, record.payload, max(rest, 1.0), record.payload)
