"""Sessions in Redis, or in a server that speaks its protocol: a key for each session, with a native expiry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

from lazysession.backend import Outcome, Problem, Record, TouchFailed, WriteResult, with_reason
from lazysession.backends.redis.check import facts_of, problems_of
from lazysession.backends.redis.connect import address_of, client_of
from lazysession.backends.redis.direct import DirectPath
from lazysession.backends.redis.plain_clients import reason_against
from lazysession.backends.redis.scripts import (
    DELETE,
    DIGESTS,
    READ,
    REPLACE,
    TAKE,
    TOUCH,
    TOUCH_IF_DUE,
    Scripts,
    is_about_scripts,
)
from lazysession.backends.redis.transactions import Transactions, sends_in_its_own_way


class RedisClient(Protocol):
    """What a client needs: :class:`redis.Redis`, RedisCluster, a Sentinel's master, Valkey's, fakeredis."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command; any, as the reply depends on the command."""
        ...


class RedisBackend:
    """Keep each payload under its key; scripts compare before they change a record, and read its ttl.

    Where scripts are refused, plain commands and WATCH do the same in more round trips.

    :param client: a ready client. Its timeouts and retries are its own; ``decode_responses`` does no harm.
    :param clock: the present time, in seconds since the epoch.
    """

    interface_class: ClassVar[str | None] = "flask_session.redis.redis:RedisSessionInterface"

    def __init__(self, client: RedisClient, *, clock: Callable[[], float] = time.time) -> None:
        self.client = client
        self.clock = clock
        self._reads_plainly = _reads_plainly(client)
        self._direct = DirectPath(client) if reason_against(client) is None else None
        self._scripts = Scripts(self._send, lambda: self.clock())  # noqa: PLW0108 - tests set the clock
        self._plain = Transactions(client, self._send)

    def explain(self, error: Exception) -> str:
        """Return the class of an error, the system's reason, and the address of the server if it is known."""
        return f"{with_reason(error)}{address_of(self.client)}"

    @classmethod
    def from_interface(cls, interface: Any) -> RedisBackend:
        """Take over the client of Flask-Session's interface."""
        return cls(interface.client)

    @classmethod
    def from_setting(cls, value: object, **options: object) -> RedisBackend | None:
        """Return a backend of SESSION_REDIS, which is a client or a URL.

        :raises ValueError: for anything else, and for a URL that cannot be understood; no URL is repeated.
        :returns: None where Flask-Session uses the client, and without a value: it then uses the Redis on localhost.
        """
        if value is None or _is_taken_by_flask_session(value):
            return None
        if isinstance(value, str):
            return cls(client_of(value))
        if not callable(getattr(value, "execute_command", None)):
            # Only a number is shown: what else it is may hold a password.
            shown = repr(value) if isinstance(value, (int, float)) else f"an object of type {type(value).__name__}"
            raise ValueError(f"{shown} is neither a Redis client nor a URL such as 'redis://localhost:6379/0'.")
        return cls(value)  # type: ignore[arg-type]  # checked by the line above

    def read(self, key: str) -> Record | None:
        """Return what GET finds; by a script where the client may send a GET to a replica or to a cache of its own."""
        if not self._reads_plainly:
            return self._read_by_script(key, "", "")
        payload = self._send("GET", key)
        return None if payload is None else Record(payload)

    def read_and_touch(self, key: str, ttl: float | None, unless_more_than: float) -> Record | None:
        """Read with the ttl, and in the same round trip move the expiry by a script, where that is due.

        :raises TouchFailed: when the record was read, and its expiry could not be moved.
        """
        if ttl is None:
            return self._read_by_script(key, "", "")
        times = _milliseconds(ttl), _milliseconds(unless_more_than)
        if self._reads_plainly and not self._scripts.refused and not sends_in_its_own_way(self.client):
            return self._read_by_pipeline(key, *times)
        return self._read_by_script(key, *times)

    def _read_by_pipeline(self, key: str, ttl: int, unless_more_than: int) -> Record | None:
        """Send two commands at once: payloads are slow to pass through a script, the larger the slower."""
        payload, answer = self._send_both(
            ("GET", key), ("EVALSHA", DIGESTS[TOUCH_IF_DUE], 1, key, ttl, unless_more_than)
        )
        if isinstance(payload, Exception):
            raise payload
        if payload is None:
            return None
        if isinstance(answer, Exception) and is_about_scripts(answer):
            answer = self._touch_after(answer, key, ttl, unless_more_than)
        left, touched = (-1, answer) if isinstance(answer, Exception) else answer
        return _record(left, touched, payload)

    def _touch_after(self, error: Exception, key: str, *times: int) -> Any:
        """Return what the script returns, or an error: the record was read."""

        def without_script() -> Any:
            return self._plain.touch_if_due(key, self._send("PTTL", key), *times)

        try:
            return self._scripts.run_after(error, TOUCH_IF_DUE, key, *times, otherwise=without_script)
        except Exception as failure:  # whatever the client raises
            return failure

    def _read_by_script(self, key: str, *times: int | str) -> Record | None:
        """Read from the server that changes go to.

        :param times: milliseconds to live from now, and how many left are enough; empty strings for no touch.
        """
        answer = self._scripts.run(READ, key, *times, otherwise=lambda: self._plain.read_and_touch(key, *times))
        return None if answer is None else _record(*answer)

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        """Create with SET NX."""
        return self._send("SET", key, payload, "PX", _milliseconds(ttl), "NX") is not None

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        """Compare and replace in one script; CONFLICT comes with the current payload."""
        milliseconds = "" if ttl is None else _milliseconds(ttl)
        command = ("SET", key, payload, "KEEPTTL") if ttl is None else ("PSETEX", key, milliseconds, payload)
        return self._change(REPLACE, key, expected, payload, milliseconds, command=command)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Delete with one script, which compares first, or returns what it deleted."""
        if expected is not None:
            return self._change(DELETE, key, expected, command=("UNLINK", key))
        removed = self._scripts.run(TAKE, key, otherwise=lambda: self._plain.take(key))
        return WriteResult(Outcome.MISSING if removed is None else Outcome.STORED, removed)

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        """Move the expiry with PEXPIRE; with an expected payload, in one script that compares first."""
        command = ("PEXPIRE", key, _milliseconds(ttl))
        if expected is None:
            return bool(self._send(*command))
        return self._change(TOUCH, key, expected, command[2], command=command).outcome is Outcome.STORED

    def _change(self, script: str, key: str, expected: bytes, *arguments: Any, command: tuple[Any, ...]) -> WriteResult:
        """Run a script that changes a record while it is the expected one.

        :param command: does the same without a script, once the payload has been compared.
        """
        answer = self._scripts.run(
            script, key, expected, *arguments, otherwise=lambda: self._plain.change(key, expected, command)
        )
        if answer is None:
            return WriteResult(Outcome.MISSING)
        return WriteResult(Outcome.STORED) if answer == 1 else WriteResult(Outcome.CONFLICT, answer)

    def check(self) -> Iterable[Problem]:
        """Return problems of the client's timeouts, and of the memory, the replicas and the disk of every master.

        The last ones say which path commands take, and whether a faster parser is there.

        :raises Exception: the client's own, when a server does not answer.
        """
        client: Any = self.client
        primaries = getattr(client, "get_primaries", None)
        nodes = [client] if primaries is None else [client.get_redis_connection(node) for node in primaries()]
        yield from dict.fromkeys(problem for node in nodes for problem in problems_of(node))
        yield from facts_of(client)

    def _send(self, *command: Any) -> Any:
        answers = None if self._direct is None else self._direct.send(command)
        if answers is None:
            # NEVER_DECODE: payloads are bytes, also for a client that was made with decode_responses=True.
            return self.client.execute_command(*command, NEVER_DECODE=True)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    def _send_both(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send two commands at once, and return what each returns, or its error."""
        answers = None if self._direct is None else self._direct.send(*commands)
        if answers is None:
            client: Any = self.client
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command, NEVER_DECODE=True)
            answers = pipeline.execute(raise_on_error=False)
        return answers


def _is_taken_by_flask_session(value: object) -> bool:
    """Return whether Flask-Session accepts the client; it silently replaces any other by one for localhost."""
    try:
        from redis import Redis
    except ImportError:
        return False
    return isinstance(value, Redis)


def _reads_plainly(client: Any) -> bool:
    """Return whether a GET reads from the master: not from a replica, nor from a cache of the client."""
    plain = {kind.__name__ for kind in type(client).__mro__ if kind.__module__.partition(".")[0] in ("redis", "valkey")}
    if plain.isdisjoint(("Redis", "Valkey")):
        return False
    pool = client.connection_pool
    return getattr(pool, "cache", None) is None and getattr(pool, "is_master", True)


def _record(left: int, touched: int | Exception, payload: bytes) -> Record:
    """Return the record of a script's reply.

    :param left: milliseconds that were left; -1 for no expiry.
    :param touched: 1 when the expiry was moved, 0 when that was not due; -1 or an error when it failed.
    """
    record = Record(payload, left / 1000 if left >= 0 else None, touched == 1)
    if touched in (0, 1):
        return record
    raise TouchFailed(record) from (touched if isinstance(touched, Exception) else PermissionError("PEXPIRE refused"))


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
