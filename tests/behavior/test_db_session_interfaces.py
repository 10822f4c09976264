"""Interfaces that store through the app's ``db.session``: they use it before and after the view, never during it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface
from flask_session.sqlalchemy import SqlAlchemySessionInterface
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import String, inspect, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from lazysession import LazySession
from lazysession.processes import Recent

pytestmark = pytest.mark.filterwarnings("ignore:This declarative base already contains")
db = SQLAlchemy()


class Note(db.Model):  # type: ignore[name-defined, misc]
    """A row of the app's own."""

    name: Mapped[str] = mapped_column(String(20), primary_key=True)
    text: Mapped[str] = mapped_column(String(20), default="")


class StoredSession(db.Model):  # type: ignore[name-defined, misc]
    """A session of the interface that the app has written itself."""

    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    user: Mapped[str] = mapped_column(String(20))


class Encrypted(SqlAlchemySessionInterface):  # type: ignore[misc]
    """Stores in a way of its own, through Flask-Session's methods."""

    def _retrieve_session_data(self, store_id: str) -> Any:
        loads.append(store_id)
        return super()._retrieve_session_data(store_id)

    def _upsert_session(self, lifetime: timedelta, session: Any, store_id: str) -> None:
        super()._upsert_session(lifetime, session, store_id)


class Exempting(Encrypted):
    """Leaves paths out, as Airflow's does."""

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        from flask import request

        if request.path != "/health":
            super().save_session(app, session, response)


class Written(SessionInterface):
    """The app's own, on a model of the app's own."""

    def open_session(self, app: Flask, request: Any) -> SecureCookieSession:
        sid = request.cookies.get("session")
        loads.append(sid)
        stored = db.session.get(StoredSession, sid) if sid else None
        return SecureCookieSession({"user": stored.user} if stored else {})

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        if session.modified:
            db.session.merge(StoredSession(id="a" * 43, user=session["user"]))
            db.session.commit()
            response.set_cookie("session", "a" * 43)


class ByHelper(Written):
    """Calls a function for the work."""

    def open_session(self, app: Flask, request: Any) -> SecureCookieSession:
        return _open(request)


def _open(request: Any) -> SecureCookieSession:
    return Written().open_session(Flask("other"), request)


loads: list[Any] = []
_numbers = itertools.count()
INTERFACES: dict[str, Callable[[Flask], SessionInterface]] = {
    "encrypted": lambda app: Encrypted(app, client=db, table=f"visits{next(_numbers)}"),
    "exempting": lambda app: Exempting(app, client=db, table=f"visits{next(_numbers)}"),
    "written": lambda app: Written(),
    "by-helper": lambda app: ByHelper(),
}


@pytest.fixture(params=INTERFACES)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An app with such an interface, and a row of its own."""
    app = Flask("shop", static_folder=str(tmp_path), static_url_path="/static")
    (tmp_path / "style.css").write_text("")
    app.config.update(SECRET_KEY="key", SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/shop.db", TESTING=False)
    app.config["LAZYSESSION_SKIP_PATHS"] = ("/metrics",)
    db.init_app(app)
    with app.app_context():
        app.session_interface = INTERFACES[request.param](app)
        db.create_all()
        db.session.add(Note(name="first"))
        db.session.commit()
    LazySession(app)
    app.add_url_rule("/login", view_func=lambda: session.update(user="ada") or "", endpoint="login")
    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    app.add_url_rule("/", view_func=lambda: app.config["VIEW"](), endpoint="view")
    app.add_url_rule("/read", view_func=lambda: str(session.get("user")), endpoint="read")
    app.add_url_rule("/metrics", view_func=lambda: str(session.get("user")), endpoint="metrics")
    yield app
    with app.app_context():
        db.engine.dispose()


def visit(app: Flask, view: Callable[[], Any]) -> Any:
    """Log in, and look at a view."""
    app.config["VIEW"] = view
    browser = app.test_client()
    browser.get("/login")
    loads.clear()
    return browser.get("/")


def names(app: Flask) -> list[str]:
    with app.app_context():
        return sorted(db.session.scalars(db.select(Note.name)))


def test_a_load_flushes_nothing(app: Flask) -> None:
    """A first use within a view leaves the app's pending rows pending, and what it rolls back is not stored."""
    pending: list[bool] = []

    def view() -> str:
        db.session.add(Note(name="second"))
        user = session["user"]
        pending.append(bool(db.session.new))
        db.session.rollback()
        return str(user)

    assert visit(app, view).text == "ada"
    assert pending == [True]
    assert names(app) == ["first"]


def test_after_an_attribute_was_set(app: Flask) -> None:
    """Setting an attribute of the session interface does not let it load within the view."""
    app.session_interface.session_class = app.session_interface.session_class  # type: ignore[attr-defined]
    pending: list[bool] = []

    def view() -> str:
        db.session.add(Note(name="second"))
        session.get("user")
        pending.append(bool(db.session.new))
        db.session.rollback()
        return ""

    visit(app, view)
    assert pending == [True]


def test_a_load_commits_nothing(app: Flask) -> None:
    """Also where the loaded session has expired, which Flask-Session deletes at once."""

    def view() -> str:
        db.session.add(Note(name="second"))
        db.session.flush()
        _ = session.get("user")
        db.session.rollback()
        return ""

    app.config["VIEW"] = view
    browser = app.test_client()
    browser.get("/login")
    model = getattr(app.session_interface, "sql_session_model", None)
    if model is not None:
        with app.app_context():
            db.session.execute(update(model).values(expiry=datetime(2000, 1, 1)))
            db.session.commit()
    assert browser.get("/").status_code == 200
    assert names(app) == ["first"]


def test_the_apps_own_error_is_its_own(app: Flask) -> None:
    """A duplicate row fails at the app's own commit, where it can be caught."""

    def view() -> str:
        db.session.add(Note(name="first"))
        user = session["user"]
        try:
            db.session.commit()
        except IntegrityError:
            db.session.rollback()
            return f"{user} again"
        return str(user)

    assert visit(app, view).text == "ada again"


def test_a_load_expires_nothing(app: Flask) -> None:
    """What the app has loaded stays loaded."""
    expired: list[bool] = []

    def view() -> str:
        note = db.session.get(Note, "first")
        _ = session["user"]
        expired.append(inspect(note).expired)
        return ""

    assert visit(app, view).status_code == 200
    assert expired == [False]


def test_what_is_not_used_is_not_saved(app: Flask) -> None:
    """Such a session is loaded before the view; where the view does not use it, nothing else happens."""
    browser = app.test_client()
    browser.get("/login")
    loads.clear()
    response = browser.get("/untouched")
    assert len(loads) == 1
    assert "Vary" not in response.headers
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("path", ["/static/style.css", "/metrics"])
def test_what_is_skipped_is_not_loaded(app: Flask, path: str) -> None:
    """Rules are decided before the load: a skipped request reads nothing."""
    browser = app.test_client()
    browser.get("/login")
    loads.clear()
    with browser.get(path) as response:
        assert response.status_code == 200
    assert loads == []


def test_a_page_that_does_not_exist(app: Flask) -> None:
    """A 404 is an ordinary request."""
    app.register_error_handler(404, lambda _error: (str(session.get("user")), 404))
    browser = app.test_client()
    browser.get("/login")
    response = browser.get("/nowhere")
    assert (response.status_code, response.text) == (404, "ada")


def test_a_failed_load(app: Flask) -> None:
    """Where the tables are gone, requests that do not use the session are served, others fail."""
    browser = app.test_client()
    browser.get("/login")
    with app.app_context():
        db.drop_all()
    assert browser.get("/untouched").status_code == 200
    assert browser.get("/read").status_code >= 500


def test_a_refresh_comes_after_the_view(app: Flask) -> None:
    """A refresh is a write and a commit: it is made after the view, and only after a use."""
    if type(app.session_interface.wrapped) is not Encrypted:  # type: ignore[attr-defined]
        pytest.skip("does not apply: this interface refreshes in its own way")
    handler: Any = app.session_interface.handler  # type: ignore[attr-defined]
    pending: list[bool] = []

    def view() -> str:
        db.session.add(Note(name="second"))
        _ = session["user"]
        pending.append(bool(db.session.new))
        db.session.rollback()
        return ""

    def expiry() -> Any:
        with app.app_context():
            return db.session.scalars(select(app.session_interface.sql_session_model.expiry)).one()  # type: ignore[attr-defined]

    app.config["VIEW"] = view
    browser = app.test_client()
    browser.get("/login")
    handler.records.expiries._expiries = Recent()  # as another process, which does not know of the login
    before = expiry()
    browser.get("/untouched")
    assert expiry() == before
    response = browser.get("/")
    assert pending == [True]
    assert expiry() > before
    assert "Set-Cookie" in response.headers
    assert names(app) == ["first"]


def test_a_stream(app: Flask) -> None:
    """A first use in the body of a stream shows the session."""

    def view() -> Response:
        from flask import stream_with_context

        return Response(stream_with_context(str(session.get("user")) for _ in range(1)))

    assert visit(app, view).text == "ada"


@pytest.mark.parametrize("hook", ["after_request", "teardown_request"])
def test_a_hook_after_the_view(app: Flask, hook: str) -> None:
    """A first use after the view leaves pending rows alone, too."""
    seen: list[tuple[Any, bool]] = []

    def look(argument: Any) -> Any:
        if app.config.get("VIEW"):
            seen.append((session.get("user"), bool(db.session.new)))
            db.session.rollback()
        return argument

    getattr(app, hook)(look)

    def view() -> str:
        db.session.add(Note(name="second"))
        return ""

    browser = app.test_client()
    browser.get("/login")
    app.config["VIEW"] = view
    assert browser.get("/").status_code == 200
    assert seen == [("ada", True)]
    assert names(app) == ["first"]


def test_by_hand(app: Flask) -> None:
    """The test client's ``session_transaction`` reads and saves."""
    browser = app.test_client()
    browser.get("/login")
    with browser.session_transaction() as transaction:
        assert transaction["user"] == "ada"
        transaction["user"] = "bob"
    assert browser.get("/read").text == "bob"


class Elsewhere(SecureCookieSessionInterface):
    """Uses no database."""


def test_other_interfaces_stay_lazy(tmp_path: Path) -> None:
    """An interface that does not use the app's database is asked at the first use, as before."""
    opened: list[str] = []

    class Counting(Elsewhere):
        def open_session(self, app: Flask, request: Any) -> Any:
            opened.append(request.path)
            return super().open_session(app, request)

    app = Flask("shop")
    app.config.update(SECRET_KEY="key", SQLALCHEMY_DATABASE_URI="sqlite://")
    db.init_app(app)
    app.session_interface = Counting()
    LazySession(app)
    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    assert app.test_client().get("/untouched").status_code == 200
    assert opened == []
