"""The direct path: commands on an idle connection of the client's own pool, without ``execute_command``.

More than half of the instructions of redis-py's GET are for its metrics, its retries and its packing of the command
(callgrind, redis-py 8.1: 170,000 in all; 78,000 on the direct path). The direct path takes the same connections from
the same pool, and only sends and reads. In special cases it sends nothing, and ``execute_command`` is called instead:
the pool has no idle connection, the server has closed the connection, or the process was forked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from lazysession.backends.redis.plain_clients import library_of, measuring


class DirectPath:
    """Sends commands on idle connections of a client's pool, where that is safe.

    A connection is taken as the pool itself takes it: under the pool's lock, and counted as in use. No connection is
    made here, so there are never more than the pool itself would make. A connection with unread data is closed: either
    the server has closed it, or an earlier response was not read. This command would get that response, which may be
    another visitor's session. (redis-py 8 does not check this while it expects notifications, which is its default.) A
    connection whose response was not read completely is closed as well.

    :param client: one for which ``reason_against`` of :mod:`lazysession.backends.redis.plain_clients` returns None.
    """

    def __init__(self, client: Any) -> None:
        library = library_of(client)
        self._client = client
        self._pool = client.connection_pool
        self._execute_command = type(client).execute_command
        self._is_measured = measuring(library)
        # Redis Enterprise announces that a server will move; redis-py 7 and later then mark the connection.
        self._must_reconnect = getattr(client.connection_pool.connection_class, "should_reconnect", _never)
        # Before redis-py 6, and in Valkey's client, this method decides after which errors a command is repeated.
        self._close = getattr(client, "_disconnect_raise", _disconnect)
        self._response_error: Any = import_module(f"{library}.exceptions").ResponseError

    def send(self, *commands: Sequence[Any]) -> list[Any] | None:
        """Send commands in one packet, and return their responses; None if that is not safe, and nothing was sent.

        Strings in responses are bytes. The server's error for a command is returned as its response.

        :raises Exception: the client's own, after as many attempts as it would make.
        """
        connection = self._take() if self._is_safe() else None
        if connection is None:
            return None
        is_read = False
        try:
            responses = self._ask(connection, commands)
            is_read = True
        finally:
            if not is_read:
                connection.disconnect()
            self._give_back(connection)
        return responses

    def _is_safe(self) -> bool:
        """Return whether this process made the pool, and the client was neither patched nor instrumented since."""
        client = self._client
        return (
            client.connection_pool is self._pool
            and self._pool.pid == os.getpid()
            and type(client).execute_command is self._execute_command
            and "execute_command" not in client.__dict__
            and not self._is_measured()
        )

    def _take(self) -> Any:
        """Return an idle connection that is ready for a command, or None."""
        pool = self._pool
        with pool._lock:
            try:
                connection = pool._available_connections.pop()
            except IndexError:
                return None
            pool._in_use_connections.add(connection)
        is_ready = False
        try:
            is_ready = _is_ready(connection)
        finally:
            if not is_ready:
                connection.disconnect()
                self._give_back(connection)  # execute_command takes it next, and connects it anew
        return connection if is_ready else None

    def _give_back(self, connection: Any) -> None:
        pool = self._pool
        if self._must_reconnect(connection):
            connection.disconnect()
        with pool._lock:
            try:
                pool._in_use_connections.remove(connection)
            except KeyError:  # the pool was reset meanwhile, which does not wait for the lock
                return
            pool._available_connections.append(connection)

    def _ask(self, connection: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
        try:
            return self._ask_once(connection, commands)
        except Exception as error:
            return self._ask_again(connection, commands, error)

    def _ask_once(self, connection: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
        connection.send_packed_command((_packed(commands),))
        if len(commands) == 1:  # the server's error is raised: some clients repeat after it (retry_on_error)
            return [connection.read_response(disable_decoding=True)]
        responses = []
        for _ in commands:
            try:
                responses.append(connection.read_response(disable_decoding=True))
            except self._response_error as error:
                responses.append(error)
        return responses

    def _ask_again(self, connection: Any, commands: Sequence[Sequence[Any]], first: Exception) -> list[Any]:
        """Repeat as the client would after an error: the first attempt counts, and it may not repeat at all."""
        errors = [first]

        def attempt() -> list[Any]:
            if errors:
                raise errors.pop()
            return self._ask_once(connection, commands)

        def close(error: Exception) -> None:
            self._close(connection, error)

        try:
            responses: list[Any] = connection.retry.call_with_retry(attempt, close)
        except self._response_error as error:
            if len(commands) > 1:  # the error does not belong to one of them
                raise
            return [error]  # the response was read completely: the connection stays open
        return responses


def _never(_: Any) -> bool:
    return False


def _disconnect(connection: Any, _: Exception) -> None:
    connection.disconnect()


def _packed(commands: Sequence[Sequence[Any]]) -> bytes:
    """Return commands as the protocol sends them; the library's own method for this takes three times as long.

    Example: ``("GET", "a")`` is sent as ``*2 $3 GET $1 a``, with CRLF after each word.
    """
    parts = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for word in command:
            encoded = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(encoded), encoded))
    return b"".join(parts)


def _is_ready(connection: Any) -> bool:
    """Return whether a connection is open and has nothing to read."""
    if connection._sock is None:
        return False
    try:
        return not connection.can_read()
    except Exception:  # of any class: the server has closed the connection
        return False
