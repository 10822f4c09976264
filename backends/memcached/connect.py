"""Clients from URLs, and connections that survive a fork, and a server that has closed them, between two commands."""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from lazysession.processes import PerProcess

#: Seconds that a client made of a URL waits for a server.
TIMEOUT = 3.0
_URL = "a URL such as 'memcached://localhost:11211' or 'memcached://one:11211,two:11211?timeout=0.5'"
_OPTIONS = (
    "its options are timeout and connect_timeout, in seconds and more than 0, as in "
    "'memcached://localhost:11211?timeout=1'"
)

T = TypeVar("T")


class Connections(ABC):
    """Connections to one server, of which each serves one thread at a time.

    :param losses: the exceptions raised on a connection that the server has closed.
    """

    def __init__(self, losses: tuple[type[Exception], ...]) -> None:
        self._losses = losses

    def call(self, command: Callable[[Any], T], again: Callable[[Any], T] | None = None) -> T:
        """Run a command on a connection; once more on a new one, if the server has closed the idle one.

        :param again: run the second time, as the first may have been executed; None for the same command.
        """
        if self.idle():
            try:
                return self._run(command)
            except self._losses:
                self.drop()
                command = again or command
        return self._run(command)

    @abstractmethod
    def _run(self, command: Callable[[Any], T]) -> T:
        """Run a command on a connection; one that was interrupted in the middle of a command is not used again."""

    @abstractmethod
    def idle(self) -> bool:
        """Return whether an idle connection would be lent next."""

    @abstractmethod
    def drop(self) -> None:
        """Close the idle connections: what closed one has likely closed them all."""


class OwnConnections(Connections):
    """Connections that are made here.

    :param connect: makes one.
    """

    def __init__(self, connect: Callable[[], Any], losses: tuple[type[Exception], ...]) -> None:
        super().__init__(losses)
        self._connect = connect
        self._free: PerProcess[deque[Any]] = PerProcess(deque)

    def _run(self, command: Callable[[Any], T]) -> T:
        """Run a command on a free connection, or on a new one."""
        free = self._free.get()
        try:
            connection = free.pop()
        except IndexError:
            connection = self._connect()
        result = command(connection)
        free.append(connection)
        return result

    def idle(self) -> bool:
        """Return whether a connection is free."""
        return bool(self._free.get())

    def drop(self) -> None:
        """Forget the free connections."""
        self._free.get().clear()


class PooledConnections(Connections):
    """The connections of a ``PooledClient`` of pymemcache."""

    # Protected attributes: pymemcache's own way to empty a pool closes connections that other threads use.

    def __init__(self, client: Any, losses: tuple[type[Exception], ...]) -> None:
        super().__init__(losses)
        self._client = client
        self._pool: PerProcess[Any] = PerProcess(lambda: client.client_pool, self._leave)
        self._pool.get()  # connections made from now on belong to this process

    def _run(self, command: Callable[[Any], T]) -> T:
        """Run a command on a connection of the client's pool."""
        # Not by get_and_release: after gevent.Timeout, which is no Exception, the connection counts as used for good.
        pool = self._pool.get()
        connection = pool.get()
        try:
            result = command(connection)
            pool.release(connection)
        except BaseException:
            pool.destroy(connection)
            raise
        return result

    def idle(self) -> bool:
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


def client_of_url(url: str) -> Any:
    """Return a client of pymemcache that threads may share; any, as pymemcache has no annotations.

    :param url: ``memcached://host:port``, several hosts separated by commas, or ``memcached:///path/of/a/socket``; with
        ``timeout`` and ``connect_timeout`` in seconds.
    :raises ValueError: for anything else; the message does not repeat the URL.
    """
    from pymemcache.client.base import PooledClient, normalize_server_spec
    from pymemcache.client.hash import HashClient

    options: dict[str, Any] = {"timeout": TIMEOUT, "connect_timeout": TIMEOUT, "no_delay": True}
    try:
        parts = urlsplit(url)
        servers = [normalize_server_spec(server) for server in (parts.netloc or parts.path).split(",")]
        given = {name: float(value) for name, value in parse_qsl(parts.query, strict_parsing=bool(parts.query))}
    except ValueError:
        what = f"not {_URL}" if "?" not in url else f"wrong: {_OPTIONS}"
        raise ValueError(f"the value is {what}.") from None
    if not given.keys() <= {"timeout", "connect_timeout"} or any(not seconds > 0 for seconds in given.values()):
        raise ValueError(f"the value is wrong: {_OPTIONS}.")
    if (
        parts.scheme != "memcached"
        or "@" in parts.netloc
        or (parts.netloc and parts.path.strip("/"))
        or not all(server[0] for server in servers)
        or parts.fragment
    ):
        raise ValueError(f"the value is not {_URL}; memcached has no user, password or database.")
    options |= given
    if len(servers) > 1:
        return HashClient(servers, use_pooling=True, **options)
    return PooledClient(servers[0], **options)
