"""Programs of two requests that must not be torn when one browser races them, and the process that serves them.

A try is *torn* where the session afterwards, with the two statuses, is none of these:

- what the two requests leave when they run one after the other, in either order;
- what one of them leaves when it runs alone: the change of the other is lost, as with Flask-Session;
- what one of them leaves when it runs alone, and the other was refused with a 409.

``Program.torn`` is the worst of the torn states: the one that an attacker is after.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask, current_app, session
from flask_session import Session

from lazysession import LazySession
from tests.support.processes import app_on, count_errors, hear, tell
from tests.support.served import serving

#: How long each view takes after it has used the session, in seconds: a mail, a query, a page.
WORK = 0.005

Answered = str | tuple[str, int]


@dataclass(frozen=True)
class Program:
    """Two requests of one browser that are sent at once.

    :param install: adds the views to an app.
    :param start: the path that begins the session.
    :param race: the paths of the two requests.
    :param keys: the keys of the session that are looked at.
    :param torn: items that the session must never have together.
    :param enter: a path whose answer must never be ``bob``; None where ``torn`` says it all.
    """

    install: Callable[[Flask], None]
    start: str
    race: tuple[str, str]
    keys: tuple[str, ...]
    torn: dict[str, Any]
    enter: str | None = None


def rotate() -> None:
    """Give the session a new id, as an app does when what the session may do has changed."""
    current_app.session_interface.regenerate(session)  # type: ignore[attr-defined]


def forgot_views(app: Flask, after: Callable[[], None] = lambda: None) -> None:
    """Add a forgotten password: a code is mailed, and the right one allows a new password for ``reset_for``."""

    @app.get("/forgot/<who>")
    def forgot(who: str) -> Answered:
        session["reset_for"], session["code_ok"] = who, False
        time.sleep(WORK)
        return "mailed"

    @app.get("/code")  # the code that was mailed to mallory is right
    def code() -> Answered:
        if session["reset_for"] != "mallory":
            return "wrong", 403
        session["code_ok"] = True
        after()
        time.sleep(WORK)
        return "ok"


def forgot_views_that_rotate(app: Flask) -> None:
    """Add the same, where the right code gives the session a new id."""
    forgot_views(app, rotate)


def second_factor_views(app: Flask) -> None:
    """Add a login with Flask-Login, whose second factor is a code; LazySession rotates the id at each login."""
    from flask_login import LoginManager, UserMixin, current_user, login_user

    class User(UserMixin):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.id = name

    LoginManager(app).user_loader(User)

    @app.get("/password/<who>")
    def password(who: str) -> Answered:
        session["second_factor"] = False
        login_user(User(who))
        time.sleep(WORK)
        return "ok"

    @app.get("/code")  # the code of mallory's phone is right
    def code() -> Answered:
        if current_user.get_id() != "mallory":
            return "wrong", 403
        session["second_factor"] = True
        time.sleep(WORK)
        return "ok"


def one_time_code_views(app: Flask, after: Callable[[], None] = lambda: None) -> None:
    """Add a login whose one-time code is popped from the session."""

    @app.get("/password/<who>")
    def password(who: str) -> Answered:
        session["pending_user"] = who
        session["otp"] = "code-for-" + who
        session.pop("verified", None)
        time.sleep(WORK)
        return "mailed"

    @app.get("/otp/<code>")
    def otp(code: str) -> Answered:
        if session.pop("otp", None) != code:
            return "wrong", 403
        session["verified"] = True
        after()
        time.sleep(WORK)
        return "ok"

    @app.get("/enter")
    def enter() -> Answered:
        return session["pending_user"] if session.pop("verified", False) else "nobody"


def one_time_code_views_that_rotate(app: Flask) -> None:
    """Add the same, where the right code gives the session a new id."""
    one_time_code_views(app, rotate)


def principal_views(app: Flask) -> None:
    """Add Flask-Principal, which writes the identity back unchanged in each request."""
    from flask_principal import Identity, Principal, identity_changed

    Principal(app)

    @app.get("/login/<who>")
    def login(who: str) -> Answered:
        session["account"] = who
        identity_changed.send(app, identity=Identity(who))
        time.sleep(WORK)
        return "ok"

    @app.get("/note/<int:number>")
    def note(number: int) -> Answered:
        session["note"] = number
        time.sleep(WORK)
        return "ok"


_FORGOT = ("/forgot/mallory", ("/forgot/bob", "/code"), ("reset_for", "code_ok"), {"reset_for": "bob", "code_ok": True})
_ONE_TIME_CODE = (
    "/password/mallory",
    ("/password/bob", "/otp/code-for-mallory"),
    ("pending_user", "otp", "verified"),
    {"pending_user": "bob", "verified": True},
    "/enter",
)
PROGRAMS = {
    "forgot": Program(forgot_views, *_FORGOT),
    "forgot, code rotates": Program(forgot_views_that_rotate, *_FORGOT),
    "second factor": Program(
        second_factor_views,
        "/password/mallory",
        ("/password/bob", "/code"),
        ("_user_id", "second_factor"),
        {"_user_id": "bob", "second_factor": True},
    ),
    "one-time code": Program(one_time_code_views, *_ONE_TIME_CODE),
    "one-time code, otp rotates": Program(one_time_code_views_that_rotate, *_ONE_TIME_CODE),
    "Flask-Principal": Program(
        principal_views,
        "/login/ada",
        ("/login/bob", "/note/1"),
        ("account", "identity.id", "identity.auth_type", "note"),
        {"account": "bob", "identity.id": "ada"},
    ),
}


def main() -> None:
    """Serve one program after the other, each until it is stopped; then report the errors of its requests."""
    logging.disable(logging.WARNING)  # the counts say what happened
    while job := hear():
        program, extension = PROGRAMS[job["program"]], LazySession if job["lazy"] else Session
        with app_on(job["store"], job["address"], extension, **job["settings"]) as app:
            program.install(app)
            app.add_url_rule("/state", "state", lambda keys=program.keys: {k: session[k] for k in keys if k in session})
            errors = count_errors(app)
            with serving(app) as port:
                tell(port)
                hear()
            tell(errors)
