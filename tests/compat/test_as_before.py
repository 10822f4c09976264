"""What apps use of the interface and of the session object works as before the switch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, json, jsonify, session
from flask.sessions import SecureCookieSessionInterface
from flask_session.base import ServerSideSessionInterface
from flask_session.redis import RedisSessionInterface
from flask_session.sqlalchemy import SqlAlchemySessionInterface

from lazysession import LazySession
from lazysession.interface import LazySessionInterface
from tests.support.stores import FakeRedisStore


def shop(**settings: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", **settings)
    LazySession(app)
    return app


def test_the_class_of_the_interface() -> None:
    """isinstance finds Flask-Session's class, which Airflow needs to end a user's sessions (airflow#33347)."""
    interface = shop(**FakeRedisStore().config()).session_interface
    assert isinstance(interface, RedisSessionInterface)
    assert isinstance(interface, ServerSideSessionInterface)
    assert not isinstance(interface, SqlAlchemySessionInterface)
    assert isinstance(shop().session_interface, SecureCookieSessionInterface)


def test_the_class_of_ours() -> None:
    """It is LazySession's as well, and a second LazySession(app) is still an error."""
    app = shop(**FakeRedisStore().config())
    assert isinstance(app.session_interface, LazySessionInterface)
    assert type(app.session_interface) is LazySessionInterface
    assert not isinstance(app.session_interface, SqlAlchemySessionInterface)
    with pytest.raises(ValueError, match="already"):
        LazySession(app)


ANSWERS: dict[str, Callable[[], Any]] = {
    "return": lambda: session._get_current_object(),  # type: ignore[attr-defined]
    "jsonify": lambda: jsonify(session),
    "jsonify_object": lambda: jsonify(session._get_current_object()),  # type: ignore[attr-defined]
    "nested": lambda: (
        jsonify({"mine": session._get_current_object()})  # type: ignore[attr-defined]
        and session._get_current_object()
    ),  # type: ignore[attr-defined]
    "dumps": lambda: json.dumps(session._get_current_object()),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("name", ANSWERS)
def test_json(name: str) -> None:
    """The session object is JSON as the dict that it was before, through Flask's JSON provider."""
    app = shop(**FakeRedisStore().config())
    app.add_url_rule("/set", "set", lambda: session.update(user="ada") or "")
    app.add_url_rule("/json", "json", ANSWERS[name])
    browser = app.test_client()
    browser.get("/set")
    response = browser.get("/json")
    assert json.loads(response.text) == {"_permanent": True, "user": "ada"}
    assert response.headers["Vary"] == "Cookie"
