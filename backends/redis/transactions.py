"""The verbs of the Redis adapter without scripts, for accounts and servers that run none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn

from lazysession.backends.redis.connect import is_made_later
from lazysession.backends.redis.scripts import Send, class_names, is_refused

logger = logging.getLogger("lazysession")

#: How often a change is tried. Each refresh of the same session by another request makes an attempt fail, too.
ATTEMPTS = 10
#: The errors of a cluster's node that does not have the key any more, or is down.
_ELSEWHERE = {"AskError", "ReadOnlyError", "ClusterDownError", "ConnectionError", "TimeoutError"}


class Transactions:
    """Reads, compares and changes keys with plain commands.

    A change watches its key, reads it, and changes it in a transaction (WATCH, GET, MULTI, EXEC), which the server
    refuses if the key was changed in between: three round trips instead of one.

    :param client: any, as it is of one library or another.
    :param send: sends a command by the client's own ``execute_command``.
    """

    def __init__(self, client: Any, send: Send) -> None:
        self._client = client
        self._send = send
        self._logged = False

    def read(self, key: str) -> tuple[bytes | None, int]:
        """Return the payload of a key and its milliseconds left, as PTTL returns them; in one trip where possible."""
        if sends_in_its_own_way(self._client) or not hasattr(self._client, "pipeline"):
            payload = self._send("GET", key)
            return payload, -2 if payload is None else self._send("PTTL", key)
        payload, ttl = self._on_master(key, lambda node: _read_at_once(node, key))
        return payload, ttl

    def read_and_touch(self, key: str, *times: int | str) -> tuple[int, int | Exception, bytes] | None:
        """Return what the script of the same purpose returns; empty strings for no touch."""
        payload, left = self.read(key)
        return None if payload is None else (*self.touch_if_due(key, left, *times), payload)

    def touch_if_due(
        self, key: str, left: int, ttl: int | str, unless_more_than: int | str
    ) -> tuple[int, int | Exception]:
        """Move the expiry where that is due, in a round trip of its own; return what the script returns, or the error.

        :param left: milliseconds that the key has left, as PTTL returns them.
        """
        if left == -2 or isinstance(ttl, str) or int(unless_more_than) < left <= ttl + 1000:
            return left, 0
        try:
            return left, int(self._send("PEXPIRE", key, ttl))
        except Exception as error:  # whatever the client raises: the record was read
            return left, error

    def change(self, key: str, expected: bytes, command: tuple[Any, ...]) -> int | bytes | None:
        """Send a command if the payload is still the expected one, atomically.

        :returns: what the scripts return: 1 when it is done, the current payload when that is another, None for none.
            After the last attempt, the expected payload: other requests keep refreshing it, and the caller may retry.
        :raises PermissionError: where transactions are refused too, or use other keys than the client does.
        """
        if not hasattr(self._client, "pipeline"):
            self._refuse(None)
        for _ in range(ATTEMPTS):
            try:
                done, current = self._on_master(key, lambda node: _attempt(node, key, expected, command))
            except _WatchRefused as refused:
                self._send("GET", key)  # raises the client's own error where it is the key that is refused
                self._refuse(refused.__cause__)
            if done:
                return 1
            if current != expected:
                return self._as_the_client_sees(key, expected, current)
        return expected

    def take(self, key: str) -> bytes | None:
        """Delete a key, and return what was stored."""
        try:
            taken: bytes | None = self._send("GETDEL", key)
            return taken
        except Exception as error:
            if not is_refused(error):  # GETDEL is of Redis 6.2
                raise
        current: bytes | None = None
        for _ in range(ATTEMPTS):
            current = self._send("GET", key)
            try:
                if current is None or self.change(key, current, ("UNLINK", key)) == 1:
                    return current
            except PermissionError:
                break
        self._send("UNLINK", key)
        return current

    def _as_the_client_sees(self, key: str, expected: bytes, current: bytes | None) -> bytes | None:
        """Return the current payload, by the keys that the client itself uses.

        A client with an ``execute_command`` of its own may put a prefix before each key, which a pipeline does not do.
        """
        if sends_in_its_own_way(self._client):
            current = self._send("GET", key)
            if current == expected:
                self._refuse(None)
        return current

    def _refuse(self, cause: BaseException | None) -> NoReturn:
        message = (
            "No session can be changed: Redis runs no scripts for this account, and WATCH cannot replace them. "
            "Allow one of the two with ACL SETUSER ... +eval +evalsha, or +@transaction."
        )
        if not self._logged:  # the response is a 503, which need not show the error
            self._logged = True
            logger.error(message)
        raise PermissionError(message) from cause

    def _on_master(self, key: str, work: Callable[[Any], Any]) -> Any:
        """Do work with a client of the server that changes go to: in a cluster, the master of the key."""
        client = self._client
        if not hasattr(client, "get_node_from_key"):
            return work(client)
        for attempts_left in (1, 0):
            try:
                return work(client.get_redis_connection(client.get_node_from_key(key)))
            except Exception as error:
                if not attempts_left or _ELSEWHERE.isdisjoint(class_names(error)):
                    raise
            self._send("EXISTS", key)  # makes the cluster's client find the new master
        raise AssertionError("unreachable")


class _WatchRefused(Exception):
    """WATCH is refused to the account, or unknown."""


def _read_at_once(node: Any, key: str) -> list[Any]:
    pipeline = node.pipeline(transaction=False)
    pipeline.execute_command("GET", key, NEVER_DECODE=True)
    pipeline.execute_command("PTTL", key)
    answers: list[Any] = pipeline.execute(raise_on_error=False)  # otherwise the error's message would show the key
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _attempt(node: Any, key: str, expected: bytes, command: tuple[Any, ...]) -> tuple[bool, bytes | None]:
    """Try to change a key once; return whether it was changed, and what was stored before."""
    current: bytes | None = expected
    with node.pipeline(transaction=True) as pipeline:
        try:
            _watch(pipeline, key)
            current = pipeline.execute_command("GET", key, NEVER_DECODE=True)
            if current != expected:
                return False, current
            pipeline.multi()
            pipeline.execute_command(*command)
            pipeline.execute()
        except Exception as error:
            if type(error).__name__ == "WatchError":  # by name: each client library has a class of its own
                return False, current
            _hide_command(error)
            raise
    return True, current


def _watch(pipeline: Any, key: str) -> None:
    try:
        pipeline.watch(key)
    except Exception as error:
        if is_refused(error):
            raise _WatchRefused from error
        raise


def _hide_command(error: Exception) -> None:
    """Take the command out of an error's message, where a pipeline puts it: it holds the session's id and data."""
    message, found, reason = str(error).partition(" of pipeline caused error: ")
    if found and message:
        error.args = (reason, *error.args[1:])


def sends_in_its_own_way(client: Any) -> bool:
    """Return whether a client's ``execute_command`` is not its library's: a subclass, or patched, at any time.

    A pipeline does not call it, and so would leave out a key prefix of the client's own, for example.
    """
    if is_made_later(client):  # by us
        return False
    module = getattr(getattr(type(client), "execute_command", None), "__module__", None) or ""
    return "execute_command" in vars(client) or module.partition(".")[0] not in ("redis", "valkey", "fakeredis")
