"""From a session id to what is stored under it: decoded, within its lifetimes, and along forwarding records."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

from lazysession.backend import Payload, PayloadCodec, Record
from lazysession.ids import SessionIds

from .expiry import Lifetimes, Refresh
from .rotation import NOTHING, Forwarding, ForwardingRecord, forwarding_in, still_held
from .store import RecordStore

logger = logging.getLogger("lazysession")


class Snapshot(NamedTuple):
    """What a session id led to.

    :param items: what the app is shown.
    :param payload: the stored payload; for a late request that of what it is shown.
    :param ttl: seconds left before any refresh; None when the store cannot tell.
    :param refreshed: the expiry was moved.
    :param created: when the session began, in seconds since the epoch; None when nobody wrote it down.
    :param late: the id was rotated away a moment ago.
    """

    items: dict[str, Any]
    payload: Payload
    ttl: float | None = None
    refreshed: bool = False
    created: float | None = None
    late: bool = False


@contextmanager
def _tidying(left: str) -> Generator[None]:
    """Log a failure instead of raising it: the request only reads, and needs none of what is done here."""
    try:
        yield
    except Exception as error:  # whatever the client raises
        logger.warning("%s, as the store failed: %s", left, type(error).__name__)


class Reading:
    """Finds the sessions of one app. Only a fault of the store raises, with the client's own error."""

    def __init__(
        self, store: RecordStore, codec: PayloadCodec, ids: SessionIds, lifetimes: Lifetimes, forwarding: Forwarding
    ) -> None:
        self._store = store
        self._codec = codec
        self._ids = ids
        self._lifetimes = lifetimes
        self._forwarding = forwarding

    def find(self, sid: str, refresh: Refresh | None) -> Snapshot | None:
        """Return the session of an id; None when there is none, when it is over, or when it cannot be decoded.

        :param refresh: move the expiry when that is due; None for no refresh.
        """
        ids = self._ids
        key = ids.key(sid)
        # The data decide whether the expiry is moved, or that takes a round trip of its own anyway.
        decode_first = (
            self._lifetimes.absolute is not None
            or not self._store.touches_as_it_reads
            or (len(sid) != ids.length and ids.may_be_foreign(sid))
        )
        record = self._store.load(key, refresh, later=decode_first)
        if record is None:
            return None
        items = self._codec.decode(record.payload)
        if items is None:
            logger.warning("A stored session of %d bytes cannot be decoded; a new one begins.", len(record.payload))
            return None
        note = forwarding_in(items)
        if note is not None:
            return self._find_rotated(key, record, note)
        found = Snapshot(items, record.payload, record.ttl, record.touched, self._lifetimes.take_mark(items))
        return self._bound(key, record, found, refresh) if decode_first else found

    def refresh(self, sid: str, refresh: Refresh | None) -> bool:
        """Move the expiry of a loaded session if that is due, and return whether it was moved."""
        if refresh is None:
            return False
        try:
            snapshot = self.find(sid, refresh)
        except Exception as error:  # whatever the client raises; the session itself was read
            logger.warning("The expiry of a session could not be refreshed (%s).", type(error).__name__)
            return False
        return snapshot is not None and snapshot.refreshed

    def is_current(self, sid: str) -> bool:
        """Return whether no other request has ended or rotated a session that was loaded."""
        try:
            record = self._store.read(self._ids.key(sid))
        except Exception as error:  # whatever the client raises; the cookie keeps the expiry that it has
            logger.warning("The session cookie was not renewed, as the store failed: %s", type(error).__name__)
            return False
        return record is not None and self._forwarding.forwarding_of(record.payload) is None

    def _bound(self, key: str, record: Record, found: Snapshot, refresh: Refresh | None) -> Snapshot | None:
        """End the session with its absolute lifetime, and refresh it within that, which only the data tell."""
        rest = self._lifetimes.absolute_rest(found.created)
        if rest <= 0:
            with _tidying("A session beyond its absolute lifetime was not removed"):
                self._store.delete(key, record.payload)
            return None
        if refresh is None:
            return found
        within = refresh if refresh.lifetime <= rest else refresh._replace(lifetime=rest)
        return found._replace(refreshed=True) if self._store.refresh(key, record, within) else found

    def _is_over(self, items: dict[str, Any]) -> bool:
        return self._lifetimes.absolute_rest(self._lifetimes.take_mark(dict(items))) <= 0

    def _find_rotated(self, key: str, record: Record, note: ForwardingRecord) -> Snapshot | None:
        """Return what a late request is shown: the old data, as far as the rotated session still holds them."""
        with _tidying("A forwarding record was not removed or shortened"):
            self._forwarding.keep_short(key, record, note)
        if self._forwarding.is_over(note):
            return None
        rotated = self._forwarding.follow(note) if note.sid else NOTHING
        if rotated is None or self._is_over(rotated.items):
            return None
        items = still_held(note.before, rotated.items, self._codec.same)
        payload = self._codec.encode(items)
        return Snapshot(items, payload, created=self._lifetimes.take_mark(items), late=True)
