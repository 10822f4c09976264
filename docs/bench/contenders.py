"""The contenders: the same app, with one session interface or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import places
import redisparser  # noqa: F401 - before redis
from flask import Flask, session
from flask_login import LoginManager, UserMixin, login_user, logout_user
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from interfaces import NaiveLazy, SharedNull, StaticAware

from lazysession import LazySession

ONE_DAY = 86400
#: One for all workers of a server: they read each other's signed cookies.
KEY = "of the bench"


@dataclass(frozen=True)
class Contender:
    """A session interface to compare.

    :param install: sets the session interface of an app that is configured for its store.
    :param stateful: whether a session survives its request.
    :param server_side: whether there is a store.
    """

    name: str
    title: str
    install: Callable[[Flask], None]
    stateful: bool = True
    server_side: bool = True


def _without_key(app: Flask) -> None:
    app.secret_key = None


def _shared_null(app: Flask) -> None:
    app.session_interface = SharedNull()


def _signed_cookie(app: Flask) -> None:
    """Leave Flask as it is."""


def _flask_session(app: Flask) -> None:
    Session(app)


def _without_refresh(app: Flask) -> None:
    app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    Session(app)


def _static_aware(app: Flask) -> None:
    Session(app)
    app.session_interface = StaticAware(app.session_interface)


def _naive_lazy(app: Flask) -> None:
    Session(app)
    app.session_interface = NaiveLazy(app.session_interface)


def _lazy(app: Flask) -> None:
    LazySession(app)


NULL = Contender("null", "Bare Flask", _without_key, stateful=False, server_side=False)
SHARED_NULL = Contender("shared-null", "One shared null session", _shared_null, stateful=False, server_side=False)
COOKIE = Contender("cookie", "Flask's signed cookie", _signed_cookie, server_side=False)
FLASK_SESSION = Contender("flask-session", "Flask-Session", _flask_session)
NO_REFRESH = Contender("no-refresh", "Flask-Session, no refresh", _without_refresh)
STATIC_AWARE = Contender("static-aware", "Flask-Session, no /static/", _static_aware)
NAIVE = Contender("naive", "Naive lazy wrapper", _naive_lazy)
LAZY = Contender("lazy", "LazySession", _lazy)
EVERYONE = (NULL, SHARED_NULL, COOKIE, FLASK_SESSION, NO_REFRESH, STATIC_AWARE, NAIVE, LAZY)
BY_NAME = {contender.name: contender for contender in EVERYONE}


class User(UserMixin):  # type: ignore[misc]  # Flask-Login ships no types
    """The user who logs in."""

    id = "1"


def bare(contender: Contender, settings: dict[str, Any]) -> Flask:
    """Make an app without pages: contenders differ only in their session interface."""
    app = Flask("bench", root_path=str(places.HERE))
    app.config.update(SECRET_KEY=KEY, PERMANENT_SESSION_LIFETIME=ONE_DAY)
    if contender.server_side:
        app.config.update(settings)
    database = app.config.get("SESSION_SQLALCHEMY")
    if isinstance(database, SQLAlchemy):
        database.init_app(app)
    contender.install(app)
    return app


def make_app(contender: Contender, settings: dict[str, Any], *, flask_login: bool = False) -> Flask:
    """Make the app of the bare page view: each page does one thing with its session, or nothing."""
    app = bare(contender, settings)
    if flask_login:
        LoginManager(app).user_loader(lambda _id: User())
    _add_pages(app, flask_login=flask_login)
    return app


def _add_pages(app: Flask, *, flask_login: bool) -> None:
    changes = iter(range(2, 2**62))

    def change() -> str:
        session["a"] = next(changes)
        return "changed"

    def same() -> str:
        session["a"] = 1
        return "same"

    def read() -> str:
        session.get("a")
        return "read"

    def login() -> str:
        session.update(a=1, name="A. Visitor", cart=["moss-garden", "rainy-tuesday"])
        if flask_login:
            login_user(User())
        return "in"

    def logout() -> str:
        session.get("name")  # as views do that greet the visitor or close the account's cart
        if flask_login:
            logout_user()
        session.clear()
        return "out"

    def untouched() -> str:
        return "untouched"

    for view in (untouched, read, change, same, login, logout):
        app.add_url_rule(f"/{view.__name__}", view_func=view)
