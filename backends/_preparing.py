"""What a store needs once before its first session, such as a table: made at start-up, or at the first use."""

from __future__ import annotations

from collections.abc import Callable


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
