"""What a forked process must not share with its parent, it makes for itself, however it was forked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Generic, TypeVar

Value = TypeVar("Value")


class PerProcess(Generic[Value]):
    """A value, such as a pool or a lock, of which each process has its own: it is made when it is first asked for.

    The process id is compared each time. uWSGI forks in C by default, where the hooks of ``os.register_at_fork`` do not
    run; and a lock that is made in the worker is gevent's, where the worker patches what its parent imported.

    Example: the parent (1) has used a pool, and forks a worker (2). There, two threads ask at once and both make a
    pool; ``setdefault`` lets only one be the worker's. A lock around it could be one that the parent held at the fork.

    :param make: makes the value of this process.
    :param leave: called before that with the value of the parent, which goes on using it: nothing may be sent on its
        connections, and none of its locks may be waited for.
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

    Greenlets share one thread. A lock from before would block all of them where one has to wait, and a reentrant one
    would admit all of them at once.
    """

    def _here(self) -> object:
        return os.getpid(), threading.Lock


def keep_for_good(value: object) -> None:
    """Keep an object to the very end of a process: some connections tell the server to hang up when they are freed."""
    import ctypes  # some systems lack it, and none of those forks

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


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


Note = TypeVar("Note")


class LocalExpiries(Generic[Note]):
    """A note of each session, so that not every read has to ask the store, and for stores that do not tell.

    :param most: how many sessions are remembered; the note made longest ago is forgotten first.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        # In a forked process, a thread that is not there may hold the parent's. The lambda: gevent replaces the class.
        self._lock = PerProcess(lambda: threading.Lock())  # noqa: PLW0108
        self._known: dict[str, Note] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Note | None:
        """Return what was noted last, None for nothing."""
        return self._known.get(key)

    def put(self, key: str, note: Note) -> None:
        """Remember the note in the place of any other of the session."""
        with self._lock.get():
            self._known.pop(key, None)  # the new one goes to the end
            self._known[key] = note
            if len(self._known) > self._most:
                del self._known[next(iter(self._known))]

    def forget(self, key: str) -> None:
        """Forget a session that has ended."""
        with self._lock.get():
            self._known.pop(key, None)
