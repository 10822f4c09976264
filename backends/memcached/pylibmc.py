"""The commands of memcached through a client of pylibmc."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lazysession.backend import Outcome
from lazysession.backends.memcached.commands import Commands, as_bytes
from lazysession.backends.memcached.connect import Connections, OwnConnections


class PylibmcCommands(Commands):
    """``Client`` of pylibmc, cloned for each thread, with ``cas`` switched on."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        library: Any = import_module("pylibmc")
        losses = library.ConnectionError, library.ServerDown, library.WriteError
        self._not_found = library.NotFound
        self._connections = OwnConnections(self._clone, losses)

    def gets(self, key: str) -> tuple[bytes | None, Any]:
        """Read a second time where nothing was there: the server may have closed the connection."""
        # Bytes that live through the call: pylibmc 1.6.3 frees its own copy of a str before it sends it, and then sends
        # what another thread has written there, which may be the key of another session.
        name = key.encode()

        def command(client: Any) -> Any:
            # On a connection that the server has closed, the first call returns None, and the second raises.
            item = client.gets(name)
            return client.gets(name) if item[0] is None else item

        payload, token = self._connections.call(command)
        return as_bytes(payload), token

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
