"""Wrong values of the settings of Flask-Session and Flask that sessions depend on: one clear line at start-up."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from flask import Flask, session
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy

from lazysession import ConfigurationError, LazySession
from lazysession.pages import Page, see

pytestmark = pytest.mark.filterwarnings("ignore:.*use_signer.*:DeprecationWarning")


def shop(**settings: Any) -> Flask:
    """Make an app on fakeredis that is not lazy yet; its view writes into the session."""
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis())
    app.config.update(settings)
    app.add_url_rule("/", view_func=lambda: session.update(user="ada") or "saved")
    return app


def error_of(app: Flask) -> str:
    """Return the message of the error at start-up."""
    with pytest.raises(ConfigurationError) as raised:
        LazySession(app)
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SESSION_ID_LENGTH", "32", "'32'; allowed is a whole number of bytes, 1 or more. Write 32 without quotes"),
        ("SESSION_ID_LENGTH", 0, "0; allowed is a whole number of bytes"),
        ("SESSION_ID_LENGTH", -1, "-1; allowed is a whole number of bytes"),
        ("SESSION_ID_LENGTH", True, "True; allowed is a whole number of bytes"),
        ("SESSION_ID_LENGTH", 32.0, "32.0; allowed is a whole number of bytes"),
        ("SESSION_KEY_PREFIX", None, "None; allowed is text"),
        ("SESSION_KEY_PREFIX", 5, "5; allowed is text"),
        ("SESSION_PERMANENT", "false", "'false', which counts as true; allowed is True or False"),
        ("SESSION_USE_SIGNER", "False", "'False', which counts as true; allowed is True or False"),
        ("PERMANENT_SESSION_LIFETIME", "3600", "'3600'; allowed is a number of seconds or a timedelta, more than 0"),
        ("PERMANENT_SESSION_LIFETIME", None, "None; allowed is a number of seconds or a timedelta"),
        ("PERMANENT_SESSION_LIFETIME", True, "True; allowed is a number of seconds or a timedelta"),
        ("PERMANENT_SESSION_LIFETIME", -5, "-5; allowed is a number of seconds or a timedelta, more than 0"),
        ("PERMANENT_SESSION_LIFETIME", float("nan"), "nan; allowed is a number of seconds"),
        ("PERMANENT_SESSION_LIFETIME", 10**15, "1000000000000000; allowed is a number of seconds"),
        ("PERMANENT_SESSION_LIFETIME", timedelta(days=10**7), "allowed is a number of seconds"),
        ("SESSION_COOKIE_NAME", 5, "5; allowed is text"),
        ("SESSION_COOKIE_NAME", None, "None; allowed is text"),
        ("SESSION_COOKIE_NAME", "", "''; allowed is text"),
        ("SESSION_COOKIE_NAME", "a=b", "'a=b'; allowed is text without"),
        ("SESSION_COOKIE_DOMAIN", 5, "5; allowed is text or None"),
        ("SESSION_COOKIE_PATH", 5, "5; allowed is text or None"),
        ("SESSION_COOKIE_SAMESITE", False, "False; allowed is text or None"),
        ("SESSION_COOKIE_SECURE", "false", "'false', which counts as true; allowed is True or False"),
        ("SESSION_COOKIE_HTTPONLY", "no", "'no', which counts as true; allowed is True or False"),
        ("SESSION_REFRESH_EACH_REQUEST", "off", "'off', which counts as true; allowed is True or False"),
    ],
)
def test_a_wrong_value(name: str, value: Any, words: str) -> None:
    """The error names the setting, the value and what is allowed, and the app stays as it was."""
    app = shop(**{name: value})
    before = app.session_interface
    message = error_of(app)
    assert message.startswith(f"{name} is ")
    assert words in message
    assert len(message) < 200
    assert app.session_interface is before


@pytest.mark.parametrize(
    ("session_type", "name", "value", "words"),
    [
        ("sqlalchemy", "SESSION_CLEANUP_N_REQUESTS", "5", "'5'; allowed is a whole number of requests"),
        ("sqlalchemy", "SESSION_CLEANUP_N_REQUESTS", -5, "-5; allowed is a whole number of requests"),
        ("sqlalchemy", "SESSION_SQLALCHEMY_TABLE", None, "None; allowed is text"),
        ("sqlalchemy", "SESSION_SQLALCHEMY_SCHEMA", 5, "5; allowed is text or None"),
        ("mongodb", "SESSION_MONGODB_DB", 5, "5; allowed is text"),
        ("dynamodb", "SESSION_DYNAMODB_TABLE", 5, "5; allowed is text"),
    ],
)
def test_a_wrong_value_for_a_store(session_type: str, name: str, value: Any, words: str) -> None:
    """The settings of a store are looked at where it is the one of SESSION_TYPE."""
    message = error_of(shop(**{"SESSION_TYPE": session_type, name: value}))
    assert message.startswith(f"{name} is ")
    assert words in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SESSION_PERMANENT", 0),
        ("SESSION_USE_SIGNER", None),
        ("SESSION_COOKIE_SECURE", "true"),  # as os.environ gives it; it means what it does
        ("SESSION_COOKIE_DOMAIN", False),
        ("SESSION_CLEANUP_N_REQUESTS", None),
        ("SESSION_KEY_PREFIX", ""),
        ("SESSION_ID_LENGTH", 8),
        ("PERMANENT_SESSION_LIFETIME", timedelta(days=3650)),
        ("PERMANENT_SESSION_LIFETIME", 0.5),
    ],
)
def test_what_works_is_taken(name: str, value: Any) -> None:
    """A value that works as intended with Flask-Session does so here."""
    app = shop(**{name: value})
    LazySession(app)
    assert app.test_client().get("/").text == "saved"


def test_settings_of_flask_session_without_it() -> None:
    """With Flask's signed cookie nothing reads them, and their values do not matter."""
    LazySession(shop(SESSION_TYPE=None, SESSION_REDIS=None, SESSION_ID_LENGTH="32"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "SESSION_TYPE is 5; allowed is text, such as 'redis'"),
        (["redis"], "SESSION_TYPE is ['redis']; allowed is text"),
        (fakeredis.FakeRedis(), "SESSION_TYPE is an object of type Fake"),
        ("redis://:geheim@host/0", "SESSION_TYPE is a URL; set SESSION_TYPE = 'redis', and SESSION_REDIS to the URL."),
        ("postgresql://me:geheim@host/db", "SESSION_TYPE = 'sqlalchemy', and SESSION_SQLALCHEMY to the URL."),
        ("cookie", "Did you mean 'null'?"),
        ("none", "Did you mean 'null'?"),
        ("fs", "Did you mean 'filesystem'?"),
        ("memory", "Did you mean 'cachelib'?"),
    ],
)
def test_a_wrong_session_type(value: Any, words: str) -> None:
    """What SESSION_TYPE cannot be is said with what it is, or with what was meant; no password is repeated."""
    message = error_of(shop(SESSION_TYPE=value))
    assert words in message
    assert "geheim" not in message


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ("memcache", "memcached"),
        ("file", "filesystem"),
        ("sql", "sqlalchemy"),
        ("dynamo", "dynamodb"),
        (" redis", "redis"),
        ('"redis"', "redis"),
    ],
)
def test_a_near_session_type(value: str, right: str) -> None:
    """Names of other libraries, blanks and quotes get a hint."""
    assert f"Did you mean {right!r}?" in error_of(shop(SESSION_TYPE=value))


def test_sqlalchemy_alone() -> None:
    """SESSION_TYPE "sqlalchemy" without a database says where to name one."""
    message = error_of(shop(SESSION_TYPE="sqlalchemy"))
    assert message.startswith("SESSION_SQLALCHEMY is not set: ")
    assert "SQLALCHEMY_DATABASE_URI" in message


def test_flask_sqlalchemy_before_its_init_app() -> None:
    """An extension that is not set up on the app has no database yet, and the error says what to call."""
    message = error_of(shop(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=SQLAlchemy()))
    assert message.startswith("SESSION_SQLALCHEMY is a SQLAlchemy that is not set up on this app: ")
    assert "init_app(app)" in message


@pytest.mark.parametrize("first", ["Session", "LazySession"])
def test_a_signer_without_a_key(first: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged at start-up, as a factory may set the key later, and an error where a session is saved."""
    app = shop(SESSION_USE_SIGNER=True, SECRET_KEY=None)
    if first == "Session":
        Session(app)
    LazySession(app)
    assert caplog.messages == [
        "SESSION_USE_SIGNER is on, and SECRET_KEY is not set: set it before the first request. "
        f"{see(Page.NO_SECRET_KEY)}"
    ]
    with pytest.raises(ConfigurationError, match="SECRET_KEY is not set, and SESSION_USE_SIGNER signs with it"):
        app.test_client().get("/")


@pytest.mark.parametrize("settings", [{"SESSION_USE_SIGNER": True}, {"SESSION_TYPE": None, "SESSION_REDIS": None}])
def test_a_key_that_is_a_number(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """FLASK_SECRET_KEY=12345 is a number to from_prefixed_env; the error does not show it."""
    app = shop(**settings)
    monkeypatch.setenv("FLASK_SECRET_KEY", "1234567")
    app.config.from_prefixed_env()
    message = error_of(app)
    assert message.startswith("SECRET_KEY is an object of type int; allowed is text or bytes")
    assert "1234567" not in message


def test_a_key_that_is_not_needed() -> None:
    """Ids that are not signed need no key."""
    LazySession(shop(SECRET_KEY=None))
    LazySession(shop(SECRET_KEY=5))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SESSION_FILE_DIR": 5}, "SESSION_FILE_DIR is 5; allowed is the path of a directory"),
        ({"SESSION_FILE_DIR": __file__}, "allowed is the path of a directory that the app can write to"),
        ({"SESSION_FILE_DIR": f"{__file__}/sessions"}, "allowed is the path of a directory that the app can write to"),
        ({"SESSION_FILE_MODE": "600"}, "SESSION_FILE_MODE is '600'; allowed is a number such as 0o600"),
        ({"SESSION_FILE_MODE": 600}, "SESSION_FILE_MODE is 600; allowed is a number such as 0o600"),
        ({"SESSION_FILE_MODE": 644}, "SESSION_FILE_MODE is 644; allowed is a number such as 0o600"),
        ({"SESSION_FILE_THRESHOLD": "0"}, "SESSION_FILE_THRESHOLD is '0'; allowed is a whole number of files"),
    ],
)
def test_wrong_settings_of_files(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A directory that cannot be, a mode in decimal and a number in quotes are found at start-up."""
    message = error_of(shop(**{"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": str(tmp_path), **settings}))
    assert words in message


# From the environment


def from_environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> Flask:
    """Make an app whose settings ``LAZYSESSION_<NAME>`` come from the environment, as text."""
    for name, value in values.items():
        monkeypatch.setenv(f"FLASK_LAZYSESSION_{name}", value)
    app = shop()
    app.config.from_prefixed_env()
    return app


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("REFRESH_THROTTLE", "300", "refresh_throttle", 300),
        ("SKIP_STATIC", "false", "skip_static", False),
        ("SKIPPED_WRITE", "raise", "skipped_write", "raise"),
        ("TRANSIENT_KEYS", '["_a", "_b"]', "transient_keys", {"_a", "_b"}),
        ("CONFLICT", "overwrite", "conflict", "overwrite"),
        ("CONFLICT_EXEMPT_KEYS", '["_flashes"]', "conflict_exempt_keys", {"_flashes"}),
        ("ON_READ_ERROR", "empty", "on_read_error", "empty"),
        ("ABSOLUTE_LIFETIME", "43200.5", "absolute_lifetime", 43200.5),
        ("ABSOLUTE_LIFETIME", "null", "absolute_lifetime", None),
        ("ROTATE_ON_LOGIN", "false", "rotate_on_login", False),
        ("ALLOW_PICKLE", "true", "allow_pickle", True),
        ("TRACE", "true", "trace", True),
    ],
)
def test_each_setting_from_the_environment(
    name: str, value: str, attribute: str, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shell can say is enough to set each of them."""
    from lazysession.settings import Settings

    app = from_environment(monkeypatch, **{name: value})
    assert getattr(Settings.from_config(app.config, 86400.0), attribute) == expected
    LazySession(app)


@pytest.mark.parametrize(
    ("name", "value"), [("RULES", '[["/a,/b", "skip"], ["method:GET", "skip"]]'), ("SKIP_PATHS", '["/a,/b"]')]
)
@pytest.mark.filterwarnings("ignore:.*has a comma")
def test_rules_from_the_environment(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are JSON; a pattern with a comma can be written as a list of one."""
    from lazysession.patterns import compile_rules
    from lazysession.settings import Settings

    settings = Settings.from_config(from_environment(monkeypatch, **{name: value}).config, 86400.0)
    assert compile_rules(settings.rules, settings.skip_paths)[0].source == "/a,/b"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("REFRESH_THROTTLE", '"300"', "Write 300 without quotes."),
        ("ABSOLUTE_LIFETIME", '"3600.5"', "Write 3600.5 without quotes."),
        ("ABSOLUTE_LIFETIME", "None", "In the environment, None is written null."),
        ("ABSOLUTE_LIFETIME", "Infinity", "more than 0 seconds, or None for no limit"),
        ("RULES", "[['/assets/**', 'skip']]", "In the environment it is JSON, with double quotes"),
        ("RULES", '[("/assets/**", "skip")]', "In the environment it is JSON, with double quotes"),
        ("SKIP_PATHS", "['/a', '/b']", "In the environment it is JSON, with double quotes"),
        ("SKIP_PATHS", "/a,/b", 'Write a list: ["/a", "/b"].'),
        ("SKIP_PATHS", "/a /b", 'Write a list: ["/a", "/b"].'),
        ("SKIP_PATHS", "/a;endpoint:b", 'Write a list: ["/a", "endpoint:b"].'),
        ("TRANSIENT_KEYS", "_a, _b", 'Write a list: ["_a", "_b"].'),
        ("CONFLICT_EXEMPT_KEYS", "_flashes,seen", 'Write a list: ["_flashes", "seen"].'),
        ("CONFLICT_EXEMPT_KEYS", "['_flashes']", "In the environment it is JSON, with double quotes"),
    ],
)
def test_a_wrong_value_from_the_environment(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shell made of it is shown, with how to write it."""
    message = error_of(from_environment(monkeypatch, **{name: value}))
    assert message.startswith(f"LAZYSESSION_{name} is ")
    assert words in message


def test_booleans_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON writes them in lower case, and so says the error."""
    message = error_of(from_environment(monkeypatch, SKIP_STATIC="False"))
    assert re.match(r"LAZYSESSION_SKIP_STATIC is 'False'; .* \(in the environment: true or false\)", message)


def test_rules_without_an_order() -> None:
    """The first match decides, and a set has no first."""
    assert "RULES is a set, which has no order" in error_of(shop(LAZYSESSION_RULES={("/a", "skip"), ("/b", "normal")}))


@pytest.mark.parametrize("value", ["redis://host ", "\tredis://host", '"redis://:geheim@host"', "'redis://host'"])
def test_a_url_with_quotes_or_blanks(value: str) -> None:
    """What a .env file leaves around a URL is said to be there; no password is repeated."""
    message = error_of(shop(SESSION_REDIS=value))
    assert re.match("SESSION_REDIS cannot be used: it has (quotes|blanks) around it. Remove them", message)
    assert "geheim" not in message
