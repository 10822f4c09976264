"""``lazysession.regenerate``: a new session id, by a function that type checkers know."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, session
from flask.sessions import SessionMixin
from flask_session.base import ServerSideSession

from lazysession import ConfigurationError, LazySession, SessionReadOnly, regenerate
from tests.support.stores import FakeRedisStore
from tests.typing.typed_app import create_app


def test_a_typed_app() -> None:
    """The app of a typed project gets a new id at its login, and reads the id in a typed way."""
    client = create_app(FakeRedisStore().config()).test_client()
    first = client.post("/login/ada").json
    second = client.post("/login/bob").json
    assert first is not None
    assert second is not None
    assert second["before"] == first["after"] != second["after"]
    assert client.get("/").json == {"user": "bob", "id": second["after"]}


def test_a_typed_app_with_signed_cookies() -> None:
    """Sessions in signed cookies have no id: there is none to read, and none to replace."""
    client = create_app({"SECRET_KEY": "key"}).test_client()
    assert client.post("/login/ada").json == {"before": None, "after": None}
    assert client.get("/").json == {"user": "ada", "id": None}


def test_the_annotations() -> None:
    """The function takes whatever flask.session is, and returns nothing."""
    signature = inspect.signature(regenerate, eval_str=True)
    assert [each.annotation for each in signature.parameters.values()] == [SessionMixin]
    assert signature.return_annotation is None


def test_the_proxy_and_the_object(memory_app: Callable[..., Flask]) -> None:
    """Both flask.session and the object behind it get a new id, the same as by the interface's method."""
    app = memory_app()
    ids: list[str] = []

    @app.route("/")
    def view() -> str:
        for each in (session, session._get_current_object()):  # type: ignore[attr-defined]
            regenerate(each)
            ids.append(session.sid)  # type: ignore[attr-defined]
        return ""

    app.test_client().get("/")
    assert len(set(ids)) == 2


def test_in_a_session_transaction(memory_app: Callable[..., Flask]) -> None:
    """A test that prepares a session can use it: the session knows its app, and no request is needed."""
    app = memory_app()
    client = app.test_client()
    with client.session_transaction() as prepared:
        prepared["user"] = "ada"
    before = client.get_cookie("session")
    with client.session_transaction() as prepared:
        regenerate(prepared)
    after = client.get_cookie("session")
    assert before is not None
    assert after is not None
    assert before.value != after.value


def test_the_mode_holds(memory_app: Callable[..., Flask]) -> None:
    """In mode readonly it raises, as the interface's method does."""
    app = memory_app(LAZYSESSION_RULES=[("/**", "readonly")])
    app.add_url_rule("/", view_func=lambda: regenerate(session) or "")
    with pytest.raises(SessionReadOnly):
        app.test_client().get("/")


def test_outside_of_a_request() -> None:
    """The error names the function and what it needs."""
    with pytest.raises(RuntimeError, match=r"regenerate\(\) .*request"):
        regenerate(session)


@pytest.mark.parametrize("which", ["proxy", "object"])
def test_an_app_without_lazysession(which: str) -> None:
    """A session that LazySession has not made keeps its id, and the error says what is missing."""
    app = Flask("shop")
    app.secret_key = "key"
    with app.test_request_context():
        given = session if which == "proxy" else session._get_current_object()  # type: ignore[attr-defined]
        with pytest.raises(ConfigurationError, match=r"LazySession\(app\).*'shop'"):
            regenerate(given)


def test_a_foreign_session() -> None:
    """Without an app, too, a session of another library is an error, not silence."""
    with pytest.raises(ConfigurationError, match=r"LazySession\(app\)"):
        regenerate(ServerSideSession())


def test_no_secret_key() -> None:
    """Where Flask has no session at all, for want of a SECRET_KEY, the error is Flask's own."""
    app = Flask("shop")
    LazySession(app)
    with app.test_request_context(), pytest.raises(RuntimeError, match="secret key"):
        regenerate(session)


@pytest.mark.parametrize("wrong", [None, {}, "sid"])
def test_what_is_no_session(wrong: Any) -> None:
    """Anything else is a TypeError that names what came."""
    with pytest.raises(TypeError, match=rf"regenerate\(\) .*{type(wrong).__name__}"):
        regenerate(wrong)
