"""Serializers of the app's own, set before or after LazySession(app): no session reaches the store past them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
import secrets
from datetime import timedelta
from types import ModuleType
from typing import Any

import fakeredis
import msgspec
import pytest
import redis
from flask import Flask, session
from flask.sessions import SecureCookieSessionInterface, TaggedJSONSerializer
from flask_session import Session
from flask_session.base import MsgSpecSerializer, ServerSideSession, ServerSideSessionInterface
from flask_session.redis import RedisSessionInterface

from lazysession import ConfigurationError, LazySession
from tests.support.stores import EVERY_STORE, Store, prepare

OBJECT_STORES = ("files", "memory")
BYTE_STORES = [name for name in EVERY_STORE if name not in OBJECT_STORES]


class Encrypting:
    """Stands for encryption: equal data make different bytes each time, and foreign bytes are an error."""

    key = b"key"

    def _stream(self, payload: bytes, nonce: bytes) -> bytes:
        stream = hashlib.shake_256(self.key + nonce).digest(len(payload))
        return bytes(left ^ right for left, right in zip(payload, stream, strict=True))

    def encode(self, session: Any) -> bytes:
        nonce = secrets.token_bytes(16)
        sealed = nonce + self._stream(msgspec.msgpack.encode(dict(session)), nonce)
        return hmac.digest(self.key, sealed, "sha256") + sealed

    def decode(self, serialized_data: bytes) -> Any:
        seal, sealed = serialized_data[:32], serialized_data[32:]
        if not hmac.compare_digest(hmac.digest(self.key, sealed, "sha256"), seal):
            raise LookupError("not mine")
        return msgspec.msgpack.decode(self._stream(sealed[16:], sealed[:16]))


class Development(Encrypting):
    """The same under the names of Flask-Session's development branch, which passes a dict."""

    def dumps(self, session: Any) -> bytes:
        assert type(session) is dict
        return Encrypting().encode(session)

    def loads(self, serialized_data: bytes) -> Any:
        return Encrypting().decode(serialized_data)

    encode = decode = None  # type: ignore[assignment]


class OfItself:
    """A class that is used without an instance."""

    encode = staticmethod(Encrypting().encode)
    decode = staticmethod(Encrypting().decode)


def crypto() -> ModuleType:
    """Return a module with two functions, as an app's crypto.py is."""
    module: Any = ModuleType("crypto")
    module.encode, module.decode = Encrypting().encode, Encrypting().decode
    return module  # type: ignore[no-any-return]


def patched(app: Flask) -> MsgSpecSerializer:
    """Return Flask-Session's own serializer with two functions in the place of its methods."""
    serializer: Any = MsgSpecSerializer(app, "msgpack")
    serializer.encode, serializer.decode = Encrypting().encode, Encrypting().decode
    return serializer


def hooked(app: Flask) -> MsgSpecSerializer:
    """Return Flask-Session's own serializer with an encoder that knows a class of the app's."""
    serializer: Any = MsgSpecSerializer(app, "msgpack")
    serializer.encoder = msgspec.msgpack.Encoder(enc_hook=str)
    return serializer


OWN = {
    "object": lambda app: Encrypting(),
    "development": lambda app: Development(),
    "class": lambda app: OfItself,
    "module": lambda app: crypto(),
    "patched": patched,
}


def shop(**settings: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", **settings)
    prepare(app)
    app.add_url_rule("/set/<key>/<value>", "set", lambda key, value: session.update({key: value}) or "")
    app.add_url_rule("/get", "get", lambda: json.dumps(dict(session), sort_keys=True))
    app.add_url_rule("/rotate", "rotate", lambda: app.session_interface.regenerate(session) or "")  # type: ignore
    app.add_url_rule("/clear", "clear", lambda: session.clear() or "")
    return app


def with_serializer(app: Flask, serializer: Any, when: str) -> Flask:
    """Set the serializer before or after LazySession(app)."""
    interface: Any
    if when == "before":
        Session(app)
        interface = app.session_interface
        interface.serializer = serializer
        LazySession(app)
    else:
        LazySession(app)
        interface = app.session_interface
        interface.serializer = serializer
    assert app.session_interface.serializer is serializer  # type: ignore[attr-defined]
    return app


def read(browser: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(browser.get("/get").text)
    data.pop("_permanent", None)
    return data


@pytest.fixture
def client() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis()


def stored(client: Any) -> list[bytes]:
    return [client.get(key) for key in client.keys("session:*")]


class TestEveryStore:
    """The serializer is set after LazySession(app), as Flask-Session documents it."""

    @pytest.mark.parametrize("store", BYTE_STORES, indirect=True)
    def test_nothing_plain_is_stored(self, store: Store) -> None:
        """Each change goes through the serializer, and no payload shows what is in the session."""
        app = with_serializer(shop(**store.config()), Encrypting(), "after")
        browser = app.test_client()
        for number in range(2):
            browser.get(f"/set/user/ada-lovelace-{number}")
            assert read(browser) == {"user": f"ada-lovelace-{number}"}
            payloads = list(store.payloads(app).values())
            assert [Encrypting().decode(bytes(each))["user"] for each in payloads] == [f"ada-lovelace-{number}"]

    @pytest.mark.parametrize("store", BYTE_STORES, indirect=True)
    def test_a_read_writes_nothing(self, store: Store) -> None:
        """A nonce makes other bytes of equal data: that is no change of the session."""
        app = with_serializer(shop(**store.config()), Encrypting(), "after")
        browser = app.test_client()
        browser.get("/set/user/ada")
        before = store.payloads(app)
        assert read(browser) == {"user": "ada"}
        assert store.payloads(app) == before
        assert [Encrypting().decode(bytes(each))["user"] for each in before.values()] == ["ada"]

    @pytest.mark.parametrize("store", OBJECT_STORES, indirect=True)
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_stores_of_objects_refuse(self, store: Store, when: str) -> None:
        """Flask-Session's cachelib interfaces do not use their serializer: that is an error, not silence."""
        app = shop(**store.config())
        with pytest.raises(ConfigurationError, match="serializer"):
            with_serializer(app, Encrypting(), when)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["class", "module", "patched"])
def test_what_is_taken_for_an_own_serializer(kind: str, when: str, redis_url: str) -> None:
    """A module, a class and a patched object are serializers, before and after LazySession(app)."""
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    app = shop(SESSION_TYPE="redis", SESSION_REDIS=client)
    browser = with_serializer(app, OWN[kind](app), when).test_client()
    browser.get("/set/user/ada")
    assert read(browser) == {"user": "ada"}
    assert [Encrypting().decode(each)["user"] for each in stored(client)] == ["ada"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_encoder_with_a_hook(when: str, client: fakeredis.FakeRedis) -> None:
    """Flask-Session's serializer with an encoder of the app's stores what that encoder knows, and unpickles nothing."""
    app = shop(SESSION_TYPE="redis", SESSION_REDIS=client)
    app.session_interface = RedisSessionInterface(app, client=client)
    serializer: Any = hooked(app)
    if when == "before":
        app.session_interface.serializer = serializer
    LazySession(app)
    if when == "after":
        app.session_interface.serializer = serializer
    app.add_url_rule("/complex", "complex", lambda: session.update(number=1j) or "")
    browser = app.test_client()
    browser.get("/complex")
    assert read(browser) == {"number": "1j"}
    (key,) = client.keys()
    assert client.get(key) == serializer.encoder.encode({"_permanent": True, "number": 1j})
    client.set(key, pickle.dumps({"number": 1}))
    assert read(browser) == {}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("wrong", [Encrypting, object()], ids=["class", "object"])
def test_what_cannot_be_called(wrong: Any, when: str, client: fakeredis.FakeRedis) -> None:
    """A class in the place of its instance, or an object without the methods, is an error at once."""
    app = shop(SESSION_TYPE="redis")
    app.session_interface = RedisSessionInterface(app, client=client)
    interface: Any = app.session_interface
    before = interface.serializer
    if when == "before":
        interface.serializer = wrong
        with pytest.raises(ConfigurationError, match="serializer"):
            LazySession(app)
        return
    LazySession(app)
    with pytest.raises(ConfigurationError, match="serializer"):
        app.session_interface.serializer = wrong  # type: ignore[attr-defined]
    assert app.session_interface.serializer is before  # type: ignore[attr-defined]
    browser = app.test_client()
    browser.get("/set/user/ada")
    assert read(browser) == {"user": "ada"}


def test_a_fleet(redis_url: str) -> None:
    """Flask-Session and LazySession with one serializer read each other's sessions, in both directions."""
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    apps = [shop(SESSION_TYPE="redis", SESSION_REDIS=client) for _ in range(2)]
    Session(apps[0])
    apps[0].session_interface.serializer = Encrypting()  # type: ignore[attr-defined]
    browsers = [apps[0].test_client(), with_serializer(apps[1], Encrypting(), "after").test_client()]
    for first, second in (browsers, browsers[::-1]):
        first.get("/set/user/ada")
        cookie = first.get_cookie("session")
        assert cookie is not None
        second.set_cookie("session", cookie.value)
        second.get("/set/cart/7")
        assert read(first) == {"user": "ada", "cart": "7"}


def test_two_processes_at_once(redis_url: str) -> None:
    """What another process stored in between is compared and merged, as without a serializer."""
    client = redis.Redis.from_url(redis_url)
    client.flushall()

    def late() -> str:
        session["cart"] = "7"
        (key,) = client.keys("session:*")
        other = {**Encrypting().decode(client.get(key)), "language": "eo"}
        client.set(key, Encrypting().encode(other), keepttl=True)
        return ""

    app = shop(SESSION_TYPE="redis", SESSION_REDIS=client)
    app.add_url_rule("/late", view_func=late)
    browser = with_serializer(app, Encrypting(), "after").test_client()
    browser.get("/set/user/ada")
    (key,) = client.keys("session:*")
    browser.get("/late")
    assert read(browser) == {"user": "ada", "cart": "7", "language": "eo"}
    client.set(key, Encrypting().encode(Encrypting().decode(client.get(key))), keepttl=True)  # equal data, new bytes
    browser.get("/rotate")
    assert read(browser) == {"user": "ada", "cart": "7", "language": "eo"}
    browser.get("/clear")
    assert read(browser) == {}
    assert all("user" not in Encrypting().decode(each) for each in stored(client))


def test_a_url(redis_url: str) -> None:
    """Where LazySession made the client of a URL, a serializer is used in the same way."""
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    app = with_serializer(shop(SESSION_TYPE="redis", SESSION_REDIS=redis_url), Encrypting(), "after")
    browser = app.test_client()
    browser.get("/set/user/ada")
    assert [Encrypting().decode(each)["user"] for each in stored(client)] == ["ada"]
    interface: Any = app.session_interface
    (key,) = client.keys("session:*")
    assert interface.wrapped._retrieve_session_data(key.decode())["user"] == "ada"  # as Flask-SocketIO reads it


def test_back_to_flask_sessions_own(client: fakeredis.FakeRedis) -> None:
    """A serializer of Flask-Session's is served by LazySession's own codec, which does not unpickle."""
    app = shop(SESSION_TYPE="redis")
    app.session_interface = RedisSessionInterface(app, client=client)
    LazySession(app)
    app.session_interface.serializer = Encrypting()  # type: ignore[attr-defined]
    app.session_interface.serializer = MsgSpecSerializer(app, "json")  # type: ignore[attr-defined]
    app.test_client().get("/set/user/ada")
    assert [json.loads(each)["user"] for each in stored(client)] == ["ada"]


def test_what_is_foreign_is_an_error(client: fakeredis.FakeRedis) -> None:
    """Bytes that the serializer refuses are a 503 and stay as they are; a logout without a read removes them."""
    app = shop(SESSION_TYPE="redis")
    app.session_interface = RedisSessionInterface(app, client=client)
    interface: Any = app.session_interface
    interface.serializer = Encrypting()
    LazySession(app)
    client.set("session:" + "a" * 43, b"x" * 64)
    browser = app.test_client()
    browser.set_cookie("session", "a" * 43)
    assert browser.get("/get").status_code == 503
    assert browser.get("/set/user/eve").status_code == 503
    assert client.get("session:" + "a" * 43) == b"x" * 64
    assert browser.get("/clear").status_code == 200
    assert all(each != b"x" * 64 for each in stored(client))


def test_a_text(client: fakeredis.FakeRedis) -> None:
    """A serializer that returns a text stores it in UTF-8."""

    class Texts:
        def encode(self, session: Any) -> str:
            return base64.b64encode(json.dumps(dict(session)).encode()).decode()

        def decode(self, serialized_data: bytes) -> Any:
            return json.loads(base64.b64decode(serialized_data))

    app = shop(SESSION_TYPE="redis")
    app.session_interface = RedisSessionInterface(app, client=client)
    LazySession(app)
    app.session_interface.serializer = Texts()  # type: ignore[attr-defined]
    browser = app.test_client()
    browser.get("/set/user/é")
    assert read(browser) == {"user": "é"}
    assert json.loads(base64.b64decode(stored(client)[0]))["user"] == "é"


def test_the_signed_cookie() -> None:
    """Without a store the serializer is the one of Flask's signed cookie."""

    class Marked(TaggedJSONSerializer):
        def dumps(self, value: Any) -> str:
            return super().dumps({**value, "marked": True})

    app = shop()
    app.session_interface = SecureCookieSessionInterface()  # Flask's own one is shared by all apps
    with_serializer(app, Marked(), "after")
    browser = app.test_client()
    browser.get("/set/user/ada")
    assert read(browser) == {"user": "ada", "marked": True}


class FromDevelopment(MsgSpecSerializer):  # type: ignore[misc]
    """Stands for the serializer of Flask-Session's development branch."""

    encode = decode = None

    def dumps(self, data: dict[str, Any]) -> bytes:
        return self.encoder.encode(data)  # type: ignore[no-any-return]

    def loads(self, serialized_data: bytes) -> Any:
        return self.decoder.decode(serialized_data)


FromDevelopment.__module__ = "flask_session.base"


class PostgreSqlInterface(ServerSideSessionInterface):  # type: ignore[misc]
    """Stands for its interface of SESSION_TYPE "postgresql", which has no adapter."""

    def __init__(self, app: Flask, client: Any) -> None:
        super().__init__(app)
        self.client = client
        self.serializer = FromDevelopment(app, "msgpack")

    def _retrieve_session_data(self, store_id: str) -> Any:
        found = self.client.get(store_id)
        return None if found is None else self.serializer.loads(found)

    def _upsert_session(self, session_lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
        self.client.set(store_id, self.serializer.dumps(dict(session)), px=session_lifetime)

    def _delete_session(self, store_id: str) -> None:
        self.client.delete(store_id)


@pytest.mark.parametrize("serializer", [None, Development()], ids=["its own", "the app's"])
def test_flask_sessions_development_branch(serializer: Any, client: fakeredis.FakeRedis) -> None:
    """Its interfaces call dumps(dict) and loads(bytes), of its own serializer or of the app's."""
    app = shop()
    app.session_interface = PostgreSqlInterface(app, client)
    LazySession(app)
    if serializer is not None:
        app.session_interface.serializer = serializer  # type: ignore[attr-defined]
    browser = app.test_client()
    assert browser.get("/set/user/ada").status_code == 200
    assert read(browser) == {"user": "ada"}
    decode = msgspec.msgpack.decode if serializer is None else serializer.loads
    assert [decode(each)["user"] for each in stored(client)] == ["ada"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_dumps_and_loads(when: str, client: fakeredis.FakeRedis) -> None:
    """A serializer with the names of the development branch works with both versions."""
    app = shop(SESSION_TYPE="redis")
    app.session_interface = RedisSessionInterface(app, client=client)
    interface: Any = app.session_interface
    if when == "before":
        interface.serializer = Development()
    LazySession(app)
    if when == "after":
        app.session_interface.serializer = Development()  # type: ignore[attr-defined]
    browser = app.test_client()
    assert browser.get("/set/user/ada").status_code == 200
    assert read(browser) == {"user": "ada"}
    assert b"ada" not in b"".join(stored(interface.client))
