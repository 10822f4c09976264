"""How long sessions live: the idle lifetime, its refresh and what a process remembers of it, the absolute lifetime."""

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
    """The refresh that a request wants: the record shall live ``lifetime`` seconds from now.

    :param throttle: least number of seconds between two refreshes; 0 refreshes at every use.
    """

    lifetime: float
    throttle: float

    def due(self, ttl: float | None) -> bool:
        """Return whether a record with ``ttl`` seconds left (None: nobody can tell) is to be refreshed.

        Example: with a lifetime of 1000 and a throttle of 100, it is due with 900 seconds left or fewer, and with more
        than 1001: the lifetime was shortened. The second is what rounding, and another machine's clock, may add.
        """
        return ttl is None or ttl > self.lifetime + 1 or ttl <= self.lifetime - self.throttle


class _Expiry(NamedTuple):
    deadline: float
    believed_until: float


class LocalExpiries:
    """What this process remembers of when records expire, so that not every read has to ask the store.

    :param clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._expiries: Recent[_Expiry] = Recent()

    def left(self, key: str) -> float | None:
        """Return the seconds that a record has left; None when this process cannot tell."""
        expiry = self._expiries.get(key)
        if expiry is None:
            return None
        now = self.clock()
        return expiry.deadline - now if now < expiry.believed_until else None

    def remember(self, key: str, ttl: float, believed: float) -> None:
        """Remember what a record has left.

        :param believed: for how many seconds; never longer than ``ttl``, as a record that is there then was refreshed
            by another process.
        """
        now = self.clock()
        self._expiries.put(key, _Expiry(now + ttl, now + min(ttl, believed)))

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
        """Return the refresh that a request in this mode wants; None for none."""
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

    def of_write(self, app: Flask, left: float | None, created: float | None) -> float:
        """Return the seconds that a session lives when it is stored now.

        :param left: seconds that it has left, where the write must not begin a new lifetime.
        """
        lifetime: float = app.permanent_session_lifetime.total_seconds() if left is None else max(1.0, left)
        return min(lifetime, self.absolute_rest(created))

    def absolute_rest(self, created: float | None) -> float:
        """Return what the absolute lifetime leaves of a session; one that nobody marked yet starts with all of it."""
        if self.absolute is None:
            return math.inf
        return self.absolute if created is None else created + self.absolute - self.clock()

    def take_mark(self, items: dict[str, Any]) -> float | None:
        """Take the mark out of a session's items and return when it began; None when the mark is missing or unsound."""
        if CREATED not in items:
            return None
        created = as_time(items.pop(CREATED))
        return None if created is None else min(created, self.clock())

    def mark(self) -> float | None:
        """Return the time of creation to store with a session that begins now; None without an absolute lifetime."""
        return None if self.absolute is None else self.clock()

    def needs_mark(self, created: float | None) -> bool:
        """Return whether the time of creation is to be stored with the next write."""
        return self.absolute is not None and created is None


def as_time(value: object) -> float | None:
    """Return a stored value as seconds since the epoch; None when it is no number that can be a time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        return None
    return float(value)
