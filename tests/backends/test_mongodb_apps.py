"""Sessions in MongoDB as an app sets them up: settings, start-up, round trips, and a fleet with Flask-Session."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import mongomock
import msgspec
import pymongo
import pytest
from flask import Flask
from flask_session import Session
from pymongo import MongoClient
from pymongo.errors import ServerSelectionTimeoutError

from lazysession import ConfigurationError, LazySession
from lazysession.backends.mongodb import MongoDBBackend
from lazysession.records.expiry import Refresh
from lazysession.testing import KEY
from tests.support.on_mongodb import COLLECT, DB, ONE_DAY, client_of, make_shop, sessions_of
from tests.support.refreshing import load
from tests.support.servers import free_port
from tests.support.stores.documents import MongoDBStore

pytestmark = pytest.mark.usefixtures("close_mongodb")

LIVE = "a" * 43


# Settings


def test_a_server_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """The app starts, and each verb raises the client's own error."""
    backend = MongoDBBackend.from_setting(f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=50")
    assert backend is not None
    assert caplog.messages == []
    with backend.client:
        for verb in (
            partial(backend.read, KEY),
            partial(backend.touch, KEY, 1000),
            partial(backend.create, KEY, b"1", 1000),
            partial(backend.replace, KEY, b"1", 1000, b"0"),
            partial(backend.delete, KEY),
            partial(backend.delete, KEY, b"1"),
            lambda: list(backend.check()),
        ):
            with pytest.raises(ServerSelectionTimeoutError):
                verb()


def test_start_up_does_not_wait() -> None:
    """No server is contacted when an app starts."""
    started = time.monotonic()
    backend = MongoDBBackend.from_setting(f"mongodb://127.0.0.1:{free_port()}/")
    assert backend is not None
    assert time.monotonic() - started < 3
    assert backend.client.options.server_selection_timeout == 5


def test_the_apps_own_client_is_not_opened_at_start_up(mongodb_url: str) -> None:
    """Workers are forked after start-up, and PyMongo's clients must not be forked once they are connected."""
    sessions_of(mongodb_url)
    backend = MongoDBBackend.from_setting(mongodb_url)
    assert backend is not None
    assert backend.client.nodes == frozenset()
    backend.read(KEY)
    assert len(backend.client.nodes) == 1
    backend.client.close()


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("", {}, "flask_session.sessions"),
        ("shop", {}, "shop.sessions"),
        ("shop", {"db": "other", "collect": "visits"}, "other.visits"),
        ("admin", {}, "flask_session.sessions"),
        ("shop", {"unknown": 1}, "shop.sessions"),
    ],
)
def test_names(path: str, options: dict[str, Any], expected: str) -> None:
    """SESSION_MONGODB_DB, then the URL's path (unless it is there to log in), then Flask-Session's default."""
    url = f"mongodb://127.0.0.1:{free_port()}/{path}?serverSelectionTimeoutMS=1"
    backend = MongoDBBackend.from_setting(url, **options)
    assert backend is not None
    assert backend.store.full_name == expected


def test_a_service_name() -> None:
    """``mongodb+srv://`` is accepted, and looked up when it is needed."""
    backend = MongoDBBackend.from_setting("mongodb+srv://me:hush@db.shop.example/shop?retryWrites=true")
    assert backend is not None
    assert backend.store.full_name == "shop.sessions"
    assert backend.client.options.server_selection_timeout == 5


def test_nothing_is_left_to_flask_session() -> None:
    """Without a value it is the MongoDB on localhost, as with Flask-Session, whose interface connects when built."""
    with pytest.warns(RuntimeWarning, match="SESSION_MONGODB is not set"):
        backend = MongoDBBackend.from_setting(None)
    assert backend is not None
    assert backend.store.full_name == "flask_session.sessions"


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (42, {}, "class int is neither"),
        ({}, {}, "class dict is neither"),
        (mongomock.MongoClient()["shop"], {}, "class Database is neither"),
        (MongoClient(connect=False)["shop"], {}, "class Database is neither"),
        (pymongo.AsyncMongoClient(connect=False), {}, "class AsyncMongoClient is neither"),
        ("localhost", {}, "starts with mongodb://"),
        ("", {}, "starts with mongodb://"),
        ("redis://me:hush@localhost/0", {}, "starts with mongodb://"),
        ("mongodb://me:hush@localhost:port/", {}, "does not take the URL"),
        ("mongodb://me:hu:sh@localhost/", {}, "does not take the URL"),
        ("mongodb://me:hush@localhost/a b", {}, "does not take the URL"),
        ("mongodb+srv://me:hush@db.shop.example:1/", {}, "does not take the URL"),
        (MongoClient(connect=False), {"db": "a.b"}, "'a.b' and 'sessions' cannot name"),
        (MongoClient(connect=False), {"collect": "$"}, "cannot name"),
        ("mongodb://localhost/", {"db": 42}, "neither"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_malformed_settings(value: Any, options: dict[str, Any], message: str) -> None:
    """What can be neither client nor URL is an error that says what is allowed, and never shows a password."""
    with pytest.raises(ValueError, match=r".") as error:
        MongoDBBackend.from_setting(value, **options)
    assert message in str(error.value)
    assert "hush" not in str(error.value)
    app = Flask("shop")
    names = {f"SESSION_MONGODB_{name.upper()}": option for name, option in options.items()}
    app.config.update(SESSION_TYPE="mongodb", SESSION_MONGODB=value, **names)
    with pytest.raises(ConfigurationError, match=r"SESSION_MONGODB cannot be used|SESSION_MONGODB_DB is 42"):
        LazySession(app)


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        (lambda backend: backend.read(KEY), ["find"]),
        (lambda backend: load(backend, Refresh(1000, 900)), ["findAndModify"]),
        (load, ["findAndModify"]),
        (lambda backend: backend.create(f"{KEY}2", b"1", 1000), ["insert"]),
        (lambda backend: backend.create(KEY, b"1", 1000), ["insert"]),
        (lambda backend: backend.replace(KEY, b"2", 1000, b"1"), ["update"]),
        (lambda backend: backend.replace(KEY, b"2", 1000, b"0"), ["update", "find"]),
        (lambda backend: backend.replace(f"{KEY}2", b"2", 1000, b"0"), ["update", "find"]),
        (lambda backend: backend.delete(KEY), ["findAndModify"]),
        (lambda backend: backend.delete(KEY, b"1"), ["delete"]),
        (lambda backend: backend.touch(KEY, 1000), ["update"]),
        (lambda backend: backend.touch(KEY, 1000, b"1"), ["update"]),
    ],
    ids=[
        "read",
        "not due",
        "due",
        "create",
        "taken",
        "replace",
        "changed",
        "gone",
        "delete",
        "delete of what is expected",
        "touch",
        "touch of what is expected",
    ],
)
def test_round_trips_of_a_verb(mongodb_url: str, verb: Callable[[Any], Any], names: list[str]) -> None:
    """Each verb is one command, a read that refreshes too; the reason why nothing was replaced is one more."""
    client, commands = client_of(mongodb_url)
    sessions = sessions_of(mongodb_url)
    sessions.create_index("id", unique=True)
    backend = MongoDBBackend(client, sessions, unique=True)
    backend.create(KEY, b"1", 1000)
    with commands.counted() as sent:
        verb(backend)
    assert sent == names


@pytest.mark.parametrize(
    ("cookie", "passed", "path", "names"),
    [
        (LIVE, 0, "/untouched", []),
        (LIVE, ONE_DAY / 2, "/static/on_mongodb.py", []),
        (LIVE, 0, "/nowhere", []),
        (LIVE, 0, "/keys", ["find"]),
        (LIVE, ONE_DAY / 2, "/keys", ["findAndModify"]),
        (LIVE, 0, "/set/a/2", ["find", "update"]),
        (LIVE, 0, "/set/a/1", ["find"]),
        (None, 0, "/set/a/1", ["insert"]),
        (LIVE, 0, "/clear", ["findAndModify"]),
        (None, 0, "/keys", []),
    ],
)
def test_round_trips_of_a_request(
    mongodb_url: str, cookie: str | None, passed: float, path: str, names: list[str]
) -> None:
    """What each kind of request costs at the store."""
    store = MongoDBStore(mongodb_url)
    app = make_shop(LazySession, SESSION_MONGODB=store.client)
    store.put(app, f"session:{LIVE}", msgspec.msgpack.encode({"_permanent": True, "a": "1"}), ONE_DAY)
    store.pass_time(app, passed)
    client = app.test_client()
    if cookie is not None:
        client.set_cookie("session", cookie)
    with store.counted() as sent:
        client.get(path, buffered=True)
    store.close()
    assert sent == names


@pytest.mark.parametrize("format", ["msgpack", "json"])
@pytest.mark.parametrize("by_url", [False, True], ids=["client", "url"])
@pytest.mark.parametrize("order", [(Session, LazySession), (LazySession, Session)], ids=["theirs first", "ours first"])
@pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")  # Flask-Session asks for it
def test_a_session_is_used_by_both(mongodb_url: str, format: str, by_url: bool, order: tuple[type, type]) -> None:
    """One writes it, the other reads and changes it, the first reads it again and ends it."""
    sessions_of(mongodb_url)
    values = {Session: client_of(mongodb_url)[0], LazySession: mongodb_url if by_url else client_of(mongodb_url)[0]}
    apps = [
        make_shop(extension, SESSION_MONGODB=values[extension], SESSION_SERIALIZATION_FORMAT=format)
        for extension in order
    ]
    first, second = (app.test_client() for app in apps)
    sid = first.get("/set/a/1").text
    second.set_cookie("session", sid)
    assert second.get("/keys").text == "_permanent,a"
    assert second.get("/set/b/1").text == sid
    assert first.get("/keys").text == "_permanent,a,b"
    assert first.get("/set/c/1").text == sid
    assert second.get("/keys").text == "_permanent,a,b,c"
    second.get("/clear")
    assert first.get("/keys").text == "_permanent"
    assert client_of(mongodb_url)[0][DB][COLLECT].count_documents({}) == 0
    if by_url:
        apps[order.index(LazySession)].session_interface.client.close()  # type: ignore[attr-defined]
