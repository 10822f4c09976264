"""Static files that a guard may protect: at the view, at the blueprint, or in a hook of the whole app."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    g,
    redirect,
    request,
    session,
)
from flask.sessions import SecureCookieSessionInterface
from flask.views import View
from flask_login import login_required

from lazysession import LazySession
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
    log_in,
    logged,
    modes_of,
    status,
    use_session_everywhere,
)
from tests.support.stores.redis import FakeRedisStore

# Guards at the view


def guard(view: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a view as Flask-Login's login_required does."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if session.get("user") != "ada":
            abort(401)
        return view(*args, **kwargs)

    return guarded


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
        f"{first}. To use it, put ('endpoint:static', 'normal') first in LAZYSESSION_RULES. Logged once per endpoint. "
        f"{see(Page.STATIC_403)}"
    ]
    assert modes_of(app, "/static/site.css") == ["normal: static files, but a visitor was refused"]


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


def test_visitors_without_a_cookie_change_nothing(make_shop: MakeShop, caplog: pytest.LogCaptureFixture) -> None:
    """A visitor without a session is turned away rightly, and other cookies are no session."""
    app = make_shop()
    add_redirecting_guard(app)
    client = app.test_client()
    client.set_cookie("language", "de")
    assert [status(client), status(client)] == [302, 302]
    assert modes_of(app, "/static/site.css", client=client) == ["skip: static files"]
    assert logged(caplog) == []


def test_other_responses_change_nothing(make_shop: MakeShop, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a file that is unchanged nor an error is a guard's response."""
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
    """Where the app itself said skip, that a visitor was refused is logged, and the rule stands."""
    app = make_shop(LAZYSESSION_RULES=[("/static/**", "skip"), ("/act/*", "skip")])
    add_redirecting_guard(app)
    client = client_of(app)
    assert [status(client), status(client), status(client, "/act/1")] == [302, 302, 302]
    assert logged(caplog) == [
        "Requests to static skip the session (/static/**): one with a session cookie got 302. To use it, put "
        f"('endpoint:static', 'normal') first in LAZYSESSION_RULES. Logged once per endpoint. {see(Page.STATIC_403)}",
        "Requests to unrouted paths skip the session (/act/*): one with a session cookie got 302. To use it, put a "
        f"rule with mode 'normal' first in LAZYSESSION_RULES. Logged once per endpoint. {see(Page.STATIC_403)}",
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


def test_the_advised_rule_works(make_shop: MakeShop) -> None:
    """A rule as the log names it makes static files ordinary requests."""
    app = make_shop(LAZYSESSION_RULES=[("endpoint:static", "normal"), ("/static/**", "skip")])
    add_redirecting_guard(app)
    assert status(client_of(app)) == 200
