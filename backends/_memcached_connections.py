"""Connections to memcached that survive what happens between two commands: a fork, and a server that hung up."""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from lazysession.backends._forks import renew_after_fork

T = TypeVar("T")


class Connections(ABC):
    """Connections to one server, of which each serves one thread at a time.

    :param losses: the exceptions that tell of a connection that the other side has closed.
    """

    def __init__(self, losses: tuple[type[Exception], ...]) -> None:
        self._losses = losses
        renew_after_fork(self)

    def call(self, command: Callable[[Any], T], again: Callable[[Any], T] | None = None) -> T:
        """Run a command on a connection; once more on a new one, if the server has closed the one that was waiting.

        :param again: what is run the second time, when the first may have been done; None for the same.
        """
        if self.waiting():
            try:
                return self._run(command)
            except self._losses:
                self.drop()
                command = again or command
        return self._run(command)

    def _run(self, command: Callable[[Any], T]) -> T:
        with self.borrow() as connection:
            return command(connection)

    @abstractmethod
    def borrow(self) -> AbstractContextManager[Any]:
        """Lend a connection; one that was left in the middle of a command is not lent again."""

    @abstractmethod
    def waiting(self) -> bool:
        """Tell whether a connection that was used before may be lent next."""

    @abstractmethod
    def drop(self) -> None:
        """Close those that nobody has borrowed: what closed one has likely closed them all."""

    @abstractmethod
    def renew(self) -> None:
        """Forget, in a forked process, all that the parent goes on using, and send nothing on it."""


class OwnConnections(Connections):
    """Connections that are made here.

    :param connect: makes one.
    :param abandon: rids a forked process of one, without a word to the server.
    """

    def __init__(
        self, connect: Callable[[], Any], losses: tuple[type[Exception], ...], abandon: Callable[[Any], object]
    ) -> None:
        super().__init__(losses)
        self._connect, self._abandon = connect, abandon
        self._free: deque[Any] = deque()

    @contextmanager
    def borrow(self) -> Generator[Any]:
        try:
            connection = self._free.pop()
        except IndexError:
            connection = self._connect()
        yield connection
        self._free.append(connection)

    def waiting(self) -> bool:
        return bool(self._free)

    def drop(self) -> None:
        self._free = deque()

    def renew(self) -> None:
        for connection in self._free:
            self._abandon(connection)
        self._free = deque()


class PooledConnections(Connections):
    """The connections of a ``PooledClient`` of pymemcache."""

    # Protected attributes: pymemcache's own way to empty a pool closes what other threads are using.

    def __init__(self, client: Any, losses: tuple[type[Exception], ...]) -> None:
        super().__init__(losses)
        self._client = client

    def borrow(self) -> Any:
        return self._client.client_pool.get_and_release(destroy_on_fail=True)

    def waiting(self) -> bool:
        return bool(self._client.client_pool._free_objs)

    def drop(self) -> None:
        pool = self._client.client_pool
        with pool._lock:
            free = list(pool._free_objs)
            pool._free_objs.clear()
        for connection in free:
            connection.close()

    def renew(self) -> None:
        parents = self._client.client_pool
        pool = copy.copy(parents)
        pool._lock = threading.Lock()  # the parent's may be held by a thread that does not exist here
        pool._free_objs, pool._used_objs = deque(), deque()
        self._client.client_pool = pool
        for connection in (*parents._free_objs, *parents._used_objs):
            connection.close()


def leak(client: object) -> None:
    """Keep a client of pylibmc to the very end of a process: freed, it would tell the server to hang up."""
    import ctypes  # some systems lack it, and all others but this need it not

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))
