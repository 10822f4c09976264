"""What a process remembers of the sessions that it has seen lately: bounded, as clients make the keys."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from lazysession.backends._processes import PerProcess

Note = TypeVar("Note")


class Notes(Generic[Note]):
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
        """Answer what was noted last, None for nothing."""
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
