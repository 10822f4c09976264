"""Late requests: a session gets a new id, and a forwarding record under the old one leads them to it.

A rotation leaves the forwarding record under the old id, for :data:`FORWARDING_LIFETIME` seconds. A late request, one
that loaded the session before the rotation or comes with the old id after it, is served **as if it had come just before
the rotation**. The old id may come from the session's user, whose browser sent several requests at once, or from an
attacker who planted it (session fixation). Nothing in a request tells them apart, so the forwarding record must give
access to no more than the old id did before:

- A late request is shown the data of the old record that the session still holds unchanged: nothing that the rotation
  (a login, above all) set, and nothing that it removed.
- Its changes reach the session, except for a key that the rotation or a later request has changed.
- It never gets the new id: no cookie is sent. If it asks for a new id itself, as a login does, it begins a session of
  its own with what it sets and nothing else: the request that rotated first may be an attacker's, and no login may go
  to a session whose id is not returned to the client.
- When the session has ended, or the seconds are over, the old id is treated as unknown.
- After ``clear()``, late requests are shown nothing, and their changes are dropped.

A forwarding record is a session with nothing but the permanent mark. Flask-Session takes it for an empty session, which
it neither saves nor sends a cookie for. If a view writes to it there, what Flask-Session stores is no session here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lazysession.backend import Payload, PayloadCodec, Record
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
        """Return it as the items of a session."""
        return {_MARK: {"moved_to": self.sid, "until": self.until, "before": self.before}}


#: What is left of a forwarding record when Flask-Session has stored a session over it: it leads nowhere.
SPOILT = ForwardingRecord("", 0.0, {})


def forwarding_in(items: Mapping[str, Any]) -> ForwardingRecord | None:
    """Return the forwarding record that a session's items are, or None for any other session."""
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
    """The session that a forwarding record led to.

    :param key: its store key.
    :param payload: what is stored there now, and ``items``, the same decoded.
    """

    key: str
    payload: Payload
    items: dict[str, Any]


NOTHING = Rotated("", b"", {})


class Forwarding:
    """Writes and follows the forwarding records of one app's sessions.

    :param clock: seconds since the epoch.
    """

    def __init__(self, store: RecordStore, codec: PayloadCodec, ids: SessionIds, clock: Callable[[], float]) -> None:
        self._store = store
        self._codec = codec
        self._ids = ids
        self.clock = clock

    def forwarding_to(self, sid: str, before: Payload) -> Payload:
        """Return the payload of a forwarding record that leads to the new id, from now on.

        :param before: the payload of the old record.
        """
        note = ForwardingRecord(sid, self.clock() + FORWARDING_LIFETIME, self._codec.decode(before) or {})
        try:
            return self._codec.encode(note.to_items())
        except TypeError:  # an old pickle held what has no form in the format
            return self._codec.encode(note._replace(before={}).to_items())

    def forwarding_of_end(self, until: float) -> Payload:
        """Return the payload of a forwarding record of a session that ended with the rotation."""
        return self._codec.encode(ForwardingRecord("", until, {}).to_items())

    def until(self, payload: Payload) -> float | None:
        """Return until when a forwarding record may say that what is in a payload has ended; None for no session.

        It never prolongs another: a client with an old id could keep it for itself indefinitely.
        """
        items = self._codec.decode(payload)
        note = None if items is None else forwarding_in(items)
        if note is not None:
            return None if self.is_over(note) else note.until
        return None if items is None else self.clock() + FORWARDING_LIFETIME

    def is_over(self, note: ForwardingRecord) -> bool:
        """Return whether the time of a forwarding record is over."""
        return note.until <= self.clock()

    def forwarding_of(self, payload: Payload) -> ForwardingRecord | None:
        """Return the forwarding record that a payload is, or None."""
        items = self._codec.decode(payload)
        return None if items is None else forwarding_in(items)

    def follow(self, note: ForwardingRecord) -> Rotated | None:
        """Return the session that a forwarding record leads to; None when it has ended, or the time is over."""
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
        """Take back the refresh that a forwarding record got when it was read, and remove one whose time is over."""
        if self.is_over(note):
            self._store.delete(key, record.payload)
        elif record.touched:
            rest = min(note.until - self.clock(), FORWARDING_LIFETIME if record.ttl is None else record.ttl)
            self._store.replace(key, record.payload, max(rest, 1.0), record.payload)
