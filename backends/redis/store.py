"""Sessions in Redis, or in anything that speaks as Redis does: a key for each session, with a native expiry."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from lazysession.backend import Outcome, Problem, Record, Renew, WriteResult
from lazysession.backends.common import LocalExpiries
from lazysession.backends.redis.check import problems_of
from lazysession.backends.redis.connect import client_of
from lazysession.backends.redis.scripts import DELETE, DIGESTS, READ, REFRESH, REPLACE, TAKE, Scripts, is_about_scripts
from lazysession.backends.redis.transactions import Transactions, sends_in_its_own_way

logger = logging.getLogger("lazysession")

#: Seconds that a process believes what it saw of an expiry: others may shorten it, a failover may lose a refresh.
NOTED = 60.0


class RedisClient(Protocol):
    """What is asked of a client: :class:`redis.Redis`, RedisCluster, a Sentinel's master, Valkey's, fakeredis."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command; any, as the answer depends on the command."""
        ...


class _Expiry(NamedTuple):
    deadline: float
    believed_until: float


class RedisBackend:
    """Keep each payload under its key; a script refreshes where that is due, and another compares and replaces.

    A process notes for a minute when the sessions that it has seen expire. While a session is not due for a refresh by
    that note, reading it is a plain GET. Where scripts are refused, plain commands and WATCH do the same in more trips.

    :param client: a ready client. Its timeouts and retries are its own; ``decode_responses`` does no harm.
    :param clock: the present time, in seconds since the epoch.
    """

    drives: ClassVar[str | None] = "flask_session.redis.redis:RedisSessionInterface"

    def __init__(self, client: RedisClient, *, clock: Callable[[], float] = time.time) -> None:
        self.client = client
        self.clock = clock
        self._reads_plainly = _reads_plainly(client)
        self._local_expiries: LocalExpiries[_Expiry] = LocalExpiries()
        self._scripts = Scripts(self._send, self._now)
        self._plain = Transactions(client, self._send)

    @classmethod
    def from_interface(cls, interface: Any) -> RedisBackend:
        """Take over the client of Flask-Session's interface."""
        return cls(interface.client)

    @classmethod
    def from_setting(cls, value: object, **options: object) -> RedisBackend | None:
        """Make a backend of SESSION_REDIS: a client or a URL.

        :raises ValueError: for anything else, and for a URL that cannot be understood; no URL is repeated.
        :returns: None without a value: Flask-Session then uses the Redis on localhost.
        """
        if value is None:
            return None
        if isinstance(value, str):
            return cls(client_of(value))
        if not callable(getattr(value, "execute_command", None)):
            # Only a number is shown: what else it is may hold a password.
            shown = repr(value) if isinstance(value, (int, float)) else f"an object of type {type(value).__name__}"
            raise ValueError(f"{shown} is neither a Redis client nor a URL such as 'redis://localhost:6379/0'.")
        return cls(value)  # type: ignore[arg-type]  # checked by the line above

    @classmethod
    def left_to_flask_session(cls, value: object, **options: object) -> bool:
        """Return whether Flask-Session takes the client; any other it silently replaces by one on localhost."""
        try:
            from redis import Redis
        except ImportError:
            return False
        return isinstance(value, Redis)

    def read(self, key: str, renew: Renew | None) -> Record | None:
        """Read with GET, and in the same trip refresh with a script where a refresh may be due."""
        if renew is None or not self._reads_plainly:
            return self._read_by_script(key, renew)
        noted = self._noted(key)
        if noted is None or renew.due(noted):
            alone = self._scripts.refused or sends_in_its_own_way(self.client)
            return self._read_by_script(key, renew) if alone else self._read_and_refresh(key, renew)
        payload = self._send("GET", key)
        return None if payload is None else Record(payload, noted, refreshed=False)

    def _read_and_refresh(self, key: str, renew: Renew) -> Record | None:
        """Send two commands at once: payloads are slow to pass through a script, the larger the slower."""
        client: Any = self.client
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command("GET", key, NEVER_DECODE=True)
        pipeline.execute_command("EVALSHA", DIGESTS[REFRESH], 1, key, *_wish(renew))
        payload, answer = pipeline.execute(raise_on_error=False)
        if isinstance(payload, Exception):
            raise payload
        if payload is None:
            return None
        if is_about_scripts(answer):
            answer = self._refresh_after(answer, key, renew)
        return self._record(key, payload, (-1, -1) if isinstance(answer, Exception) else answer, renew)

    def _refresh_after(self, error: Exception, key: str, renew: Renew) -> Any:
        """Return what the script returns, or an error: the session was read."""
        try:
            return self._scripts.run_after(
                error,
                REFRESH,
                key,
                *_wish(renew),
                otherwise=lambda: self._refresh_plainly(key, self._send("PTTL", key), renew),
            )
        except Exception as failure:  # whatever the client raises
            return failure

    def _read_by_script(self, key: str, renew: Renew | None) -> Record | None:
        """Read through the server that is written to, past the replicas and caches that a client may ask."""
        answer = self._scripts.run(READ, key, *_wish(renew), otherwise=lambda: self._read_without_script(key, renew))
        return None if answer is None else self._record(key, answer[0], answer[1:], renew)

    def _read_without_script(self, key: str, renew: Renew | None) -> tuple[bytes, int, int] | None:
        payload, ttl = self._plain.read(key)
        return None if payload is None else (payload, *self._refresh_plainly(key, ttl, renew))

    def _refresh_plainly(self, key: str, ttl: int, renew: Renew | None) -> tuple[int, int]:
        """Refresh where that is due, in a trip of its own; return what the script returns.

        :param remaining: the milliseconds that the key has left.
        """
        if renew is None or ttl == -2 or not renew.due(ttl / 1000 if ttl >= 0 else None):
            return ttl, 0
        try:
            return ttl, int(self._send("PEXPIRE", key, _milliseconds(renew.lifetime)))
        except Exception:  # the client's own, of any class: the session was read
            return ttl, -1

    def _record(self, key: str, payload: bytes, answer: Sequence[int], renew: Renew | None) -> Record:
        ttl, mark = answer[0] / 1000, answer[1]
        if mark < 0:
            logger.warning("Redis refused to refresh the expiry of a session; the session itself was read.")
        self._note(key, renew.lifetime if mark > 0 and renew is not None else ttl)
        return Record(payload, ttl if ttl >= 0 else None, refreshed=mark > 0)

    def create(self, key: str, payload: bytes, lifetime: float) -> bool:
        """Create with SET NX."""
        created = self._send("SET", key, payload, "PX", _milliseconds(lifetime), "NX") is not None
        if created:
            self._note(key, lifetime)
        return created

    def replace(self, key: str, payload: bytes, lifetime: float | None, expected: bytes) -> WriteResult:
        """Compare and replace in one script; CHANGED comes with the payload found."""
        milliseconds = "" if lifetime is None else _milliseconds(lifetime)
        plain = ("SET", key, payload, "KEEPTTL") if lifetime is None else ("PSETEX", key, milliseconds, payload)
        answer = self._scripts.run(
            REPLACE, key, payload, expected, milliseconds, otherwise=lambda: self._plain.change(key, expected, plain)
        )
        replaced = self._replaced(answer)
        if lifetime is not None and replaced.outcome is Outcome.STORED:
            self._note(key, lifetime)
        return replaced

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Delete with one script, which compares before or tells what was there."""
        if expected is None:
            taken = self._scripts.run(TAKE, key, otherwise=lambda: self._plain.take(key))
            return WriteResult(Outcome.STORED, taken)
        answer = self._scripts.run(
            DELETE, key, expected, otherwise=lambda: self._plain.change(key, expected, ("UNLINK", key))
        )
        return self._replaced(answer)

    def check(self) -> Iterable[Problem]:
        """Look at the client's timeouts, and at the memory, the replicas and the disk of every master.

        :raises Exception: the client's own, when a server does not answer.
        """
        client: Any = self.client
        primaries = getattr(client, "get_primaries", None)
        nodes = [client] if primaries is None else [client.get_redis_connection(node) for node in primaries()]
        yield from dict.fromkeys(problem for node in nodes for problem in problems_of(node))

    def _noted(self, key: str) -> float | None:
        """Return the seconds that a session has left, as this process saw within the last minute."""
        note, now = self._local_expiries.get(key), self.clock()
        return note.deadline - now if note is not None and now < note.believed_until else None

    def _note(self, key: str, ttl: float) -> None:
        if self._reads_plainly:
            now = self.clock()
            self._local_expiries.put(key, _Expiry(now + ttl, now + NOTED))

    @staticmethod
    def _replaced(answer: int | bytes | None) -> WriteResult:
        if answer is None:
            return WriteResult(Outcome.MISSING)
        return WriteResult(Outcome.STORED) if answer == 1 else WriteResult(Outcome.CONFLICT, answer)  # type: ignore[arg-type]

    def _now(self) -> float:
        return self.clock()

    def _send(self, *command: Any) -> Any:
        # NEVER_DECODE: payloads are bytes, also for a client that was made with decode_responses=True.
        return self.client.execute_command(*command, NEVER_DECODE=True)


def _reads_plainly(client: Any) -> bool:
    """Return whether a GET asks the server that changes go to: no replica of a cluster, no cache of the client's."""
    plain = {kind.__name__ for kind in type(client).__mro__ if kind.__module__.partition(".")[0] in ("redis", "valkey")}
    if plain.isdisjoint(("Redis", "Valkey")):
        return False
    pool = client.connection_pool
    return getattr(pool, "cache", None) is None and getattr(pool, "is_master", True)


def _wish(renew: Renew | None) -> tuple[int | str, int | str]:
    """Return what a script is told of a refresh: the new expiry, and the least that is left without one."""
    if renew is None:
        return "", ""
    return _milliseconds(renew.lifetime), _milliseconds(renew.lifetime - renew.throttle)


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
