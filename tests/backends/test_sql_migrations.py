"""Migrations that Alembic writes leave the table of the sessions alone, however they are configured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from flask import Flask, session
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from lazysession import LazySession
from lazysession.backends.sqlalchemy import SqlAlchemyBackend

pytestmark = pytest.mark.usefixtures("close_connections")

CONVENTION = {"uq": "uq_%(table_name)s_%(column_0_name)s", "ix": "ix_%(column_0_label)s"}


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str]:
    """A database of its own on the server that the test names."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shop.db"
        return
    server = make_url(request.getfixturevalue(f"{request.param}_url"))
    engine = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS migrated"))
        connection.execute(text("CREATE DATABASE migrated"))
    yield server.set(database="migrated").render_as_string(hide_password=False)


def make_app(url: str, by: str, convention: dict[str, str] | None = None) -> tuple[Flask, SQLAlchemy]:
    """Make an app with a model of its own, whose sessions are to be in the same database."""
    app, database = Flask("shop"), SQLAlchemy(metadata=MetaData(naming_convention=convention))
    app.config.update(SECRET_KEY="key", SQLALCHEMY_DATABASE_URI=url, SESSION_TYPE="sqlalchemy")
    app.config["SESSION_SQLALCHEMY"] = database if by == "object" else url
    database.init_app(app)
    database.Table("tea", database.metadata, database.Column("id", database.Integer, primary_key=True))
    app.add_url_rule("/", view_func=lambda: session.update(n=session.get("n", 0) + 1) or str(session["n"]))
    return app, database


def operations(app: Flask, database: SQLAlchemy) -> list[Any]:
    """Return what a migration would do."""
    with app.app_context(), database.engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), database.metadata))


@pytest.mark.parametrize("convention", [None, CONVENTION], ids=["", "named"])
@pytest.mark.parametrize("by", ["url", "object"])
@pytest.mark.parametrize("url", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_no_operation_for_a_table_that_was_made_here(url: str, by: str, convention: dict[str, str] | None) -> None:
    """The table, its index and its types are what the metadata of the app says."""
    app, database = make_app(url, by, convention)
    LazySession(app)
    with app.app_context():
        database.create_all()
    assert operations(app, database) == []
    with app.app_context():  # as a test suite does
        database.drop_all()
        database.create_all()
    client = app.test_client()
    assert [client.get("/").text, client.get("/").text] == ["1", "2"]
    assert operations(app, database) == []


@pytest.mark.parametrize(
    ("url", "by"),
    [(server, by) for server in ("sqlite", "postgresql", "mariadb") for by in ("url", "object")],
    indirect=["url"],
)
def test_no_operation_after_switching(url: str, by: str) -> None:
    """A table that Flask-Session made has no index, and gets none by a migration."""
    before, database = make_app(url, "object")
    Session(before)
    with before.app_context():
        database.create_all()
    app, database = make_app(url, by)
    LazySession(app)
    assert operations(app, database) == []


def test_a_table_in_another_database_is_not_declared(tmp_path: Path) -> None:
    """Sessions in another database are not in the app's metadata."""
    app, database = make_app(f"sqlite:///{tmp_path}/shop.db", "url")
    app.config["SESSION_SQLALCHEMY"] = f"sqlite:///{tmp_path}/sessions.db"
    LazySession(app)
    assert set(database.metadata.tables) == {"tea"}


def test_a_model_of_the_apps_own_is_kept(tmp_path: Path) -> None:
    """An app that has declared the table itself keeps its model, to which the index is added."""
    app, database = make_app(f"sqlite:///{tmp_path}/shop.db", "url")
    columns = [
        database.Column("id", database.Integer, primary_key=True),
        database.Column("session_id", database.String(255), unique=True),
        database.Column("data", database.LargeBinary),
        database.Column("expiry", database.DateTime),
    ]
    own = database.Table("sessions", database.metadata, *columns)
    LazySession(app)
    with app.app_context():
        database.create_all()
    assert database.metadata.tables["sessions"] is own
    assert operations(app, database) == []


SHOP = """
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from lazysession import LazySession

app, db = Flask("shop"), SQLAlchemy()
app.config.update(SESSION_TYPE="sqlalchemy", SQLALCHEMY_DATABASE_URI="{url}")
app.config["SESSION_SQLALCHEMY"] = {value}
db.init_app(app)
LazySession(app)
Migrate(app, db)
"""


@pytest.mark.parametrize("by", ["url", "object"])
def test_flask_db_migrate(tmp_path: Path, by: str) -> None:
    """The command itself finds nothing to do, also where the app calls Migrate after LazySession."""
    url = f"sqlite:///{tmp_path}/shop.db"
    (tmp_path / "shop.py").write_text(SHOP.format(url=url, value="db" if by == "object" else repr(url)))
    for command in ("init", "migrate"):  # each in a process of its own, as Alembic's template switches loggers off
        words = [sys.executable, "-m", "flask", "--app", "shop", "db", command]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert list((tmp_path / "migrations" / "versions").glob("*.py")) == []


class Lite:
    """Registers itself as Flask-SQLAlchemy does, and has neither its metadata nor, here, its engines."""

    def __init__(self, app: Flask, **attributes: Any) -> None:
        vars(self).update(attributes)
        app.extensions["sqlalchemy"] = self


@pytest.mark.parametrize("attributes", [{}, {"engines": {"default": create_engine("sqlite://")}}])
def test_another_extension_of_this_name(tmp_path: Path, attributes: dict[str, Any]) -> None:
    """An app starts whose ``app.extensions["sqlalchemy"]`` is not Flask-SQLAlchemy 3: Flask-SQLAlchemy-Lite's, say."""
    app = Flask("shop")
    Lite(app, **attributes)
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=f"sqlite:///{tmp_path}/shop.db")
    LazySession(app)
    app.add_url_rule("/", view_func=lambda: session.update(user="ada") or "")
    assert app.test_client().get("/").status_code == 200


@pytest.mark.parametrize("is_up", [True, False], ids=["up", "down"])
def test_a_database_that_is_down_is_asked_once(tmp_path: Path, is_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the table to declare it would wait for the same connection again."""
    asked: list[SqlAlchemyBackend] = []
    monkeypatch.setattr(SqlAlchemyBackend, "declare_tables", lambda backend, _: asked.append(backend))
    app, _ = make_app(f"sqlite:///{tmp_path}{'' if is_up else '/missing'}/shop.db", "url")
    LazySession(app)
    assert len(asked) == is_up
