"""Sessions behind a PgBouncer in transaction mode, where each statement may reach another connection of the server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask, session
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import make_url

from lazysession import LazySession
from lazysession.backends.sqlalchemy import SqlAlchemyBackend
from tests.support.stores.base import backend_of

pytestmark = pytest.mark.usefixtures("close_connections")

DRIVERS = ("psycopg", "psycopg2")


def with_driver(url: str, driver: str) -> str:
    """Return the URL for another driver."""
    return make_url(url).set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)


def by_url(url: str) -> dict[str, Any]:
    """Configure the sessions by a URL."""
    return {"SESSION_SQLALCHEMY": url}


def by_url_with_timeouts(url: str) -> dict[str, Any]:
    """Configure the sessions by a URL that sets what libpq alone reads."""
    return by_url(f"{url}?connect_timeout=3&keepalives_idle=10&tcp_user_timeout=5000")


def by_object(url: str) -> dict[str, Any]:
    """Configure the sessions by the app's own engine, which prepares statements as psycopg does by default."""
    return {"SESSION_SQLALCHEMY": SQLAlchemy(), "SQLALCHEMY_DATABASE_URI": url}


@pytest.mark.parametrize("configured", [by_url, by_url_with_timeouts, by_object])
@pytest.mark.parametrize("driver", DRIVERS)
def test_concurrent_clients(
    pgbouncer_url: str, driver: str, configured: Callable[[str], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """Eight clients at once change, read, rotate and end their sessions, and each request finds its own."""
    app = Flask("shop", static_folder=None)
    app.config.update(SECRET_KEY="key", SESSION_TYPE="sqlalchemy", **configured(with_driver(pgbouncer_url, driver)))
    database = app.config["SESSION_SQLALCHEMY"]
    if isinstance(database, SQLAlchemy):
        database.init_app(app)
    LazySession(app)
    app.add_url_rule("/count", view_func=lambda: session.update(n=session.get("n", 0) + 1) or str(session["n"]))
    app.add_url_rule("/read", view_func=lambda: str(session.get("n")), endpoint="read")
    regenerate = app.session_interface.regenerate  # type: ignore[attr-defined]
    app.add_url_rule("/rotate", view_func=lambda: regenerate(session) or str(session["n"]), endpoint="rotate")
    app.add_url_rule("/end", view_func=lambda: session.clear() or "", endpoint="end")

    def visit(_number: int) -> list[str]:
        client = app.test_client()
        paths = [*["count", "read"] * 8, "rotate", "end", "read"]
        return [client.get(f"/{path}").text for path in paths]

    expected = [str(number) for number in range(1, 9) for _ in range(2)] + ["8", "", "None"]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(visit, range(8)))
    assert answers == [expected] * 8
    assert caplog.text == ""


def shop(url: str) -> Flask:
    """Return an app with sessions on its Flask-SQLAlchemy object."""
    app, database = Flask("shop", static_folder=None), SQLAlchemy()
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=database, SQLALCHEMY_DATABASE_URI=url)
    database.init_app(app)
    LazySession(app)
    return app


@pytest.mark.parametrize("configured", ["url", "object"])
def test_no_statement_is_prepared(postgresql_url: str, configured: str) -> None:
    """Asked of the server itself: a connection that has read one session many times holds no prepared statement."""
    backend = (
        SqlAlchemyBackend.from_setting(postgresql_url) if configured == "url" else backend_of(shop(postgresql_url))
    )
    assert backend is not None
    for _ in range(10):
        backend.read("nobody")
    with backend._engine.connect() as connection:
        prepared = connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
    assert prepared == 0


def test_the_apps_own_engine_prepares_as_before(postgresql_url: str) -> None:
    """Only the sessions' engine is changed: the app's connections keep the threshold that they have."""
    app = shop(postgresql_url)
    database = app.config["SESSION_SQLALCHEMY"]
    with app.app_context():
        backend_of(app).read("nobody")
        driver: Any = database.session.connection().connection.dbapi_connection
        assert driver.prepare_threshold == 5
        database.session.remove()
