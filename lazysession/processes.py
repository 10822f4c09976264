"""Values and locks that each process has of its own, however it was forked, and a bounded mapping.

The core uses it, and any adapter may.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class PerProcess(Generic[Value]):
    """A value of which each process has its own, such as a pool or a lock; it is made at its first use.

    The process id is compared at each use. uWSGI forks in C by default, where the hooks of ``os.register_at_fork`` do
    not run. Also, a worker may patch with gevent after its parent imported this: its locks must then be gevent's.

    Example: the parent (1) has used a pool, and forks a worker (2). There, two threads call :meth:`get` at
    once, and both make a pool; ``setdefault`` keeps one. A lock instead could be one that the parent held at the fork.

    :param make: makes the value of this process.
    :param leave: called before that with the value of the parent, which still uses it: it must not send anything on
        its connections, or wait for its locks.
    """

    def __init__(self, make: Callable[[], Value], leave: Callable[[Value], object] | None = None) -> None:
        self._make, self._leave = make, leave
        self._values: dict[object, Value] = {}

    def get(self) -> Value:
        """Return the value of this process."""
        here = self._here()
        try:
            return self._values[here]
        except KeyError:
            return self._make_for(here)

    def _here(self) -> object:
        return os.getpid()

    def _make_for(self, here: object) -> Value:
        parents = {other: value for other, value in self._values.copy().items() if other != here}
        for value in parents.values():
            keep_for_good(value)
            if self._leave is not None:
                self._leave(value)
        made = self._values.setdefault(here, self._make())
        for other in parents:
            self._values.pop(other, None)
        return made


class LocksPerProcess(PerProcess[Value]):
    """Locks of each process, which are also replaced once gevent has patched ``threading`` in it.

    Greenlets share one thread. With an unpatched lock, one that waits would block all of them; with a reentrant one,
    all would hold it at once.
    """

    def _here(self) -> object:
        return os.getpid(), threading.Lock


def keep_for_good(value: object) -> None:
    """Keep an object until the process ends: some connections are closed on the server when they are freed."""
    import ctypes  # some systems lack it, and none of those forks

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def stripe(name: str, count: int) -> int:
    """Return which of ``count`` locks a name has, the same in every process."""
    return zlib.crc32(name.encode()) % count


class StripedLocks:
    """Reentrant locks, each shared by many keys; new ones after a fork, as a thread of the parent may hold the old.

    One object for each purpose, as a thread that holds a lock of one may wait for a lock of another. Example: thread 1
    merges session A and thread 2 session B, each under a lock of the core; both then write the other's new id to a
    store that locks. With one set of locks for both, each could wait for the lock that the other holds, indefinitely.
    """

    def __init__(self, count: int = 64) -> None:
        self._locks = LocksPerProcess(lambda: [threading.RLock() for _ in range(count)])

    def of(self, key: str) -> Any:
        """Return the lock of a key; any, as the class of a reentrant lock has no name."""
        locks = self._locks.get()
        return locks[stripe(key, len(locks))]


class Recent(Generic[Value]):
    """A mapping of limited size: beyond ``most`` keys, the one that was set longest ago is removed."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        # Per process: the lock may have been held at the fork. The lambda: gevent replaces the class.
        self._lock = LocksPerProcess(lambda: threading.Lock())  # noqa: PLW0108
        self._known: dict[str, Value] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Value | None:
        """Return the value of a key, or None."""
        return self._known.get(key)

    def put(self, key: str, value: Value) -> None:
        """Set the value of a key."""
        with self._lock.get():
            self._known.pop(key, None)  # so that the key is last
            self._known[key] = value
            if len(self._known) > self._most:
                del self._known[next(iter(self._known))]

    def forget(self, key: str) -> None:
        """Remove a key."""
        with self._lock.get():
            self._known.pop(key, None)
