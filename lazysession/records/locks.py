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
#: By process id: a forked process has no thread that could release a lock of its parent. And by the function that makes
#: a lock, which gevent replaces when it patches the threading module: a lock made before would block all greenlets.
_locks: dict[object, list[threading.Lock]] = {}


@contextmanager
def lock_for(key: str) -> Generator[None]:
    """Hold the lock of a session, which it shares with a few other sessions; go on without it after a second."""
    here = os.getpid(), threading.Lock
    locks = _locks.get(here) or _locks.setdefault(here, [threading.Lock() for _ in range(_COUNT)])
    lock = locks[zlib.crc32(key.encode()) % _COUNT]
    held = lock.acquire(timeout=_TIMEOUT)
    try:
        yield
    finally:
        if held:
            lock.release()
