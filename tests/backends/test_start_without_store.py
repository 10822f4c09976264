"""An app starts while its store is down: what does not use the session is served, and the table is made later."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import click
import pytest
from cachelib import RedisCache
from flask import Flask, session
from flask.cli import ScriptInfo
from flask_sqlalchemy import SQLAlchemy
from pymongo import MongoClient
from sqlalchemy import create_engine, inspect

from lazysession import ConfigurationError, LazySession
from lazysession.backends.sqlalchemy import SqlAlchemyBackend
from tests.support.faults import FaultProxy
from tests.support.stores.base import LIVE, backend_of

_numbers = itertools.count()


def _flask_sqlalchemy(url: str) -> dict[str, Any]:
    return {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": SQLAlchemy(), "SQLALCHEMY_DATABASE_URI": url}


def _resource(port: int) -> Any:
    options = {"region_name": "us-west-2", "aws_access_key_id": "a", "aws_secret_access_key": "hush"}
    config = boto3.session.Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
    return boto3.resource("dynamodb", endpoint_url=f"http://127.0.0.1:{port}", config=config, **options)


def _postgresql(port: int) -> str:
    return f"postgresql+psycopg://postgres:hush@127.0.0.1:{port}/postgres?connect_timeout=2"


_MONGODB = "mongodb://127.0.0.1:{}/?serverSelectionTimeoutMS=2000&heartbeatFrequencyMS=500"

#: The fixture of the server, and the settings of an app whose store is on a port of 127.0.0.1.
STORES: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "postgresql": ("postgresql", lambda port: {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": _postgresql(port)}),
    "mariadb": (
        "mariadb",
        lambda port: {
            "SESSION_TYPE": "sqlalchemy",
            "SESSION_SQLALCHEMY": f"mysql+pymysql://root@127.0.0.1:{port}/mysql?connect_timeout=1&read_timeout=5",
        },
    ),
    "flask-sqlalchemy": ("postgresql", lambda port: _flask_sqlalchemy(_postgresql(port))),
    "dynamodb": (
        "dynalite",
        lambda port: {
            "SESSION_TYPE": "dynamodb",
            "SESSION_DYNAMODB": f"dynamodb://us-west-2/?endpoint_url=http://127.0.0.1:{port}&max_attempts=1",
        },
    ),
    "dynamodb-resource": ("dynalite", lambda port: {"SESSION_TYPE": "dynamodb", "SESSION_DYNAMODB": _resource(port)}),
    "mongodb": ("mongodb", lambda port: {"SESSION_TYPE": "mongodb", "SESSION_MONGODB": _MONGODB.format(port)}),
    "mongodb-client": (
        "mongodb",
        lambda port: {
            "SESSION_TYPE": "mongodb",
            "SESSION_MONGODB": MongoClient(_MONGODB.format(port), connect=False),
        },
    ),
    "redis": (
        "redis",
        lambda port: {"SESSION_TYPE": "redis", "SESSION_REDIS": f"redis://127.0.0.1:{port}/0?socket_timeout=1"},
    ),
    "memcached": (
        "memcached",
        lambda port: {"SESSION_TYPE": "memcached", "SESSION_MEMCACHED": f"memcached://127.0.0.1:{port}?timeout=1"},
    ),
    "cachelib-redis": (
        "redis",
        lambda port: {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": RedisCache("127.0.0.1", port)},
    ),
}
#: The stores that are contacted when the app starts, so that an outage is logged at once.
ASKED_AT_START = ("postgresql", "mariadb", "flask-sqlalchemy", "dynamodb", "dynamodb-resource")
#: Each app has a table of its own, where there are tables.
_TABLES = {"sqlalchemy": "SESSION_SQLALCHEMY_TABLE", "dynamodb": "SESSION_DYNAMODB_TABLE"}


_apps: list[Flask] = []


@pytest.fixture(autouse=True)
def close_all() -> Generator[None]:
    """Close what the apps of a test have opened."""
    yield
    while _apps:
        app = _apps.pop()
        backend: Any = backend_of(app)
        if "sqlalchemy" in app.extensions:
            with app.app_context():
                app.extensions["sqlalchemy"].engine.dispose()
        if isinstance(backend, SqlAlchemyBackend):
            backend._engine.dispose()
        cache = getattr(backend, "cache", None)
        client = getattr(cache, "_read_client", None) or getattr(backend, "client", None)
        if client is not None:
            client.close()


def make_app(settings: dict[str, Any]) -> Flask:
    app = Flask("shop")
    app.config.update(SECRET_KEY="key", **settings)
    if "SQLALCHEMY_DATABASE_URI" in settings:
        settings["SESSION_SQLALCHEMY"].init_app(app)
    LazySession(app)
    _apps.append(app)
    app.add_url_rule("/untouched", view_func=lambda: "served", endpoint="untouched")
    app.add_url_rule("/read", view_func=lambda: str(session.get("a")), endpoint="read")
    app.add_url_rule("/change", view_func=lambda: session.update(a=1) or "", endpoint="change")
    return app


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(request: pytest.FixtureRequest, store: str, monkeypatch: pytest.MonkeyPatch) -> Generator[FaultProxy]:
    """A proxy before the store's server."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    url = urlsplit(request.getfixturevalue(f"{STORES[store][0]}_url"))
    assert url.port is not None
    with FaultProxy(url.port) as proxy:
        yield proxy


def settings_on(store: str, port: int) -> dict[str, Any]:
    settings = STORES[store][1](port)
    table = _TABLES.get(settings["SESSION_TYPE"])
    return settings | ({table: f"started_{os.getpid()}_{next(_numbers)}"} if table else {})


def test_starts_without_its_store(store: str, proxy: FaultProxy, caplog: pytest.LogCaptureFixture) -> None:
    """While the store is down, requests that do not use the session are served; when it is there, all are."""
    settings = settings_on(store, proxy.port)
    proxy.mode = "refuse"
    with caplog.at_level(logging.WARNING):
        app = make_app(settings)
    started = [record for record in caplog.records if record.levelno == logging.WARNING]
    if store in ASKED_AT_START:
        (warning,) = started
        assert f"SESSION_{settings['SESSION_TYPE'].upper()}" in warning.getMessage()
    assert "hush" not in caplog.text
    browser = app.test_client()
    browser.set_cookie("session", LIVE)
    assert browser.get("/untouched").text == "served"
    assert browser.get("/read").status_code == 503
    assert browser.get("/change").status_code == 503
    assert browser.get("/untouched").text == "served"
    assert "hush" not in caplog.text
    proxy.mode = "pass"
    assert browser.get("/change").status_code == 200
    assert browser.get("/read").text == "1"


def test_later_requests_make_no_more_trips(store: str, proxy: FaultProxy) -> None:
    """An app that started without its store makes no more round trips than one that started with it."""
    trips = []
    for mode in ("pass", "refuse"):
        settings = settings_on(store, proxy.port)
        proxy.mode = mode
        app = make_app(settings)
        proxy.mode = "pass"
        browser = app.test_client()
        browser.get("/change")
        browser.get("/read")
        before = len(proxy.trips)
        for _ in range(3):
            assert browser.get("/read").text == "1"
        trips.append(len(proxy.trips) - before)
    if not store.startswith("mongodb"):  # whose client also checks the state of the server
        assert trips[0] == trips[1]
    before = len(proxy.trips)
    browser.get("/untouched")
    assert store.startswith("mongodb") or len(proxy.trips) == before


@pytest.mark.parametrize("store", ["postgresql", "mariadb", "dynamodb"])
def test_many_make_the_table_at_once(store: str, proxy: FaultProxy) -> None:
    """First uses at the same time, in several apps and threads, all work: the second finds the table."""
    settings = settings_on(store, proxy.port)
    proxy.mode = "refuse"
    apps = [make_app(dict(settings)) for _ in range(3)]
    proxy.mode = "pass"
    statuses: list[int] = []
    ready = threading.Barrier(6)

    def visit(app: Flask) -> None:
        ready.wait()
        statuses.append(app.test_client().get("/change").status_code)

    threads = [threading.Thread(target=visit, args=(app,)) for app in apps for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 6


def test_wrong_credentials(postgresql_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """An account that the database refuses counts as the store's fault; the log says what the database says."""
    port = urlsplit(postgresql_url).port
    app = make_app(
        {
            "SESSION_TYPE": "sqlalchemy",
            "SESSION_SQLALCHEMY": f"postgresql+psycopg://nobody:hush@127.0.0.1:{port}/postgres",
        }
    )
    assert 'role "nobody" does not exist' in caplog.text
    caplog.clear()
    browser = app.test_client()
    assert browser.get("/untouched").status_code == 200
    assert browser.get("/change").status_code == 503
    assert 'role "nobody" does not exist' in caplog.text
    result = app.test_cli_runner().invoke(args=["lazysession", "check"])
    assert result.exit_code == 3
    assert 'role "nobody" does not exist' in result.output
    assert "hush" not in caplog.text + result.output


@pytest.mark.parametrize(
    "settings",
    [
        {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": "postgresql+psycopg://me:hush@127.0.0.1/x?no_option=1"},
        {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": "postgresql//x"},
    ],
    ids=["option", "url"],
)
def test_wrong_settings_stop_the_start(settings: dict[str, Any]) -> None:
    """A setting that is wrong, however the store is, is an error at start-up."""
    with pytest.raises(ConfigurationError, match=f"SESSION_{settings['SESSION_TYPE'].upper()}") as caught:
        make_app(settings)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("store", ["dynamodb"])
def test_a_table_that_cannot_be(store: str, proxy: FaultProxy) -> None:
    """A name that DynamoDB does not accept for a table is an error at start-up."""
    settings = settings_on(store, proxy.port) | {"SESSION_DYNAMODB_TABLE": "no table"}
    with pytest.raises(ConfigurationError, match="SESSION_DYNAMODB cannot be used: 'no table' cannot name a table"):
        make_app(settings)


def test_commands_leave_the_table_to_migrations(tmp_path: Path) -> None:
    """``flask db upgrade`` finds no table made before its migration makes it."""
    url = f"sqlite:///{tmp_path}/shop.db"

    def tables() -> list[str]:
        return inspect(create_engine(url)).get_table_names()

    with click.Context(click.Command("upgrade"), info_name="upgrade", obj=ScriptInfo()):
        app = make_app({"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": url})
    assert tables() == []
    result = app.test_cli_runner().invoke(args=["lazysession", "check"])
    assert "There is no table sessions" in result.output
    assert app.test_client().get("/change").status_code == 200
    assert tables() == ["sessions"]


@pytest.mark.parametrize(
    ("command", "of_flask"), [("run", True), ("migrate", True), ("flask", True), ("worker", False), ("upgrade", False)]
)
def test_all_else_makes_the_table(tmp_path: Path, command: str, of_flask: bool) -> None:
    """``flask run`` and other servers; and ``flask db migrate``, which then has nothing to write down."""
    url = f"sqlite:///{tmp_path}/shop.db"
    with click.Context(click.Command(command), info_name=command, obj=ScriptInfo() if of_flask else None):
        make_app({"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": url})
    assert inspect(create_engine(url)).get_table_names() == ["sessions"]


def test_a_table_that_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A running app does not make its table again, which may be a migration's work; the log says what to do."""
    url = f"sqlite:///{tmp_path}/shop.db"
    app = make_app({"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": url})
    browser = app.test_client()
    assert browser.get("/change").status_code == 200
    with create_engine(url).begin() as connection:
        connection.exec_driver_sql("DROP TABLE sessions")
    assert browser.get("/read").status_code == 503
    assert browser.get("/read").status_code == 503
    assert caplog.text.count("The table sessions is missing") == 1
    assert "Restart" in caplog.text
    assert inspect(create_engine(url)).get_table_names() == []


def test_a_forked_worker_makes_the_table(tmp_path: Path) -> None:
    """Where the parent process could not make it, each worker does."""
    folder = tmp_path / "mounted"
    app = make_app({"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": f"sqlite:///{folder}/shop.db"})
    assert app.test_client().get("/change").status_code == 503
    folder.mkdir()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(app.test_client().get("/change").status_code != 200)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert inspect(create_engine(f"sqlite:///{folder}/shop.db")).get_table_names() == ["sessions"]
    assert app.test_client().get("/change").status_code == 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("settings", "name"),
    [({"SESSION_TYPE": "filesystem"}, "SESSION_FILE_DIR"), ({"SESSION_TYPE": "cachelib"}, "SESSION_CACHELIB")],
)
def test_a_directory_of_flask_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], name: str
) -> None:
    """The directory that Flask-Session makes itself stops the start, with the name of the setting."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "makedirs", lambda path: os.mkdir(tmp_path / "file" / "below"))
    with pytest.raises(ConfigurationError, match=name):
        make_app(settings)


def test_a_directory_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system that is not there counts as a store that is down; its directory is made at the first use."""
    make = Path.mkdir

    def fail(path: Path, *arguments: Any, **options: Any) -> None:
        if "sessions" in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", fail)
    app = make_app({"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": (tmp_path / "sessions").as_uri()})
    assert "SESSION_CACHELIB" in caplog.text
    browser = app.test_client()
    browser.set_cookie("session", LIVE)
    assert browser.get("/untouched").text == "served"
    assert browser.get("/change").status_code == 503
    monkeypatch.setattr(Path, "mkdir", make)
    assert browser.get("/change").status_code == 200
    assert browser.get("/read").text == "1"
    assert (tmp_path / "sessions").stat().st_mode & 0o777 == 0o700
