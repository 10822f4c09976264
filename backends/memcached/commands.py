"""The commands of memcached that the backend sends, through a client of any library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from lazysession.backend import Outcome
from lazysession.backends.memcached.connect import Connections

#: An expiry in early 1970 (up to 30 days would be counted from now): what is stored with it has expired.
PAST = 30 * 86400 + 1

_OUTCOMES = {True: Outcome.STORED, False: Outcome.CONFLICT, None: Outcome.MISSING}


class Commands(ABC):
    """The commands of memcached, through a client of one library; an expiry is memcached's, in whole seconds."""

    _options: ClassVar[dict[str, Any]] = {}
    #: Whether reading may unpickle what is stored.
    unpickles = True

    def __init__(self, client: Any) -> None:
        self._client = client

    @abstractmethod
    def _connections_to(self, key: str) -> Connections:
        """Return the connections to the server of a key."""

    def gets(self, key: str) -> tuple[bytes | None, Any]:
        """Return the payload, None when there is none, and the token that :meth:`cas` needs."""
        payload, token = self._connections_to(key).call(lambda client: client.gets(key))
        return as_bytes(payload), token

    def gats(self, key: str, expiry: int) -> tuple[bytes | None, Any, bool | Exception]:
        """Return what :meth:`gets` does, and set the expiry; return also whether it was set, or the error."""
        payload, token = self.gets(key)
        if payload is None:
            return None, None, False
        try:
            return payload, token, self.touch(key, expiry)
        except Exception as error:  # whatever the client raises: the record was read
            return payload, token, error

    def add(self, key: str, payload: bytes, expiry: int) -> bool:
        """Store unless the key is taken; return whether it was stored."""
        return bool(self._connections_to(key).call(lambda client: client.add(key, payload, expiry, **self._options)))

    def cas(self, key: str, payload: bytes, expiry: int, token: Any) -> Outcome:
        """Store unless another request has stored since the token was returned."""
        command = partial(self._cas, key, payload, expiry, token)

        def again(client: Any) -> Outcome:
            outcome = command(client)
            return Outcome.STORED if outcome is Outcome.MISSING and expiry == PAST else outcome  # ended by the first

        return self._connections_to(key).call(command, again)

    def _cas(self, key: str, payload: bytes, expiry: int, token: Any, client: Any) -> Outcome:
        return _OUTCOMES[client.cas(key, payload, token, expiry, **self._options)]

    def touch(self, key: str, expiry: int) -> bool:
        """Set the expiry alone; return False when there is no such item."""
        return bool(self._connections_to(key).call(lambda client: client.touch(key, expiry, **self._options)))

    def delete(self, key: str) -> None:
        """Delete the item, if there is one."""
        self._connections_to(key).call(lambda client: client.delete(key, **self._options))

    def ttl(self, key: str) -> int | None:
        """Return the seconds that are left: 0 without an item, -1 without an expiry, None when that cannot be known."""
        return None

    def statistics(self) -> Iterable[dict[Any, Any]]:
        """Return the statistics of each server."""
        return [statistics for _, statistics in self._client.get_stats()]


def as_bytes(value: Any) -> bytes | None:
    """Return what a client made of a payload; what is not bytes was stored by another program: undecodable."""
    return value if value is None or isinstance(value, bytes) else b""
