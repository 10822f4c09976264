"""The records of a store, with local expiries, so that most requests do not have to read the expiry."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from lazysession.backend import (
    Backend,
    Outcome,
    Payload,
    Record,
    SupportsReadAndTouch,
    TouchFailed,
    WriteResult,
    explanation,
)

from .expiry import LocalExpiries, Refresh

logger = logging.getLogger("lazysession")

#: Seconds for which a local expiry is used if the store can return the current one: another process may shorten it, and
#: a failover may lose a refresh.
LOCAL_EXPIRY_LIFETIME = 60.0
#: Seconds that a record gets when its ttl is unknown: Flask's own default of 31 days.
UNKNOWN_LIFETIME = 31 * 86400.0


class RecordStore:
    """The methods of a backend; they also refresh its records, and remember when these expire.

    :param clock: seconds since the epoch.
    """

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.time) -> None:
        self._backend = backend
        self.expiries = LocalExpiries(clock)
        #: Whether a read can move the expiry in the same round trip.
        self.touches_as_it_reads = isinstance(backend, SupportsReadAndTouch)
        self._tells_ttls = False
        self._usable_for = LOCAL_EXPIRY_LIFETIME if self.touches_as_it_reads else math.inf
        self._lifetime = 0.0  # the longest that was used

    def read(self, key: str) -> Record | None:
        """Return what is stored."""
        return self._backend.read(key)

    def load(self, key: str, refresh: Refresh | None, *, later: bool = False) -> Record | None:
        """Return what is stored, and move its expiry where that is due and costs no round trip of its own.

        :param refresh: None for no refresh.
        :param later: the data decide the refresh: :meth:`refresh` comes after this. Without a refresh now, what the
            record has left is returned as far as it is known.
        """
        left = self.expiries.left(key)
        if refresh is None or later:
            return self._read_with_ttl(key, left, ask=refresh is None or left is None)
        if self.touches_as_it_reads and (left is None or refresh.due(left)):
            return self._read_and_touch(key, refresh)
        record = self._backend.read(key)
        if record is None or record.ttl is None:
            return record
        # Not due by what this process remembers. Another process may have shortened the lifetime meanwhile.
        return record._replace(touched=True) if self.refresh(key, record, refresh) else record

    def _read_with_ttl(self, key: str, left: float | None, *, ask: bool) -> Record | None:
        """Return what is stored, with the seconds that it has left.

        :param left: what this process remembers of them.
        :param ask: ask the store for them, if it can return them, as each request in mode ``no_refresh`` does.
            Example: this process remembers 30 seconds, and another one has refreshed the record to an hour meanwhile.
            A rotation keeps what is left, and must not end the session in 30 seconds.
        """
        backend: Any = self._backend
        ask = ask and self.touches_as_it_reads
        record: Record | None = backend.read_and_touch(key, None, 0.0) if ask else backend.read(key)
        if record is None or record.ttl is None:
            return record and record._replace(ttl=left)
        if ask:
            self._remember(key, record.ttl)
        return record

    def _read_and_touch(self, key: str, refresh: Refresh) -> Record | None:
        backend: Any = self._backend
        self.expect(refresh.lifetime)
        try:
            record: Record | None = backend.read_and_touch(key, refresh.lifetime, refresh.lifetime - refresh.throttle)
        except TouchFailed as failure:
            cause = failure.__cause__
            self._log(cause if isinstance(cause, Exception) else failure)
            record = failure.record
        if record is not None:
            self._tells_ttls = self._tells_ttls or record.ttl is not None  # Redis does, but not of each record
            self._usable_for = LOCAL_EXPIRY_LIFETIME if self._tells_ttls else math.inf
            self._remember(key, refresh.lifetime if record.touched else record.ttl)
        return record

    def refresh(self, key: str, record: Record, refresh: Refresh) -> bool:
        """Move the expiry of a record that was read, if that is due and the record is still there unchanged.

        A failure is logged, not raised: the session itself was read.

        :returns: whether it was moved.
        """
        if not refresh.due(record.ttl):
            return False
        self.expect(refresh.lifetime)
        try:
            touched = self._backend.touch(key, refresh.lifetime, record.payload)
        except Exception as error:  # whatever the client raises
            self._log(error)
            return False
        if touched:
            self._remember(key, refresh.lifetime)
        return touched

    def create(self, key: str, payload: Payload, ttl: float) -> bool:
        """Store a new record; return False, and change nothing, when the key is taken."""
        self.expect(ttl)
        created = self._backend.create(key, payload, ttl)
        if created:
            self._remember(key, ttl)
        return created

    def replace(self, key: str, payload: Payload, ttl: float | None, expected: Payload) -> WriteResult:
        """Put ``payload`` in the place of ``expected``; with ``ttl`` None it keeps what it has left.

        If the store cannot keep it, the record gets what this process remembers; if it remembers nothing, the longest
        lifetime that this process has used.
        """
        result = self._backend.replace(key, payload, ttl, expected)
        if result.outcome is Outcome.TTL_UNKNOWN:
            ttl = self.expiries.left(key) or self._lifetime or UNKNOWN_LIFETIME
            result = self._backend.replace(key, payload, ttl, expected)
        if ttl is not None and result.outcome is Outcome.STORED:
            self._remember(key, ttl)
        return result

    def expect(self, lifetime: float) -> None:
        """Note a lifetime of the app's sessions, in seconds, for records whose ttl is unknown."""
        self._lifetime = max(self._lifetime, lifetime)

    def delete(self, key: str, expected: Payload | None = None) -> WriteResult:
        """Remove the record, with ``expected`` only while that is stored."""
        result = self._backend.delete(key, expected)
        if result.outcome is not Outcome.CONFLICT:
            self.expiries.forget(key)
        return result

    def _remember(self, key: str, ttl: float | None) -> None:
        """Remember what a record has left from now on; None when that is not known."""
        if ttl is None:
            self.expiries.forget(key)
        else:
            self.expiries.remember(key, ttl, self._usable_for)

    def _log(self, error: Exception) -> None:
        logger.warning(
            "The expiry of a session could not be refreshed (%s); the session itself was read.",
            explanation(self._backend, error),
        )
