"""Forwarding records: what a rotation leaves under the old session id, for requests that still come with it.

A rotation leaves a forwarding record under the old id for :data:`FORWARDING_LIFETIME` seconds. A late request (one that
read the session before the rotation, or comes with the stale id after it) is handled **as if it had come just before
the rotation**. Its sender may be the session's user, whose browser sent several requests at once, or an attacker who
planted the id to fix the session. The requests of the two look the same, so a forwarding record must be worth no more
to an attacker than the old id was a moment earlier:

- A late request gets the items of the old record that the session still holds unchanged: nothing that the rotation
  (above all a login) added, and nothing that it removed.
- Its changes are stored in the session, except those of keys that the rotation or a later request changed as well.
- Its response never has the new id: it sends no cookie. If it asks for a new id itself, as a login does, it begins a
  session with only what it changed: the request that rotated first may be an attacker's, and a login must not go into
  a session whose id this client is not given.
- Once the session has ended, or the seconds are over, the old id is treated as unknown.
- After ``clear()``, a late request gets an empty session, and its changes are dropped.

A forwarding record is a session that has only the item ``_permanent``. Flask-Session takes that for an empty session:
it neither saves it nor sends a cookie for it. If a view changes it there, Flask-Session overwrites the forwarding
record; LazySession does not load the result as a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lazysession.backend import Payload, PayloadCodec, Record
from lazysession.ids import SessionIds

from .expiry import as_time
from .store import RecordStore

#: How long a stale id leads to the rotated session, in seconds.
FORWARDING_LIFETIME = 10.0
#: How many forwarding records in a row a late request follows.
ROTATIONS = 20
_PERMANENT = "_permanent"


class ForwardingRecord(NamedTuple):
    """What a rotation leaves under the old id.

    :param sid: the new id; empty when the old session ended with the rotation.
    :param until: when it expires, in seconds since the epoch: in some stores, a read gives it a session's lifetime.
    :param before: the items of the old record.
    """

    sid: str
    until: float
    before: Mapping[str, Any]

    def to_items(self) -> dict[str, Any]:
        """Return the forwarding record as the items of a session."""
        return {_PERMANENT: {"moved_to": self.sid, "until": self.until, "before": self.before}}


#: A forwarding record that Flask-Session has overwritten with a session: it leads nowhere.
INVALID = ForwardingRecord("", 0.0, {})


def forwarding_in(items: Mapping[str, Any]) -> ForwardingRecord | None:
    """Return the forwarding record that these items are, or None for those of a session."""
    inside = items.get(_PERMANENT)
    if not isinstance(inside, dict):
        return None
    sid, until, before = inside.get("moved_to"), as_time(inside.get("until")), inside.get("before")
    if len(items) != 1 or not isinstance(sid, str) or until is None or not isinstance(before, dict):
        return INVALID
    return ForwardingRecord(sid, until, before)


def still_held(before: Mapping[str, Any], now: Mapping[str, Any], same: Callable[[Any, Any], bool]) -> dict[str, Any]:
    """Return the items of an old record that the session still holds unchanged."""
    return {key: value for key, value in before.items() if key in now and same(value, now[key])}


class Rotated(NamedTuple):
    """The session that a forwarding record leads to.

    :param key: its store key.
    :param payload: what is stored there now; ``items`` is the same, decoded.
    """

    key: str
    payload: Payload
    items: dict[str, Any]


#: The session ended with its rotation (:meth:`Forwarding.forwarding_of_end`).
ENDED = Rotated("", b"", {})


class Forwarding:
    """Encodes the forwarding records of one app's sessions, and follows them.

    :param clock: seconds since the epoch.
    """

    def __init__(self, store: RecordStore, codec: PayloadCodec, ids: SessionIds, clock: Callable[[], float]) -> None:
        self._store = store
        self._codec = codec
        self._ids = ids
        self.clock = clock

    def forwarding_to(self, sid: str, before: Payload) -> Payload:
        """Return the payload of a forwarding record that leads to the new id from now on.

        :param before: the payload of the old record.
        """
        forwarding = ForwardingRecord(sid, self.clock() + FORWARDING_LIFETIME, self._codec.decode(before) or {})
        try:
            return self._codec.encode(forwarding.to_items())
        except TypeError:  # the old record is a pickle with a value that this format cannot hold
            return self._codec.encode(forwarding._replace(before={}).to_items())

    def forwarding_of_end(self, until: float) -> Payload:
        """Return the payload of a forwarding record of a session that ended with its rotation."""
        return self._codec.encode(ForwardingRecord("", until, {}).to_items())

    def until(self, payload: Payload) -> float | None:
        """Return until when a forwarding record may replace a payload; None where none may.

        It expires with the forwarding record that it replaces: otherwise an attacker with a stale id could keep that id
        taken indefinitely.
        """
        items = self._codec.decode(payload)
        forwarding = None if items is None else forwarding_in(items)
        if forwarding is not None:
            return None if self.has_expired(forwarding) else forwarding.until
        return None if items is None else self.clock() + FORWARDING_LIFETIME

    def has_expired(self, forwarding: ForwardingRecord) -> bool:
        """Return whether a forwarding record has expired, by this machine's clock."""
        return forwarding.until <= self.clock()

    def forwarding_of(self, payload: Payload) -> ForwardingRecord | None:
        """Return the forwarding record that a payload is, or None for that of a session."""
        items = self._codec.decode(payload)
        return None if items is None else forwarding_in(items)

    def follow(self, forwarding: ForwardingRecord) -> Rotated | None:
        """Return the session that a forwarding record leads to; None when either has ended."""
        for _ in range(ROTATIONS):
            if self.has_expired(forwarding) or not self._ids.may_be(forwarding.sid):
                return None
            key = self._ids.key(forwarding.sid)
            record = self._store.read(key)
            items = None if record is None else self._codec.decode(record.payload)
            if record is None or items is None:
                return None
            further = forwarding_in(items)
            if further is None:
                return Rotated(key, record.payload, items)
            forwarding = further
        return None

    def clean_up(self, key: str, record: Record, forwarding: ForwardingRecord) -> None:
        """Delete a forwarding record that has expired, or undo the refresh that came with reading it."""
        if self.has_expired(forwarding):
            self._store.delete(key, record.payload)
        elif record.touched:
            left = min(forwarding.until - self.clock(), FORWARDING_LIFETIME if record.ttl is None else record.ttl)
            self._store.replace(key, record.payload, max(left, 1.0), record.payload)
