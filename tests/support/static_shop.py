"""An app with static files, and guards that protect them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    session,
)
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_user
from flask_session import Session

from lazysession import LazySession, session_opened

#: The same app on plain Flask-Session, which is the measure, and on LazySession.
both = pytest.mark.parametrize("lazy", [False, True], ids=["flask-session", "lazysession"])

MakeShop = Callable[..., Flask]


def write_files(folder: Path) -> Path:
    """Write static files into a folder, and return it."""
    for name in ("site.css", "shop.css", "form.js"):
        (folder / name).write_text("/* public */")
    return folder


def make_static_shop(
    files: Path, *, lazy: bool = True, app_class: type[Flask] = Flask, url: str = "/static", **settings: Any
) -> Flask:  # fmt: skip
    """Make an app with static files, a page and a login, on Flask-Session or on LazySession."""
    app = app_class("shop", static_folder=str(files), static_url_path=url)
    app.config.update(SECRET_KEY="key", PROPAGATE_EXCEPTIONS=True, SESSION_TYPE="redis")
    app.config.update(SESSION_REDIS=fakeredis.FakeRedis(), **settings)
    (LazySession if lazy else Session)(app)
    app.add_url_rule("/login/<name>", "login", log_in)
    app.add_url_rule("/page", "page", lambda: f"page of {session.get('user')}")
    app.add_url_rule("/act", "act", lambda: "done", methods=["POST"])
    return app


def log_in(name: str) -> str:
    session["user"] = name
    return "welcome"


def client_of(app: Flask, name: str = "ada") -> FlaskClient:
    """Make a client that is logged in."""
    client = app.test_client()
    assert client.get(f"/login/{name}").status_code == 200
    return client


def status(client: FlaskClient, path: str = "/static/site.css") -> int:
    return client.get(path, buffered=True).status_code


def value_of(client: FlaskClient, name: str) -> str:
    cookie = client.get_cookie(name)
    assert cookie is not None
    return cookie.value


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "lazysession"]


def modes_of(app: Flask, path: str, **options: Any) -> list[str]:
    """Return the modes, with their reasons, that a request to a path gets when it uses its session."""
    found: list[str] = []

    def collect(_: Flask, session: Any, mode: str, rule: str) -> None:
        found.append(f"{mode}: {rule}")

    with session_opened.connected_to(collect, sender=app):
        options.pop("client", app.test_client()).get(path, buffered=True, **options)
    return found


def use_session_everywhere(app: Flask) -> None:
    @app.before_request
    def look() -> None:
        session.get("user")


# Users


class User(UserMixin):
    def __init__(self, id: str) -> None:
        self.id = id
        self.last_seen = 0


def add_microblog(app: Flask) -> Flask:
    """Add Flask-Login and microblog's hook, which asks for the user in every request."""
    LoginManager(app).user_loader(User)

    @app.before_request
    def note_last_seen() -> None:
        if current_user.is_authenticated:
            current_user.last_seen += 1

    app.add_url_rule("/remember", "remember", lambda: str(login_user(User("ada"), remember=True)))
    app.add_url_rule("/who", "who", lambda: str(getattr(current_user, "id", "nobody")))
    return app


class GuardedApp(Flask):
    """An app that sends its static files to Ada alone."""

    def send_static_file(self, filename: str) -> Response:
        if session.get("user") != "ada":
            abort(401)
        return super().send_static_file(filename)


class GuardedBlueprint(Blueprint):
    """A blueprint that sends its static files to Ada alone."""

    def send_static_file(self, filename: str) -> Response:
        if session.get("user") != "ada":
            abort(401)
        return super().send_static_file(filename)


# Guards at the blueprint


def guard_with_hook(blueprint: Blueprint) -> None:
    @blueprint.before_request
    def check() -> None:
        if session.get("user") != "ada":
            abort(403)


def guard_with_preprocessor(blueprint: Blueprint) -> None:
    @blueprint.url_value_preprocessor
    def check(endpoint: str | None, values: dict[str, Any] | None) -> None:
        if session.get("user") != "ada":
            abort(403)


def blueprint_of(name: str, folder: Path | None = None, kind: type[Blueprint] = Blueprint) -> Blueprint:
    static_folder = None if folder is None else str(folder)
    return kind(name, name, url_prefix=f"/{name}", static_folder=static_folder, static_url_path="/files")
