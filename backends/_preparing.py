"""What a store needs once before its first session, such as a table: made at start-up, or at the first use."""

from __future__ import annotations

from collections.abc import Callable


class Preparation:
    """Work that is done until it has worked once; a forked process knows that its parent has done it.

    There is no lock: while the store is down, each request would wait for the failures of those before it. So the work
    must bear being done by several threads and processes at once.

    :param work: makes what is missing; raises the client's own error while the store is down.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self.is_done = False

    def ensure(self) -> None:
        """Do the work unless it has been done."""
        if not self.is_done:
            self._work()
            self.is_done = True

    def note_done(self) -> None:
        """Note that the work was done in another way."""
        self.is_done = True
