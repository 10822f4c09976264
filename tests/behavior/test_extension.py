"""Setting apps up: every way in, several apps, and start-up errors that say what to do."""

from __future__ import annotations

import gc
import hashlib
import re
import sys
import weakref
from collections.abc import Callable
from typing import Any

import cachelib
import fakeredis
import pytest
import redis
from flask import Flask, session
from flask.sessions import NullSession, SecureCookieSession, SecureCookieSessionInterface, SessionInterface
from flask_session import Session
from flask_session.cachelib import CacheLibSession
from flask_session.redis import RedisSession, RedisSessionInterface

from lazysession import ConfigurationError, LazySession, SessionUnavailable, registry
from lazysession.backends.generic import GenericBackend
from lazysession.backends.serialized import SerializedBackend
from lazysession.interface import LazySessionInterface
from lazysession.serverside import ServerSide
from lazysession.wrapped import Wrapped
from tests.support.stores import CountingClient

MakeApp = Callable[..., Flask]


def counting(app: Flask) -> Flask:
    app.add_url_rule("/", view_func=lambda: session.update(n=session.get("n", 0) + 1) or str(session["n"]))
    app.add_url_rule("/untouched", "untouched", lambda: "")
    return app


def plain(**settings: Any) -> Flask:
    app = Flask("shop")
    app.config.update(TESTING=True, SECRET_KEY="key", **settings)
    return counting(app)


def handler(app: Flask) -> Any:
    interface = app.session_interface
    assert isinstance(interface, LazySessionInterface)
    return interface.handler


def counts(app: Flask) -> list[str]:
    client = app.test_client()
    return [client.get("/").text for _ in range(3)]


def test_instead_of_session() -> None:
    """LazySession(app) builds what Session(app) would have built, with the app's own client."""
    client = fakeredis.FakeRedis()
    app = plain(SESSION_TYPE="redis", SESSION_REDIS=client)
    LazySession(app)
    assert isinstance(handler(app).wrapped, RedisSessionInterface)
    assert app.session_interface.client is client  # type: ignore[attr-defined]
    assert counts(app) == ["1", "2", "3"]


def test_after_session() -> None:
    """Called after Session(app), it wraps that very interface."""
    app = plain(SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis())
    Session(app)
    theirs = app.session_interface
    LazySession(app)
    assert handler(app).wrapped is theirs
    assert isinstance(handler(app), ServerSide)
    assert counts(app) == ["1", "2", "3"]


def test_one_object_for_two_apps() -> None:
    """init_app sets up any number of apps, each with its own store."""
    lazy = LazySession()
    apps = [plain(SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis()) for _ in range(2)]
    for app in apps:
        lazy.init_app(app)
    assert [counts(app) for app in apps] == [["1", "2", "3"]] * 2


def test_twice_on_one_app() -> None:
    """Setting an app up twice is an error that says so."""
    app = plain()
    lazy = LazySession(app)
    with pytest.raises(ConfigurationError, match="set up on the app 'shop' already"):
        lazy.init_app(app)


@pytest.mark.parametrize("make", [lambda client: CountingClient(client), lambda client: client], ids=["duck", "fake"])
def test_duck_typed_clients(make: Callable[[Any], Any]) -> None:
    """A client that is no redis.Redis is used, not replaced by one on localhost; sessions keep their class."""
    client = make(fakeredis.FakeRedis())
    app = plain(SESSION_TYPE="redis", SESSION_REDIS=client)
    LazySession(app)
    app.add_url_rule("/class", "class", lambda: str(isinstance(session, RedisSession)))
    assert counts(app) == ["1", "2", "3"]
    assert len(client.keys()) == 1
    assert app.test_client().get("/class").text == "True"


def test_redis_url(redis_url: str) -> None:
    """A URL string is enough."""
    app = plain(SESSION_TYPE="redis", SESSION_REDIS=redis_url, SESSION_KEY_PREFIX="by-url:")
    LazySession(app)
    assert counts(app) == ["1", "2", "3"]
    assert len(redis.Redis.from_url(redis_url).keys("by-url:*")) == 1


def test_a_client_that_decodes(redis_url: str) -> None:
    """decode_responses=True makes no difference: payloads stay bytes."""
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    app = plain(SESSION_TYPE="redis", SESSION_REDIS=client)
    LazySession(app)
    assert counts(app) == ["1", "2", "3"]


def test_the_signed_cookie_of_flask() -> None:
    """Without SESSION_TYPE, Flask's own sessions become lazy."""
    app = plain()
    LazySession(app)
    assert isinstance(handler(app), Wrapped)
    assert isinstance(handler(app).wrapped, SecureCookieSessionInterface)
    client = app.test_client()
    assert [client.get("/").text for _ in range(3)] == ["1", "2", "3"]
    response = client.get("/untouched")
    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers


def test_the_signed_cookie_without_a_key() -> None:
    """Without SECRET_KEY Flask's null session is there at once, with its own error message."""
    app = counting(Flask("shop"))
    app.config["TESTING"] = True
    LazySession(app)
    with pytest.raises(RuntimeError, match=r"no secret key was set\. .*#no-secret-key$"):
        app.test_client().get("/")
    with pytest.raises(RuntimeError, match="did not open a session"), app.test_client().session_transaction():
        pass


def test_a_store_that_is_set_too_late_without_a_key() -> None:
    """The error is about the setting that came too late: the store that it names needs no SECRET_KEY."""
    app = counting(Flask("shop"))
    app.config["TESTING"] = True
    LazySession(app)
    app.config["SESSION_TYPE"] = "redis"
    with pytest.raises(ConfigurationError, match=r"SESSION_TYPE was set or changed after LazySession\(app\)"):
        app.test_client().get("/")


def test_a_null_session_of_the_app() -> None:
    """A class that the app uses for requests without a SECRET_KEY is used unchanged."""

    class ReadOnly(NullSession):
        """What the app makes."""

    app = Flask("shop")
    app.session_interface = SecureCookieSessionInterface()  # Flask's default one is that of all apps
    LazySession(app)
    app.session_interface.null_session_class = ReadOnly
    app.add_url_rule("/", view_func=lambda: f"{type(session._get_current_object()).__name__} {dict(session)}")
    assert app.test_client().get("/").text == "ReadOnly {}"
    app.session_interface.make_null_session = lambda app: ReadOnly({"name": "Ada"})  # type: ignore[method-assign]
    assert app.test_client().get("/").text == "ReadOnly {'name': 'Ada'}"


def test_the_class_of_a_cookie_session() -> None:
    """The deferred session is an instance of the wrapped interface's session class."""
    app = plain()
    LazySession(app)
    app.add_url_rule("/class", "class", lambda: str(isinstance(session, SecureCookieSession)))
    assert app.test_client().get("/class").text == "True"


def test_a_custom_interface() -> None:
    """A session of the app's own interface is loaded at first use, and saved by the interface."""
    calls: list[str] = []

    class Custom(SecureCookieSessionInterface):
        def open_session(self, *args: Any) -> Any:
            calls.append("open")
            return super().open_session(*args)

        def save_session(self, *args: Any) -> None:
            calls.append("save")
            super().save_session(*args)

        def get_cookie_name(self, app: Flask) -> str:
            return "custom"

    app = plain()
    app.session_interface = Custom()
    LazySession(app)
    assert app.session_interface.get_cookie_name(app) == "custom"
    client = app.test_client()
    client.get("/untouched")
    assert calls == []
    assert [client.get("/").text for _ in range(2)] == ["1", "2"]
    assert calls == ["open", "save"] * 2


def test_a_custom_interface_whose_store_fails() -> None:
    """What stands in for the session in an error page is not saved through the interface."""
    saved: list[Any] = []

    class Custom(SecureCookieSessionInterface):
        def open_session(self, *args: Any) -> Any:
            raise SessionUnavailable

        def save_session(self, _app: Flask, saving: Any, _response: Any) -> None:
            saved.append(dict(saving))

    app = plain()
    app.session_interface = Custom()
    LazySession(app)
    app.register_error_handler(503, lambda _error: (str(session.setdefault("token", "x")), 503))
    response = app.test_client().get("/")
    assert (response.status_code, response.text) == (503, "x")
    assert saved == []


def test_a_custom_interface_that_has_no_session() -> None:
    """Where the wrapped interface returns None, the app gets its null session."""

    class Nothing(SessionInterface):
        def open_session(self, *_: Any) -> None:
            return None

        def save_session(self, *_: Any) -> None:
            raise AssertionError("a null session is not saved")

    app = plain()
    app.session_interface = Nothing()
    LazySession(app)
    app.add_url_rule("/read", "read", lambda: str(session.get("a")))
    assert app.test_client().get("/read").text == "None"


def test_a_store_that_no_adapter_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SESSION_TYPE that only Flask-Session knows is built by it, and driven through its own storage methods."""
    monkeypatch.setattr("lazysession.registry.find_for_interface", lambda _: None)
    find = registry.find
    monkeypatch.setattr("lazysession.registry.find", lambda name: find(name) if name == registry.GENERIC else None)
    app = plain(SESSION_TYPE="cachelib", SESSION_CACHELIB=cachelib.SimpleCache())
    LazySession(app)
    assert isinstance(handler(app).backend, GenericBackend)
    app.add_url_rule("/class", "class", lambda: str(isinstance(session, CacheLibSession)))
    assert counts(app) == ["1", "2", "3"]
    assert app.test_client().get("/class").text == "True"


def test_an_interface_that_overrides_load_or_save() -> None:
    """An interface that overrides how sessions are loaded or saved is loaded lazily, and its methods are called."""

    class Own(RedisSessionInterface):  # type: ignore[misc]
        def should_set_cookie(self, *_: Any) -> bool:
            return True

    app = plain(SESSION_TYPE="redis")
    app.session_interface = Own(app, fakeredis.FakeRedis())
    LazySession(app)
    assert isinstance(handler(app), Wrapped)
    assert counts(app) == ["1", "2", "3"]


@pytest.mark.parametrize("how", ["method", "serializer"])
def test_a_subclass_that_stores_in_its_own_way(how: str) -> None:
    """A subclass with storage of its own (encryption, say) stores by its own methods, and is lazy all the same."""
    client = fakeredis.FakeRedis()
    app = plain(SESSION_TYPE="redis", SESSION_REDIS=client)

    class Own(RedisSessionInterface):  # type: ignore[misc]
        pass

    class Reversing:
        def encode(self, data: Any) -> bytes:
            return repr(dict(data)).encode()[::-1]

        def decode(self, payload: bytes) -> Any:
            return eval(payload[::-1])

    if how == "method":
        Own._retrieve_session_data = lambda self, key: RedisSessionInterface._retrieve_session_data(self, key)
    app.session_interface = Own(app, client)
    if how == "serializer":
        app.session_interface.serializer = Reversing()  # type: ignore[attr-defined]
    LazySession(app)
    assert isinstance(handler(app).backend, GenericBackend if how == "method" else SerializedBackend)
    assert counts(app) == ["1", "2", "3"]


def test_keys_of_ones_own(redis_url: str) -> None:
    """A subclass that makes its own store keys, ids or signatures finds its sessions again."""

    class Hashed(RedisSessionInterface):  # type: ignore[misc]
        def _get_store_id(self, sid: str) -> str:
            return "hashed:" + hashlib.sha256(sid.encode()).hexdigest()

    client = redis.Redis.from_url(redis_url)
    client.flushall()
    clients = []
    for extension in (Session, LazySession):
        app = plain(SESSION_TYPE="redis")
        app.session_interface = Hashed(app, client)
        if extension is LazySession:
            LazySession(app)
        clients.append(app.test_client())
    assert clients[0].get("/").text == "1"
    cookie = clients[0].get_cookie("session")
    assert cookie is not None
    clients[1].set_cookie("session", cookie.value)
    assert clients[1].get("/").text == "2"
    assert len(client.keys()) == 1


@pytest.mark.parametrize("length", [8, 32, 128, 200])
def test_every_length_of_ids(length: int) -> None:
    """An id that the interface itself makes is looked up, however long."""
    app = plain(SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis(), SESSION_ID_LENGTH=length)
    LazySession(app)
    assert counts(app) == ["1", "2", "3"]


def test_a_dropped_app_is_freed() -> None:
    """Neither a signal nor the interface keeps an app alive that is not used any more."""
    app = plain()
    LazySession(app)
    freed = weakref.ref(app)
    del app
    gc.collect()
    assert freed() is None


def test_a_subclass_that_only_changes_its_cookie() -> None:
    """A subclass that only changes its cookie is driven by the adapter, and its cookie is the one that is sent."""

    class Own(RedisSessionInterface):  # type: ignore[misc]
        def get_cookie_name(self, app: Flask) -> str:
            return "own"

    app = plain(SESSION_TYPE="redis")
    app.session_interface = Own(app, fakeredis.FakeRedis())
    LazySession(app)
    assert isinstance(handler(app), ServerSide)
    assert counts(app) == ["1", "2", "3"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flask-Session's SQL interface asks for utcnow()
def test_foreign_session_objects(store: Any, make_app: MakeApp) -> None:
    """Session objects that another library made are saved by the wrapped interface (Flask-SocketIO does so)."""
    app = make_app()
    with app.test_request_context():
        foreign = app.session_interface.session_class({"a": 1}, sid="f" * 43)  # type: ignore[attr-defined]
        foreign["b"] = 2
        assert not app.session_interface.is_null_session(foreign)
        response = app.response_class()
        for _ in range(2):
            app.session_interface.save_session(app, foreign, response)
    assert list(store.payloads(app)) == ["session:" + "f" * 43]


def test_foreign_session_objects_whose_record_has_expired(tmp_path: Any) -> None:
    """An expired row keeps its key taken until it is removed; saving under that key does so."""
    app = plain(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=f"sqlite:///{tmp_path}/sessions.db")
    LazySession(app)
    backend, sid = handler(app).backend, "f" * 43
    backend.create(f"session:{sid}", b"old", -5)
    with app.test_request_context():
        foreign = app.session_interface.session_class({"a": 1}, sid=sid)  # type: ignore[attr-defined]
        foreign["b"] = 2
        app.session_interface.save_session(app, foreign, app.response_class())
    assert backend.read(f"session:{sid}") is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"SESSION_TYPE": "rediss"}, "SESSION_TYPE is 'rediss'; known are cachelib, dynamodb, filesystem"),
        ({"SESSION_TYPE": "redis", "SESSION_REDIS": 5}, "SESSION_REDIS cannot be used: 5 is neither a Redis client"),
        ({"SESSION_TYPE": "redis", "SESSION_REDIS": "http://x"}, "SESSION_REDIS cannot be used: "),
        (
            {"SESSION_TYPE": "redis", "SESSION_SERIALIZATION_FORMAT": "yaml"},
            "SESSION_SERIALIZATION_FORMAT is 'yaml'; allowed is",
        ),
        (
            {"SESSION_TYPE": "redis", "SESSION_REDIS": "redis://x", "SESSION_SERIALIZATION_FORMAT": "xml"},
            "SESSION_SERIALIZATION_FORMAT is 'xml'; allowed is 'msgpack' or 'json'",
        ),
    ],
)
def test_start_up_errors(settings: dict[str, Any], message: str) -> None:
    """What cannot work is an error at start-up that names it."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        LazySession(plain(**settings))


@pytest.mark.parametrize(
    ("session_type", "value", "modules"),
    [
        ("redis", "redis://localhost", ["redis"]),
        ("redis", None, ["redis", "flask_session.redis", "flask_session.redis.redis"]),
        ("sqlalchemy", "sqlite://", ["sqlalchemy", "lazysession.backends.sqlalchemy"]),
        ("mongodb", "mongodb://localhost", ["pymongo", "lazysession.backends.mongodb"]),
    ],
)
def test_a_missing_client_library(
    monkeypatch: pytest.MonkeyPatch, session_type: str, value: Any, modules: list[str]
) -> None:
    """A client library that is not installed is an error that names the extra to install."""
    for module in modules:
        for loaded in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, modules[0], None)
    app = plain(SESSION_TYPE=session_type)
    app.config[f"SESSION_{session_type.upper()}"] = value
    with pytest.raises(ConfigurationError, match=re.escape(f"pip install 'lazysession[{session_type}]'")):
        LazySession(app)


def test_sqlalchemy_needs_no_flask_sqlalchemy(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """With a URL, neither Flask-SQLAlchemy nor Flask-Session's SQL interface is imported."""
    for module in [name for name in sys.modules if name.startswith(("flask_sqlalchemy", "flask_session.sqlalchemy"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "flask_sqlalchemy", None)
    app = plain(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=f"sqlite:///{tmp_path}/sessions.db")
    LazySession(app)
    assert counts(app) == ["1", "2", "3"]


def test_two_apps_on_one_redis(redis_url: str) -> None:
    """Two apps with different prefixes share a store and no session."""
    apps = []
    for prefix in ("one:", "two:"):
        app = plain(SESSION_TYPE="redis", SESSION_REDIS=redis_url, SESSION_KEY_PREFIX=prefix)
        LazySession(app)
        apps.append(app)
    assert [counts(app) for app in apps] == [["1", "2", "3"]] * 2
