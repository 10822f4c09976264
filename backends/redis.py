"""Sessions in Redis, or in anything that speaks as Redis does: a key for each session, with a native expiry."""

from __future__ import annotations

import hashlib
import logging
from typing import Any, ClassVar, Protocol

from lazysession.backend import Outcome, Record, Renew, Replaced

logger = logging.getLogger("lazysession")

# Milliseconds throughout. A failed PEXPIRE (a read-only replica, say) must not fail the read, hence pcall.
_READ = """
local payload = redis.call('GET', KEYS[1])
if not payload then return false end
local remaining = redis.call('PTTL', KEYS[1])
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
        """Make a backend of SESSION_REDIS: a client or a URL (``redis://``, ``rediss://``, ``unix://``).

        :raises ValueError: for anything else.
        :returns: None without a value: Flask-Session then uses the Redis on localhost.
        """
        if value is None:
            return None
        if isinstance(value, str):
            from redis import Redis  # needed for URLs alone: a client may come from another library (Valkey's)

            return cls(Redis.from_url(value))
        if not callable(getattr(value, "execute_command", None)):
            raise ValueError(f"{value!r} is neither a Redis client nor a URL such as 'redis://localhost:6379/0'.")
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
        """Read with GET, or with a script that refreshes the expiry when that is due."""
        if renew is None:
            payload = self._send("GET", key)
            return None if payload is None else Record(payload, None, refreshed=False)
        oldest = _milliseconds(renew.lifetime - renew.throttle)
        answer = self._run(_READ, key, _milliseconds(renew.lifetime), oldest)
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
        answer = self._run(_REPLACE, key, payload, seen, "" if lifetime is None else _milliseconds(lifetime))
        return Replaced(_OUTCOMES[answer[0]], answer[1] if len(answer) > 1 else None)

    def delete(self, key: str) -> None:
        """Delete with DEL."""
        self._send("DEL", key)

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


_DIGESTS = {script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in (_READ, _REPLACE)}


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
