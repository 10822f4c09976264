"""Apps that ran with Flask-Session, and start and run unchanged with LazySession: no false alarm, and no silence."""

from __future__ import annotations

import enum
import functools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from unittest import mock

import fakeredis
import pytest
from flask import Flask, Request, Response, jsonify, session
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin
from flask_login import LoginManager, UserMixin, login_user
from flask_session import Session
from flask_session.redis import RedisSessionInterface

from lazysession import ConfigurationError, LazySession

pytestmark = pytest.mark.filterwarnings("ignore:.*use_signer.*:DeprecationWarning")
both = pytest.mark.parametrize("extension", [Session, LazySession])


def shop(**settings: Any) -> Flask:
    """Make an app on fakeredis without any extension for sessions; its view writes into the session."""
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="0f1e2d3c4b5a69788796a5b4c3d2e1f0")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis())
    app.config.update(settings)
    app.add_url_rule("/", "index", lambda: session.update(user="ada") or "saved")
    return app


def interface_of(app: Flask) -> Any:
    """Return the session interface; any, as apps set on it what they like."""
    return app.session_interface


class _Key(str, enum.Enum):
    BANNER = "BANNER"


class TestConfigs:
    """Names and values other than those of the docs that are right."""

    @both
    @pytest.mark.parametrize(
        "settings",
        [
            {_Key.BANNER: "hello"},
            {1: "one"},
            {"SESSION": {"timeout": 600, "type": "redis"}},
            {"SESSION": {"TYPE": "redis"}},
            {"SESSION_COOKIE_NAMES": ["shop", "old"]},
            {"SESSION_TYPES": {"redis": "Redis"}, "SESSION_PERMENANT": None},
            {"SESSION_LENGTH": 3600},
            {"SESSION_ID_LENGTH": None},
            {"SESSION_MONGODB_COLLECT": None, "SESSION_SQLALCHEMY_TABLE": None},
            {"SESSION_CLEANUP_N_REQUESTS": "0"},
            {"SESSION_COOKIE_SECURE": "/etc/ssl/cert.pem"},
            {"SESSION_COOKIE_HTTPONLY": "enabled"},
            {"SESSION_USE_SIGNER": []},
            {"SESSION_COOKIE_PATH": False, "SESSION_COOKIE_DOMAIN": 0},
        ],
        ids=repr,
    )
    def test_a_config_that_is_right(self, extension: Any, settings: dict[Any, Any]) -> None:
        """A config that Flask-Session takes, and that does what it seems to say, is taken."""
        app = shop()
        app.config.update(settings)
        extension(app)
        assert app.test_client().get("/").text == "saved"

    @both
    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_a_url_that_is_not_set(self, extension: Any) -> None:
        """``os.environ.get`` returns None where a developer's Redis is on localhost."""
        extension(shop(SESSION_REDIS=None, SESSION_REDIS_URL=None))

    @pytest.mark.parametrize("value", ["False", " no ", "0", "None", "disabled", "flase"])
    def test_text_that_says_no(self, value: str) -> None:
        """Text counts as true, so text that means the opposite is refused."""
        with pytest.raises(ConfigurationError, match=r"SESSION_COOKIE_SECURE is .*which counts as true"):
            LazySession(shop(SESSION_COOKIE_SECURE=value))

    def test_a_dict_that_the_environment_made(self) -> None:
        """Two underscores make a dict, of which one key is a setting that is not set elsewhere."""
        app = shop(SESSION={"KEY_PREFIX": "x", "timeout": 5})
        with pytest.raises(ConfigurationError, match="FLASK_SESSION_KEY_PREFIX"):
            LazySession(app)

    @both
    def test_a_setting_of_another_store_that_comes_later(self, extension: Any) -> None:
        """A setting that was not read before either is no error."""
        app = shop()
        extension(app)
        app.config.update(SESSION_FILE_DIR="/x", SESSION_SQLALCHEMY_TABLE="x")
        assert app.test_client().get("/").text == "saved"

    @both
    def test_a_lifetime_of_the_apps_own(self, extension: Any) -> None:
        """A subclass of Flask that knows the lifetime does not read the setting."""
        app = _Shop("shop")
        app.config.update(shop().config, PERMANENT_SESSION_LIFETIME=None)
        extension(app)
        app.add_url_rule("/", "index", lambda: session.update(user="ada") or "saved")
        assert app.test_client().get("/").text == "saved"

    @both
    def test_a_key_that_comes_later(self, extension: Any) -> None:
        """A factory may set SECRET_KEY after the extensions: signers ask for it in each request."""
        app = shop(SESSION_USE_SIGNER=True, SECRET_KEY=None)
        extension(app)
        app.secret_key = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
        assert app.test_client().get("/").text == "saved"


def _injected(rule: Callable[..., bool]) -> Callable[[Request], bool]:
    @functools.wraps(rule)
    def with_limit(request: Request) -> bool:
        return rule(request, 5)

    return with_limit


def _is_long(request: Request, limit: int) -> bool:
    return len(request.path) > limit


class _RunsUntilComplete:
    """Calls an asynchronous function, and returns what that returns."""

    def __init__(self, func: Callable[[Request], Any]) -> None:
        self.func = func

    def __call__(self, request: Request) -> bool:
        try:
            self.func(request).send(None)
        except StopIteration as end:
            return bool(end.value)
        raise AssertionError


class _Mocked:
    """Has each attribute that is asked for, as a mock does; an endless chain of attributes is the error."""

    asked = 0

    def __call__(self, request: Request) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _Mocked.asked += 1
        assert _Mocked.asked < 100
        return _Mocked()


async def _asks_no_store(request: Request) -> bool:
    return False


class TestRules:
    """Functions that are rules, though they do not look like one."""

    @pytest.mark.parametrize(
        "rule",
        [
            _injected(_is_long),
            _RunsUntilComplete(_asks_no_store),
            _Mocked(),
        ],
        ids=["injected", "runs", "mocked"],
    )
    def test_a_function_that_is_a_rule(self, rule: Any) -> None:
        """A function that can be called with the request alone is asked."""
        app = shop(LAZYSESSION_RULES=[(rule, "readonly")])
        LazySession(app)
        assert app.test_client().get("/").text == "saved"


class _Price:
    """A value that only an encoder of the app's own knows."""


class _Encoder(json.JSONEncoder):
    def default(self, o: Any) -> Any:
        return "a price" if isinstance(o, _Price) else super().default(o)


class _WithEncoder(DefaultJSONProvider):
    """The usual replacement of ``app.json_encoder``, which Flask 2.3 has removed."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return json.dumps(obj, **kwargs, cls=_Encoder)


class _WithoutOptions(DefaultJSONProvider):
    def dumps(self, obj: Any, *, indent: Any = None, separators: Any = None) -> str:  # type: ignore[override]
        return json.dumps(obj, separators=(",", ":"))


class TestJSON:
    """Providers of the app's own."""

    @both
    @pytest.mark.parametrize(
        ("provider", "value", "text"), [(_WithEncoder, _Price(), '"a price"'), (_WithoutOptions, 5, "5")]
    )
    def test_a_provider_with_its_own_dumps(self, extension: Any, provider: Any, value: Any, text: str) -> None:
        """A provider gets the options that it would get without us, so that an encoder of its own is called."""
        app = shop()
        app.json = provider(app)
        extension(app)
        app.add_url_rule("/json", "json", lambda: jsonify(value=value))
        assert text in app.test_client().get("/json").text

    @both
    def test_the_session_through_it(self, extension: Any) -> None:
        """The session object itself is still the dict that it stands for."""
        app = shop()
        app.json = _WithEncoder(app)
        extension(app)
        app.add_url_rule("/json", "json", lambda: jsonify(session._get_current_object()))  # type: ignore[attr-defined]
        client = app.test_client()
        client.get("/")
        assert client.get("/json").get_json()["user"] == "ada"


class _Encrypting:
    def encode(self, items: Any) -> bytes:
        return b"X" + json.dumps(dict(items)).encode()

    def decode(self, payload: bytes) -> Any:
        return json.loads(payload[1:])


class _Around(SessionInterface):
    """An interface that another extension wraps around the present one."""

    def __init__(self, inner: SessionInterface) -> None:
        self.inner = inner

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        return self.inner.open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        self.inner.save_session(app, session, response)


def _returning(value: object) -> Callable[..., Any]:
    def answer(*_: object) -> object:
        return value

    return answer


class _OfTheRequest:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("Working outside of request context.")


class _Stored(RedisSessionInterface):  # type: ignore[misc]  # Flask-Session has no annotations
    def _retrieve_session_data(self, store_id: str) -> Any:
        return super()._retrieve_session_data(store_id)


class _Signed(SecureCookieSessionInterface):
    pass


class _Shop(Flask):
    """Knows how long sessions live, whatever the config says."""

    permanent_session_lifetime = property(lambda _: timedelta(seconds=77))  # type: ignore[assignment]


class TestInterfaces:
    """What tests and extensions do to the session interface."""

    @both
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("serializer", _Encrypting()),
            ("use_signer", True),
            ("sid_length", 64),
            ("should_set_cookie", _returning(False)),
            ("get_cookie_name", _returning("other")),
            ("_generate_sid", _returning("x" * 20)),
        ],
    )
    def test_a_patch_leaves_nothing(self, extension: Any, name: str, value: Any) -> None:
        """After unittest.mock has restored what was there, sessions are stored and sent as before."""
        app = shop()
        extension(app)
        before = type(getattr(interface_of(app), "handler", None))
        with mock.patch.object(app.session_interface, name, value):
            app.test_client().get("/")
        client, store = app.test_client(), app.config["SESSION_REDIS"]
        store.flushall()
        client.get("/")
        cookie = client.get_cookie("session")
        assert cookie is not None
        assert len(cookie.value) == 43
        assert b"ada" in store.get(f"session:{cookie.value}")
        assert not store.get(f"session:{cookie.value}").startswith(b"X")
        assert type(getattr(interface_of(app), "handler", None)) is before

    @both
    def test_the_first_requests_at_once(self, extension: Any) -> None:
        """Threads that use the first sessions of an app at the same time are all served."""
        app, together = shop(), threading.Barrier(8)
        extension(app)

        @app.before_request
        def wait() -> None:
            together.wait(10)

        def ask(path: str) -> str:
            return app.test_client().get(path).text

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, ["/"] * 8)) == ["saved"] * 8

    @both
    def test_a_serializer_of_the_wrapped_interface(self, extension: Any) -> None:
        """An app may set it on the interface that it had before LazySession(app): nothing is stored without it."""
        app = shop()
        Session(app)
        kept = interface_of(app)
        if extension is LazySession:
            extension(app)
        kept.serializer = _Encrypting()
        client = app.test_client()
        client.get("/")
        store = app.config["SESSION_REDIS"]
        assert [store.get(key)[:1] for key in store.keys()] == [b"X"]

    @both
    @pytest.mark.parametrize("interface", ["stored", "cookie"])
    def test_what_can_be_asked_in_a_request_alone(self, extension: Any, interface: str) -> None:
        """An attribute of an interface of the app's own may raise any error before there is a request."""
        app = shop()
        if interface == "stored":
            app.session_interface = _Stored(app, client=app.config["SESSION_REDIS"])
        else:
            app.config.update(SESSION_TYPE=None, SESSION_REDIS=None)
            app.session_interface = _Signed()
        interface_of(app).tenant = _OfTheRequest()
        if extension is LazySession:
            extension(app)
        assert app.test_client().get("/").text == "saved"

    def test_a_login_through_an_interface_around_it(self) -> None:
        """A login gives a new session id also where another extension has wrapped its interface around ours."""
        app = shop()
        manager, user = LoginManager(app), UserMixin()
        user.id = "ada"  # type: ignore[attr-defined]
        manager.user_loader(_returning(user))
        LazySession(app)
        app.session_interface = _Around(app.session_interface)
        app.add_url_rule("/login", "login", lambda: str(login_user(user)))
        client = app.test_client()
        client.get("/")
        fixated = client.get_cookie("session")
        client.get("/login")
        now = client.get_cookie("session")
        assert fixated is not None
        assert now is not None
        assert now.value != fixated.value
