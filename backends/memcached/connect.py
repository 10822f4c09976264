"""Connections to memcached that survive what happens between two commands: a fork, and a server that hung up."""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from lazysession.backends.common import PerProcess

T = TypeVar("T")


class Connections(ABC):
    """Connections to one server, of which each serves one thread at a time.

    :param losses: the exceptions that tell of a connection that the other side has closed.
    """

    def __init__(self, losses: tuple[type[Exception], ...]) -> None:
        self._losses = losses

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
        """Return whether a connection that was used before may be lent next."""

    @abstractmethod
    def drop(self) -> None:
        """Close those that nobody has borrowed: what closed one has likely closed them all."""


class OwnConnections(Connections):
    """Connections that are made here.

    :param connect: makes one.
    """

    def __init__(self, connect: Callable[[], Any], losses: tuple[type[Exception], ...]) -> None:
        super().__init__(losses)
        self._connect = connect
        self._free: PerProcess[deque[Any]] = PerProcess(deque)

    @contextmanager
    def borrow(self) -> Generator[Any]:
        """Lend a free connection, or make one."""
        free = self._free.get()
        try:
            connection = free.pop()
        except IndexError:
            connection = self._connect()
        yield connection
        free.append(connection)

    def waiting(self) -> bool:
        """Return whether a connection is free."""
        return bool(self._free.get())

    def drop(self) -> None:
        """Forget the free connections."""
        self._free.get().clear()


class PooledConnections(Connections):
    """The connections of a ``PooledClient`` of pymemcache."""

    # Protected attributes: pymemcache's own way to empty a pool closes what other threads are using.

    def __init__(self, client: Any, losses: tuple[type[Exception], ...]) -> None:
        super().__init__(losses)
        self._client = client
        self._pool: PerProcess[Any] = PerProcess(lambda: client.client_pool, self._leave)
        self._pool.get()  # what is in it from now on is this process's

    @contextmanager
    def borrow(self) -> Generator[Any]:
        """Lend a connection of the client's pool."""
        # Not by get_and_release: after gevent.Timeout, which is no Exception, the connection counts as used for good.
        pool = self._pool.get()
        connection = pool.get()
        try:
            yield connection
            pool.release(connection)
        except BaseException:
            pool.destroy(connection)
            raise

    def waiting(self) -> bool:
        """Return whether a connection is free in the client's pool."""
        return bool(self._pool.get()._free_objs)

    def drop(self) -> None:
        """Close the free connections of the client's pool."""
        pool = self._pool.get()
        with pool._lock:
            free = list(pool._free_objs)
            pool._free_objs.clear()
        for connection in free:
            connection.close()

    def _leave(self, _parents: Any) -> None:
        replace_pool(self._client)


def replace_pool(client: Any) -> None:
    """Give a ``PooledClient`` a pool without connections.

    Threads that have borrowed a connection keep using it, and return it to the old pool.
    """
    pool = copy.copy(client.client_pool)
    pool._lock = threading.Lock()  # a parent's may be held by a thread that does not exist here
    pool._free_objs, pool._used_objs = deque(), deque()
    client.client_pool = pool
