"""Attributes that an app sets on its session interface after LazySession(app): they count, as with Flask-Session."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import fakeredis
import msgspec
import pytest
from cachelib import FileSystemCache
from flask import Flask, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, TaggedJSONSerializer
from flask_session import Session
from flask_session.base import MsgSpecSerializer, ServerSideSession
from flask_session.redis import RedisSession, RedisSessionInterface
from flask_sqlalchemy import SQLAlchemy

from lazysession import ConfigurationError, LazySession
from lazysession.backends.generic import GenericBackend

both = pytest.mark.parametrize("extension", [Session, LazySession])


def shop(extension: Any, **settings: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", **settings)
    extension(app)
    add_views(app)
    return app


def add_views(app: Flask) -> None:
    app.add_url_rule("/set/<key>/<value>", "set", lambda key, value: session.update({key: value}) or "")
    app.add_url_rule("/get", "get", lambda: json.dumps(dict(session), sort_keys=True))
    app.add_url_rule("/clear", "clear", lambda: session.clear() or "")


@pytest.fixture
def client() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis()


@pytest.fixture
def make(client: fakeredis.FakeRedis) -> Callable[..., Flask]:
    return lambda extension, **settings: shop(extension, SESSION_TYPE="redis", SESSION_REDIS=client, **settings)


def interface_of(app: Flask) -> Any:
    return app.session_interface


def get(browser: Any) -> dict[str, Any]:
    items: dict[str, Any] = json.loads(browser.get("/get").text)
    items.pop("_permanent", None)
    return items


def set_cookies(response: Any) -> str:
    return " ".join(response.headers.getlist("Set-Cookie"))


MakeApp = Callable[..., Flask]


class TestIdsAndCookies:
    """What decides ids, keys and cookies."""

    @both
    def test_key_prefix(self, extension: Any, make: MakeApp, client: Any) -> None:
        """Sessions are stored under the new prefix, and found there; those under the old one are not."""
        app = make(extension)
        browser = app.test_client()
        browser.get("/set/user/ada")
        interface_of(app).key_prefix = "shop:"
        assert interface_of(app).key_prefix == "shop:"
        assert get(browser) == {}
        browser.get("/set/user/bob")
        assert get(browser) == {"user": "bob"}
        assert sorted(key.partition(b":")[0] for key in client.keys()) == [b"session", b"shop"]

    @both
    def test_use_signer(self, extension: Any, make: MakeApp, client: Any) -> None:
        """From then on ids are signed, and unsigned ones are not accepted; and the other way round."""
        app = make(extension)
        browser = app.test_client()
        browser.get("/set/user/ada")
        interface_of(app).use_signer = True
        assert get(browser) == {}
        browser.get("/set/user/bob")
        assert "." in browser.get_cookie("session").value  # type: ignore[union-attr]
        assert get(browser) == {"user": "bob"}
        interface_of(app).use_signer = False
        assert get(browser) == {}

    @both
    def test_permanent(self, extension: Any, make: MakeApp) -> None:
        """New sessions are permanent or not, as it says."""
        app = make(extension)
        interface_of(app).permanent = False
        assert "Expires" not in set_cookies(app.test_client().get("/set/user/ada"))
        interface_of(app).permanent = True
        assert "Expires" in set_cookies(app.test_client().get("/set/user/ada"))

    @both
    def test_sid_length(self, extension: Any, make: MakeApp) -> None:
        """New ids have the length, also one that is longer than usual, and are found again."""
        app = make(extension)
        for length, characters in ((16, 22), (200, 267)):
            interface_of(app).sid_length = length
            browser = app.test_client()
            browser.get("/set/user/ada")
            assert len(browser.get_cookie("session").value) == characters  # type: ignore[union-attr]
            assert get(browser) == {"user": "ada"}

    @both
    def test_session_class(self, extension: Any, make: MakeApp) -> None:
        """Sessions are of the new class, before and after they are loaded."""

        class Basket(RedisSession):  # type: ignore[misc]
            def count(self) -> int:
                return len(self)

        app = make(extension)
        interface_of(app).session_class = Basket
        assert interface_of(app).session_class is Basket
        app.add_url_rule("/kind", "kind", lambda: f"{isinstance(session, Basket)} {session.count()}")  # type: ignore
        assert app.test_client().get("/kind").text == "True 1"

    @both
    def test_same_site(self, extension: Any, make: MakeApp) -> None:
        """Without the capability the cookie has no SameSite."""
        app = make(extension, SESSION_COOKIE_SAMESITE="Strict")
        assert "SameSite=Strict" in set_cookies(app.test_client().get("/set/user/ada"))
        interface_of(app).has_same_site_capability = False
        assert "SameSite" not in set_cookies(app.test_client().get("/set/user/ada"))

    @both
    @pytest.mark.parametrize(
        ("name", "answer", "expected"),
        [
            ("get_cookie_name", "basket", "basket="),
            ("get_cookie_path", "/set", "Path=/set"),
            ("get_cookie_domain", "shop.test", "Domain=shop.test"),
            ("get_cookie_secure", True, "Secure"),
            ("get_cookie_samesite", "Lax", "SameSite=Lax"),
        ],
    )
    def test_cookie_methods(self, extension: Any, make: MakeApp, name: str, answer: Any, expected: str) -> None:
        """A method in the place of one that Flask asks for the cookie."""
        app = make(extension)
        if name == "get_cookie_name" and extension is Session:
            pytest.skip("does not apply: Flask-Session calls this method only to set the cookie")
        setattr(interface_of(app), name, lambda app: answer)
        assert expected in set_cookies(app.test_client().get("/set/user/ada"))

    @both
    def test_ids_of_its_own(self, extension: Any, make: MakeApp, client: Any) -> None:
        """A function in the place of the one that makes ids; its ids may have any printable letters."""
        app = make(extension)
        numbers = iter(range(100))
        interface_of(app)._generate_sid = lambda length: f"~{next(numbers)}~"
        browser = app.test_client()
        browser.get("/set/user/ada")
        assert get(browser) == {"user": "ada"}
        assert [key for key in client.keys() if b"~" in key]

    @both
    def test_keys_of_its_own(self, extension: Any, make: MakeApp, client: Any) -> None:
        """A function in the place of the one that makes store keys."""
        app = make(extension)
        interface_of(app)._get_store_id = lambda sid: f"tenant:{sid}"
        app.test_client().get("/set/user/ada")
        assert [key.partition(b":")[0] for key in client.keys()] == [b"tenant"]


class TestStores:
    """What decides where sessions are stored, and how."""

    @both
    def test_client(self, extension: Any, make: MakeApp, client: Any) -> None:
        """Sessions are read from the new client's server and stored there."""
        app, other = make(extension), fakeredis.FakeRedis(server=fakeredis.FakeServer())
        browser = app.test_client()
        browser.get("/set/user/ada")
        before = client.keys()
        interface_of(app).client = other
        assert interface_of(app).client is other
        assert get(browser) == {}
        browser.get("/set/user/bob")
        assert get(browser) == {"user": "bob"}
        assert client.keys() == before
        assert len(other.keys()) == 1

    @both
    def test_the_cache_of_files(self, extension: Any, tmp_path: Path) -> None:
        """A store of objects changes as well."""
        caches = [FileSystemCache(str(tmp_path / name)) for name in ("one", "two")]
        app = shop(extension, SESSION_TYPE="cachelib", SESSION_CACHELIB=caches[0])
        interface_of(app).cache = caches[1]
        browser = app.test_client()
        browser.get("/set/user/ada")
        assert get(browser) == {"user": "ada"}
        found = {path.parent.name for path in tmp_path.rglob("*") if path.is_file() and b"ada" in path.read_bytes()}
        assert found == {"two"}

    @both
    @pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow")
    def test_the_model_of_sql(self, extension: Any, tmp_path: Path) -> None:
        """Another model is another table; Flask-Session's clean-up is of that one, too."""
        app, db = on_sql(extension, tmp_path)

        class Other(db.Model):  # type: ignore[name-defined]
            __tablename__ = "others"
            id = db.Column(db.Integer, primary_key=True)
            session_id = db.Column(db.String(255), unique=True)
            data = db.Column(db.LargeBinary)
            expiry = db.Column(db.DateTime)

        interface_of(app).sql_session_model = Other
        with app.app_context():
            db.create_all()
            app.test_client().get("/set/user/ada")
            assert [row.session_id.partition(":")[0] for row in db.session.query(Other)] == ["session"]
            db.session.query(Other).update({"expiry": datetime(2020, 1, 1)})
            db.session.commit()
            app.test_cli_runner().invoke(args=["session_cleanup"])
            assert db.session.query(Other).count() == 0

    @both
    def test_storage_methods(self, extension: Any, make: MakeApp, client: Any) -> None:
        """Functions in the place of the storage methods are called to read, store and delete."""
        app = make(extension)
        shelf: dict[str, dict[str, Any]] = {}

        def upsert(session_lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
            shelf[store_id] = dict(session)

        interface_of(app)._retrieve_session_data = shelf.get
        interface_of(app)._upsert_session = upsert
        interface_of(app)._delete_session = lambda store_id: shelf.pop(store_id, None)
        browser = app.test_client()
        browser.get("/set/user/ada")
        assert get(browser) == {"user": "ada"}
        assert len(shelf) == 1
        assert client.keys() == []
        browser.get("/clear")
        assert get(browser) == {}

    def test_a_client_that_cannot_serve(self, make: MakeApp, client: Any) -> None:
        """It is refused at the assignment, with the same message as for the setting, and the old client stays."""
        app = make(LazySession)
        for wrong in (fakeredis.FakeAsyncRedis(), fakeredis.FakeRedis):
            with pytest.raises(ConfigurationError, match="client"):
                interface_of(app).client = wrong
        assert interface_of(app).client is client
        browser = app.test_client()
        browser.get("/set/user/ada")
        assert get(browser) == {"user": "ada"}

    def test_where_lazysession_made_the_client(self, redis_url: str) -> None:
        """Where it cannot be changed, that is an error at the assignment, which names the setting."""
        app = shop(LazySession, SESSION_TYPE="redis", SESSION_REDIS=redis_url)
        before = interface_of(app).client
        with pytest.raises(ConfigurationError, match=r"client.*SESSION_REDIS"):
            interface_of(app).client = fakeredis.FakeRedis()
        assert interface_of(app).client is before
        interface_of(app).key_prefix = "shop:"
        app.test_client().get("/set/user/ada")
        assert [key for key in before.keys() if key.startswith(b"shop:")]

    def test_an_adapter_of_its_own(self, client: Any) -> None:
        """The backend changes with the attribute, and nothing else of the handler does."""
        app = shop(LazySession, SESSION_TYPE="redis", SESSION_REDIS=client, LAZYSESSION_CONFLICT="raise")
        interface_of(app)._delete_session = lambda store_id: None
        assert type(interface_of(app).handler.backend) is GenericBackend
        assert interface_of(app).handler.settings.conflict == "raise"

    @both
    def test_cleanup(self, extension: Any, tmp_path: Path) -> None:
        """Another frequency of the clean-up is used by the hook that Flask-Session has registered."""
        app, _ = on_sql(extension, tmp_path, SESSION_CLEANUP_N_REQUESTS=10**9)
        cleaned: list[int] = []
        interface_of(app)._delete_expired_sessions = lambda: cleaned.append(1)
        interface_of(app).cleanup_n_requests = 1
        for _ in range(40):
            app.test_client().get("/get")
        assert cleaned


def on_sql(extension: Any, folder: Path, **settings: Any) -> tuple[Flask, SQLAlchemy]:
    """Return an app with Flask-SQLAlchemy on a file."""
    app = Flask("shop", static_folder=None)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder / 'shop.db'}"
    db = SQLAlchemy(app)
    app.config.update(TESTING=True, SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db, **settings)
    extension(app)
    add_views(app)
    return app, db


class TestTheSerializer:
    """Attributes of the serializer itself: options of msgspec are set there."""

    @both
    @pytest.mark.parametrize("format", ["msgpack", "json"])
    @pytest.mark.parametrize("kept", [False, True], ids=["asked for", "kept from before"])
    def test_encoder(self, extension: Any, client: Any, format: str, kept: bool) -> None:
        """An encoder with a hook stores what it knows, whether the serializer was asked for before or after."""
        app = shop(Session, SESSION_TYPE="redis", SESSION_REDIS=client, SESSION_SERIALIZATION_FORMAT=format)
        serializer = interface_of(app).serializer
        if extension is LazySession:
            LazySession(app)
        app.add_url_rule("/complex", "complex", lambda: session.update(a=1j) or "")
        app.test_client().get("/get")
        module: Any = msgspec.msgpack if format == "msgpack" else msgspec.json
        target = serializer if kept else interface_of(app).serializer
        target.encoder = module.Encoder(enc_hook=lambda value: f"<{value.real}>")
        browser = app.test_client()
        assert browser.get("/complex").status_code == 200
        assert get(browser) == {"a": "<0.0>"}

    @both
    def test_the_format_of_the_interface(self, extension: Any, client: Any) -> None:
        """An interface built by hand stores in its own format, also after something was set on it."""
        app = Flask("shop")
        app.session_interface = RedisSessionInterface(app, client=client, serialization_format="json")
        if extension is LazySession:
            LazySession(app)
        add_views(app)
        for prefix in ("one:", "two:"):
            interface_of(app).key_prefix = prefix
            app.test_client().get("/set/user/ada")
        assert [json.loads(client.get(key))["user"] for key in client.keys()] == ["ada", "ada"]

    @both
    def test_options(self, extension: Any, make: MakeApp, client: Any) -> None:
        """An option without a hook counts as well."""
        app = make(extension)
        interface_of(app).serializer.encoder = msgspec.msgpack.Encoder(order="deterministic")
        app.add_url_rule("/order", "order", lambda: session.update(b=1, a=2) or "")
        app.test_client().get("/order")
        (key,) = client.keys()
        assert list(msgspec.msgpack.decode(client.get(key))) == ["_permanent", "a", "b"]

    @both
    def test_methods(self, extension: Any, make: MakeApp, client: Any) -> None:
        """Functions in the place of its methods, set one after the other."""
        app = make(extension)
        browser = app.test_client()
        browser.get("/set/user/ada")
        serializer = interface_of(app).serializer
        serializer.encode = lambda session: msgspec.msgpack.encode(dict(session))[::-1]
        serializer.decode = lambda payload: msgspec.msgpack.decode(payload[::-1])
        browser = app.test_client()
        browser.get("/set/user/grace")
        assert get(browser) == {"user": "grace"}
        assert "grace" not in str([client.get(key) for key in client.keys()])

    @both
    def test_methods_of_an_own_one(self, extension: Any, make: MakeApp, client: Any) -> None:
        """The methods of a serializer of the app's own are looked up for each session, so that they may be changed."""

        class Backwards:
            def encode(self, session: Any) -> bytes:
                return msgspec.msgpack.encode(dict(session))

            def decode(self, payload: bytes) -> Any:
                return msgspec.msgpack.decode(payload)

        app = make(extension)
        interface_of(app).serializer = own = Backwards()
        app.test_client().get("/set/user/ada")
        own.encode = lambda session: msgspec.msgpack.encode(dict(session))[::-1]  # type: ignore[method-assign]
        own.decode = lambda payload: msgspec.msgpack.decode(payload[::-1])  # type: ignore[method-assign]
        browser = app.test_client()
        browser.get("/set/user/grace")
        assert get(browser) == {"user": "grace"}
        assert "grace" not in str([client.get(key) for key in client.keys()])

    def test_where_it_stands_in(self, client: Any) -> None:
        """Behind an interface with storage methods of its own, ours decodes: that it has no encoder is an error."""

        class Traced(RedisSessionInterface):  # type: ignore[misc]
            def _delete_session(self, store_id: str) -> None:
                self.client.delete(store_id)

        app = Flask("shop")
        app.session_interface = Traced(app, client=client)
        LazySession(app)
        with pytest.raises(ConfigurationError, match=r"encoder.*session_interface\.serializer"):
            interface_of(app).serializer.encoder = msgspec.msgpack.Encoder()


def with_cookies(lazy: bool) -> Flask:
    """Return an app with signed cookies, on an interface of its own: Flask's is one object for all apps."""

    def extend(app: Flask) -> None:
        app.session_interface = SecureCookieSessionInterface()
        if lazy:
            LazySession(app)

    return shop(extend)


class TestTheSignedCookie:
    """Flask's own interface."""

    @pytest.mark.parametrize("lazy", [False, True])
    @pytest.mark.parametrize(
        ("name", "value"), [("salt", "shop"), ("digest_method", hashlib.sha256), ("key_derivation", "django-concat")]
    )
    def test_signature(self, lazy: bool, name: str, value: Any) -> None:
        """Cookies are signed in the new way from then on, and older ones are not accepted."""
        app, reference = (with_cookies(each) for each in (lazy, False))
        browser = app.test_client()
        browser.get("/set/user/ada")
        for each in (app, reference):
            setattr(interface_of(each), name, value)
        assert getattr(interface_of(app), name) is value
        assert get(browser) == {}
        browser.get("/set/user/bob")
        other = reference.test_client()
        other.set_cookie("session", browser.get_cookie("session").value)  # type: ignore[union-attr]
        assert get(other) == {"user": "bob"}

    @pytest.mark.parametrize("lazy", [False, True])
    def test_session_class(self, lazy: bool) -> None:
        """Sessions are of the new class."""

        class Basket(SecureCookieSession):
            pass

        app = with_cookies(lazy)
        interface_of(app).session_class = Basket
        app.add_url_rule("/kind", "kind", lambda: str(isinstance(session, Basket)))
        assert app.test_client().get("/kind").text == "True"

    @pytest.mark.parametrize("lazy", [False, True])
    def test_serializer(self, lazy: bool) -> None:
        """The serializer of the cookie."""

        class Marked(TaggedJSONSerializer):
            def dumps(self, value: Any) -> str:
                return super().dumps({**value, "marked": True})

        app = with_cookies(lazy)
        interface_of(app).serializer = Marked()
        browser = app.test_client()
        browser.get("/set/user/ada")
        assert get(browser) == {"user": "ada", "marked": True}


class TestThePlainWays:
    """Setting and deleting as any object does it."""

    @both
    @pytest.mark.parametrize("name", ["open_session", "save_session"])
    def test_open_session_and_save_session(self, extension: Any, make: MakeApp, name: str) -> None:
        """A function around open_session or save_session is called, and works."""
        app = make(extension)
        calls: list[str] = []
        plain = getattr(interface_of(app), name)
        setattr(interface_of(app), name, lambda *arguments: calls.append(name) or plain(*arguments))
        browser = app.test_client()
        browser.get("/set/user/ada")
        assert get(browser) == {"user": "ada"}
        assert calls == [name, name]

    @both
    def test_an_attribute_of_the_apps_own(self, extension: Any, make: MakeApp) -> None:
        """An unknown attribute is kept where the app's other attributes of the interface are."""
        app = make(extension)
        interface_of(app).tenant = "ada"
        assert interface_of(app).tenant == "ada"
        assert "tenant" in vars(getattr(interface_of(app), "wrapped", interface_of(app)))
        del interface_of(app).tenant
        assert not hasattr(interface_of(app), "tenant")

    @both
    @pytest.mark.parametrize("name", ["key_prefix", "client", "session_class", "save_session"])
    def test_a_patch_is_undone(self, extension: Any, make: MakeApp, client: Any, name: str) -> None:
        """unittest.mock restores what was there, whether it sets or deletes."""
        app = make(extension)
        values = {"key_prefix": "shop:", "client": fakeredis.FakeRedis(), "session_class": ServerSideSession}
        before = getattr(interface_of(app), name)
        with mock.patch.object(app.session_interface, name, values.get(name, lambda *arguments: None)):
            app.test_client().get("/get")
        assert getattr(interface_of(app), name) == before
        browser = app.test_client()
        browser.get("/set/user/ada")
        assert get(browser) == {"user": "ada"}
        assert [key.partition(b":")[0] for key in client.keys()] == [b"session"]

    def test_what_a_process_remembers_of_expiries(self, client: Any) -> None:
        """Where the store does not tell what is left, setting an attribute makes no refresh come early."""

        class Own(RedisSessionInterface):  # stores in a way of its own, so it is used through its methods
            def _retrieve_session_data(self, store_id: str) -> Any:
                return super()._retrieve_session_data(store_id)

        app = Flask("shop", static_folder=None)
        app.session_interface = Own(app, client=client)
        LazySession(app)
        add_views(app)
        browser = app.test_client()
        browser.get("/set/a/1")
        interface_of(app).get_expiration_time = lambda app, session: None
        assert "Set-Cookie" not in browser.get("/get").headers

    def test_what_cannot_be_set(self, make: MakeApp) -> None:
        """The app and the wrapped interface of the lazy one are no attributes of an app's."""
        app = make(LazySession)
        for name in ("app", "wrapped"):
            with pytest.raises(ConfigurationError, match=name):
                setattr(interface_of(app), name, None)

    def test_a_request_that_is_under_way(self, make: MakeApp, client: Any) -> None:
        """A request that has loaded its session before the change saves it after the change."""
        app = make(LazySession)

        def change() -> str:
            session["user"] = "ada"
            interface_of(app).client = fakeredis.FakeRedis(server=client.connection_pool.connection_kwargs["server"])
            interface_of(app).permanent = False
            return ""

        app.add_url_rule("/change", view_func=change)
        browser = app.test_client()
        browser.get("/change")
        assert get(browser) == {"user": "ada"}

    @pytest.mark.parametrize("serializer", [MsgSpecSerializer])
    def test_a_json_serializer(self, make: MakeApp, client: Any, serializer: Any) -> None:
        """The serializer's setter is the one that was there before."""
        app = make(LazySession)
        interface_of(app).serializer = serializer(app, "json")
        app.test_client().get("/set/user/ada")
        (key,) = client.keys()
        assert json.loads(client.get(key))["user"] == "ada"
