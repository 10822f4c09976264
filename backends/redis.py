"""Sessions in Redis, or in anything that speaks as Redis does: a key for each session, with a native expiry."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Protocol

from lazysession.backend import Outcome, Problem, Record, Renew, Replaced
from lazysession.backends._redis_urls import client_of, connection_of

logger = logging.getLogger("lazysession")

# Milliseconds throughout. A failed PEXPIRE (a read-only replica, say) must not fail the read, hence pcall.
_READ = """
local payload = redis.call('GET', KEYS[1])
if not payload then return false end
local remaining = redis.call('PTTL', KEYS[1])
if ARGV[1] == '' then return {payload, remaining, 0} end
local lifetime, oldest = tonumber(ARGV[1]), tonumber(ARGV[2])
if remaining >= 0 and remaining <= lifetime and remaining > oldest then return {payload, remaining, 0} end
local answer = redis.pcall('PEXPIRE', KEYS[1], lifetime)
if type(answer) == 'table' and answer.err then return {payload, remaining, -1} end
return {payload, remaining, 1}
"""

# An empty lifetime keeps what the key has left.
_REPLACE = """
local found = redis.call('GET', KEYS[1])
if not found then return {'gone'} end
if found ~= ARGV[2] then return {'changed', found} end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[1], 'KEEPTTL')
else redis.call('PSETEX', KEYS[1], ARGV[3], ARGV[1]) end
return {'stored'}
"""

_DELETE = """
local found = redis.call('GET', KEYS[1])
if not found then return {'gone'} end
if found ~= ARGV[1] then return {'changed', found} end
redis.call('UNLINK', KEYS[1])
return {'stored'}
"""

_OUTCOMES = {b"stored": Outcome.STORED, b"changed": Outcome.CHANGED, b"gone": Outcome.GONE}


class RedisClient(Protocol):
    """What is asked of a client: :class:`redis.Redis`, RedisCluster, a Sentinel's master, Valkey's, fakeredis."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command; any, as the answer depends on the command."""
        ...


class RedisBackend:
    """Keep each payload under its key; reading and refreshing is one script, and so is comparing and replacing.

    :param client: a ready client. Its timeouts and retries are its own; ``decode_responses`` does no harm.
    """

    drives: ClassVar[str | None] = "flask_session.redis.redis:RedisSessionInterface"

    def __init__(self, client: RedisClient) -> None:
        self.client = client

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
        """Tell whether Flask-Session takes the client; any other it silently replaces by one on localhost."""
        try:
            from redis import Redis
        except ImportError:
            return False
        return isinstance(value, Redis)

    def read(self, key: str, renew: Renew | None) -> Record | None:
        """Read with one script, which refreshes the expiry when that is due."""
        wish = (_milliseconds(renew.lifetime), _milliseconds(renew.lifetime - renew.throttle)) if renew else ("", "")
        answer = self._run(_READ, key, *wish)
        if answer is None:
            return None
        payload, remaining, refreshed = answer
        if refreshed < 0:
            logger.warning("Redis refused to refresh the expiry of a session; the session itself was read.")
        return Record(payload, remaining / 1000 if remaining >= 0 else None, refreshed=refreshed > 0)

    def create(self, key: str, payload: bytes, lifetime: float) -> bool:
        """Create with SET NX."""
        return self._send("SET", key, payload, "PX", _milliseconds(lifetime), "NX") is not None

    def replace(self, key: str, payload: bytes, lifetime: float | None, seen: bytes) -> Replaced:
        """Compare and replace in one script; CHANGED comes with the payload found."""
        milliseconds = "" if lifetime is None else _milliseconds(lifetime)
        return self._replaced(self._run(_REPLACE, key, payload, seen, milliseconds))

    def delete(self, key: str, seen: bytes | None = None) -> Replaced:
        """Delete with DEL, or compare and delete in one script."""
        if seen is None:
            self._send("DEL", key)
            return Replaced(Outcome.STORED)
        return self._replaced(self._run(_DELETE, key, seen))

    def check(self) -> Iterable[Problem]:
        """Look at the client's timeouts, and at the memory, the replicas and the disk of every master.

        :raises Exception: the client's own, when a server does not answer.
        """
        client: Any = self.client
        primaries = getattr(client, "get_primaries", None)
        nodes = [client] if primaries is None else [client.get_redis_connection(node) for node in primaries()]
        yield from dict.fromkeys(problem for node in nodes for problem in _problems(node))

    @staticmethod
    def _replaced(answer: list[bytes]) -> Replaced:
        return Replaced(_OUTCOMES[answer[0]], answer[1] if len(answer) > 1 else None)

    def _run(self, script: str, key: str, *arguments: Any) -> Any:
        """Run a script by its digest, or by its text where the server has not seen it (a restart, a failover)."""
        try:
            return self._send("EVALSHA", _DIGESTS[script], 1, key, *arguments)
        except Exception as error:
            if type(error).__name__ != "NoScriptError":  # by name: each client library has a class of its own
                raise
            return self._send("EVAL", script, 1, key, *arguments)

    def _send(self, *command: Any) -> Any:
        # NEVER_DECODE: payloads are bytes, also for a client that was made with decode_responses=True.
        return self.client.execute_command(*command, NEVER_DECODE=True)


_DIGESTS = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in (_READ, _REPLACE, _DELETE)
}


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


# Findings


def _problems(node: Any) -> Iterator[Problem]:
    pool = getattr(node, "connection_pool", None)
    if pool is not None and getattr(connection_of(node), "socket_timeout", 0) is None:
        yield Problem(
            "warning",
            "The client has no socket_timeout: when Redis hangs, requests hang with it, for as long.",
            "Make the client with socket_timeout=2 and socket_connect_timeout=2, or name it by a URL.",
        )
    info = _ask(node, "INFO")
    if not isinstance(info, dict):
        yield Problem(
            "warning",
            "Redis does not let this account see INFO: memory, replicas and disk were not looked at.",
            "Allow it with ACL SETUSER ... +info, or see that maxmemory-policy is noeviction.",
        )
        return
    yield from _problems_of_server(info)
    yield from _problems_of_memory(info)
    if info.get("role") == "master" and not info.get("connected_slaves") and not info.get("aof_enabled"):
        save = _ask(node, "CONFIG GET", "save")  # managed services forbid it, and see to their disks themselves
        if isinstance(save, dict) and save.get("save") == "":
            yield Problem(
                "warning",
                "Redis keeps nothing on disk and has no replica: a restart logs everyone out.",
                "Set appendonly yes, or save, or add a replica.",
            )


def _problems_of_server(info: dict[str, Any]) -> Iterator[Problem]:
    if int(str(info.get("redis_version", 6)).split(".")[0]) < 6:
        yield Problem(
            "error",
            "Redis is older than 6.0: changes in mode passive fail.",
            "Update Redis.",
        )
    if info.get("role") == "slave":
        yield Problem(
            "error",
            "The client talks to a replica: it reads, and every change fails.",
            "Name the master, or the Sentinels: redis+sentinel://HOST:26379/SERVICE.",
        )
    # With a single replica the remedy would be worse: each restart of it would make every change fail.
    if info.get("connected_slaves", 0) > 1 and "min_slaves_good_slaves" not in info:
        yield Problem(
            "warning",
            "A master that lost sight of its replicas goes on taking changes, which are lost when one takes over.",
            "Set min-replicas-to-write 1 and min-replicas-max-lag 10.",
        )


def _problems_of_memory(info: dict[str, Any]) -> Iterator[Problem]:
    limit, policy = info.get("maxmemory", 0), str(info.get("maxmemory_policy", "noeviction"))
    if not limit:
        return
    if policy != "noeviction":
        first = "any key" if policy.startswith("allkeys") else "keys with an expiry, as sessions are,"
        yield Problem(
            "warning",
            f"maxmemory-policy is {policy}: when memory runs out Redis removes {first} and people are logged out.",
            "Give sessions a Redis of their own, with memory for all of them and maxmemory-policy noeviction.",
        )
    elif info.get("used_memory", 0) > 0.8 * limit:
        yield Problem(
            "warning" if info["used_memory"] < limit else "error",
            f"Redis uses {info['used_memory'] / limit:.0%} of maxmemory; when it is full, every change fails.",
            "Raise maxmemory, or shorten PERMANENT_SESSION_LIFETIME.",
        )


def _ask(node: Any, *command: str) -> Any:
    """Answer what the server says, or None where it does not let this account ask."""
    try:
        return node.execute_command(*command)
    except Exception as error:
        if "ResponseError" not in {kind.__name__ for kind in type(error).__mro__}:
            raise
        return None
