"""How pymemcache and pylibmc do what the adapter for memcached asks of a client."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

from lazysession.backend import Outcome
from lazysession.backends.memcached.commands import PAST, Commands
from lazysession.backends.memcached.connect import Connections, OwnConnections, PooledConnections


class _Borrowing(Commands):
    """What pymemcache and pylibmc do in the same way."""

    _options: ClassVar[dict[str, Any]] = {}

    @abstractmethod
    def _connections_to(self, key: str) -> Connections:
        """Return the connections to the server of a key."""

    def gets(self, key: str) -> tuple[bytes | None, Any]:
        payload, token = self._connections_to(key).call(lambda client: client.gets(key))
        return _bytes(payload), token

    def add(self, key: str, payload: bytes, expiry: int) -> bool:
        return bool(self._connections_to(key).call(lambda client: client.add(key, payload, expiry, **self._options)))

    def cas(self, key: str, payload: bytes, expiry: int, token: Any) -> Outcome:
        command = partial(self._cas, key, payload, expiry, token)

        def again(client: Any) -> Outcome:
            outcome = command(client)
            return Outcome.STORED if outcome is Outcome.MISSING and expiry == PAST else outcome  # ended by the first

        return self._connections_to(key).call(command, again)

    def _cas(self, key: str, payload: bytes, expiry: int, token: Any, client: Any) -> Outcome:
        return _OUTCOMES[client.cas(key, payload, token, expiry, **self._options)]

    def touch(self, key: str, expiry: int) -> bool:
        return bool(self._connections_to(key).call(lambda client: client.touch(key, expiry, **self._options)))

    def delete(self, key: str) -> None:
        self._connections_to(key).call(lambda client: client.delete(key, **self._options))


class _Pymemcache(_Borrowing):
    """``Client``, ``PooledClient`` and ``HashClient`` of pymemcache.

    A ``Client`` must not be shared by threads, so it is copied for each. The failover of a ``HashClient`` is not used:
    it would answer an outage as an absence, and look for sessions where they never were.
    """

    _options: ClassVar[dict[str, Any]] = {"noreply": False}  # its default is to wait for no answer

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._library: Any = import_module("pymemcache")
        # Proxies close the connection on what they do not know.
        self._refusals = (self._library.MemcacheClientError, self._library.MemcacheUnexpectedCloseError)
        self._hashed = isinstance(client, self._library.HashClient)
        self._losses = (self._library.MemcacheUnexpectedCloseError, ConnectionError)
        self._connections = {node.server: self._connect(node) for node in self._nodes()}
        self.unpickles = not all(type(node.serde).__name__ == "LegacyWrappingSerde" for node in self._nodes())

    def gats(self, key: str, expiry: int) -> tuple[bytes | None, Any, bool]:
        # The protected methods, as pymemcache 4.0 has no public way to send this: of an answer over 4 KiB its
        # raw_command keeps the end alone, and it takes for the end what a payload may hold.
        command = b"gats %d" % expiry
        try:
            found = self._connections_to(key).call(
                lambda client: client._fetch_cmd(command, [key], True, key_prefix=client.key_prefix)
            )
        except self._refusals:  # memcached before 1.5.3, twemproxy
            return super().gats(key, expiry)
        payload, token = found.get(key, (None, None))
        return _bytes(payload), token, payload is not None

    def ttl(self, key: str) -> int | None:
        try:
            (answer,) = self._connections_to(key).call(
                lambda client: client._misc_cmd([b"mg %s%s t\r\n" % (client.key_prefix, key.encode())], b"mg", False)
            )
        except self._refusals:  # memcached before 1.6, proxies
            return None
        return int(answer[4:]) if answer.startswith(b"HD t") else None

    def statistics(self) -> Iterable[dict[Any, Any]]:
        return [node.stats() for node in self._nodes()]

    def _nodes(self) -> Iterable[Any]:
        return self._client.clients.values() if self._hashed else (self._client,)

    def _connections_to(self, key: str) -> Connections:
        client = self._client
        if self._hashed:
            client = client.clients.get(client.hasher.get_node(key))
            if client is None:
                raise self._library.MemcacheError("no server is left in the HashClient")
        if client.server not in self._connections:  # a server that the app has added
            self._connections.setdefault(client.server, self._connect(client))
        return self._connections[client.server]

    def _connect(self, node: Any) -> Connections:
        if isinstance(node, self._library.PooledClient):
            return PooledConnections(node, self._losses)
        return OwnConnections(partial(_copy, node), self._losses)


class _Pylibmc(_Borrowing):
    """``Client`` of pylibmc, cloned for each thread, with ``cas`` switched on."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        library: Any = import_module("pylibmc")
        losses = library.ConnectionError, library.ServerDown, library.WriteError
        self._not_found = library.NotFound
        self._connections = OwnConnections(self._clone, losses)

    def gets(self, key: str) -> tuple[bytes | None, Any]:
        # Bytes that live through the call: pylibmc 1.6.3 frees its own copy of a str before it sends it, and then asks
        # for whatever another thread has put there, which may be the key of another session.
        name = key.encode()

        def command(client: Any) -> Any:
            # On a connection that the server has closed, the first answer is an absence, and the second the error.
            found = client.gets(name)
            return client.gets(name) if found[0] is None else found

        payload, token = self._connections.call(command)
        return _bytes(payload), token

    def _cas(self, key: str, payload: bytes, expiry: int, token: Any, client: Any) -> Outcome:
        try:
            return super()._cas(key, payload, expiry, token, client)
        except self._not_found:
            return Outcome.MISSING

    def _connections_to(self, key: str) -> Connections:
        return self._connections

    def _clone(self) -> Any:
        clone = self._client.clone()
        clone.behaviors = {"cas": True}
        return clone


_OUTCOMES = {True: Outcome.STORED, False: Outcome.CONFLICT, None: Outcome.MISSING}

#: Known by name, so that no library is imported that the app does not use.
_LIBRARIES: dict[str, type[_Pymemcache | _Pylibmc]] = {
    "pymemcache.client.base.Client": _Pymemcache,
    "pymemcache.client.base.PooledClient": _Pymemcache,
    "pymemcache.client.hash.HashClient": _Pymemcache,
    "pylibmc.client.Client": _Pylibmc,
}


def commands_of(client: object) -> Commands:
    """Return the commands of a client.

    :raises ValueError: for a client of another library, and for what is no client.
    """
    names = [f"{base.__module__}.{base.__qualname__}" for base in type(client).__mro__]
    for name in filter(_LIBRARIES.__contains__, names):
        return _LIBRARIES[name](client)
    raise ValueError(
        f"a {names[0]} is neither a URL such as 'memcached://localhost:11211', nor a Client, PooledClient or "
        "HashClient of pymemcache, nor a Client of pylibmc or of python-memcached."
    )


def _copy(client: Any) -> Any:
    """Make another client like this one, with a connection of its own, for which an outage is no absence."""
    connection = copy.copy(client)
    connection.sock, connection.ignore_exc = None, False
    return connection


def _bytes(value: Any) -> bytes | None:
    """Return what a client made of a payload; what is not bytes was stored by somebody else, and cannot be decoded."""
    return value if value is None or isinstance(value, bytes) else b""
