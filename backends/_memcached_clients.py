"""What the adapter for memcached asks of a client, and how pymemcache, pylibmc and python-memcached do it."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

from lazysession.backend import Outcome

logger = logging.getLogger("lazysession")


class Commands(ABC):
    """The commands of memcached, in the way of one client library; an expiry is memcached's, in whole seconds."""

    #: Whether reading may unpickle what it finds.
    unpickles = True

    def __init__(self, client: Any) -> None:
        self._client = client

    @abstractmethod
    def gets(self, key: str) -> tuple[bytes | None, Any]:
        """Answer the payload, None when there is none, and the token that :meth:`cas` wants."""

    def gats(self, key: str, expiry: int) -> tuple[bytes | None, Any, bool]:
        """Do as :meth:`gets`, and set the expiry; answer also whether that was done."""
        payload, token = self.gets(key)
        if payload is None:
            return None, None, False
        try:
            return payload, token, self.touch(key, expiry)
        except Exception as error:  # whatever the client raises: the session was read
            logger.warning("The expiry of a session could not be refreshed (%s).", type(error).__name__)
            return payload, token, False

    @abstractmethod
    def add(self, key: str, payload: bytes, expiry: int) -> bool:
        """Store unless the key is taken, and answer whether it was done."""

    @abstractmethod
    def cas(self, key: str, payload: bytes, expiry: int, token: Any) -> Outcome:
        """Store if nobody has stored since the token was told."""

    @abstractmethod
    def touch(self, key: str, expiry: int) -> bool:
        """Set the expiry alone; False when there is no such item."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete; absent is fine."""

    def remaining(self, key: str) -> int | None:
        """Answer the seconds that are left; -1 for no expiry, None when that cannot be told."""
        return None

    def statistics(self) -> Iterable[dict[Any, Any]]:
        """Answer what each server tells of itself."""
        return [statistics for _, statistics in self._client.get_stats()]


class _Connections:
    """Connections of which each serves one thread at a time, made by ``connect``."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._free: deque[Any] = deque()

    @contextmanager
    def borrow(self) -> Generator[Any]:
        """Lend a connection; one that was left in the middle of a command is not lent again."""
        try:
            connection = self._free.pop()
        except IndexError:
            connection = self._connect()
        yield connection
        self._free.append(connection)


class _Borrowing(Commands):
    """What pymemcache and pylibmc do in the same way."""

    _options: ClassVar[dict[str, Any]] = {}

    @abstractmethod
    def _borrow(self, key: str) -> Any:
        """Lend a connection to the server of a key; any, as each library has its own."""

    def gets(self, key: str) -> tuple[bytes | None, Any]:
        with self._borrow(key) as client:
            payload, token = client.gets(key)
        return _bytes(payload), token

    def add(self, key: str, payload: bytes, expiry: int) -> bool:
        with self._borrow(key) as client:
            return bool(client.add(key, payload, expiry, **self._options))

    def cas(self, key: str, payload: bytes, expiry: int, token: Any) -> Outcome:
        with self._borrow(key) as client:
            return _OUTCOMES[client.cas(key, payload, token, expiry, **self._options)]

    def touch(self, key: str, expiry: int) -> bool:
        with self._borrow(key) as client:
            return bool(client.touch(key, expiry, **self._options))

    def delete(self, key: str) -> None:
        with self._borrow(key) as client:
            client.delete(key, **self._options)


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
        self._connections: dict[Any, _Connections] = {}
        self.unpickles = not all(type(node.serde).__name__ == "LegacyWrappingSerde" for node in self._nodes())

    def gats(self, key: str, expiry: int) -> tuple[bytes | None, Any, bool]:
        # The protected methods, as pymemcache 4.0 has no public way to send this: of an answer over 4 KiB its
        # raw_command keeps the end alone, and it takes for the end what a payload may hold.
        command = b"gats %d" % expiry
        try:
            with self._borrow(key) as client:
                found = client._fetch_cmd(command, [key], True, key_prefix=client.key_prefix)
        except self._refusals:  # memcached before 1.5.3, twemproxy
            return super().gats(key, expiry)
        payload, token = found.get(key, (None, None))
        return _bytes(payload), token, payload is not None

    def remaining(self, key: str) -> int | None:
        try:
            with self._borrow(key) as client:
                command = b"mg " + client.key_prefix + key.encode() + b" t\r\n"
                (answer,) = client._misc_cmd([command], b"mg", False)
        except self._refusals:  # memcached before 1.6, proxies
            return None
        return int(answer[4:]) if answer.startswith(b"HD t") else None

    def statistics(self) -> Iterable[dict[Any, Any]]:
        return [node.stats() for node in self._nodes()]

    def _nodes(self) -> Iterable[Any]:
        return self._client.clients.values() if self._hashed else (self._client,)

    def _borrow(self, key: str) -> Any:
        client = self._client
        if self._hashed:
            client = client.clients.get(client.hasher.get_node(key))
            if client is None:
                raise self._library.MemcacheError("no server is left in the HashClient")
        if isinstance(client, self._library.PooledClient):
            return client.client_pool.get_and_release(destroy_on_fail=True)
        return self._connections.setdefault(client.server, _Connections(partial(_copy, client))).borrow()


class _Pylibmc(_Borrowing):
    """``Client`` of pylibmc, cloned for each thread, with ``cas`` switched on."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._not_found = import_module("pylibmc").NotFound
        self._connections = _Connections(self._clone)

    def gets(self, key: str) -> tuple[bytes | None, Any]:
        # Bytes that live through the call: pylibmc 1.6.3 frees its own copy of a str before it sends it, and then asks
        # for whatever another thread has put there, which may be the key of another session.
        return super().gets(key.encode())  # type: ignore[arg-type]

    def cas(self, key: str, payload: bytes, expiry: int, token: Any) -> Outcome:
        try:
            return super().cas(key, payload, expiry, token)
        except self._not_found:
            return Outcome.GONE

    def _borrow(self, key: str) -> Any:
        return self._connections.borrow()

    def _clone(self) -> Any:
        clone = self._client.clone()
        clone.behaviors = {"cas": True}
        return clone


class _PythonMemcached(Commands):
    """``Client`` of python-memcached, which keeps a connection for each thread itself.

    It answers an outage as an absence. Whenever it answers so, its servers are asked whether one of them is dead.
    """

    def gets(self, key: str) -> tuple[bytes | None, Any]:
        tokens: dict[Any, int] = {}
        with self._tokens(tokens):
            payload = _bytes(self._client.gets(key))
        self._be_sure(payload is not None)
        return payload, tokens or None

    def add(self, key: str, payload: bytes, expiry: int) -> bool:
        added = self._be_sure(self._client.add(key, payload, time=expiry))
        if not added and self.gets(key)[0] is None:
            raise OSError("memcached refused to store a session: it may be too large.")
        return added

    def cas(self, key: str, payload: bytes, expiry: int, token: Any) -> Outcome:
        with self._tokens(dict(token)):
            stored = self._be_sure(self._client.cas(key, payload, time=expiry))
        if stored:
            return Outcome.STORED
        found, present = self.gets(key)
        if found is not None and present == token:
            raise OSError("memcached refused to store a session: it may be too large.")
        return Outcome.GONE if found is None else Outcome.CHANGED

    def touch(self, key: str, expiry: int) -> bool:
        return self._be_sure(self._client.touch(key, expiry))

    def delete(self, key: str) -> None:
        self._be_sure(self._client.delete(key))

    @contextmanager
    def _tokens(self, tokens: dict[Any, int]) -> Generator[None]:
        """Let the client find its tokens here: its own memory of them is off by default, and grows without end."""
        client = self._client
        before = client.cache_cas, client.cas_ids
        client.cache_cas, client.cas_ids = True, tokens
        try:
            yield
        finally:
            client.cache_cas, client.cas_ids = before

    def _be_sure(self, answer: Any) -> bool:
        if not answer and any(server.deaduntil for server in self._client.servers):
            raise ConnectionError("python-memcached has lost a server.")
        return bool(answer)


_OUTCOMES = {True: Outcome.STORED, False: Outcome.CHANGED, None: Outcome.GONE}

#: Known by name, so that no library is imported that the app does not use.
_LIBRARIES: dict[str, type[_Pymemcache | _Pylibmc | _PythonMemcached]] = {
    "pymemcache.client.base.Client": _Pymemcache,
    "pymemcache.client.base.PooledClient": _Pymemcache,
    "pymemcache.client.hash.HashClient": _Pymemcache,
    "pylibmc.client.Client": _Pylibmc,
    "memcache.Client": _PythonMemcached,
}


def commands_of(client: object) -> Commands:
    """Answer the commands of a client.

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
    """Answer what a client made of a payload; what is not bytes was stored by somebody else, and cannot be decoded."""
    return value if value is None or isinstance(value, bytes) else b""
