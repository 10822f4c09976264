"""Redis, and what stands in for it."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import fakeredis
import redis
from flask import Flask

from lazysession.backends.redis import store as redis_adapter

from .base import Store, added_since, backend_of, let_pass
from .wire import Wire

_COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n([A-Z]+)\r\n")


class RedisStore(Store):
    """A real Redis, counted on the wire: commands that are sent at once are one trip, and share its name."""

    label: str | None = "Redis"
    read, refresh, write, create, delete = ("GET",), ("GET+EVALSHA",), ("EVALSHA",), ("SET",), ("EVALSHA",)
    peek = touch = delete_seen = ("EVALSHA",)
    session_type = "redis"

    def __init__(self, url: str) -> None:
        self.server: Any = redis.Redis.from_url(url)
        self.server.flushall()
        self.load_scripts()
        self._wire = Wire(self.server.connection_pool.connection_kwargs["port"])
        self.client: Any = redis.Redis(port=self._wire.port)

    def load_scripts(self) -> None:
        """Show the server each script: the first time that it sees one costs a trip of its own."""
        for script in redis_adapter.DIGESTS:
            self.server.script_load(script)

    def config(self) -> dict[str, Any]:
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": self.client}

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        names: list[str] = []
        already = len(self._wire.trips)
        yield names
        trips = ["+".join(map(bytes.decode, _COMMAND.findall(trip))) for trip in self._wire.trips[already:]]
        names += [name for name in trips if not name.startswith(("CLIENT", "HELLO"))]

    def pass_time(self, app: Flask, seconds: float) -> None:
        let_pass(app, seconds)
        for key in self.server.keys():
            self.server.pexpire(key, int(self.server.pttl(key) - seconds * 1000))
        backend = backend_of(app)
        now = backend.clock
        backend.clock = lambda: now() + seconds

    def ttl(self, app: Flask, key: str) -> float:
        return float(self.server.pttl(key)) / 1000

    def payloads(self, app: Flask) -> dict[str, bytes]:
        return {key.decode(): self.server.get(key) for key in self.server.keys()}

    def remove(self, app: Flask, key: str) -> None:
        self.server.delete(key)

    def close(self) -> None:
        self.client.close()
        self.server.close()
        self._wire.close()


class CountingClient:
    """A client that is no subclass of redis.Redis and counts its commands."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.names: list[str] = []

    def execute_command(self, *command: Any, **options: Any) -> Any:
        self.names.append(command[0])
        return self._client.execute_command(*command, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class FakeRedisStore(RedisStore):
    """fakeredis, for the quick run; it proves no race. Its client is known by its methods only: it reads by script."""

    label = None
    read = refresh = ("EVALSHA",)

    def __init__(self) -> None:
        self.server = self.client = CountingClient(fakeredis.FakeRedis())
        self.load_scripts()

    def close(self) -> None:
        self.client.close()

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        yield from added_since(self.client.names)
