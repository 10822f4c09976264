"""Redis, and what stands in for it."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import fakeredis
import redis
from flask import Flask

from lazysession.backend import Renew
from lazysession.backends.redis import RedisBackend

from .base import Store, noted_since

_tokens = itertools.count()


class RedisStore(Store):
    """A real Redis, counted by its own MONITOR: what a client sent, without the commands inside scripts."""

    label: str | None = "Redis"
    read, refresh, write, create, delete = ("EVALSHA",), ("EVALSHA",), ("EVALSHA",), ("SET",), ("DEL",)
    delete_seen = ("EVALSHA",)
    session_type = "redis"

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(url)
        self.client.flushall()
        self.load_scripts()

    def load_scripts(self) -> None:
        """Run each script once: the first time that a server sees one costs a trip of its own."""
        backend = RedisBackend(self.client)
        backend.read("nothing", Renew(1, 0))
        backend.replace("nothing", b"", None, b"")
        backend.delete("nothing", b"")

    def config(self) -> dict[str, Any]:
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": self.client}

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        names: list[str] = []
        token = f"end-of-count-{next(_tokens)}"
        with self.client.monitor() as monitor:
            yield names
            self.client.echo(token)
            for command in monitor.listen():
                if token in command["command"]:
                    break
                name = command["command"].split()[0]
                if command["client_type"] != "lua" and name not in {"CLIENT", "HELLO"}:
                    names.append(name.upper())

    def pass_time(self, app: Flask, seconds: float) -> None:
        for key in self.client.keys():
            self.client.pexpire(key, int(self.client.pttl(key) - seconds * 1000))

    def remaining(self, app: Flask, key: str) -> float:
        return float(self.client.pttl(key)) / 1000

    def payloads(self, app: Flask) -> dict[str, bytes]:
        return {key.decode(): self.client.get(key) for key in self.client.keys()}

    def put(self, app: Flask, key: str, payload: bytes, lifetime: float = 1000) -> None:
        self.client.set(key, payload, ex=int(lifetime))

    def remove(self, app: Flask, key: str) -> None:
        self.client.delete(key)


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
    """fakeredis, for the quick run; it proves no race. Its client is known by its methods only."""

    label = None

    def __init__(self) -> None:
        self.client = CountingClient(fakeredis.FakeRedis())
        self.load_scripts()

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        yield from noted_since(self.client.names)
