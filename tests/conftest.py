"""Fixtures: the stores, and apps on them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from servers import missing, running_redis
from stores import FakeRedisStore, FlaskSqlStore, RedisStore, SqlStore, prepare

from lazysession import LazySession

STORES = ("fakeredis", "redis", "sqlite", "flask-sqlalchemy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-servers", action="store_true", help="fail, not skip, where a server is missing")


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The URL of a real Redis; the test is skipped, or fails with --require-servers, where there is none."""
    reason = missing("redis-server")
    if reason is not None:
        (pytest.fail if request.config.getoption("--require-servers") else pytest.skip)(reason)
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Every store of this run."""
    if request.param == "redis":
        return RedisStore(request.getfixturevalue("redis_url"))
    if request.param == "fakeredis":
        return FakeRedisStore()
    return (SqlStore if request.param == "sqlite" else FlaskSqlStore)(tmp_path)


MakeApp = Callable[..., Flask]


@pytest.fixture
def make_app(store: Any) -> MakeApp:
    """A function that makes a lazy app on the store, from settings."""

    def make(**settings: Any) -> Flask:
        app = Flask("shop", static_folder=None)
        app.config.update(TESTING=True, SECRET_KEY="key", **store.config(), **settings)
        prepare(app)
        LazySession(app)
        return app

    return make


@pytest.fixture
def memory_app() -> Callable[..., Flask]:
    """A function that makes a lazy app on fakeredis, for tests where the store does not matter."""

    def make(**settings: Any) -> Flask:
        app = Flask("shop", static_folder=None)
        app.config.update(TESTING=True, SECRET_KEY="key", **FakeRedisStore().config(), **settings)
        LazySession(app)
        return app

    return make
