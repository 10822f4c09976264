"""Loading: from a session id to the stored session, also by way of a forwarding record."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

from lazysession.backend import Payload, PayloadCodec, Record
from lazysession.ids import SessionIds
from lazysession.pages import Page, see

from .expiry import Lifetimes, Refresh
from .rotation import ENDED, Forwarding, ForwardingRecord, forwarding_in, still_held
from .store import RecordStore

logger = logging.getLogger("lazysession")


class Snapshot(NamedTuple):
    """What the store said when the session was loaded.

    :param items: what the app gets.
    :param payload: the stored payload; for a late request, that of ``items``.
    :param ttl: seconds left before any refresh; None when the store cannot return them.
    :param refreshed: the expiry was moved.
    :param created_at: when the session began, in seconds since the epoch; None when that is not stored.
    :param has_stale_id: the id was rotated away before the load.
    """

    items: dict[str, Any]
    payload: Payload
    ttl: float | None = None
    refreshed: bool = False
    created_at: float | None = None
    has_stale_id: bool = False


@contextmanager
def _cleaning_up(failure: str) -> Generator[None]:
    """Log a failure instead of raising it: the load does not need the clean-up."""
    try:
        yield
    except Exception as error:  # whatever the client raises
        logger.warning("%s, as the store failed: %s", failure, type(error).__name__)


class Loading:
    """Loads the sessions of one app. Only a fault of the store raises, with the client's own error."""

    def __init__(
        self, store: RecordStore, codec: PayloadCodec, ids: SessionIds, lifetimes: Lifetimes, forwarding: Forwarding
    ) -> None:
        self._store = store
        self._codec = codec
        self._ids = ids
        self._lifetimes = lifetimes
        self._forwarding = forwarding

    def load(self, sid: str, refresh: Refresh | None) -> Snapshot | None:
        """Return the session of an id; None when it is absent, has ended, or cannot be decoded.

        :param refresh: move the expiry when that is due; None for no refresh.
        """
        ids = self._ids
        key = ids.key(sid)
        # Whether the expiry may be moved depends on the data, or moving it takes a round trip of its own anyway.
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
            logger.warning(
                "A stored session of %d bytes cannot be decoded; a new one begins. %s",
                len(record.payload),
                see(Page.OLD_PICKLES),
            )
            return None
        forwarding = forwarding_in(items)
        if forwarding is not None:
            return self._load_rotated(key, record, forwarding)
        snapshot = Snapshot(items, record.payload, record.ttl, record.touched, self._lifetimes.pop_created_at(items))
        return self._limit_lifetime(key, record, snapshot, refresh) if decode_first else snapshot

    def refresh(self, sid: str, refresh: Refresh | None) -> bool:
        """Move the expiry of a loaded session if that is due, and return whether it was moved."""
        if refresh is None:
            return False
        try:
            snapshot = self.load(sid, refresh)
        except Exception as error:  # whatever the client raises; the session itself was read
            logger.warning("The expiry of a session could not be refreshed (%s).", type(error).__name__)
            return False
        return snapshot is not None and snapshot.refreshed

    def is_current(self, sid: str) -> bool:
        """Return whether the id of a loaded session still has a session: no request has ended or rotated it."""
        try:
            record = self._store.read(self._ids.key(sid))
        except Exception as error:  # whatever the client raises; the cookie keeps the expiry that it has
            logger.warning("The session cookie was not renewed, as the store failed: %s", type(error).__name__)
            return False
        return record is not None and self._forwarding.forwarding_of(record.payload) is None

    def _limit_lifetime(self, key: str, record: Record, snapshot: Snapshot, refresh: Refresh | None) -> Snapshot | None:
        """Delete a session beyond its absolute lifetime, or refresh it for no longer than that."""
        left = self._lifetimes.absolute_ttl(snapshot.created_at)
        if left <= 0:
            with _cleaning_up("A session beyond its absolute lifetime was not removed"):
                self._store.delete(key, record.payload)
            return None
        if refresh is None:
            return snapshot
        within = refresh if refresh.lifetime <= left else refresh._replace(lifetime=left)
        return snapshot._replace(refreshed=True) if self._store.refresh(key, record, within) else snapshot

    def _has_ended(self, items: dict[str, Any]) -> bool:
        return self._lifetimes.absolute_ttl(self._lifetimes.pop_created_at(dict(items))) <= 0

    def _load_rotated(self, key: str, record: Record, forwarding: ForwardingRecord) -> Snapshot | None:
        """Return what a late request gets: the old items that the rotated session still holds unchanged."""
        with _cleaning_up("A forwarding record was not cleaned up"):
            self._forwarding.clean_up(key, record, forwarding)
        if self._forwarding.has_expired(forwarding):
            return None
        rotated = self._forwarding.follow(forwarding) if forwarding.sid else ENDED
        if rotated is None or self._has_ended(rotated.items):
            return None
        items = still_held(forwarding.before, rotated.items, self._codec.same)
        payload = self._codec.encode(items)
        return Snapshot(items, payload, created_at=self._lifetimes.pop_created_at(items), has_stale_id=True)
