"""The stores that the tests run on, each with a way to count its round trips and to let time pass."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import fakeredis
import redis
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, event, text

from lazysession.backend import Renew
from lazysession.backends.redis import RedisBackend
from lazysession.backends.sqlalchemy import utc_now

LIVE = "a" * 43  # ids of the shape that Flask-Session makes
_tokens = itertools.count()


class RedisStore:
    """A real Redis, counted by its own MONITOR: what a client sent, without the commands inside scripts."""

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

    def __init__(self) -> None:
        self.client = CountingClient(fakeredis.FakeRedis())
        self.load_scripts()

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        names: list[str] = []
        already = len(self.client.names)
        yield names
        names += self.client.names[already:]


class SqlStore:
    """A SQLite file, counted by SQLAlchemy's events; time passes on the backend's clock."""

    read, refresh, write, create, delete = ("SELECT",), ("SELECT", "UPDATE"), ("UPDATE",), ("INSERT",), ("DELETE",)
    delete_seen = ("DELETE",)
    session_type = "sqlalchemy"

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/sessions.db"

    def config(self) -> dict[str, Any]:
        return {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": self.url}

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        names: list[str] = []

        def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            names.append(statement.split()[0].upper())

        event.listen(Engine, "before_cursor_execute", count)
        try:
            yield names
        finally:
            event.remove(Engine, "before_cursor_execute", count)

    def pass_time(self, app: Flask, seconds: float) -> None:
        backend = app.session_interface.keeper.backend  # type: ignore[attr-defined]
        now = backend.clock
        backend.clock = lambda: now() + timedelta(seconds=seconds)

    def _execute(self, app: Flask, statement: str, **values: Any) -> Any:
        backend = app.session_interface.keeper.backend  # type: ignore[attr-defined]
        with backend._engine.connect() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else None

    def remaining(self, app: Flask, key: str) -> float:
        backend = app.session_interface.keeper.backend  # type: ignore[attr-defined]
        return float(backend.read(key, None).remaining)

    def payloads(self, app: Flask) -> dict[str, bytes]:
        return {row.session_id: row.data for row in self._execute(app, "SELECT session_id, data FROM sessions")}

    def put(self, app: Flask, key: str, payload: bytes, lifetime: float = 1000) -> None:
        expiry = (utc_now() + timedelta(seconds=lifetime)).strftime("%Y-%m-%d %H:%M:%S.%f")
        insert = "INSERT INTO sessions (session_id, data, expiry) VALUES (:key, :payload, :expiry)"
        self._execute(app, insert, key=key, payload=payload, expiry=expiry)

    def remove(self, app: Flask, key: str) -> None:
        self._execute(app, "DELETE FROM sessions WHERE session_id = :key", key=key)


class FlaskSqlStore(SqlStore):
    """The same through a Flask-SQLAlchemy object, whose interface Flask-Session builds."""

    def config(self) -> dict[str, Any]:
        return {
            "SESSION_TYPE": "sqlalchemy",
            "SESSION_SQLALCHEMY": SQLAlchemy(),
            "SQLALCHEMY_DATABASE_URI": self.url,
        }


def prepare(app: Flask) -> None:
    """Do what an app with Flask-SQLAlchemy does before it sets up its sessions."""
    database = app.config.get("SESSION_SQLALCHEMY")
    if isinstance(database, SQLAlchemy):
        database.init_app(app)
