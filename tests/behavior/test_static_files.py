"""Skipped static files: hooks that see an empty session there do no harm, with the extensions that real apps use."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import MethodType
from typing import Any

import fakeredis
import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    flash,
    g,
    get_flashed_messages,
    redirect,
    request,
    session,
)
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from flask.views import View
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, user_loaded_from_cookie
from flask_seasurf import SeaSurf
from flask_session import Session
from flask_wtf.csrf import CSRFProtect, generate_csrf

from lazysession import LazySession, session_mode, session_opened
from lazysession.backend import Problem
from lazysession.checks.app import find_problems
from tests.support.stores.redis import FakeRedisStore

#: The same app on plain Flask-Session, which is the measure, and on LazySession.
both = pytest.mark.parametrize("lazy", [False, True], ids=["flask-session", "lazysession"])

MakeShop = Callable[..., Flask]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of static files."""
    for name in ("site.css", "shop.css", "form.js"):
        (tmp_path / name).write_text("/* public */")
    return tmp_path


@pytest.fixture
def make_shop(files: Path) -> MakeShop:
    """A function that makes an app with static files, a page and a login, on Flask-Session or on LazySession."""

    def make(*, lazy: bool = True, app_class: type[Flask] = Flask, url: str = "/static", **settings: Any) -> Flask:
        app = app_class("shop", static_folder=str(files), static_url_path=url)
        app.config.update(SECRET_KEY="key", PROPAGATE_EXCEPTIONS=True, SESSION_TYPE="redis")
        app.config.update(SESSION_REDIS=fakeredis.FakeRedis(), **settings)
        if lazy:
            LazySession(app)
        else:
            Session(app)
        app.add_url_rule("/login/<name>", "login", log_in)
        app.add_url_rule("/page", "page", lambda: f"page of {session.get('user')}")
        app.add_url_rule("/act", "act", lambda: "done", methods=["POST"])
        return app

    return make


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

    def note(_: Flask, session: Any, mode: str, rule: str) -> None:
        found.append(f"{mode}: {rule}")

    with session_opened.connected_to(note, sender=app):
        options.pop("client", app.test_client()).get(path, buffered=True, **options)
    return found


def use_session_everywhere(app: Flask) -> None:
    @app.before_request
    def look() -> None:
        session.get("user")


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
    version("flask").startswith("3.0."), reason="the last Flask-Security for Flask 3.0 imports pkg_resources"
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


# A remember cookie


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
    """The reason is told where the mode is told."""
    app = add_microblog(make_shop())
    client = remembered_client(app)
    assert modes_of(app, "/static/site.css", client=client) == ["normal: static files, but a remember cookie came"]
    assert modes_of(app, "/static/site.css") == ["skip: static files"]


# Guards at the view


def guard(view: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a view as Flask-Login's login_required does."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if session.get("user") != "ada":
            abort(401)
        return view(*args, **kwargs)

    return guarded


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


def wrap_method(app: Flask) -> None:
    app.view_functions["static"] = guard(app.send_static_file)


def wrap_view(app: Flask) -> None:
    app.view_functions["static"] = guard(app.view_functions["static"])


def write_another_view(app: Flask) -> None:
    """Replace the view by one that calls the same method, and has the old one's name and module."""

    @functools.wraps(app.view_functions["static"])
    def send(filename: str) -> Response:
        if session.get("user") != "ada":
            abort(401)
        return app.send_static_file(filename)

    app.view_functions["static"] = send


def override_on_instance(app: Flask) -> None:
    app.send_static_file = guard(app.send_static_file)  # type: ignore[method-assign]


def override_on_instance_as_a_method(app: Flask) -> None:
    guarded = guard(Flask.send_static_file)
    app.send_static_file = MethodType(guarded, app)  # type: ignore[method-assign]


GUARDS_OF_VIEWS = [wrap_method, wrap_view, write_another_view, override_on_instance, override_on_instance_as_a_method]


@both
@pytest.mark.parametrize("protect", GUARDS_OF_VIEWS)
def test_a_guarded_view(make_shop: MakeShop, lazy: bool, protect: Callable[[Flask], None]) -> None:
    """Protected static files are sent to the visitor who may see them, and to no other."""
    app = make_shop(lazy=lazy)
    protect(app)
    assert [status(client_of(app, name)) for name in ("ada", "bob")] == [200, 401]


@both
def test_a_subclass_that_guards_its_files(make_shop: MakeShop, lazy: bool) -> None:
    """A subclass of Flask may override how static files are sent."""
    app = make_shop(lazy=lazy, app_class=GuardedApp)
    assert [status(client_of(app, name)) for name in ("ada", "bob")] == [200, 401]


@both
def test_login_required_around_the_view(make_shop: MakeShop, lazy: bool) -> None:
    """Flask-Login's decorator at the static view, the usual answer to how static files are protected."""
    app = add_microblog(make_shop(lazy=lazy))
    app.view_functions["static"] = login_required(app.send_static_file)
    client = app.test_client()
    assert status(client) == 401
    client.get("/remember")
    client.delete_cookie("remember_token")
    assert status(client) == 200


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda app: None, id="unchanged"),
        pytest.param(lambda app: app.view_functions.update(static=app.send_static_file), id="the method itself"),
    ],
)
def test_flasks_own_views_are_skipped(make_shop: MakeShop, change: Callable[[Flask], None]) -> None:
    """What Flask registers is skipped, in a subclass too, and so is its method where an app registers that."""

    class Shop(Flask):
        def get_send_file_max_age(self, filename: str | None) -> int | None:
            return 60

    app = make_shop(app_class=Shop)
    change(app)
    use_session_everywhere(app)
    assert modes_of(app, "/static/site.css") == ["skip: static files"]


class Proxy:
    """Looks like the function that it wraps, as the wrappers of monitoring agents do."""

    def __init__(self, wrapped: Callable[..., Any]) -> None:
        self.__wrapped__ = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    @property
    def __class__(self) -> Any:
        return type(self.__wrapped__)

    def __call__(self, **values: Any) -> Any:
        return self.__wrapped__(**values)


@pytest.mark.parametrize(
    "view",
    [
        lambda app: Proxy(app.view_functions["static"]),
        lambda app: functools.partial(app.view_functions["static"]),
        lambda app: Flask("other").send_static_file,
        lambda app: app.make_response,
        lambda app: View.as_view("static"),
        lambda app: lambda **values: app.send_static_file(**values),
    ],
    ids=["proxy", "partial", "another app's", "another method", "a class-based view", "the same lambda elsewhere"],
)
def test_other_views_are_not_skipped(make_shop: MakeShop, view: Callable[[Flask], Any]) -> None:
    """Whatever is not Flask's own view may be a guard."""
    app = make_shop()
    app.view_functions["static"] = view(app)
    with app.test_request_context("/static/site.css"):
        decision = rules_of(app).mode_of(app, request)
    assert decision == ("normal", "static files, but its view is wrapped or overridden")


def rules_of(app: Flask) -> Any:
    return app.session_interface.rules  # type: ignore[attr-defined]


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


GUARDS_OF_BLUEPRINTS = [guard_with_hook, guard_with_preprocessor]


@both
@pytest.mark.parametrize("protect", GUARDS_OF_BLUEPRINTS)
def test_a_guarded_blueprint(
    make_shop: MakeShop, files: Path, lazy: bool, protect: Callable[[Blueprint], None]
) -> None:  # fmt: skip
    """A blueprint with a guard and static files of its own sends them to Ada."""
    app, members = make_shop(lazy=lazy), blueprint_of("members", files)
    protect(members)
    app.register_blueprint(members)
    assert [status(client_of(app, name), "/members/files/site.css") for name in ("ada", "bob")] == [200, 403]


@both
@pytest.mark.parametrize("protect", GUARDS_OF_BLUEPRINTS)
def test_a_guarded_blueprint_around_another(
    make_shop: MakeShop, files: Path, lazy: bool, protect: Callable[[Blueprint], None]
) -> None:  # fmt: skip
    """The guard of a blueprint guards those that are nested in it, two levels down too."""
    app = make_shop(lazy=lazy)
    outer, middle, inner = blueprint_of("outer"), blueprint_of("middle"), blueprint_of("inner", files)
    protect(outer)
    middle.register_blueprint(inner)
    outer.register_blueprint(middle)
    app.register_blueprint(outer)
    path = "/outer/middle/inner/files/site.css"
    assert [status(client_of(app, name), path) for name in ("ada", "bob")] == [200, 403]


@both
def test_a_blueprint_class_that_guards_its_files(make_shop: MakeShop, files: Path, lazy: bool) -> None:
    """A subclass of Blueprint may override how static files are sent."""
    app = make_shop(lazy=lazy)
    app.register_blueprint(blueprint_of("members", files, kind=GuardedBlueprint))
    assert [status(client_of(app, name), "/members/files/site.css") for name in ("ada", "bob")] == [200, 401]


def blueprint_of(name: str, folder: Path | None = None, kind: type[Blueprint] = Blueprint) -> Blueprint:
    static_folder = None if folder is None else str(folder)
    return kind(name, name, url_prefix=f"/{name}", static_folder=static_folder, static_url_path="/files")


def test_a_neighbour_of_a_guarded_blueprint_is_skipped(make_shop: MakeShop, files: Path) -> None:
    """A guard counts for its own blueprint and what is nested in it: neither for its parent nor for another one."""
    app = make_shop()
    outer, inner, other = (blueprint_of(name, files) for name in ("outer", "inner", "other"))
    guard_with_hook(inner)
    outer.register_blueprint(inner)
    for blueprint in (outer, other):
        app.register_blueprint(blueprint)
    use_session_everywhere(app)
    for path in ("/static/site.css", "/outer/files/site.css", "/other/files/site.css"):
        assert modes_of(app, path) == ["skip: static files"]


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
    """The reason is told where the mode is told."""
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


# Hooks of the whole app


def add_redirecting_guard(app: Flask) -> None:
    """Send anonymous visitors to the login page, which alone is exempt."""

    @app.before_request
    def send_to_login() -> Any:
        if request.endpoint != "login" and session.get("user") is None:
            return redirect("/login/nobody")
        return None


def add_refusing_guard(app: Flask, status: int) -> None:
    @app.before_request
    def refuse() -> None:
        if request.endpoint != "login" and session.get("user") is None:
            abort(status)


GUARDS_OF_APPS = [pytest.param(add_redirecting_guard, id="302")] + [
    pytest.param(functools.partial(add_refusing_guard, status=status), id=str(status)) for status in (401, 403)
]


@pytest.mark.parametrize("protect", GUARDS_OF_APPS)
def test_a_guard_of_the_app_on_flask_session(make_shop: MakeShop, protect: Callable[[Flask], None]) -> None:
    """The measure: every file is sent to a visitor who is logged in."""
    app = make_shop(lazy=False)
    protect(app)
    client = client_of(app)
    assert [status(client), status(client, "/static/shop.css")] == [200, 200]


@pytest.mark.parametrize("protect", GUARDS_OF_APPS)
def test_a_guard_of_the_app(
    make_shop: MakeShop, protect: Callable[[Flask], None], caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    """It turns a visitor away once for each process; then its static files are not skipped any more."""
    app = make_shop()
    protect(app)
    client = client_of(app)
    with caplog.at_level(logging.WARNING, "lazysession"):
        first = status(client)
        assert [status(client, "/static/shop.css"), status(client)] == [200, 200]
    assert first in {302, 401, 403}
    assert logged(caplog) == [
        f"Requests to static no longer skip the session in this process (static files): one with a session cookie got "
        f"{first}. To use it, put ('endpoint:static', 'normal') first in LAZYSESSION_RULES. Logged once per endpoint."
    ]
    assert modes_of(app, "/static/site.css") == ["normal: static files, but a visitor was turned away"]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_every_redirect_is_turning_away(make_shop: MakeShop, code: int) -> None:
    """Each status that leads to another page counts."""
    app = make_shop()

    @app.before_request
    def send_to_login() -> Any:
        return redirect("/login/nobody", code) if request.endpoint == "static" and not session else None

    client = client_of(app)
    assert [status(client), status(client)] == [code, 200]


def test_a_guard_over_flasks_own_sessions(make_shop: MakeShop, caplog: pytest.LogCaptureFixture) -> None:
    """Whether a session cookie came is known of any session interface, also of one with a cookie of another name."""

    class Interface(SecureCookieSessionInterface):
        def get_cookie_name(self, app: Flask) -> str:
            return "biscuit"

    app = Flask("shop", static_folder=make_shop().static_folder, static_url_path="/static")
    app.secret_key, app.session_interface = "key", Interface()
    LazySession(app)
    app.add_url_rule("/login/<name>", "login", log_in)
    add_redirecting_guard(app)
    client = client_of(app)
    assert client.get_cookie("biscuit") is not None
    assert [status(client), status(client)] == [302, 200]
    assert "one with a session cookie got 302" in caplog.text


def test_visitors_without_a_cookie_take_nothing_back(make_shop: MakeShop, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has no session is rightly turned away, and other cookies are no session."""
    app = make_shop()
    add_redirecting_guard(app)
    client = app.test_client()
    client.set_cookie("language", "de")
    assert [status(client), status(client)] == [302, 302]
    assert modes_of(app, "/static/site.css", client=client) == ["skip: static files"]
    assert logged(caplog) == []


def test_other_answers_take_nothing_back(make_shop: MakeShop, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a file that is unchanged nor an error is a guard's answer."""
    app = make_shop()
    use_session_everywhere(app)

    @app.before_request
    def stop() -> None:
        if request.args:
            abort(int(request.args["status"]))

    client = client_of(app)
    etag = client.get("/static/site.css", buffered=True).headers["ETag"]
    assert client.get("/static/site.css", headers={"If-None-Match": etag}, buffered=True).status_code == 304
    for code in (400, 429, 500, 503):
        assert status(client, f"/static/site.css?status={code}") == code
    assert modes_of(app, "/static/site.css", client=client) == ["skip: static files"]
    assert logged(caplog) == []


def test_a_rule_of_the_app_is_not_taken_back(make_shop: MakeShop, caplog: pytest.LogCaptureFixture) -> None:
    """Where the app itself said skip, that a visitor was turned away is logged, and the rule stands."""
    app = make_shop(LAZYSESSION_RULES=[("/static/**", "skip"), ("/act/*", "skip")])
    add_redirecting_guard(app)
    client = client_of(app)
    assert [status(client), status(client), status(client, "/act/1")] == [302, 302, 302]
    assert logged(caplog) == [
        "Requests to static skip the session (/static/**): one with a session cookie got 302. To use it, put "
        "('endpoint:static', 'normal') first in LAZYSESSION_RULES. Logged once per endpoint.",
        "Requests to unrouted paths skip the session (/act/*): one with a session cookie got 302. To use it, put a "
        "rule with mode 'normal' first in LAZYSESSION_RULES. Logged once per endpoint.",
    ]


def test_a_hook_that_loads_the_user_costs_nothing(tmp_path: Path, files: Path) -> None:
    """The tutorial's hook, at a blueprint for the whole app: no trip, no header, for its own static files too."""
    store = FakeRedisStore()
    app = Flask("shop", static_folder=str(files), static_url_path="/static")
    app.config.update(SECRET_KEY="key", **store.config())
    LazySession(app)
    auth = blueprint_of("auth", files)

    @auth.before_app_request
    def load_user() -> None:
        g.user = session.get("user")

    app.register_blueprint(auth)
    app.add_url_rule("/login/<name>", "login", log_in)
    client = client_of(app)
    with store.counted() as trips:
        for path in ("/static/site.css", "/auth/files/site.css"):
            response = client.get(path, buffered=True)
            assert response.status_code == 200
            assert {"Set-Cookie", "Vary"}.isdisjoint(response.headers.keys())
    assert trips == []


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
    """Where the session was used no cookie goes out; names, the rule and the way out are logged once per endpoint."""
    client = client_of(skipping)
    for path in ("/static/site.css", "/static/shop.css", "/ping", "/marked", "/ping"):
        assert "Set-Cookie" not in client.get(path, buffered=True).headers
    way_out = "To use it, put ('endpoint:{}', 'normal') first in LAZYSESSION_RULES."
    assert logged(caplog) == [
        f"Cookies were not sent: requests to {endpoint} skip the session ({rule}). Names: token, {{seen}}. {way_out} "
        "Logged once per endpoint."
        for endpoint, rule, way_out in [
            ("static", "static files", way_out.format("static")),
            ("ping", "/ping", way_out.format("ping")),
            ("marked", "@session_mode", "To use it, take @session_mode off the view."),
        ]
    ]
    assert "secret" not in caplog.text


def test_the_way_out_leads_out(make_shop: MakeShop) -> None:
    """A rule as the log names it makes static files ordinary requests."""
    app = make_shop(LAZYSESSION_RULES=[("endpoint:static", "normal"), ("/static/**", "skip")])
    add_redirecting_guard(app)
    assert status(client_of(app)) == 200


@pytest.mark.parametrize("path", ["/static/site.css?idle", "/ping?idle"])
def test_unused_requests_keep_their_cookies(skipping: Flask, path: str) -> None:
    """A cookie of a request that did not use its session is not made of it."""
    cookies = skipping.test_client().get(path, buffered=True).headers.getlist("Set-Cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == ["token", "token", "{seen}"]


def test_ordinary_requests_keep_their_cookies(skipping: Flask) -> None:
    """Neither do pages lose any."""
    cookies = skipping.test_client().get("/page").headers.getlist("Set-Cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == ["token", "token", "{seen}"]


@pytest.mark.parametrize("path", ["/static/site.css", "/ping"])
def test_skipped_uses_are_told_in_debug_mode(skipping: Flask, path: str) -> None:
    """Server-Timing names the line that used the session of a skipped request, and the mode."""
    skipping.debug = True
    (timing,) = skipping.test_client().get(path, buffered=True).headers.getlist("Server-Timing")
    assert re.fullmatch(r'session;desc="opened by [\w.]*test_static_files:send_cookies:\d+ in [\d.]+ ms skip"', timing)


def test_skipped_uses_are_not_told_in_production(skipping: Flask) -> None:
    """Visitors learn nothing of the code, nor of requests that do not use their session."""
    assert "Server-Timing" not in skipping.test_client().get("/ping").headers
    skipping.debug = True
    assert "Server-Timing" not in skipping.test_client().get("/ping?idle").headers


def test_dropped_changes_are_logged_with_the_way_out(
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
        "('endpoint:static', 'normal') first in LAZYSESSION_RULES. Logged once per endpoint."
    ]


# What commands tell


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
    """A note for each static route that is not skipped although no rule of the app says so, and for no other."""
    assert [(each.severity, each.what) for each in notes_on_static_files(various)] == [
        ("note", f"Requests to {endpoint} do not skip the session: {reason}.") for endpoint, reason in REASONS.items()
    ]


def notes_on_static_files(app: Flask) -> list[Problem]:
    found = find_problems(app, app.session_interface)  # type: ignore[arg-type]
    return [each for each in found if each.name == "static-not-skipped"]


def test_the_check_command_without_static_files(make_shop: MakeShop) -> None:
    """Nothing is noted where static files are skipped, nor where the app wants none skipped."""
    guarded = make_shop(LAZYSESSION_SKIP_STATIC=False, app_class=GuardedApp)
    broken = make_shop(LAZYSESSION_RULES=[(lambda request: 1 / 0, "skip")], app_class=GuardedApp)
    for app in (make_shop(), guarded, broken):
        assert notes_on_static_files(app) == []
