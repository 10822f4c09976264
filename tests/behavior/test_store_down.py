"""A store that fails: what the visitor gets, by each LAZYSESSION_ON_READ_ERROR."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import fakeredis
import msgspec
import pytest
from flask import Flask, Response, get_flashed_messages, make_response, session
from flask.testing import FlaskClient
from flask_login import LoginManager, logout_user
from flask_session.redis import RedisSessionInterface

from lazysession import (
    SessionReadOnly,
    SessionUnavailable,
)
from lazysession.ids import SessionIds
from tests.support.breaking import StoreDown, break_verbs
from tests.support.stores import LIVE
from tests.support.visiting import KEY, MakeApp, set_mine


class TestOutages:
    """The store fails."""

    @pytest.fixture
    def client(self, memory_app: MakeApp, request: pytest.FixtureRequest) -> FlaskClient:
        """A client with a live session, in an app of the ON_READ_ERROR of the test's marker."""
        app = memory_app(LAZYSESSION_ON_READ_ERROR=getattr(request, "param", "unavailable"))
        app.testing = False
        app.register_error_handler(StoreDown, lambda error: (f"down: {error}", 418))
        app.add_url_rule("/read", "read", lambda: str(session.get("mine")) + str(session.get("other")))
        app.add_url_rule("/set", "set", lambda: session.update(mine=2) or "")
        app.add_url_rule("/untouched", "untouched", lambda: "")
        client = app.test_client()
        client.get("/set")
        return client

    def test_unused_requests_do_not_notice(self, client: FlaskClient) -> None:
        """A page that does not use the session works whatever the store does."""
        attempts = break_verbs(client.application, "read", "replace", "create", "delete")
        assert client.get("/untouched").status_code == 200
        assert attempts == []

    def test_unavailable(self, client: FlaskClient) -> None:
        """503, which an error handler may render; the store is asked once."""
        attempts = break_verbs(client.application, "read")
        response = client.get("/read")
        assert response.status_code == 503
        assert "Set-Cookie" not in response.headers
        assert attempts == ["read"]

    def test_what_runs_after_the_failure(self, memory_app: MakeApp) -> None:
        """The first use raises. The error page and the hooks after it see an empty session, and nothing is saved."""
        app = memory_app()
        client = app.test_client()
        with client.session_transaction() as transaction:
            transaction["a"] = 1
        attempts = break_verbs(app, "read", "create", "replace", "delete")
        app.add_url_rule("/", view_func=lambda: session["a"])

        @app.errorhandler(503)
        def page(error: SessionUnavailable) -> tuple[str, int]:
            session["csrf_token"] = "x"
            return f"{type(error.__cause__).__name__} {session.get('a')} {get_flashed_messages()}", 503

        @app.after_request
        def hook(response: Response) -> Response:
            response.headers["X-Cart"] = str(session.get("cart"))
            return response

        response = client.get("/")
        assert (response.status_code, response.text) == (503, "StoreDown None []")
        assert response.headers["X-Cart"] == "None"
        assert "Set-Cookie" not in response.headers
        assert attempts == ["read"]

    def test_no_success_is_claimed_for_a_lost_change(self, memory_app: MakeApp) -> None:
        """A view that swallows the failure gets no 200, whether it then changes the session or not."""
        app = memory_app()
        app.testing = False
        client = app.test_client()
        with client.session_transaction() as transaction:
            transaction["a"] = 1
        attempts = break_verbs(app, "read", "create", "replace", "delete")

        @app.route("/<task>")
        def view(task: str) -> str:
            with suppress(SessionUnavailable):
                session.get("a")
            if task == "write":
                with suppress(SessionUnavailable):
                    session["order"] = 1
            return "done"

        for path in ("/write", "/read"):
            response = client.get(path)
            assert (response.status_code, response.headers.get("Set-Cookie")) == (503, None)
        assert attempts == ["read", "read"]

    @pytest.mark.parametrize("policy", ["unavailable", "empty"])
    @pytest.mark.parametrize("leave", [lambda: session.pop("uid", None), lambda: logout_user()], ids=["pop", "login"])
    def test_no_logout_is_claimed(self, memory_app: MakeApp, policy: str, leave: Callable[[], Any]) -> None:
        """Removing a key is a change, as it may be in the session: a session that was not loaded is not empty."""
        app = memory_app(LAZYSESSION_ON_READ_ERROR=policy)
        app.testing = False
        LoginManager(app).user_loader(lambda _id: None)
        client = app.test_client()
        with client.session_transaction() as transaction:
            transaction["uid"] = 1

        @app.route("/<task>")
        def view(task: str) -> str:
            with suppress(SessionUnavailable):
                session.get("uid")
            return f"logged out: {leave()}" if task == "logout" else "page"

        break_verbs(app, "read")
        assert client.get("/page").status_code == (200 if policy == "empty" else 503)
        assert client.get("/logout").status_code == (500 if policy == "empty" else 503)

    def test_a_remembered_permanent_is_no_lost_change(self, memory_app: MakeApp) -> None:
        """An error page that uses the session is shown, also where a hook sets ``session.permanent``."""
        app = memory_app(SESSION_PERMANENT=False)
        client = app.test_client()
        with client.session_transaction() as transaction:
            transaction["a"] = 1
        break_verbs(app, "read")

        @app.before_request
        def set_permanent() -> None:
            session.permanent = True

        app.add_url_rule("/", view_func=lambda: str(session.get("a")))
        app.register_error_handler(SessionUnavailable, lambda _error: f"later, {session.get('a')}")
        assert client.get("/").text == "later, None"

    @pytest.mark.parametrize("client", ["raise"], indirect=True)
    def test_raise(self, client: FlaskClient) -> None:
        """The client's own error, for apps that handle it."""
        break_verbs(client.application, "read")
        assert client.get("/read").text == "down: read"

    @pytest.mark.parametrize("client", ["empty"], indirect=True)
    def test_empty(self, client: FlaskClient) -> None:
        """An empty session that takes no writes, so that nothing is stored because a read failed."""
        attempts = break_verbs(client.application, "read", "replace", "create", "delete")
        response = client.get("/read")
        assert response.text == "NoneNone"
        assert "Set-Cookie" not in response.headers
        client.application.testing = True
        with pytest.raises(SessionReadOnly, match="the session store is not available"):
            client.get("/set")
        assert attempts == ["read", "read"]

    def test_a_failed_write_is_an_error(self, memory_app: MakeApp) -> None:
        """An error response, no cookie, and one attempt."""
        app = memory_app()
        app.testing = False
        app.add_url_rule("/", view_func=lambda: set_mine() or "")
        attempts = break_verbs(app, "create")
        response = app.test_client().get("/")
        assert response.status_code == 503
        assert "Set-Cookie" not in response.headers
        assert attempts == ["create"]

    def test_an_ended_id_is_not_used_again(self, memory_app: MakeApp) -> None:
        """An app that saves by itself, after it took the last key, and writes again, writes a new session."""
        app = memory_app()

        def view() -> str:
            session.pop("a")
            app.session_interface.save_session(app, session._get_current_object(), make_response(""))  # type: ignore[attr-defined]
            session["b"] = 1
            return ""

        app.add_url_rule("/", view_func=view)
        client = app.test_client()
        client.set_cookie("session", LIVE)
        app.session_interface.client.set(KEY, msgspec.msgpack.encode({"a": 1}))  # type: ignore[attr-defined]
        client.get("/")
        (key,) = app.session_interface.client.keys()  # type: ignore[attr-defined]
        assert key.decode() != KEY

    def test_ids_of_other_makes(self) -> None:
        """An app that makes ids of its own may make one that is url-safe, and others that are not."""
        ids = iter(["abc", "a/c", "a+c="])

        class Sessions(RedisSessionInterface):
            def _generate_sid(self, session_id_length: int) -> str:
                return next(ids)

        sessions = SessionIds(Sessions(Flask("shop"), client=fakeredis.FakeRedis()))
        assert sessions.may_be("a/c")
        assert sessions.may_be("a+c=")
        assert not any(sessions.may_be(value) for value in ("a c", "../../etc/passwd", "a\\b", ""))
        usual = SessionIds(RedisSessionInterface(Flask("shop"), client=fakeredis.FakeRedis()))
        assert not usual.may_be("a/c")

    def test_every_id_is_taken(self, memory_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
        """An id that is taken is not overwritten; when all are, the write fails."""
        app = memory_app()
        app.add_url_rule("/", view_func=lambda: set_mine() or "")
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        keys: list[str] = []
        backend.create = lambda key, *_: keys.append(key)  # returns None: taken
        assert app.test_client().get("/").status_code == 409
        assert "every new id was taken" in caplog.text
        assert len(set(keys)) == 3
