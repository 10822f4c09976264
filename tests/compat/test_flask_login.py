"""Flask-Login: which logins rotate the session id, and which templates load the session."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask, Response, render_template_string, request, session
from flask_login import LoginManager, UserMixin, current_user, login_user

from lazysession import LazySession
from tests.support.stores import FakeRedisStore


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


def shop(login_first: bool = True) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", **FakeRedisStore().config())

    def set_up_login() -> None:
        manager = LoginManager(app)
        manager.user_loader(User)

    for step in (set_up_login, lambda: LazySession(app))[:: 1 if login_first else -1]:
        step()
    app.add_url_rule("/login/<name>", "login", lambda name: str(login_user(User(name))))
    app.add_url_rule("/note", "note", lambda: session.update(note=1) or "")
    app.add_url_rule("/plain", "plain", lambda: render_template_string("Hello"))
    template = "{{ current_user.id if current_user.is_authenticated else 'nobody' }}"
    app.add_url_rule("/user", "user", lambda: render_template_string(template))
    return app


def sid(browser: Any) -> str:
    cookie = browser.get_cookie("session")
    assert cookie is not None
    return str(cookie.value)


def test_the_same_login_keeps_the_id() -> None:
    """login_user in each request, as basic auth and single sign-on hooks do, leaves one session."""
    browser = shop().test_client()
    browser.get("/login/ada")
    first = sid(browser)
    for _ in range(3):
        browser.get("/login/ada")
    assert sid(browser) == first


def test_another_login_rotates() -> None:
    """An anonymous session gets a new id at login, and so does that of another user."""
    browser = shop().test_client()
    seen = []
    for path in ("/note", "/login/ada", "/login/bob", "/login/ada"):
        browser.get(path)
        seen.append(sid(browser))
    assert len(set(seen)) == 4


def test_a_login_in_a_session_written_by_hand_rotates() -> None:
    """A user id that the same request put there before is no login that the session held."""
    app = shop()

    def view() -> str:
        session["_user_id"] = "ada"
        return str(login_user(User("ada")))

    app.add_url_rule("/by-hand", view_func=view)
    browser = app.test_client()
    browser.get("/note")
    first = sid(browser)
    browser.get("/by-hand")
    assert sid(browser) != first


@pytest.mark.parametrize("login_first", [True, False])
def test_a_template_without_the_user_loads_nothing(login_first: bool) -> None:
    """The context processor offers the user; that alone is no use of the session."""
    browser = shop(login_first).test_client()
    browser.get("/login/ada")
    assert "Cookie" not in browser.get("/plain").headers.get("Vary", "")
    answer = browser.get("/user")
    assert (answer.text, answer.headers["Vary"]) == ("ada", "Cookie")


def test_a_processor_of_the_apps_own_stays() -> None:
    """Only Flask-Login's own function is replaced."""
    app = shop()
    app.context_processor(lambda: {"current_user": User("own")})
    browser = app.test_client()
    browser.get("/login/ada")
    assert browser.get("/user").text in ("own", "nobody")


@pytest.mark.parametrize("make", [lambda: shop(True), lambda: shop(False)])
def test_without_a_login(make: Callable[[], Flask]) -> None:
    """A visitor without a login is shown as one."""
    assert make().test_client().get("/user").text == "nobody"


def with_changes(app: Flask) -> Flask:
    """Add pages that look at the user, and change a key each; another request may be served before one is saved."""

    def change(key: str) -> str:
        session[key] = current_user.is_authenticated
        return ""

    @app.after_request
    def serve_another(response: Response) -> Response:
        if "meanwhile" in request.args:
            another = app.test_client()
            another.set_cookie("session", request.cookies["session"])
            with ThreadPoolExecutor(1) as thread:  # a context of its own, with a user of its own
                assert thread.submit(another.get, request.args["meanwhile"]).result().status_code == 200
        return response

    app.add_url_rule("/change/<key>", "change", change)
    return app


def test_visitors_without_a_login_are_protected_without_a_conflict() -> None:
    """Flask-Login stores in each session without a login that it is not fresh: no change depends on that."""
    visitor = with_changes(shop()).test_client()
    visitor.get("/note")
    assert visitor.get("/change/cart?meanwhile=/change/lang").status_code == 200
    with visitor.session_transaction() as stored:
        assert {"note", "cart", "lang"} <= set(stored)


def test_a_change_concurrent_with_a_login_is_refused() -> None:
    """A change without a login depends on there being none, and another request has logged in meanwhile."""
    visitor = with_changes(shop()).test_client()
    visitor.get("/note")
    assert visitor.get("/change/cart?meanwhile=/login/ada").status_code == 409


def test_a_demoted_login_is_a_decision() -> None:
    """Where a user is logged in, that the login is not fresh any more is a change like any other."""
    visitor = with_changes(shop()).test_client()
    visitor.get("/login/ada")
    with visitor.session_transaction() as stored:
        stored["_id"] = "of another browser"
    assert visitor.get("/change/cart?meanwhile=/change/lang").status_code == 409
