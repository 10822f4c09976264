"""The commands of memcached through a client of pymemcache."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

from lazysession.backends.memcached.commands import Commands, as_bytes
from lazysession.backends.memcached.connect import Connections, OwnConnections, PooledConnections


class PymemcacheCommands(Commands):
    """``Client``, ``PooledClient`` and ``HashClient`` of pymemcache.

    A ``Client`` must not be shared by threads, so it is copied for each. The failover of a ``HashClient`` is not used:
    it would report an outage as an absent session, and read from servers that never had it.
    """

    _options: ClassVar[dict[str, Any]] = {"noreply": False}  # its default is not to wait for the response

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._library: Any = import_module("pymemcache")
        # Proxies close the connection on what they do not know.
        self._refusals = (self._library.MemcacheClientError, self._library.MemcacheUnexpectedCloseError)
        self._hashed = isinstance(client, self._library.HashClient)
        self._losses = (self._library.MemcacheUnexpectedCloseError, ConnectionError)
        self._connections = {node.server: self._connect(node) for node in self._nodes()}
        self.unpickles = not all(type(node.serde).__name__ == "LegacyWrappingSerde" for node in self._nodes())

    def gats(self, key: str, expiry: int) -> tuple[bytes | None, Any, bool | Exception]:
        """Read and touch with one command, where the server knows it."""
        # The protected methods, as pymemcache 4.0 has no public way to send this: of a response over 4 KiB its
        # raw_command keeps only the end, and a payload may contain what it takes for the end.
        command = b"gats %d" % expiry
        try:
            items = self._connections_to(key).call(
                lambda client: client._fetch_cmd(command, [key], True, key_prefix=client.key_prefix)
            )
        except self._refusals:  # memcached before 1.5.3, twemproxy
            return super().gats(key, expiry)
        payload, token = items.get(key, (None, None))
        return as_bytes(payload), token, payload is not None

    def ttl(self, key: str) -> int | None:
        """Return what ``mg`` does, where the server knows it."""
        try:
            (response,) = self._connections_to(key).call(
                lambda client: client._misc_cmd([b"mg %s%s t\r\n" % (client.key_prefix, key.encode())], b"mg", False)
            )
        except self._refusals:  # memcached before 1.6, proxies
            return None
        return int(response[4:]) if response.startswith(b"HD t") else 0

    def statistics(self) -> Iterable[dict[Any, Any]]:
        """Return the statistics of each node."""
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


def _copy(client: Any) -> Any:
    """Return a client like this one with a connection of its own, which raises when its server is down."""
    connection = copy.copy(client)
    connection.sock, connection.ignore_exc = None, False
    return connection
