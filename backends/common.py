"""What several adapters need: the time as Flask-Session stores it, and work that is tried until it succeeds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone


def utc_now() -> datetime:
    """Return the present time as Flask-Session stores it: UTC, without a time zone."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


class Preparation:
    """Work that is tried until it succeeds once; after a fork, it is not repeated if the parent has done it.

    There is no lock: while the store is down, each request would wait until those before it have failed. So several
    threads and processes may do the work at once, and it must allow that.

    :param work: makes what is missing; raises the client's own error while the store is down.
    :param is_done: nothing has to be done.
    """

    def __init__(self, work: Callable[[], object], *, is_done: bool) -> None:
        self._work = work
        self.is_done = is_done

    def ensure(self) -> None:
        """Do the work unless it has been done."""
        if not self.is_done:
            self._work()
            self.is_done = True

    def note_done(self) -> None:
        """Remember that the work was done in another way."""
        self.is_done = True
