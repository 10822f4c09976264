"""Overlaps, errors and session classes that are rare, each of which was a bug once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, flash, get_flashed_messages, session
from flask.testing import FlaskClient
from flask_principal import Identity, Principal, identity_changed
from flask_wtf.csrf import generate_csrf
from werkzeug.routing import Rule

from lazysession import LazySession, SessionConflict
from tests.support.breaking import another_request_changes, break_verbs, stored, visitor
from tests.support.stores import FakeRedisStore
from tests.support.stores.base import LIVE

MakeApp = Callable[..., Flask]
_numbers = itertools.count()


def run(app: Flask, client: FlaskClient, view: Callable[[], Any]) -> Any:
    """Make a request that runs a view, which may make other requests meanwhile."""
    number = next(_numbers)
    app.view_functions[f"r{number}"] = lambda: str(view() or "")
    app.url_map.add(Rule(f"/r{number}", endpoint=f"r{number}"))  # also after the first request
    return client.get(f"/r{number}", buffered=True)


def seen_by(app: Flask, client: FlaskClient) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    run(app, client, lambda: seen.update(session))
    return seen


def second(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.set_cookie("session", LIVE)
    return client


@pytest.fixture
def app(memory_app: MakeApp) -> Flask:
    app = memory_app()
    app.testing = False
    return app


@pytest.fixture
def strict(memory_app: MakeApp) -> Flask:
    app = memory_app(LAZYSESSION_CONFLICT="raise")
    app.testing = False
    return app


def refused_view(app: Flask) -> Callable[[], str]:
    """A view of a strict app whose change is refused."""

    def view() -> str:
        session["mine"] = 1
        another_request_changes(app, theirs=session.get("theirs", 0) + 1)
        return "done"

    return view


# Merges


def test_one_key_for_the_step(make_app: MakeApp) -> None:
    """One key for a code and for what it led to: mallory's code does not verify bob."""
    app = make_app()
    user, other = app.test_client(), app.test_client()

    def password(who: str) -> None:
        session["pending_user"] = who
        session["otp"] = f"code-for-{who}"

    def otp() -> str:
        if session.get("otp") != "code-for-mallory":
            return "wrong"
        other.set_cookie("session", user.get_cookie("session").value)
        assert run(app, other, lambda: password("bob")).status_code == 200
        session["otp"] = "verified"
        return "ok"

    run(app, user, lambda: password("mallory"))
    assert run(app, user, otp).status_code in (200, 409)
    seen = seen_by(app, user)
    assert (seen["pending_user"], seen["otp"]) != ("bob", "verified")


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_overwrite_late_flash_undoes_the_login(memory_app: MakeApp, loaded: str) -> None:
    """With CONFLICT = overwrite, a late request that only flashes a message does not overwrite the login."""
    app = memory_app(LAZYSESSION_CONFLICT="overwrite")
    user, other = visitor(app, cart=["book"]), second(app)

    def login() -> None:
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        session["user"] = "ada"

    def late() -> None:
        flash("hello")
        if loaded == "before":
            run(app, user, login)

    if loaded == "after":
        run(app, user, login)
    assert run(app, other, late).status_code == 200
    assert seen_by(app, user).get("user") == "ada"


# Saves by hand, and errors


@pytest.mark.parametrize("why", ["refused", "store down"])
def test_saving_by_hand_as_flask_does(strict: Flask, why: str) -> None:
    """An app that saves as Flask does, is_null_session() first, gets the error, and no 200 is sent."""
    client = visitor(strict, theirs=0)
    if why == "store down":
        break_verbs(strict, "replace")

    def view() -> str:
        session["mine"] = 1
        if why == "refused":
            another_request_changes(strict, theirs=1)
        interface = strict.session_interface
        if not interface.is_null_session(session):  # what Flask.process_response and its test client do
            interface.save_session(strict, session, strict.response_class())
        return "done"

    response = run(strict, client, view)
    assert "mine" not in stored(strict)
    assert response.status_code == (409 if why == "refused" else 503)


# Pages that show messages


def test_message_page_with_flask_principal(app: Flask) -> None:
    """The real Flask-Principal assigns the identity in every request, unchanged: that refuses no request."""
    Principal(app)
    client = visitor(app, cart=[])

    def login() -> None:
        identity_changed.send(app, identity=Identity("ada"))
        flash("hello")

    run(app, client, login)

    def page() -> str:
        get_flashed_messages()
        another_request_changes(app, cart=[*session["cart"], "tea"])
        return "page"

    assert run(app, client, page).status_code == 200


def test_message_page_that_pops_what_is_absent(app: Flask) -> None:
    """Neither is a key that is popped and absent."""
    client = visitor(app, cart=[], _flashes=[["message", "hi"]])

    def page() -> str:
        session.pop("next", None)
        get_flashed_messages()
        another_request_changes(app, cart=[*session["cart"], "tea"])
        return "page"

    assert run(app, client, page).status_code == 200


# Cookies that were made of an empty session


@pytest.mark.parametrize("path", ["view", "404"])
def test_csrf_cookie_of_a_failed_load(app: Flask, path: str) -> None:
    """Neither the 503 nor a 404 replaces the browser's CSRF cookie while the store is down."""

    @app.after_request
    def recipe(response: Response) -> Response:
        response.set_cookie("csrf_token", generate_csrf())
        return response

    client = visitor(app, csrf_token="right", user="ada")
    break_verbs(app, "read")
    response = client.get("/nothing") if path == "404" else run(app, client, lambda: session["user"])
    assert response.status_code == (404 if path == "404" else 503)
    assert response.headers.getlist("Set-Cookie") == []


def test_csrf_cookie_of_a_500_whose_save_failed(app: Flask) -> None:
    """A 500 stays a 500, without the cookies that were made of what was not stored."""

    @app.after_request
    def recipe(response: Response) -> Response:
        response.set_cookie("csrf_token", generate_csrf())
        return response

    client = visitor(app, user="ada")
    break_verbs(app, "replace")
    response = run(app, client, lambda: abort(500))
    assert response.status_code == 500
    assert response.headers.getlist("Set-Cookie") == []


# Session classes of the app's own


def reads_in_getitem(base: Any) -> Any:
    class Mine(base):
        def __getitem__(self, key: str) -> Any:
            return dict.__getitem__(self, "reset_for") if key == "who" else super().__getitem__(key)

    return Mine


def reads_as_attributes(base: Any) -> Any:
    class Mine(base):
        def __getattr__(self, name: str) -> Any:
            try:
                return self[{"who": "reset_for"}.get(name, name)]
            except KeyError:
                raise AttributeError(name) from None

    return Mine


def keeps_an_attribute(base: Any) -> Any:
    class Mine(base):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.who = self.get("reset_for")

    return Mine


def use_class(app: Flask, make: Callable[[Any], Any]) -> None:
    handler: Any = app.session_interface.handler  # type: ignore[attr-defined]
    handler.wrapped.session_class = handler.session_class = make(handler.session_class)


@pytest.mark.parametrize("make", [reads_in_getitem, reads_as_attributes, keeps_an_attribute])
def test_a_class_that_reads(app: Flask, make: Callable[[Any], Any]) -> None:
    """What the class reads inside [], by attribute, or when it is made, counts as read."""
    use_class(app, make)
    client = visitor(app, reset_for="mallory", code_ok=False)

    def code() -> str:
        if (session["who"] if make is reads_in_getitem else session.who) != "mallory":  # type: ignore[attr-defined]
            return "wrong"
        session["code_ok"] = True
        another_request_changes(app, reset_for="bob", code_ok=False)
        return "ok"

    run(app, client, code)
    assert (stored(app)["reset_for"], stored(app)["code_ok"]) != ("bob", True)


def test_a_class_that_writes(app: Flask) -> None:
    """What its own __setitem__ sets to an equal value is not stored over another request's."""

    def make(base: Any) -> Any:
        class Mine(base):
            def __setitem__(self, key: str, value: Any) -> None:
                super().__setitem__(key, value)
                if key == "reset_for":
                    super().__setitem__("code_ok", False)

        return Mine

    use_class(app, make)
    client = visitor(app, reset_for="mallory", code_ok=False)

    def forgot() -> None:
        session["reset_for"] = "bob"
        another_request_changes(app, code_ok=True)

    run(app, client, forgot)
    assert (stored(app)["reset_for"], stored(app)["code_ok"]) != ("bob", True)


# A save by hand in the middle


def test_reads_before_a_save_by_hand(app: Flask) -> None:
    """Keys that were read before it count for what is written after it."""
    client = visitor(app, reset_for="mallory", code_ok=False, visits=0)

    def code() -> str:
        if session["reset_for"] != "mallory":
            return "wrong"
        session["visits"] += 1
        app.session_interface.save_session(app, session, app.response_class())
        another_request_changes(app, reset_for="bob", code_ok=False)
        session["code_ok"] = True
        return "ok"

    run(app, client, code)
    assert (stored(app)["reset_for"], stored(app)["code_ok"]) != ("bob", True)


def test_a_value_held_over_a_save_by_hand(app: Flask) -> None:
    """A value that a view holds is the same object as in the session, also where the save has merged."""
    client = visitor(app, cart=[], lang="de")

    def view() -> None:
        cart = session["cart"]
        cart.append("tea")
        another_request_changes(app, lang="en")
        app.session_interface.save_session(app, session, app.response_class())
        cart.append("milk")

    run(app, client, view)
    assert stored(app) == {"cart": ["tea", "milk"], "lang": "en"}


@pytest.mark.parametrize("used_before", [True, False])
def test_false_alarm_after_a_save_by_hand(app: Flask, caplog: pytest.LogCaptureFixture, used_before: bool) -> None:
    """What is changed after it is stored by Flask's own save, and not logged as lost."""
    client = visitor(app, a=0)

    def view() -> None:
        if used_before:
            session["a"] = 0.5
        app.session_interface.save_session(app, session, app.response_class())
        session["a"] = 1

    run(app, client, view)
    assert stored(app) == {"a": 1}
    assert caplog.text == ""


# Static files, and failed loads


def static_app(folder: Path, guard: Callable[[], Any]) -> Flask:
    (folder / "a.css").write_text("file")
    app = Flask("shop", static_folder=str(folder), static_url_path="/static")
    app.config.update(SECRET_KEY="key", **FakeRedisStore().config())
    LazySession(app)
    app.before_request(guard)
    return app


def static_twice(client: FlaskClient) -> str:
    client.get("/static/a.css", buffered=True)
    return client.get("/static/a.css", buffered=True).text


def test_a_guard_that_answers_404(tmp_path: Path) -> None:
    """An app-wide guard that hides files from anonymous visitors by a 404 does so to Ada once in a process."""
    app = static_app(tmp_path, lambda: None if session.get("user") == "ada" else abort(404))
    assert static_twice(visitor(app, user="ada")) == "file"


def test_first_use_in_process_response_of_a_subclass(memory_app: MakeApp) -> None:
    """A process_response of the app's own finds an empty session, and the response is the 503."""

    class Shop(Flask):
        def process_response(self, response: Response) -> Response:
            response.headers["X-User"] = str(session.get("user"))
            return super().process_response(response)

    app = Shop("shop", static_folder=None)
    app.config.update(SECRET_KEY="key", **FakeRedisStore().config())
    LazySession(app)
    client = visitor(app, user="ada")
    break_verbs(app, "read")
    assert run(app, client, lambda: "fine").status_code == 503


# Small


def test_the_409_page_shows_what_was_refused(app: Flask) -> None:
    """The handler of a 409 sees the session without the change that was refused."""
    app.register_error_handler(SessionConflict, lambda error: (f"Hello {session.get('user')}", 409))
    client = visitor(app, n=0, user="ada")

    def view() -> None:
        if session["n"] == 0:
            session["user"] = "root"
        another_request_changes(app, n=1)

    assert run(app, client, view).text == "Hello ada"


def test_number_keys_in_json(memory_app: MakeApp) -> None:
    """session[5] is the key "5" in JSON: one key, which may be a counter."""
    app = memory_app(SESSION_SERIALIZATION_FORMAT="json")
    client, other = app.test_client(), app.test_client()
    run(app, client, lambda: session.update({5: 0, "lang": "de"}))  # type: ignore[dict-item]
    other.set_cookie("session", client.get_cookie("session").value)

    def count() -> None:
        n = session["5"]
        run(app, other, lambda: session.update({"5": 1, "lang": "en"}))
        session[5] = n + 1  # type: ignore[index]

    assert run(app, client, count).status_code == 200


def test_pop_with_a_default_in_threads(app: Flask) -> None:
    """session.pop(key, default) returns the default where another thread was faster."""

    def make(base: Any) -> Any:
        class Mine(base):
            def __contains__(self, key: object) -> bool:
                there = super().__contains__(key)
                if key == "otp":
                    dict.pop(self, key, None)  # the other thread, which runs now
                return there

        return Mine

    use_class(app, make)
    seen: list[Any] = []
    run(app, visitor(app, otp=1), lambda: seen.append(session.pop("otp", "default")))
    assert seen == ["default"]
