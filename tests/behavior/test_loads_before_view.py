"""Which interfaces load before the view, and what such a load must not change about a request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask import Flask, session
from flask.sessions import SessionInterface
from flask_session.sqlalchemy import SqlAlchemySessionInterface
from flask_sqlalchemy import SQLAlchemy

from lazysession import LazySession
from lazysession.dbsession import uses_db_session

pytestmark = pytest.mark.filterwarnings("ignore:This declarative base already contains")
db = SQLAlchemy()

#: Methods of an interface in the module ``corner.stores``, next to ``corner.models`` with its ``db``.
USES = {
    "relative": "from .models import db\n  return db.session",
    "relative-module": "from . import models\n  return models.db.session",
    "absolute-module": "from corner import models\n  return models.db.session",
    "parent": "from ..models import db\n  return db.session",
    "registered": "return app.extensions['sqlalchemy'].session",
}


class Own(SqlAlchemySessionInterface):  # type: ignore[misc]
    """Stores in a way of its own, through Flask-Session's methods."""

    fails = False

    def _retrieve_session_data(self, store_id: str) -> Any:
        if self.fails:
            raise OSError("down")
        return super()._retrieve_session_data(store_id)


class Unconfigured:
    """Settings that are not configured yet: each attribute is an error."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("not configured")


def module(name: str, package: str, **values: Any) -> ModuleType:
    made = ModuleType(name)
    made.__package__ = package
    vars(made).update(values)
    return made


@pytest.fixture
def corner(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], SessionInterface]:
    """Return what makes an interface in a package, of the body of its method."""
    models = module("corner.models", "corner", db=db)
    package = module("corner", "corner", models=models)
    monkeypatch.setitem(sys.modules, "corner", package)
    monkeypatch.setitem(sys.modules, "corner.models", models)

    def make(body: str) -> SessionInterface:
        inside = "corner.inner" if ".." in body else "corner"
        stores = module(f"{inside}.stores", inside, SessionInterface=SessionInterface)
        lines = ["class Store(SessionInterface):", " def open_session(self, app, request):", f"  {body}"]
        exec("\n".join(lines), vars(stores))
        interface: SessionInterface = stores.Store()
        return interface

    return make


@pytest.mark.parametrize("use", USES)
def test_a_database_session_is_found(corner: Callable[[str], SessionInterface], use: str) -> None:
    """However a method imports the app's database, which it often does itself as its module is imported first."""
    assert uses_db_session(corner(USES[use]))


@pytest.mark.parametrize(
    "body", ["return None", "import json\n  return json.loads('1')", "return app.extensions['other']"]
)
def test_others_use_none(corner: Callable[[str], SessionInterface], body: str) -> None:
    """An interface without a database is loaded lazily."""
    assert not uses_db_session(corner(body))


def test_objects_that_cannot_be_looked_at(corner: Callable[[str], SessionInterface]) -> None:
    """An app starts though its interface holds, or names, an object that raises at every attribute."""
    interface: Any = corner("return settings")
    type(interface).open_session.__globals__["settings"] = interface.settings = Unconfigured()
    assert not uses_db_session(interface)


@pytest.fixture
def app(tmp_path: Path) -> Generator[Flask]:
    """An app whose interface loads before the view."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="key", SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/shop.db", TESTING=False)
    app.config["LAZYSESSION_ON_READ_ERROR"] = "empty"
    db.init_app(app)
    with app.app_context():
        app.session_interface = Own(app, client=db, table=f"visits_{tmp_path.name}")
        db.create_all()
    LazySession(app)
    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    app.add_url_rule("/login", view_func=lambda: session.update(user="ada") or "", endpoint="login")
    app.add_url_rule("/read", view_func=lambda: str(session.get("user")), endpoint="read")
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.mark.skipif(version("flask") < "3.1", reason="needs Flask 3.1, which has TRUSTED_HOSTS: pip install -U flask")
@pytest.mark.parametrize("host", ["mallory.example", f"{'a' * 70}.example"])
def test_a_host_that_is_refused(app: Flask, host: str) -> None:
    """A host that Flask does not trust, or that is none, is a 400, also where the session is loaded before the view."""
    app.config["TRUSTED_HOSTS"] = ["shop.example"]
    browser = app.test_client()
    assert browser.get("/untouched", headers={"Host": "shop.example"}).status_code == 200
    assert browser.get("/untouched", headers={"Host": host}).status_code == 400


def test_an_empty_session_in_an_outage(app: Flask) -> None:
    """With ON_READ_ERROR ``empty``, the session that could not be loaded may be read and not written, as elsewhere."""
    browser = app.test_client()
    browser.get("/login")
    app.session_interface.wrapped.fails = True  # type: ignore[attr-defined]
    assert browser.get("/read").text == "None"
    assert browser.get("/login").status_code == 500
    app.session_interface.wrapped.fails = False  # type: ignore[attr-defined]
    assert browser.get("/read").text == "ada"
