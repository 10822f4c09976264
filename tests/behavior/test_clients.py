"""Clients of the app's own: what cannot be used is refused at start-up, and commands are sent in the client's way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pymongo
import pytest
import redis
import redis.asyncio
import valkey
import valkey.asyncio
from flask import Flask, session
from flask_sqlalchemy import SQLAlchemy

from lazysession import ConfigurationError, LazySession


class FlaskRedis:
    """Stands for an extension's client before its init_app."""

    def init_app(self, app: Flask) -> None: ...


class Cache:
    """Stands for a client of memcached, of DynamoDB or of a cache whose methods are coroutines."""

    async def get(self, key: str) -> None: ...

    async def get_item(self, **options: Any) -> None: ...

    set = delete = get


class FakeEngine:
    """Stands for an engine whose driver is not installed here."""

    dialect = SimpleNamespace(is_async=True, driver="asyncpg")


CANNOT_SERVE = [
    ("redis", redis.asyncio.Redis(), "asynchronous"),
    ("redis", valkey.asyncio.Valkey(), "asynchronous"),
    ("redis", redis.Redis, "class"),
    ("redis", valkey.Valkey, "class"),
    ("redis", redis.asyncio.Redis, "class"),
    ("redis", FlaskRedis(), "init_app"),
    ("mongodb", pymongo.AsyncMongoClient(connect=False), "asynchronous"),
    ("mongodb", pymongo.MongoClient, "class"),
    ("sqlalchemy", "sqlite+aiosqlite:///sessions.db", "asynchronous"),
    ("sqlalchemy", "postgresql+asyncpg://localhost/app", "asynchronous"),
    ("sqlalchemy", SQLAlchemy, "class"),
    ("memcached", Cache(), "asynchronous"),
    ("memcached", Cache, "class"),
    ("dynamodb", Cache(), "asynchronous"),
    ("cachelib", Cache(), "asynchronous"),
    ("cachelib", Cache, "class"),
]


@pytest.mark.parametrize(
    ("session_type", "value", "word"),
    CANNOT_SERVE,
)
def test_what_cannot_serve(session_type: str, value: Any, word: str) -> None:
    """An asynchronous client, a class or an extension that is not set up is named, with the setting."""
    app = Flask("shop")
    app.config.update(SESSION_TYPE=session_type, **{f"SESSION_{session_type.upper()}": value})
    with pytest.raises(ConfigurationError, match=f"SESSION_{session_type.upper()} .*{word}"):
        LazySession(app)


def test_an_engine_over_an_asynchronous_driver() -> None:
    """A Flask-SQLAlchemy object is checked as well."""

    class Database:
        engines = {None: FakeEngine()}

    app = Flask("shop")
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=Database())
    with pytest.raises(ConfigurationError, match=r"SESSION_SQLALCHEMY .*asynchronous"):
        LazySession(app)


def shop(client: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SESSION_TYPE="redis", SESSION_REDIS=client)
    LazySession(app)
    app.add_url_rule("/set", "set", lambda: session.update(user="ada") or "")
    app.add_url_rule("/get", "get", lambda: str(session.get("user")))
    app.add_url_rule("/out", "out", lambda: session.clear() or "")
    return app


def prefixed(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Put a tenant before the key of a command; a script's key comes after its text and their number."""
    place = 3 if arguments[0] in ("EVAL", "EVALSHA") else 1
    return (*arguments[:place], f"tenant:{arguments[place]}", *arguments[place + 1 :])


class Tenant(redis.Redis):
    """A client with a key prefix of its own."""

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        return super().execute_command(*prefixed(arguments), **options)


@pytest.mark.parametrize("how", ["subclass", "instance", "instance patched late"])
def test_every_command_goes_through_execute_command(how: str, redis_url: str) -> None:
    """Another worker finds the session under the client's own key, and refreshes it there."""
    server = redis.Redis.from_url(redis_url)
    server.flushall()

    def patch(client: Any) -> None:
        plain = client.execute_command
        client.execute_command = lambda *arguments, **options: plain(*prefixed(arguments), **options)

    browsers = []
    for _ in range(2):
        client: Any = Tenant.from_url(redis_url) if how == "subclass" else redis.Redis.from_url(redis_url)
        if how == "instance":
            patch(client)
        app = shop(client)
        if how == "instance patched late":
            patch(client)
        browsers.append(app.test_client())
    browsers[0].get("/set")
    cookie = browsers[0].get_cookie("session")
    assert cookie is not None
    browsers[1].set_cookie("session", cookie.value)
    (key,) = server.keys()
    server.expire(key, 1000)
    assert browsers[1].get("/get").text == "ada"
    assert server.ttl(key) > 1000
    browsers[1].get("/out")
    assert server.keys() == [] or all(each.startswith(b"tenant:") for each in server.keys())
