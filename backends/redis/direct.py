"""The direct path: commands on an idle connection of the client's own pool, without ``execute_command``.

More than half of the instructions of redis-py's GET are not for sending and reading, but for its metrics, its retries
and its packing (callgrind, redis-py 8.1: 170,000, and 78,000 here). The direct path takes the same connections from the
same pool, and does what is left. Whatever is not the usual case, it leaves to ``execute_command``: a pool without an
idle connection, a connection that the server has closed, a fork.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from lazysession.backends.redis.plain_clients import library_of, measuring


class DirectPath:
    """Sends commands on idle connections of a client's pool, where that is safe.

    A connection is lent as the pool lends it: under the pool's lock, and counted as in use. So no connection is made
    here, and there are never more than the pool itself would make. If there is something to read on it, it is closed:
    the server has closed it, or an earlier answer was not read, which would be taken for the answer to this command:
    another visitor's session. (redis-py 8 itself does not look while it expects notifications, which is its default.)
    A connection whose answer was not read whole is closed as well.

    :param client: one without a reason against it (:mod:`lazysession.backends.redis.plain_clients`).
    """

    def __init__(self, client: Any) -> None:
        library = library_of(client)
        self._client = client
        self._pool = client.connection_pool
        self._execute_command = type(client).execute_command
        self._is_measured = measuring(library)
        # Redis Enterprise announces that it will move; redis-py from 7 on takes note of that.
        self._must_reconnect = getattr(client.connection_pool.connection_class, "should_reconnect", _never)
        # Before redis-py 6, and in Valkey's client, this method decides whether an error is one to repeat after.
        self._close = getattr(client, "_disconnect_raise", _disconnect)
        self._response_error: Any = import_module(f"{library}.exceptions").ResponseError

    def send(self, *commands: Sequence[Any]) -> list[Any] | None:
        """Send commands at once, and return their answers, of which some may be errors; None where it is not safe.

        Nothing was sent then. Strings in answers are bytes.

        :raises Exception: the client's own, after as many attempts as it would make.
        """
        connection = self._take() if self._is_safe() else None
        if connection is None:
            return None
        is_read = False
        try:
            answers = self._ask(connection, commands)
            is_read = True
        finally:
            if not is_read:
                connection.disconnect()
            self._give_back(connection)
        return answers

    def _is_safe(self) -> bool:
        """Return whether this process made the pool, and nothing was patched or switched on since the start."""
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
        if len(commands) == 1:  # raises the server's error: some clients repeat after it (retry_on_error)
            return [connection.read_response(disable_decoding=True)]
        answers = []
        for _ in commands:
            try:
                answers.append(connection.read_response(disable_decoding=True))
            except self._response_error as error:
                answers.append(error)
        return answers

    def _ask_again(self, connection: Any, commands: Sequence[Sequence[Any]], first: Exception) -> list[Any]:
        """Repeat after an error as the client would: it counts the first attempt, and may not repeat at all."""
        errors = [first]

        def attempt() -> list[Any]:
            if errors:
                raise errors.pop()
            return self._ask_once(connection, commands)

        def close(error: Exception) -> None:
            self._close(connection, error)

        try:
            answers: list[Any] = connection.retry.call_with_retry(attempt, close)
        except self._response_error as error:
            if len(commands) > 1:  # it is not an answer to one of them
                raise
            return [error]  # the whole answer: the connection stays
        return answers


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
    except Exception:  # whatever the client raises: the server has closed it
        return False
