"""Names of settings that nothing reads, and settings that come after LazySession(app)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import fakeredis
import pytest
from flask import Flask, session
from flask_session import Session

from lazysession import ConfigurationError, LazySession
from lazysession.backends.redis import RedisBackend


def shop(**settings: Any) -> Flask:
    """Make an app on fakeredis that is not lazy yet."""
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="0f1e2d3c4b5a69788796a5b4c3d2e1f0", PROPAGATE_EXCEPTIONS=True)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis())
    app.config.update({name: value for name, value in settings.items() if value is not ...})
    for name in [name for name, value in settings.items() if value is ...]:
        del app.config[name]
    app.add_url_rule("/", "index", lambda: session.update(user="ada") or "saved")
    app.add_url_rule("/untouched", "untouched", lambda: "")
    return app


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("LAZY_SESSION_RULES", "LAZYSESSION_RULES"),
        ("LAZYSESION_RULES", "LAZYSESSION_RULES"),
        ("LAZYSESSIONRULES", "LAZYSESSION_RULES"),
        ("LAZYSESSIONS_RULES", "LAZYSESSION_RULES"),
        ("LazySession_Rules", "LAZYSESSION_RULES"),
        ("lazysession_rules", "LAZYSESSION_RULES"),
        ("FLASK_LAZYSESSION_TRACE", "LAZYSESSION_TRACE"),
        ("LAZY_SESSION_SKIP_STATICS", "LAZYSESSION_SKIP_STATIC"),
        ("SESSION_PERMENANT", "SESSION_PERMANENT"),
        ("SESSION_KEY_PREFX", "SESSION_KEY_PREFIX"),
        ("SESSION_ID_LENGHT", "SESSION_ID_LENGTH"),
        ("SESSION_USE_SIGNED", "SESSION_USE_SIGNER"),
        ("SESSION_SERIALISATION_FORMAT", "SESSION_SERIALIZATION_FORMAT"),
        ("SESSION_SQLALCHEMY_TABEL", "SESSION_SQLALCHEMY_TABLE"),
        ("SESSION_MONGODB_COLLECTION", "SESSION_MONGODB_COLLECT"),
        ("SESSION_COOKIE_SECURED", "SESSION_COOKIE_SECURE"),
        ("SESSION_COOKIE_SAME_SITE", "SESSION_COOKIE_SAMESITE"),
        ("SESSION_COOKIES_HTTPONLY", "SESSION_COOKIE_HTTPONLY"),
        ("PERMENANT_SESSION_LIFETIME", "PERMANENT_SESSION_LIFETIME"),
        ("PERMANENT_SESSION_LIFE_TIME", "PERMANENT_SESSION_LIFETIME"),
        ("session_key_prefix", "SESSION_KEY_PREFIX"),
        ("FLASK_SESSION_KEY_PREFIX", "SESSION_KEY_PREFIX"),
        ("SESSIONS_KEY_PREFIX", "SESSION_KEY_PREFIX"),
    ],
)
def test_a_near_miss(wrong: str, right: str) -> None:
    """A name that is nearly one of ours is an error that names ours."""
    with pytest.raises(ConfigurationError) as raised:
        LazySession(shop(**{wrong: True}))
    assert str(raised.value) == f"{wrong} is not a setting: nothing reads it. Did you mean {right}?"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SESSION_TYP": "redis", "SESSION_TYPE": ..., "SESSION_REDIS": ...}, "Did you mean SESSION_TYPE?"),
        ({"SESSION_TYP": "redis", "SESSION_TYPE": ...}, "Did you mean SESSION_TYPE?"),
        ({"SESSIONTYPE": "redis", "SESSION_TYPE": ..., "SESSION_REDIS": ...}, "Did you mean SESSION_TYPE?"),
        ({"SESSION_REDDIS": "redis://h", "SESSION_REDIS": ...}, "Did you mean SESSION_REDIS?"),
        ({"LAZY_SESSION_FOO": 1}, "LAZY_SESSION_FOO is not a setting: those of LazySession begin with LAZYSESSION_."),
        ({"LAZYSESSION": {"RULES": []}}, "LAZYSESSION is a dict: in the environment, write one underscore"),
        (
            {"SESSION": {"TYPE": "redis"}, "SESSION_TYPE": ..., "SESSION_REDIS": ...},
            "SESSION is a dict: in the environment, write one underscore",
        ),
        ({"SESSION_REDIS_URL": "redis://:geheim@h", "SESSION_REDIS": ...}, "Set SESSION_REDIS to a client or a URL."),
        (
            {"SESSION_REDIS_URL": "redis://h", "SESSION_REDIS": ..., "SESSION_TYPE": ...},
            "SESSION_TYPE = 'redis', and SESSION_REDIS to a client or a URL.",
        ),
        ({"SESSION_REDIS_HOST": "h", "SESSION_REDIS": ...}, "Set SESSION_REDIS to a client or a URL."),
        ({"SESSION_URL": "redis://:geheim@h", "SESSION_REDIS": ...}, "Set SESSION_REDIS to a client or a URL."),
        (
            {"SESSION_MEMCACHED_SERVERS": "h", "SESSION_TYPE": "memcached"},
            "Set SESSION_MEMCACHED to a client or a URL.",
        ),
        ({"SESSION_MONGODB_URI": "h", "SESSION_TYPE": "mongodb"}, "Set SESSION_MONGODB to a client or a URL."),
        (
            {"SESSION_SQLALCHEMY_DATABASE_URI": "h", "SESSION_TYPE": "sqlalchemy"},
            "Set SESSION_SQLALCHEMY to a client or a URL.",
        ),
        ({"SESSION_DYNAMODB_REGION": "h", "SESSION_TYPE": "dynamodb"}, "Set SESSION_DYNAMODB to a client or a URL."),
        ({"SESSION_FILE_DIR": "/x", "SESSION_TYPE": ..., "SESSION_REDIS": ...}, "SESSION_TYPE = 'filesystem'"),
        (
            {"SESSION_SQLALCHEMY_TABLE": "x", "SESSION_TYPE": ..., "SESSION_REDIS": ...},
            "SESSION_SQLALCHEMY_TABLE is set, and SESSION_TYPE is not",
        ),
    ],
)
def test_a_store_under_a_wrong_name(settings: dict[str, Any], words: str) -> None:
    """A store that is named and not read would be another one, or a readable cookie; no value is repeated."""
    with pytest.raises(ConfigurationError, match=re.escape(words)) as raised:
        LazySession(shop(**settings))
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"SESSION_REDIS_URL": "redis://h"},  # what the app made SESSION_REDIS of
        {"SESSION_TYPES": ["redis"], "SESSION_COOKIE_NAME": "shop", "SESSION_COOKIE_NAME_OLD": "old"},
        {"ADMIN_SESSION_COOKIE_NAME": "admin", "LAZY": True, "SESSIONS": {}, "JWT_SESSION_COOKIE": True},
        {"SESSION_SQLALCHEMY_TABLE": "x", "SESSION_MONGODB": None},
        {"REMEMBER_COOKIE_NAME": "r", "SQLALCHEMY_DATABASE_URI": "sqlite://", "SESSION": "x", "LAZY_LOADING": 1},
        {"SESSION_FILE_DIR": "/x", "SESSION_FILE_MODE": 0o600},
    ],
)
def test_names_of_the_apps_own(settings: dict[str, Any]) -> None:
    """Names that only begin alike, and settings of another store, are no errors."""
    LazySession(shop(**settings))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SESSION_TIMEOUT": 600}, "SESSION_TIMEOUT is not read. The setting is PERMANENT_SESSION_LIFETIME."),
        ({"SESSION_COOKIE_AGE": 600}, "SESSION_COOKIE_AGE is not read. The setting is PERMANENT_SESSION_LIFETIME."),
        ({"SESSION_PREFIX": "x"}, "SESSION_PREFIX is not read. The setting is SESSION_KEY_PREFIX."),
        ({"SESSION_ENGINE": "x"}, "SESSION_ENGINE is not read. The setting is SESSION_TYPE."),
        ({"SESSION_SECRET": "geheim"}, "SESSION_SECRET is not read. The setting is SECRET_KEY."),
        ({"REDIS_URL": "redis://:geheim@h", "SESSION_REDIS": None}, "REDIS_URL is not read for sessions"),
        ({"MEMCACHED_URL": "h:11211", "SESSION_TYPE": "memcached"}, "MEMCACHED_URL is not read for sessions"),
        (
            {"SESSION_FILE_DIR": "/x", "SESSION_TYPE": "cachelib"},
            "SESSION_FILE_DIR is read only for SESSION_TYPE 'filesy",
        ),
        (
            {"SESSION_KEY_PREFIX": "x", "SESSION_USE_SIGNER": False, "SESSION_TYPE": ..., "SESSION_REDIS": ...},
            "SESSION_KEY_PREFIX, SESSION_USE_SIGNER: not read without SESSION_TYPE",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_what_is_logged(
    settings: dict[str, Any],
    words: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    """What may be a setting of the app or of another library is logged, and found by ``check``."""
    monkeypatch.chdir(tmp_path)
    app = shop(**settings)
    LazySession(app)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [message for message in warnings if words in message]
    output = app.test_cli_runner().invoke(args=["lazysession", "check", "--offline"]).output
    assert words in output
    assert "[settings-unread]" in output
    assert "geheim" not in output + caplog.text


def test_any_other_name(caplog: pytest.LogCaptureFixture) -> None:
    """A name of the app's own is logged at level INFO only."""
    caplog.set_level("INFO", "lazysession")
    LazySession(shop(SESSION_FOO=1, SESSION_WELCOME="hello"))
    assert caplog.messages == ["Settings that LazySession does not read: SESSION_FOO, SESSION_WELCOME."]
    assert caplog.records[0].levelname == "INFO"


def test_settings_of_another_store(caplog: pytest.LogCaptureFixture) -> None:
    """A config for several deployments has them, and they are mentioned in the same place."""
    caplog.set_level("INFO", "lazysession")
    LazySession(shop(SESSION_FILE_DIR="/x", SESSION_SQLALCHEMY="sqlite://", SESSION_MONGODB=None))
    assert caplog.messages == ["Settings that LazySession does not read: SESSION_FILE_DIR, SESSION_SQLALCHEMY."]


def test_settings_of_an_adapter_of_the_apps_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins with the name of another adapter is left to that."""
    monkeypatch.setattr("lazysession.registry.names", lambda: ["own", "redis"])
    LazySession(shop(SESSION_OWN_URL="x", SESSION_OWN="y"))


def test_options_of_an_adapter(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An option that an adapter takes in addition to Flask-Session's settings is a setting, and read once as well."""

    def from_setting(value: Any, *, key_space: str | None = None, **_options: object) -> Any:
        return RedisBackend(value)

    monkeypatch.setattr(RedisBackend, "from_setting", from_setting)
    caplog.set_level("INFO", "lazysession")
    app = shop(SESSION_REDIS_KEY_SPACE="x")
    LazySession(app)
    assert caplog.messages == []
    app.config["SESSION_REDIS_KEY_SPACE"] = "y"
    with pytest.raises(ConfigurationError, match="SESSION_REDIS_KEY_SPACE was set or changed"):
        app.test_client().get("/")
    with pytest.raises(ConfigurationError, match="Did you mean SESSION_REDIS_KEY_SPACE"):
        LazySession(shop(SESSION_REDIS_KEYSPACE="x"))


# Later


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAZYSESSION_TRACE", True),
        ("LAZYSESSION_SKIP_PATHS", ["/health"]),
        ("LAZYSESSION_NONSENSE", 1),
        ("SESSION_REDIS", "redis://elsewhere"),
        ("SESSION_TYPE", "filesystem"),
        ("SESSION_KEY_PREFIX", "shop:"),
        ("SESSION_PERMANENT", False),
        ("SESSION_USE_SIGNER", True),
        ("SESSION_ID_LENGTH", 64),
        ("SESSION_SERIALIZATION_FORMAT", "json"),
    ],
)
def test_a_setting_that_comes_later(name: str, value: Any) -> None:
    """It has no effect, so each use of a session is an error that says so; a request without a use is served."""
    app = shop()
    LazySession(app)
    app.config[name] = value
    client = app.test_client()
    assert client.get("/untouched").status_code == 200
    for _ in range(2):
        with pytest.raises(ConfigurationError) as raised:
            client.get("/")
        assert str(raised.value).startswith(f"{name} was set or changed after LazySession(app), which has read it")
    assert "elsewhere" not in str(raised.value)
    output = app.test_cli_runner().invoke(args=["lazysession", "check", "--offline"]).output
    assert f"error: {name} was set or changed after LazySession(app)" in output


def test_a_setting_that_is_removed_later() -> None:
    """A setting that was read stays what it was; to remove it has no effect either."""
    app = shop(LAZYSESSION_CONFLICT="raise")
    LazySession(app)
    del app.config["LAZYSESSION_CONFLICT"]
    with pytest.raises(ConfigurationError, match="LAZYSESSION_CONFLICT was set or changed after"):
        app.test_client().get("/")


def test_a_store_that_comes_later_over_cookies() -> None:
    """Without SESSION_TYPE as well: the sessions would be cookies."""
    app = shop(SESSION_TYPE=..., SESSION_REDIS=...)
    LazySession(app)
    app.config["SESSION_REDIS"] = fakeredis.FakeRedis()
    with pytest.raises(ConfigurationError, match="SESSION_REDIS was set or changed after"):
        app.test_client().get("/")


def test_the_same_settings_again() -> None:
    """A config that is loaded twice changes nothing; nor does a value that is what counts without it."""
    app = shop(LAZYSESSION_SKIP_PATHS=["/health"], SESSION_KEY_PREFIX="shop:")
    LazySession(app)
    app.config.update(
        LAZYSESSION_SKIP_PATHS=["/health"], SESSION_KEY_PREFIX="shop:", SESSION_MONGODB=None, SESSION_FOO=1
    )
    assert app.test_client().get("/").text == "saved"


@pytest.mark.parametrize("first", ["LazySession", "Session"])
def test_settings_that_are_followed(first: str) -> None:
    """What Flask and Flask-Session ask for in each request may change at any time."""
    app = shop()
    if first == "Session":
        Session(app)
    LazySession(app)
    app.config["SESSION_COOKIE_NAME"] = "late"
    app.config["SESSION_COOKIE_PATH"] = "/shop"
    app.config["PERMANENT_SESSION_LIFETIME"] = timedelta(seconds=500)
    app.config["SECRET_KEY"] = "another"
    response = app.test_client().get("/")
    assert response.headers["Set-Cookie"].startswith("late=")
    assert "Path=/shop" in response.headers["Set-Cookie"]
    client = app.session_interface.client  # type: ignore[attr-defined]
    assert 490 < client.ttl(client.keys()[0]) <= 500
    app.config["PERMANENT_SESSION_LIFETIME"] = 900
    app.test_client().get("/")
    assert max(client.ttl(key) for key in client.keys()) > 890
