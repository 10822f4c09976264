"""Tests of a small shop, as its author would write them: docs/guides/testing.rst shows the parts of this file."""

# ruff: noqa: E402 - the guide shows imports where they are used

# begin: app
from __future__ import annotations

from typing import Any

from flask import Flask, session

from lazysession import LazySession


def create_app(**config: Any) -> Flask:
    """Make the shop; tests pass settings of their own."""
    app = Flask(__name__)
    app.config["SESSION_TYPE"] = "redis"
    app.config["SESSION_REDIS"] = "redis://localhost:6379/0"
    app.config["LAZYSESSION_SKIP_PATHS"] = ["/health"]
    app.config.update(config)
    LazySession(app)

    @app.get("/")
    def home() -> str:
        return "Teas"

    @app.post("/cart/<tea>")
    def add(tea: str) -> str:
        session["cart"] = [*session.get("cart", []), tea]
        return "Added"

    @app.post("/checkout")
    def checkout() -> str:
        session["to_pay"] = 5 * len(session.get("cart", []))
        return f"{session['to_pay']} euros"

    @app.get("/health")
    def health() -> str:
        session["seen"] = True  # a mistake: this request skips its session
        return "fine"

    return app


# end: app
# begin: fixtures
from pathlib import Path

import pytest
from cachelib import SimpleCache
from fakeredis import FakeRedis, FakeServer
from flask.testing import FlaskClient


@pytest.fixture
def server() -> FakeServer:
    """A Redis in memory, new for each test."""
    return FakeServer()


@pytest.fixture
def app(server: FakeServer) -> Flask:
    """The shop with that Redis."""
    redis = FakeRedis(server=server)
    return create_app(TESTING=True, SESSION_REDIS=redis, LAZYSESSION_SKIPPED_WRITE="raise")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser without cookies."""
    return app.test_client()


# end: fixtures
# begin: other stores
def test_in_memory() -> None:
    """The shop works with a cache in the memory of this process."""
    app = create_app(SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache(threshold=10_000), SESSION_REDIS=None)
    assert app.test_client().post("/cart/oolong").text == "Added"


def test_in_a_file(tmp_path: Path) -> None:
    """The shop works with an SQLite file."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    app = create_app(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=url, SESSION_REDIS=None)
    assert app.test_client().post("/cart/oolong").text == "Added"


# end: other stores
# begin: stored
def test_checkout(client: FlaskClient) -> None:
    """The checkout stores what the cart costs."""
    with client.session_transaction() as stored:
        stored["cart"] = ["oolong", "sencha"]
    assert client.post("/checkout").text == "10 euros"
    with client.session_transaction() as stored:
        assert stored["to_pay"] == 10


# end: stored
# begin: unused
from collections.abc import Generator
from contextlib import contextmanager

from lazysession import session_opened


@contextmanager
def uses_of(app: Flask) -> Generator[list[str]]:
    """List the uses of sessions in this block: the mode of each, and the rule that decided it."""
    found: list[str] = []

    def record_use(app: Flask, session: Any, mode: str, rule: str) -> None:
        found.append(f"{mode} ({rule})")

    with session_opened.connected_to(record_use, sender=app):
        yield found


def test_the_start_page_does_not_use_the_session(app: Flask, client: FlaskClient) -> None:
    """Not even if the visitor has one."""
    client.post("/cart/oolong")
    with uses_of(app) as found:
        response = client.get("/")
    assert found == []
    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers


def test_a_change_uses_it_once(app: Flask, client: FlaskClient) -> None:
    """Adding to the cart uses the session, in mode normal."""
    with uses_of(app) as found:
        client.post("/cart/oolong")
    assert found == ["normal (default)"]


# end: unused
# begin: skipped
from lazysession import SessionReadOnly


def test_the_health_check_writes_nothing(client: FlaskClient) -> None:
    """The mistake in health() is an error in tests."""
    with pytest.raises(SessionReadOnly):
        client.get("/health")


# end: skipped
# begin: overlap
def test_a_tea_that_is_added_during_the_checkout(app: Flask, client: FlaskClient) -> None:
    """The checkout is refused if another tab changes the cart at the same time: the price would be wrong."""
    client.post("/cart/oolong")
    other_tab = app.test_client()
    cookie = client.get_cookie("session")
    assert cookie is not None
    other_tab.set_cookie("session", cookie.value)
    statuses: list[int] = []

    def during_the_checkout(app: Flask, session: Any, mode: str, rule: str) -> None:
        if not statuses:  # the request of the other tab loads its session, too
            statuses.append(0)
            statuses[0] = other_tab.post("/cart/sencha").status_code

    with session_opened.connected_to(during_the_checkout, sender=app):
        response = client.post("/checkout")
    assert statuses == [200]
    assert response.status_code == 409
    with client.session_transaction() as stored:
        assert stored["cart"] == ["oolong", "sencha"]
        assert "to_pay" not in stored


# end: overlap
# begin: expired
def test_a_session_that_has_expired(client: FlaskClient, server: FakeServer) -> None:
    """A visitor whose session has expired begins with an empty cart."""
    client.post("/cart/oolong")
    FakeRedis(server=server).flushall()
    assert client.post("/checkout").text == "0 euros"


def test_the_lifetime(client: FlaskClient, server: FakeServer) -> None:
    """The store keeps a session for the lifetime of the config."""
    client.post("/cart/oolong")
    redis = FakeRedis(server=server)
    [key] = redis.keys("session:*")
    days = redis.ttl(key) / 86400
    assert 30.9 < days <= 31


# end: expired
# begin: down
def test_while_the_store_is_down(client: FlaskClient, server: FakeServer) -> None:
    """Only requests that need the store fail, and the cart is there again afterwards."""
    client.post("/cart/oolong")
    server.connected = False
    assert client.get("/").status_code == 200
    assert client.post("/checkout").status_code == 503
    server.connected = True
    assert client.post("/checkout").text == "5 euros"


# end: down
