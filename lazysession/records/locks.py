"""The threads of one process that write to one session wait for each other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from lazysession.processes import StripedLocks

#: How long a thread waits, in seconds: the one that has the lock may wait for a store that hangs.
_TIMEOUT = 1.0
_locks = StripedLocks()


@contextmanager
def lock_for(key: str) -> Generator[None]:
    """Hold the lock of a session, which it shares with a few other sessions; go on without it after a second."""
    lock = _locks.of(key)
    held = lock.acquire(timeout=_TIMEOUT)
    try:
        yield
    finally:
        if held:
            lock.release()
