"""Skipped static files: hooks that see an empty session there do no harm, with the extensions that real apps use."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    flash,
    get_flashed_messages,
    request,
    session,
)
from flask.testing import FlaskClient
from flask_login import current_user, user_loaded_from_cookie
from flask_seasurf import SeaSurf
from flask_wtf.csrf import CSRFProtect, generate_csrf

from lazysession import session_mode
from lazysession.backend import Problem
from lazysession.checks.app import find_problems
from lazysession.pages import Page, see
from tests.support.static_shop import (
    GuardedApp,
    GuardedBlueprint,
    MakeShop,
    add_microblog,
    blueprint_of,
    both,
    client_of,
    guard_with_hook,
    guard_with_preprocessor,
    logged,
    modes_of,
    status,
    use_session_everywhere,
    value_of,
)

# CSRF cookies of real extensions


@both
def test_csrf_cookie_of_flask_wtf(make_shop: MakeShop, lazy: bool) -> None:
    """The cookie recipe for single-page apps: page, stylesheet, then a POST with the cookie's token is accepted."""
    app = make_shop(lazy=lazy)
    CSRFProtect(app)

    @app.after_request
    def send_token(response: Response) -> Response:
        response.set_cookie("csrf_token", generate_csrf())
        return response

    client = client_of(app)
    assert (status(client, "/page"), status(client)) == (200, 200)
    assert client.post("/act", headers={"X-CSRFToken": value_of(client, "csrf_token")}).status_code == 200


@both
def test_csrf_cookie_of_seasurf(make_shop: MakeShop, lazy: bool) -> None:
    """Flask-SeaSurf's cookie is still the page's after a stylesheet."""
    app = make_shop(lazy=lazy)
    SeaSurf(app)
    client = client_of(app)
    assert (status(client, "/page"), status(client), status(client, "/static/shop.css")) == (200, 200, 200)
    assert client.post("/act", headers={"X-CSRFToken": value_of(client, "_csrf_token")}).status_code == 200


@pytest.fixture
def make_secure_shop(make_shop: MakeShop) -> MakeShop:
    """A function that makes an app with Flask-Security's users and its CSRF cookie."""
    from flask_security import RoleMixin, Security, SQLAlchemyUserDatastore
    from flask_security import UserMixin as SecurityUser
    from flask_security import login_user as log_in_securely
    from flask_sqlalchemy import SQLAlchemy

    def make(*, lazy: bool) -> Flask:
        app = make_shop(
            lazy=lazy,
            SQLALCHEMY_DATABASE_URI="sqlite://",
            SECURITY_PASSWORD_SALT="salt",
            SECURITY_CSRF_COOKIE_NAME="XSRF-TOKEN",
            WTF_CSRF_TIME_LIMIT=None,
        )
        CSRFProtect(app)
        db: Any = SQLAlchemy(app)
        roles_of_users = db.Table(
            "roles_of_users",
            db.Column("user_id", db.ForeignKey("user.id")),
            db.Column("role_id", db.ForeignKey("role.id")),
        )

        class Role(db.Model, RoleMixin):  # type: ignore[name-defined, misc]
            id = db.Column(db.Integer, primary_key=True)
            name = db.Column(db.String, unique=True)

        class User(db.Model, SecurityUser):  # type: ignore[name-defined, misc]
            id = db.Column(db.Integer, primary_key=True)
            email = db.Column(db.String, unique=True)
            password = db.Column(db.String)
            active = db.Column(db.Boolean)
            fs_uniquifier = db.Column(db.String, unique=True)
            roles = db.relationship("Role", secondary=roles_of_users)

        users = SQLAlchemyUserDatastore(db, User, Role)
        Security(app, users)
        with app.app_context():
            db.create_all()
            users.create_user(email="ada@example.com", password="plain", active=True)
            db.session.commit()

        @app.get("/remember")
        def remember() -> str:
            return str(log_in_securely(users.find_user(email="ada@example.com"), remember=True))

        @app.get("/who")
        def who() -> str:
            return str(getattr(current_user, "email", "nobody"))

        return app

    return make


@pytest.mark.skipif(
    version("flask").startswith("3.0."), reason="needs Flask 3.1, as Flask-Security does: pip install -U flask"
)
@both
def test_csrf_cookie_of_flask_security(make_secure_shop: MakeShop, lazy: bool) -> None:
    """A visitor who is remembered: page, stylesheet, then a POST with the token of the cookie is accepted."""
    client = make_secure_shop(lazy=lazy).test_client()
    assert client.get("/remember").text == "True"
    client.delete_cookie("session")  # the browser was closed meanwhile
    client.delete_cookie("XSRF-TOKEN")
    assert client.get("/who").text == "ada@example.com"
    assert (status(client), status(client, "/static/shop.css")) == (200, 200)
    assert client.post("/act", headers={"X-XSRF-Token": value_of(client, "XSRF-TOKEN")}).status_code == 200


def remembered_client(app: Flask, cookie: str = "remember_token") -> FlaskClient:
    """Make a client whose browser was closed after a login: the remember cookie is left."""
    client = app.test_client()
    assert client.get("/remember").text == "True"
    client.delete_cookie("session")
    assert client.get_cookie(cookie) is not None
    return client


@both
@pytest.mark.parametrize("name", ["remember_token", "stay"])
def test_a_remember_cookie_logs_in_once(make_shop: MakeShop, lazy: bool, name: str) -> None:
    """Flask-Login's signal of a login by cookie is sent once for a page and its stylesheets, as in an audit log."""
    app = add_microblog(make_shop(lazy=lazy, REMEMBER_COOKIE_NAME=name))
    client = remembered_client(app, name)
    logins: list[Any] = []
    with user_loaded_from_cookie.connected_to(lambda _, user: logins.append(user.id), sender=app):
        assert client.get("/who").text == "ada"
        for file in ("site.css", "shop.css", "form.js"):
            assert status(client, f"/static/{file}") == 200
    assert logins == ["ada"]


def test_a_remember_cookie_counts_with_flask_login_alone(make_shop: MakeShop) -> None:
    """In an app without Flask-Login, a cookie of this name is any cookie."""
    app = make_shop()
    use_session_everywhere(app)
    client = app.test_client()
    client.set_cookie("remember_token", "1")
    assert modes_of(app, "/static/site.css", client=client) == ["skip: static files"]


def test_a_remember_cookie_is_a_reason(make_shop: MakeShop) -> None:
    """The reason stands next to the mode."""
    app = add_microblog(make_shop())
    client = remembered_client(app)
    assert modes_of(app, "/static/site.css", client=client) == ["normal: static files, but with a remember cookie"]
    assert modes_of(app, "/static/site.css") == ["skip: static files"]


# Files that do not exist


def add_error_page(app: Flask) -> None:
    @app.errorhandler(404)
    def not_found(error: Any) -> tuple[str, int]:
        flash(f"no {request.path}")
        return f"nothing here for {session.get('user')}", 404

    app.add_url_rule("/messages", "messages", lambda: str(get_flashed_messages()))


@both
def test_a_static_route_for_every_url(make_shop: MakeShop, lazy: bool) -> None:
    """With static_url_path="" an unknown URL is a static file: its 404 page knows the user, and its message is kept."""
    app = make_shop(lazy=lazy, url="")
    add_error_page(app)
    client = client_of(app)
    response = client.get("/nowhere")
    assert (response.status_code, response.text) == (404, "nothing here for ada")
    assert client.get("/messages").text == "['no /nowhere']"


def test_files_of_a_static_route_for_every_url(make_shop: MakeShop) -> None:
    """Files that do exist are skipped there."""
    app = make_shop(url="")
    use_session_everywhere(app)
    assert modes_of(app, "/site.css") == ["skip: static files"]


@both
@pytest.mark.parametrize("path", ["none.css", "sub", "site.css%00", "%00", "sub/../../x", "%2e%2e/x", "a" * 300])
def test_what_is_no_file(make_shop: MakeShop, files: Path, lazy: bool, path: str) -> None:
    """A missing file, a folder, a byte that no name has, a name that is too long: an ordinary 404."""
    (files / "sub").mkdir()
    app = make_shop(lazy=lazy)
    add_error_page(app)
    response = client_of(app).get(f"/static/{path}")
    assert (response.status_code, response.text) == (404, "nothing here for ada")


def test_a_missing_file_is_a_reason(make_shop: MakeShop) -> None:
    """The reason stands next to the mode."""
    app = make_shop()
    use_session_everywhere(app)
    assert modes_of(app, "/static/none.css") == ["normal: static files, but there is no such file"]


def test_a_relative_folder(make_shop: MakeShop, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is looked for where Flask looks for it: below the app, wherever the process runs."""
    (files / "elsewhere").mkdir()
    monkeypatch.chdir(files / "elsewhere")
    app = make_shop()
    app.root_path = str(files)
    app.register_blueprint(
        Blueprint("shelf", "shelf", root_path=".", static_folder=".", static_url_path="/files", url_prefix="/shelf")
    )
    use_session_everywhere(app)
    assert status(app.test_client(), "/shelf/files/site.css") == 200
    assert modes_of(app, "/shelf/files/site.css") == ["skip: static files"]


# Every skipped request


@pytest.fixture
def skipping(make_shop: MakeShop) -> Flask:
    """An app that skips static files, a path and a view, and whose hook sends two cookies."""
    app = make_shop(LAZYSESSION_SKIP_PATHS="/ping")
    app.add_url_rule("/ping", "ping", lambda: "pong")
    app.add_url_rule("/marked", "marked", session_mode("skip")(lambda: "marked"))

    @app.after_request
    def send_cookies(response: Response) -> Response:
        if "idle" not in request.args:
            session.get("user")
        response.set_cookie("token", "secret=1")
        response.set_cookie("token", "secret=1", path="/ping")
        response.set_cookie("{seen}", "yes")
        return response

    return app


def test_skipped_requests_send_no_cookie(skipping: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """Where the session was used no cookie goes out; names, the rule and the remedy are logged once per endpoint."""
    client = client_of(skipping)
    for path in ("/static/site.css", "/static/shop.css", "/ping", "/marked", "/ping"):
        assert "Set-Cookie" not in client.get(path, buffered=True).headers
    way_out = "To use it, put ('endpoint:{}', 'normal') first in LAZYSESSION_RULES."
    assert logged(caplog) == [
        f"Cookies were not sent: requests to {endpoint} skip the session ({rule}). Names: token, {{seen}}. {way_out} "
        f"Logged once per endpoint. {see(Page.EMPTY_SESSION)}"
        for endpoint, rule, way_out in [
            ("static", "static files", way_out.format("static")),
            ("ping", "/ping", way_out.format("ping")),
            ("marked", "@session_mode", "To use it, take @session_mode off the view."),
        ]
    ]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("path", ["/static/site.css?idle", "/ping?idle"])
def test_unused_requests_keep_their_cookies(skipping: Flask, path: str) -> None:
    """A cookie of a request that did not use its session is not made of it."""
    cookies = skipping.test_client().get(path, buffered=True).headers.getlist("Set-Cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == ["token", "token", "{seen}"]


def test_ordinary_requests_keep_their_cookies(skipping: Flask) -> None:
    """Pages keep their cookies as well."""
    cookies = skipping.test_client().get("/page").headers.getlist("Set-Cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == ["token", "token", "{seen}"]


@pytest.mark.parametrize("path", ["/static/site.css", "/ping"])
def test_skipped_uses_are_in_the_header_in_debug_mode(skipping: Flask, path: str) -> None:
    """Server-Timing names the line that used the session of a skipped request, and the mode."""
    skipping.debug = True
    (timing,) = skipping.test_client().get(path, buffered=True).headers.getlist("Server-Timing")
    assert re.fullmatch(r'session;desc="loaded by [\w.]*test_static_files:send_cookies:\d+ in [\d.]+ ms skip"', timing)


def test_skipped_uses_are_not_in_the_header_in_production(skipping: Flask) -> None:
    """Visitors learn nothing of the code, nor of requests that do not use their session."""
    assert "Server-Timing" not in skipping.test_client().get("/ping").headers
    skipping.debug = True
    assert "Server-Timing" not in skipping.test_client().get("/ping?idle").headers


def test_dropped_changes_are_logged_with_the_remedy(
    make_shop: MakeShop, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    """A change in a skipped request is logged once per endpoint, with what makes it count."""
    app = make_shop()

    @app.before_request
    def count() -> None:
        session["count"] = 1

    client = app.test_client()
    assert [status(client), status(client, "/static/shop.css")] == [200, 200]
    assert logged(caplog) == [
        "A change of the session was dropped: requests to static skip it (static files). Keys: 'count'. To use it, put "
        f"('endpoint:static', 'normal') first in LAZYSESSION_RULES. Logged once per endpoint. {see(Page.EMPTY_SESSION)}"
    ]


# The commands


@pytest.fixture
def various(make_shop: MakeShop, files: Path) -> Flask:
    """An app with static routes of every kind."""
    app = make_shop(
        LAZYSESSION_RULES=[("endpoint:ruled.static", "normal")], SECRET_KEY="0f1e2d3c4b5a69788796a5b4c3d2e1f0"
    )
    for name in ("plain", "hooked", "processed", "own", "ruled"):
        blueprint = blueprint_of(name, files, GuardedBlueprint if name in {"own", "ruled"} else Blueprint)
        if name == "hooked":
            guard_with_hook(blueprint)
        if name == "processed":
            guard_with_preprocessor(blueprint)
        app.register_blueprint(blueprint)
    return app


REASONS = {
    "hooked.static": "the blueprint 'hooked' has a before_request hook",
    "own.static": "its view is wrapped or overridden",
    "processed.static": "the blueprint 'processed' has a URL preprocessor",
}


def ask(app: Flask, *arguments: str) -> list[tuple[str, ...]]:
    """Return the rows of static routes that a command prints: endpoint, mode and what decided."""
    result = app.test_cli_runner().invoke(args=["lazysession", "rules", *arguments])
    rows = [re.split(r"\s{2,}", line) for line in result.output.splitlines()]
    return [(row[0], *row[-2:]) for row in rows if row[0].endswith("static")]


def test_the_rules_command_says_why_not(various: Flask) -> None:
    """Every static route that is not skipped has its reason; a rule of the app's own is a reason too."""
    refused = [(endpoint, "normal", f"static files, but {reason}") for endpoint, reason in REASONS.items()]
    skipped = [(endpoint, "skip", "static files") for endpoint in ("plain.static", "static")]
    assert ask(various) == sorted([*refused, *skipped, ("ruled.static", "normal", "endpoint:ruled.static")])


@pytest.mark.parametrize(
    ("path", "mode", "reason"),
    [
        ("/static/site.css", "skip", "static files"),
        ("/static/none.css", "normal", "static files, but there is no such file"),
        ("/own/files/site.css", "normal", "static files, but its view is wrapped or overridden"),
    ],
)
def test_the_rules_command_for_a_path(various: Flask, path: str, mode: str, reason: str) -> None:
    """A path names a file, so whether it exists counts."""
    assert [row[1:] for row in ask(various, path)] == [(mode, reason)]


def test_the_check_command_says_why_not(various: Flask) -> None:
    """A finding for each static route that is not skipped although no rule of the app says so, and for no other."""
    assert [(each.severity, each.what) for each in findings_on_static_files(various)] == [
        ("info", f"Requests to {endpoint} do not skip the session: {reason}.") for endpoint, reason in REASONS.items()
    ]


def findings_on_static_files(app: Flask) -> list[Problem]:
    found = find_problems(app, app.session_interface)  # type: ignore[arg-type]
    return [each for each in found if each.name == "static-not-skipped"]


def test_the_check_command_without_static_files(make_shop: MakeShop) -> None:
    """There is no finding where static files are skipped, nor where the app wants none skipped."""
    guarded = make_shop(LAZYSESSION_SKIP_STATIC=False, app_class=GuardedApp)
    broken = make_shop(LAZYSESSION_RULES=[(lambda request: 1 / 0, "skip")], app_class=GuardedApp)
    for app in (make_shop(), guarded, broken):
        assert findings_on_static_files(app) == []
