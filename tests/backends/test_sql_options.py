"""Options of the sessions' own engine: in the URL those of the driver, in a setting those of SQLAlchemy."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from flask_sqlalchemy import SQLAlchemy

from lazysession import ConfigurationError, LazySession
from lazysession.backends.sqlalchemy import SqlAlchemyBackend

pytestmark = pytest.mark.usefixtures("close_connections")

#: No server listens there: what is wrong with a URL is known before anything connects.
SERVERS = {
    "psycopg": "postgresql+psycopg://user:SECRET@127.0.0.1:1/shop",
    "psycopg2": "postgresql+psycopg2://user:SECRET@127.0.0.1:1/shop",
    "pymysql": "mysql+pymysql://user:SECRET@127.0.0.1:1/shop",
    "sqlite": "sqlite:///SECRET.db",
}


def refused(value: Any, **settings: Any) -> str:
    """Return the message about a setting that cannot work."""
    app = Flask("shop")
    app.config.update(
        SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=value, SQLALCHEMY_DATABASE_URI="sqlite://", **settings
    )
    if isinstance(value, SQLAlchemy):
        value.init_app(app)
    with pytest.raises(ConfigurationError) as caught:
        LazySession(app)
    said = str(caught.value)
    assert said.startswith("SESSION_SQLALCHEMY cannot be used: ")
    assert "\n" not in said
    assert "SECRET" not in said
    return said


@pytest.mark.parametrize("driver", SERVERS)
@pytest.mark.parametrize("parameter", ["pool_size", "max_overflow", "pool_pre_ping", "pool_recycle"])
def test_a_parameter_of_the_pool_in_the_url(driver: str, parameter: str) -> None:
    """It is named, with the setting where it belongs, and no password."""
    said = refused(f"{SERVERS[driver]}?{parameter}=5")
    assert f"'{parameter}' does not belong in the URL" in said
    assert f"SESSION_SQLALCHEMY_ENGINE_OPTIONS = {{'{parameter}': ...}}" in said


@pytest.mark.parametrize("driver", SERVERS)
def test_a_parameter_that_the_driver_does_not_know(driver: str) -> None:
    """A misspelled parameter is named at start-up, not by each request."""
    known = "pysqlite" if driver == "sqlite" else driver
    assert f"the URL has 'conect_timeout', which the driver {known} does not know" in refused(
        f"{SERVERS[driver]}?conect_timeout=5"
    )


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pymysql"])
def test_a_timeout_that_is_no_number(driver: str) -> None:
    """The parameter is named, also where the driver would read it only when it connects."""
    assert "'connect_timeout' in the URL is not a number" in refused(f"{SERVERS[driver]}?connect_timeout=soon")


def test_a_prepare_threshold_in_the_url() -> None:
    """It is refused with the reason: sessions prepare no statements, and the text of a URL is no threshold."""
    assert "Leave it out (nothing is prepared then)" in refused(f"{SERVERS['psycopg']}?prepare_threshold=0")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u@h/d?application_name=shop&sslmode=require&host=a:1&host=b:2&target_session_attrs=read-write",
        "postgresql+psycopg://u@h/d?connect_timeout=2&read_timeout=1&keepalives_idle=10&tcp_user_timeout=5000",
        "postgresql+psycopg2://u@h/d?application_name=shop&options=-c%20statement_timeout%3D5000",
        "mysql+pymysql://u@h/d?charset=utf8mb4&ssl_ca=ca.pem&connect_timeout=1&read_timeout=2&write_timeout=2",
        "sqlite:///a.db?timeout=2&check_same_thread=false",
        "sqlite:///file:shared?mode=memory&cache=shared&uri=true",
    ],
)
def test_parameters_of_the_driver_are_taken(url: str) -> None:
    """Parameters that the driver and SQLAlchemy know are passed on."""
    from lazysession.backends.sqlalchemy.connect import engine_of_url

    assert engine_of_url(url) is not None


def test_options_of_the_engine(tmp_path: Path, postgresql_url: str) -> None:
    """The pool is as large as the setting says, and its connections are made with the arguments in it."""
    options = {"pool_size": 2, "max_overflow": 1, "connect_args": {"application_name": "sessions"}}
    backend = SqlAlchemyBackend.from_setting(postgresql_url, engine_options=options)
    assert backend is not None
    with backend._engine.connect() as connection:
        pool: Any = backend._engine.pool
        assert (pool.size(), pool._max_overflow) == (2, 1)
        assert connection.exec_driver_sql("SHOW application_name").scalar_one() == "sessions"
        driver: Any = connection.connection.dbapi_connection
        assert driver.info.get_parameters()["connect_timeout"] == "5"  # a default that the setting left alone
    assert options["connect_args"] == {"application_name": "sessions"}


def test_preparing_can_be_asked_for(postgresql_url: str) -> None:
    """A threshold in the setting is psycopg's own argument, and is kept."""
    options = {"connect_args": {"prepare_threshold": 3}}
    backend = SqlAlchemyBackend.from_setting(postgresql_url, engine_options=options)
    assert backend is not None
    with backend._engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        assert driver.prepare_threshold == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("pool_size=5", "must be a dict such as {'pool_size': 10}, not str"),
        ({5: "pool_size"}, "must be a dict"),
        ({"pool_size": "5"}, "has 'pool_size' = '5'; it must be a number"),
        ({"poolsize": 5}, "poolsize"),
        ({"isolation_level": "SERIALIZABLE"}, "may not have 'isolation_level'"),
        ({"hide_parameters": False}, "may not have 'hide_parameters'"),
        ({"connect_args": "timeout=5"}, "'connect_args' that are not a dict"),
    ],
)
def test_wrong_options_of_the_engine(tmp_path: Path, options: Any, message: str) -> None:
    """They are refused at start-up, by the name of the setting and of the option."""
    said = refused(f"sqlite:///{tmp_path}/sessions.db", SESSION_SQLALCHEMY_ENGINE_OPTIONS=options)
    assert "SESSION_SQLALCHEMY_ENGINE_OPTIONS" in said
    assert message in said


def test_options_and_an_object() -> None:
    """Next to a Flask-SQLAlchemy object the setting would do nothing, so it is an error."""
    said = refused(SQLAlchemy(), SESSION_SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 5})
    assert "set SQLALCHEMY_ENGINE_OPTIONS" in said


def test_a_pool_that_is_all_in_use(postgresql_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A request that gets no connection in time is a 503, and the log names the setting; then all is well again."""
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05}
    app = Flask("shop")
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=postgresql_url)
    app.config["SESSION_SQLALCHEMY_ENGINE_OPTIONS"] = options
    LazySession(app)
    app.add_url_rule("/", view_func=lambda: session.update(n=session.get("n", 0) + 1) or str(session["n"]))
    client, backend = app.test_client(), app.session_interface.handler.backend  # type: ignore[attr-defined]
    assert client.get("/").text == "1"
    with backend._engine.connect():
        assert client.get("/").status_code == 503
    assert "waited 0.05 s for a connection, and 1 of its pool were in use" in caplog.text
    assert "SESSION_SQLALCHEMY_ENGINE_OPTIONS" in caplog.text
    assert client.get("/").text == "2"


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_how_long_a_full_pool_is_waited_for(request: pytest.FixtureRequest, server: str) -> None:
    """Left alone, as long as a new connection, and not SQLAlchemy's 30 s on top of the timeouts of the server."""
    backend = SqlAlchemyBackend.from_setting(request.getfixturevalue(f"{server}_url"))
    assert backend is not None
    pool: Any = backend._engine.pool
    assert pool.timeout() == 5


def test_more_threads_than_connections(tmp_path: Path) -> None:
    """Each connection is borrowed for one statement, so a few are enough for many threads."""
    backend = SqlAlchemyBackend.from_setting(f"sqlite:///{tmp_path}/sessions.db")
    assert backend is not None
    read: list[bool] = []

    def work(number: int) -> None:
        backend.create(str(number), b"1", 60)
        read.append(backend.read(str(number)) is not None)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [True] * 40


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:shop?mode=memory&uri=true"])
@pytest.mark.parametrize("options", [{}, {"pool_recycle": 600}])
def test_a_database_in_memory_is_as_old_as_the_process(
    url: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its only connection is never recycled, whatever the options say: the database would end with it."""
    app = Flask("shop")
    app.config["SESSION_SQLALCHEMY_ENGINE_OPTIONS"] = options
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=url)
    LazySession(app)
    app.add_url_rule("/", view_func=lambda: str(session.setdefault("name", "Ada")))
    app.add_url_rule("/name", "name", lambda: session.get("name", "visitor"))
    client = app.test_client()
    assert client.get("/").text == "Ada"
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    response = client.get("/name")
    assert (response.status_code, response.text) == (200, "Ada")
