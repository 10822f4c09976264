"""Tables that LazySession did not make: columns of other types are read all the same, or ``check`` names them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from lazysession import LazySession
from lazysession.backend import Outcome, Problem
from lazysession.backends.sqlalchemy import SqlAlchemyBackend

pytestmark = pytest.mark.usefixtures("close_connections")

Make = Callable[[str, str], SqlAlchemyBackend]
IDS = {
    "postgresql": "id SERIAL PRIMARY KEY",
    "mariadb": "id INT PRIMARY KEY AUTO_INCREMENT",
    "sqlite": "id INTEGER PRIMARY KEY",
}
COLUMNS = {
    "session_id": {"": "VARCHAR(255) UNIQUE"},
    "data": {"postgresql": "BYTEA", "": "BLOB"},
    "expiry": {"postgresql": "TIMESTAMP", "": "DATETIME"},
}


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Make]:
    """A function that makes a table ``foreign_made`` with one column of another type, and a backend on it."""
    connections: list[Connection] = []

    def make(server: str, column: str, query: str = "", driver: str = "") -> SqlAlchemyBackend:
        url = f"sqlite:///{tmp_path}/shop.db" if server == "sqlite" else request.getfixturevalue(f"{server}_url")
        connections.append(create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect())
        types = {name: kinds.get(server, kinds.get("")) for name, kinds in COLUMNS.items()}
        name, _, kind = column.partition(" ")
        types[name] = kind
        columns = ", ".join([IDS[server], *(f"{each} {types[each]}" for each in types)])
        for statement in ("DROP TABLE IF EXISTS foreign_made", f"CREATE TABLE foreign_made ({columns})"):
            connections[-1].execute(text(statement))
        if driver:
            address = make_url(url)
            url = address.set(drivername=f"{address.get_backend_name()}+{driver}").render_as_string()
        backend = SqlAlchemyBackend.from_setting(url + query, table="foreign_made")
        assert backend is not None
        return backend

    yield make  # type: ignore[misc]
    for connection in connections:
        connection.execute(text("DROP TABLE foreign_made"))
        connection.close()


def left(backend: SqlAlchemyBackend, sql: str) -> float:
    """Return the seconds that the database itself sees left of the one row."""
    with backend._engine.connect() as connection:
        return float(connection.execute(text(f"SELECT {sql} FROM foreign_made")).scalar_one())


def uses_all_verbs(backend: SqlAlchemyBackend, sql: str) -> None:
    """Use every verb: each expiry is the one that was asked for, also as the database sees it."""
    assert backend.create("key", b"1", 1000)
    assert left(backend, sql) == pytest.approx(1000, abs=20)
    record = backend.read("key")
    assert record is not None
    assert record.ttl == pytest.approx(1000, abs=20)
    record = backend.read_and_touch("key", 5000, 4900)
    assert record is not None
    assert record.touched
    assert left(backend, sql) == pytest.approx(5000, abs=20)
    assert backend.replace("key", b"2", None, b"1").outcome is Outcome.STORED
    assert left(backend, sql) == pytest.approx(5000, abs=20)
    assert backend.replace("key", b"3", 100, b"2").outcome is Outcome.STORED
    assert left(backend, sql) == pytest.approx(100, abs=20)
    assert backend.purge() == 0
    backend.create("expired", b"1", -60)
    assert backend.read("expired") is None
    assert backend.purge() == 1
    assert backend.delete("key", b"3").outcome is Outcome.STORED


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_an_expiry_with_a_time_zone(make: Any, driver: str, zone: str) -> None:
    """Whatever the zone of the connection is, the expiry is read and written at the same moment."""
    backend = make("postgresql", "expiry TIMESTAMPTZ", f"?options=-c%20timezone%3D{zone}", driver)
    uses_all_verbs(backend, "extract(epoch FROM expiry - now())")


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_an_expiry_without_a_time_zone(make: Any, zone: str) -> None:
    """The column that Flask-Session makes is in UTC, whatever the zone of the connection is."""
    backend = make("postgresql", "expiry TIMESTAMP", f"?options=-c%20timezone%3D{zone}")
    uses_all_verbs(backend, "extract(epoch FROM expiry - (now() AT TIME ZONE 'UTC'))")


def test_an_expiry_that_moves_by_itself(make: Any) -> None:
    """MySQL's TIMESTAMP may be set to the present time by each UPDATE, which must not end a session."""
    column = "expiry TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP"
    backend = make("mariadb", column, "?init_command=SET%20time_zone%3D'%2B00:00'")
    uses_all_verbs(backend, "timestampdiff(SECOND, utc_timestamp(), expiry)")


@pytest.mark.parametrize("server", ["mariadb", "sqlite"])
def test_an_expiry_as_timestamp(make: Any, server: str) -> None:
    """Without ON UPDATE, the type makes no difference."""
    backend = make(server, "expiry TIMESTAMP NULL")
    assert backend.create("key", b"1", 1000)
    record = backend.read("key")
    assert record is not None
    assert record.ttl == pytest.approx(1000, abs=20)


def test_an_expiry_that_is_no_time(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A column of dates cannot say when a session ends: the log names the column and the command to run."""
    backend = make("postgresql", "expiry DATE")
    app = Flask("shop")
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY_TABLE="foreign_made")
    app.config["SESSION_SQLALCHEMY"] = backend._engine.url.render_as_string(hide_password=False)
    LazySession(app)
    app.add_url_rule("/", view_func=lambda: session.update(n=1) or "")
    client = app.test_client()
    client.get("/")
    assert client.get("/").status_code == 503
    assert "column expiry" in caplog.text
    assert "flask lazysession check" in caplog.text


#: A column, the name of what ``check`` says of it, how severe it is, and a part of the remedy.
FOUND = [
    ("postgresql", "expiry TIMESTAMPTZ", None, "", ""),
    ("postgresql", "expiry DATE", "sql-expiry-type", "error", "TYPE TIMESTAMP"),
    ("postgresql", "data TEXT", "sql-data-type", "error", "BYTEA"),
    ("postgresql", "session_id VARCHAR(32) UNIQUE", "sql-id-size", "error", "VARCHAR(255)"),
    ("postgresql", "session_id TEXT UNIQUE", None, "", ""),
    ("mariadb", "expiry TIMESTAMP NULL", "sql-expiry-type", "warning", "MODIFY expiry DATETIME"),
    ("mariadb", "data LONGTEXT", "sql-data-type", "error", "MEDIUMBLOB"),
    ("mariadb", "data LONGBLOB", None, "", ""),
    ("mariadb", "data BLOB", "sql-size", "warning", "MEDIUMBLOB"),
    ("mariadb", "session_id VARCHAR(32) UNIQUE", "sql-id-size", "error", "VARCHAR(255)"),
    ("sqlite", "expiry DATE", "sql-expiry-type", "error", "DATETIME"),
    ("sqlite", "data TEXT", None, "", ""),
    ("sqlite", "session_id VARCHAR(32) UNIQUE", None, "", ""),
]


@pytest.mark.parametrize(
    ("server", "column", "name", "severity", "remedy"),
    FOUND,
)
def test_what_check_says_of_a_column(
    make: Any, server: str, column: str, name: str | None, severity: str, remedy: str
) -> None:
    """It names the column that cannot hold what sessions need, with the statement that changes it."""
    about = ("sql-expiry-type", "sql-data-type", "sql-id-size", "sql-size")
    query = "" if server == "sqlite" else "?connect_timeout=5"
    found: list[Problem] = [problem for problem in make(server, column, query).check() if problem.name in about]
    if server == "mariadb":
        found = [problem for problem in found if (problem.name == "sql-size") == (name == "sql-size")]
    assert [problem.name for problem in found] == ([] if name is None else [name])
    for problem in found:
        assert problem.severity == severity
        assert remedy in problem.remedy
        assert column.split()[0] in problem.what


def test_a_mysql_that_cuts_off(make: Any) -> None:
    """Where MySQL is not strict, a session that is too large is cut off without an error, so it is an error."""
    backend = make("mariadb", "data BLOB", "?sql_mode=ANSI")
    (problem,) = [problem for problem in backend.check() if problem.name == "sql-size"]
    assert problem.severity == "error"
    assert "cut off" in problem.what
