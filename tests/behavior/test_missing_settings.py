"""Settings that would silently give readable cookies, hints for a wrong SESSION_TYPE, and install advice."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import fakeredis
import pytest
from flask import Flask, session

from lazysession import ConfigurationError, LazySession
from lazysession.registry import find, missing_client


def shop(**settings: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", **settings)
    return app


@pytest.mark.parametrize("session_type", [{}, {"SESSION_TYPE": ""}, {"SESSION_TYPE": None}])
@pytest.mark.parametrize("setting", ["SESSION_REDIS", "SESSION_SQLALCHEMY", "SESSION_MONGODB", "SESSION_CACHELIB"])
def test_a_store_without_session_type(setting: str, session_type: dict[str, Any]) -> None:
    """A store that is set and not used is an error: the sessions would be cookies that every client can read."""
    with pytest.raises(ConfigurationError, match=f"{setting} is set, and SESSION_TYPE is not"):
        LazySession(shop(**{setting: fakeredis.FakeRedis()}, **session_type))


def test_signed_cookies_by_choice() -> None:
    """SESSION_TYPE null says so, and no store at all is Flask's default."""
    LazySession(shop(SESSION_TYPE="null", SESSION_REDIS=fakeredis.FakeRedis()))
    LazySession(shop())


def test_config_that_is_loaded_too_late() -> None:
    """LazySession(app) before the config is loaded is an error at the first use of a session."""
    app = shop(PROPAGATE_EXCEPTIONS=True)
    LazySession(app)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=fakeredis.FakeRedis())
    app.add_url_rule("/", view_func=lambda: session.update(user="ada") or "")
    with pytest.raises(ConfigurationError, match=r"after LazySession\(app\)"):
        app.test_client().get("/")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("valkey", "redis"),
        ("postgres", "sqlalchemy"),
        ("mysql", "sqlalchemy"),
        ("mongo", "mongodb"),
        ("reddis", "redis"),
    ],
)
def test_a_hint(wrong: str, right: str) -> None:
    """The error for a SESSION_TYPE that is near to a known one names that one."""
    with pytest.raises(ConfigurationError, match=f"SESSION_TYPE is '{wrong}'; known are .* Did you mean '{right}'"):
        LazySession(shop(SESSION_TYPE=wrong))


@pytest.mark.parametrize(
    ("session_type", "module", "advice"),
    [
        ("mongodb", "bson", "pip install 'lazysession[mongodb]'"),
        ("memcached", "memcached", "pip install 'lazysession[memcached]'"),
        ("sqlalchemy", "MySQLdb", "pip install 'mysqlclient'"),
        ("sqlalchemy", "psycopg2", "pip install 'psycopg2-binary'"),
        ("sqlalchemy", "anything", None),
        ("own", "anything", None),
    ],
)
def test_install_advice(session_type: str, module: str, advice: str | None) -> None:
    """It is never made out of the name of a module, which an attacker could register."""
    message = str(missing_client(session_type, ImportError(f"No module named {module!r}", name=module)))
    assert ("pip install" in message) == (advice is not None)
    assert advice is None or advice in message


def test_a_checkout_without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the link lazysession/backends, the error says to install the package, and not another one."""

    def load(_entry_point: EntryPoint) -> None:
        raise ModuleNotFoundError("No module named 'lazysession.backends'", name="lazysession.backends")

    monkeypatch.setattr(EntryPoint, "load", load)
    with pytest.raises(ConfigurationError, match=r"a checkout without links\. Install it: pip install -e \."):
        find("redis")
