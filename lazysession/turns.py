"""Turns for the threads of one process that all change one session."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Generator
from contextlib import contextmanager

_COUNT = 64
#: How long one waits for its turn, in seconds: whoever has it may wait for a store that hangs.
_PATIENCE = 1.0
_locks: list[threading.Lock] = []


def _renew() -> None:
    _locks[:] = [threading.Lock() for _ in range(_COUNT)]


_renew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)  # a thread that the child does not have may hold one


@contextmanager
def turn(key: str) -> Generator[None]:
    """Wait for the turn at a session, which shares its turns with a few others; go on without it after a second."""
    lock = _locks[zlib.crc32(key.encode()) % _COUNT]
    mine = lock.acquire(timeout=_PATIENCE)
    try:
        yield
    finally:
        if mine:
            lock.release()
