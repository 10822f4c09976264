"""Striped locks: the threads of one process that write to one session wait for each other."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Generator
from contextlib import contextmanager

_COUNT = 64
#: How long a thread waits, in seconds: the one that has the lock may wait for a store that hangs.
_TIMEOUT = 1.0
_locks: list[threading.Lock] = []


def _renew() -> None:
    _locks[:] = [threading.Lock() for _ in range(_COUNT)]


_renew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)  # a thread that the child does not have may hold one


@contextmanager
def lock_for(key: str) -> Generator[None]:
    """Hold the lock of a session, which it shares with a few other sessions; go on without it after a second."""
    lock = _locks[zlib.crc32(key.encode()) % _COUNT]
    held = lock.acquire(timeout=_TIMEOUT)
    try:
        yield
    finally:
        if held:
            lock.release()
