"""How long sessions live: the idle lifetime and its refresh, the absolute lifetime and the mark that it counts from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import Flask

from lazysession.backend import Renew
from lazysession.modes import Mode

from .merging import CREATED


class Lifetimes:
    """Answers every question of time about the sessions of an app; all in seconds.

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
        self._known = timedelta(0), Renew(0.0, 0.0)

    def renew(self, app: Flask, mode: Mode) -> Renew | None:
        """Return the refresh that a request in this mode wishes; None for none."""
        if mode is Mode.NO_REFRESH or not app.config["SESSION_REFRESH_EACH_REQUEST"]:
            return None
        lifetime = app.permanent_session_lifetime
        if lifetime != self._known[0]:
            self._known = lifetime, self._renew_within(lifetime.total_seconds())
        return self._known[1]

    def _renew_within(self, lifetime: float) -> Renew:
        if self.throttle is None or self.throttle >= lifetime:  # it may be changed after the settings were checked
            return Renew(lifetime, min(lifetime / 10, 3600.0))
        return Renew(lifetime, self.throttle)

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
        """Take the mark out of a session's items; answer when it began, or None when the mark is missing or unsound."""
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
