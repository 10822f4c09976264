"""Half of a fleet may run on Flask-Session alone: the same keys, bytes and cookies, in both directions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask, session
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import NullPool

from lazysession import LazySession

ONE_DAY = 86400


def redis_config(url: str) -> dict[str, Any]:
    return {"SESSION_TYPE": "redis", "SESSION_REDIS": redis.Redis.from_url(url)}


def sql_config(url: str) -> dict[str, Any]:
    return {
        "SESSION_TYPE": "sqlalchemy",
        "SESSION_SQLALCHEMY": SQLAlchemy(),
        "SQLALCHEMY_DATABASE_URI": url,
        "SQLALCHEMY_ENGINE_OPTIONS": {"poolclass": NullPool},  # nothing is left open when the server stops
    }


@pytest.fixture(params=["redis", "sqlite", "postgresql", "mariadb"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """A function that returns the config of one more app on the same store."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        redis.Redis.from_url(url).flushall()
        return lambda: redis_config(url)
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/shared.db" if sqlite else request.getfixturevalue(f"{request.param}_url")
    return lambda: sql_config(url)


def make(extension: type, config: dict[str, Any]) -> Flask:
    app = Flask("shop")
    app.config.update(TESTING=True, SECRET_KEY="key", PERMANENT_SESSION_LIFETIME=ONE_DAY, **config)
    if "SQLALCHEMY_DATABASE_URI" in config:
        config["SESSION_SQLALCHEMY"].init_app(app)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SESSION_USE_SIGNER is deprecated, and read all the same
        extension(app)

    @app.route("/set/<key>")
    def set_key(key: str) -> str:
        session[key] = [key, 1, 2.5, None, {"nested": True}, "\N{SNOWMAN}"]
        return session.sid  # type: ignore[attr-defined, no-any-return]

    @app.route("/keys")
    def keys() -> str:
        return ",".join(sorted(session))

    @app.route("/rotate")
    def rotate() -> str:
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        session["user"] = 1
        return ""

    @app.route("/logout")
    def logout() -> str:
        session.clear()
        return ""

    return app


@pytest.mark.parametrize("format", ["msgpack", "json"])
@pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
@pytest.mark.parametrize("order", [(Session, LazySession), (LazySession, Session)], ids=["theirs first", "ours first"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flask-Session's SQL model asks for utcnow()
def test_a_session_is_used_by_both(
    config: Callable[[], dict[str, Any]], format: str, signed: bool, order: tuple[type, type]
) -> None:
    """One writes it, the other reads and changes it, the first reads it again and ends it."""
    settings = {"SESSION_SERIALIZATION_FORMAT": format, "SESSION_USE_SIGNER": signed}
    first, second = (make(extension, config() | settings).test_client() for extension in order)
    sid = first.get("/set/a").text
    cookie = first.get_cookie("session")
    assert cookie is not None
    second.set_cookie("session", cookie.value)
    assert second.get("/keys").text == "_permanent,a"
    assert second.get("/set/b").text == sid
    assert first.get("/keys").text == "_permanent,a,b"
    assert first.get("/set/c").text == sid
    assert second.get("/keys").text == "_permanent,a,b,c"
    second.get("/logout")
    assert first.get("/keys").text == "_permanent"


@pytest.mark.parametrize("format", ["msgpack", "json"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flask_session_ignores_a_forwarding_record(config: Callable[[], dict[str, Any]], format: str) -> None:
    """What a rotation leaves under the old id is an empty session to Flask-Session, neither saved nor sent."""
    app, peer = (make(ours, config() | {"SESSION_SERIALIZATION_FORMAT": format}) for ours in (LazySession, Session))
    client, late, elsewhere = app.test_client(), app.test_client(), peer.test_client()
    sid = client.get("/set/a").text
    late.set_cookie("session", sid)
    elsewhere.set_cookie("session", sid)
    client.get("/rotate")
    response = elsewhere.get("/keys")
    assert (response.text, response.headers.get("Set-Cookie")) == ("_permanent", None)
    assert late.get("/keys").text == "_permanent,a"
    assert client.get("/keys").text == "_permanent,a,user"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_same_bytes(redis_url: str) -> None:
    """The stored bytes and their expiry are those that Flask-Session would have stored."""
    client = redis.Redis.from_url(redis_url)
    stored = []
    for extension in (Session, LazySession):
        client.flushall()
        make(extension, redis_config(redis_url)).test_client().get("/set/a")
        (key,) = client.keys()
        assert ONE_DAY - 5 < client.ttl(key) <= ONE_DAY
        stored.append((len(key), client.get(key)))
    assert stored[0] == stored[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_another_format_is_read_without_being_rewritten(store: Any, make_app: Any) -> None:
    """A payload in the other format is no change of its own: reading it does not write it."""
    app = make_app(SESSION_SERIALIZATION_FORMAT="msgpack")
    app.add_url_rule("/", view_func=lambda: str(session["a"]))
    payload = b'{"_permanent": true, "a": 1}'
    store.put(app, f"session:{'a' * 43}", payload)
    client = app.test_client()
    client.set_cookie("session", "a" * 43)
    assert client.get("/").text == "1"
    assert store.payloads(app) == {f"session:{'a' * 43}": payload}
