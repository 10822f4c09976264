"""Lifetimes of sessions: the idle lifetime and its refresh, local expiries, and the absolute lifetime."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from flask import Flask

from lazysession.modes import Mode
from lazysession.processes import Recent

from .merging import CREATED


class Refresh(NamedTuple):
    """The refresh of a request: the record gets ``lifetime`` seconds from now.

    :param throttle: least number of seconds between two refreshes; 0 refreshes at every use.
    """

    lifetime: float
    throttle: float

    def due(self, ttl: float | None) -> bool:
        """Return whether a record with ``ttl`` seconds left (None: unknown) is to be refreshed.

        Example: with a lifetime of 1000 and a throttle of 100, it is due with at most 900 seconds left. It is also due
        with more than 1001: the lifetime was shortened. The extra second is for rounding and other machines' clocks.
        """
        return ttl is None or ttl > self.lifetime + 1 or ttl <= self.lifetime - self.throttle


class _Expiry(NamedTuple):
    deadline: float
    usable_until: float


class LocalExpiries:
    """What this process remembers of when records expire, so that not every read has to ask the store.

    :param clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._expiries: Recent[_Expiry] = Recent()

    def left(self, key: str) -> float | None:
        """Return the seconds that a record has left; None when this process does not know."""
        expiry = self._expiries.get(key)
        if expiry is None:
            return None
        now = self.clock()
        return expiry.deadline - now if now < expiry.usable_until else None

    def remember(self, key: str, ttl: float, usable_for: float) -> None:
        """Remember what a record has left.

        :param usable_for: seconds for which this process uses the expiry without reading it again; at most ``ttl``
            counts, as a record that still exists then was refreshed by another process.
        """
        now = self.clock()
        self._expiries.put(key, _Expiry(now + ttl, now + min(ttl, usable_for)))

    def forget(self, key: str) -> None:
        """Forget a record that has ended."""
        self._expiries.forget(key)


class Lifetimes:
    """The lifetimes of the sessions of an app; all in seconds.

    :param throttle: least time between two refreshes; None for a tenth of the lifetime, at most an hour.
    :param absolute: a session ends this long after it began; None for no limit.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self, throttle: float | None = None, absolute: float | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.throttle = throttle
        self.absolute = absolute
        self.clock = clock
        self._known = timedelta(0), Refresh(0.0, 0.0)

    def refresh(self, app: Flask, mode: Mode) -> Refresh | None:
        """Return the refresh of a request in this mode; None for none."""
        if mode is Mode.NO_REFRESH or not app.config["SESSION_REFRESH_EACH_REQUEST"]:
            return None
        lifetime = app.permanent_session_lifetime
        if lifetime != self._known[0]:
            self._known = lifetime, self._refresh_to(lifetime.total_seconds())
        return self._known[1]

    def _refresh_to(self, lifetime: float) -> Refresh:
        if self.throttle is None or self.throttle >= lifetime:  # it may be changed after the settings were checked
            return Refresh(lifetime, min(lifetime / 10, 3600.0))
        return Refresh(lifetime, self.throttle)

    def of_write(self, app: Flask, left: float | None, created_at: float | None) -> float:
        """Return the ttl of a session that is stored now.

        :param left: seconds that it has left, if the write must keep them.
        """
        lifetime: float = app.permanent_session_lifetime.total_seconds() if left is None else max(1.0, left)
        return min(lifetime, self.absolute_ttl(created_at))

    def absolute_ttl(self, created_at: float | None) -> float:
        """Return the seconds until the absolute lifetime ends; all of it for a session without a time of creation."""
        if self.absolute is None:
            return math.inf
        return self.absolute if created_at is None else created_at + self.absolute - self.clock()

    def pop_created_at(self, items: dict[str, Any]) -> float | None:
        """Remove the time of creation from a session's items and return it; None when it is missing or invalid."""
        if CREATED not in items:
            return None
        created_at = as_time(items.pop(CREATED))
        return None if created_at is None else min(created_at, self.clock())

    def new_created_at(self) -> float | None:
        """Return the time of creation to store with a session that begins now; None without an absolute lifetime."""
        return None if self.absolute is None else self.clock()

    def lacks_created_at(self, created_at: float | None) -> bool:
        """Return whether the time of creation is to be stored with the next write."""
        return self.absolute is not None and created_at is None


def as_time(value: object) -> float | None:
    """Return a stored value as seconds since the epoch; None when it is not a valid time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        return None
    return float(value)
