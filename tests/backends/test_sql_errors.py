"""What the errors of a database mean for a session: which deserve another try, and what a table refuses."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from sqlalchemy import Connection, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from lazysession import LazySession
from lazysession.backend import Outcome, TouchFailed
from lazysession.backends.sqlalchemy import SqlAlchemyBackend

pytestmark = pytest.mark.usefixtures("close_connections")

POSTGRESQL = ("psycopg", "psycopg2")


def address(url: str, driver: str, **parts: Any) -> str:
    """Return a URL for another driver, and with other parts."""
    made = make_url(url).set(drivername=f"{make_url(url).get_backend_name()}+{driver}", **parts)
    return made.render_as_string(hide_password=False)


@pytest.fixture
def admin() -> Generator[Callable[[str], Connection]]:
    """A function that opens a connection of an administrator's, closed at the end."""
    opened: list[Connection] = []

    def connect(url: str) -> Connection:
        opened.append(create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect())
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def backend_on(url: str, **options: Any) -> SqlAlchemyBackend:
    """Return a backend on a database."""
    backend = SqlAlchemyBackend.from_setting(url, **options)
    assert backend is not None
    return backend


# What is worth another try


@pytest.mark.parametrize("isolation", ["serializable", "repeatable%20read"])
@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_serialization_failure(
    postgresql_url: str, driver: str, isolation: str, admin: Callable[[str], Connection]
) -> None:
    """A statement that waited for a row which another transaction then changed is tried again, and succeeds."""
    other, watcher = admin(postgresql_url), admin(postgresql_url)
    query = f"?options=-c%20default_transaction_isolation%3D{isolation.replace('%20', '%5C%20')}"
    backend = backend_on(address(postgresql_url, driver) + query)
    backend.delete("contested")
    assert backend.create("contested", b"1", 1000)
    other.exec_driver_sql("BEGIN")
    other.exec_driver_sql("UPDATE sessions SET expiry = expiry + interval '1 hour' WHERE session_id = 'contested'")
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(backend.replace("contested", b"2", 1000, b"1").outcome))
    thread.start()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^UPDATE sessions'"
    while not watcher.exec_driver_sql(waiting).scalar_one():
        assert thread.is_alive()
    other.exec_driver_sql("COMMIT")
    thread.join()
    assert outcomes == [Outcome.STORED]


def test_a_server_that_is_frozen(postgresql_url: str) -> None:
    """Its kernel acknowledges what is sent, so that no timeout of TCP ends the wait, but psycopg's own limit."""
    limits = "connect_timeout=2&keepalives_idle=1&keepalives_interval=1&keepalives_count=2&tcp_user_timeout=1000"
    backend = backend_on(f"{postgresql_url}?{limits}&read_timeout=0.5")
    backend.read("nobody")
    with backend._engine.connect() as connection:
        process = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    os.kill(process, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert backend.read("nobody") is None  # on another connection, which the server can make
        assert 0.5 <= time.monotonic() - began < 20
    finally:
        os.kill(process, signal.SIGCONT)


def verbs_of(backend: SqlAlchemyBackend) -> dict[str, Callable[[], object]]:
    """Return each verb that writes, as it is when it succeeds."""
    return {
        "create": lambda: backend.create("moved", b"1", 1000),
        "replace": lambda: backend.replace("moved", b"2", 1000, b"1").outcome is Outcome.STORED,
        "delete": lambda: backend.delete("moved", b"2").outcome is Outcome.STORED,
        "purge": lambda: backend.purge() == 1,
    }


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_primary_that_became_a_replica(postgresql_url: str, driver: str, admin: Callable[[str], Connection]) -> None:
    """Connections of the pool to a server that is read-only now are replaced, and no request fails."""
    other = admin(postgresql_url)
    other.exec_driver_sql("DROP ROLE IF EXISTS moving")
    other.exec_driver_sql("CREATE ROLE moving LOGIN SUPERUSER")
    backend = backend_on(address(postgresql_url, driver, username="moving"))
    backend.delete("moved")
    backend.create("expired", b"", -1)
    for name, verb in verbs_of(backend).items():
        backend._engine.dispose()
        other.exec_driver_sql("ALTER ROLE moving SET default_transaction_read_only = on")
        backend.read("moved")  # on a connection that will stay read-only
        other.exec_driver_sql("ALTER ROLE moving RESET default_transaction_read_only")
        assert verb(), name
    backend._engine.dispose()
    other.exec_driver_sql("DROP ROLE moving")


def test_a_mariadb_that_became_a_replica(mariadb_url: str, admin: Callable[[str], Connection]) -> None:
    """The same for MariaDB, where transactions of the connections that stayed are read-only."""
    other = admin(mariadb_url)
    backend = backend_on(mariadb_url)
    backend.delete("moved")
    backend.create("expired", b"", -1)
    try:
        for name, verb in verbs_of(backend).items():
            backend._engine.dispose()
            other.exec_driver_sql("SET GLOBAL tx_read_only = 1")
            backend.read("moved")
            other.exec_driver_sql("SET GLOBAL tx_read_only = 0")
            assert verb(), name
    finally:
        other.exec_driver_sql("SET GLOBAL tx_read_only = 0")


def test_a_mariadb_that_stays_a_replica(mariadb_url: str, admin: Callable[[str], Connection]) -> None:
    """A write fails after a second attempt on a new connection; reads continue, and later writes succeed again."""
    other = admin(mariadb_url)
    other.exec_driver_sql("CREATE OR REPLACE USER visitor@127.0.0.1")
    other.exec_driver_sql("GRANT ALL ON mysql.sessions TO visitor@127.0.0.1")
    backend = backend_on(mariadb_url)
    backend.delete("replicated")
    backend = backend_on(address(mariadb_url, "pymysql", username="visitor"))
    assert backend.create("replicated", b"1", 1000)
    sent: list[str] = []
    event.listen(backend._engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: sent.append(statement))
    try:
        other.exec_driver_sql("SET GLOBAL read_only = 1")
        with pytest.raises(DBAPIError, match="read-only"):
            backend.replace("replicated", b"2", 1000, b"1")
        assert len(sent) == 2
        with pytest.raises(TouchFailed) as failed:
            backend.read_and_touch("replicated", 1000, 1000)
        assert failed.value.record.payload == b"1"
        assert not failed.value.record.touched
    finally:
        other.exec_driver_sql("SET GLOBAL read_only = 0")
    assert backend.replace("replicated", b"2", 1000, b"1").outcome is Outcome.STORED


class Psycopg(Exception):
    def __init__(self, state: str) -> None:
        self.sqlstate = state


class Psycopg2(Exception):
    def __init__(self, state: str) -> None:
        self.pgcode = state


class Pg8000(Exception):
    def __init__(self, state: str) -> None:
        super().__init__({"C": state, "M": "text"})


class PyMySQL(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number, "text")


class MariaDBConnector(Exception):
    def __init__(self, number: int) -> None:
        super().__init__("text")
        self.errno, self.sqlstate = number, "HY000"


def error_of(original: Exception, *, lost: bool = False) -> DBAPIError:
    """Return the error that SQLAlchemy makes of a driver's."""
    return DBAPIError("UPDATE", None, original, connection_invalidated=lost)


AGAIN = [
    *(kind(state) for kind in (Psycopg, Psycopg2, Pg8000) for state in ("40001", "40P01")),
    *(kind(number) for kind in (PyMySQL, MariaDBConnector) for number in (1213, 1205, 1020, 3101)),
]
ELSEWHERE = [
    *(kind(state) for kind in (Psycopg, Psycopg2, Pg8000) for state in ("25006", "57P01", "57P02", "57P05")),
    *(kind(number) for kind in (PyMySQL, MariaDBConnector) for number in (1290, 1792, 1836, 1047, 1053, 1927)),
]
NEVER = [
    *(kind(state) for kind in (Psycopg, Psycopg2, Pg8000) for state in ("23505", "22001", "42501", "57P03", "55P03")),
    *(kind(number) for kind in (PyMySQL, MariaDBConnector) for number in (1062, 1406, 1045, 1317)),
    ValueError("40001 and 1213 in a text"),
]


def test_which_errors_are_worth_another_try() -> None:
    """Of each class by the code of each driver, with a bound on the attempts, the connections and the time."""
    from lazysession.backends.sqlalchemy.errors import ATTEMPTS, RETRIED_FOR, needs_new_connection, worth_another_try

    for each in AGAIN:
        assert worth_another_try(error_of(each), attempt=1, reconnected=False, seconds=0), each
        assert worth_another_try(error_of(each), attempt=ATTEMPTS - 1, reconnected=True, seconds=0), each
        assert not worth_another_try(error_of(each), attempt=ATTEMPTS, reconnected=False, seconds=0), each
        assert not worth_another_try(error_of(each), attempt=1, reconnected=False, seconds=RETRIED_FOR + 1), each
        assert not needs_new_connection(each), each
    for each in ELSEWHERE:
        assert needs_new_connection(each), each
        assert worth_another_try(error_of(each, lost=True), attempt=3, reconnected=False, seconds=0), each
        assert not worth_another_try(error_of(each, lost=True), attempt=3, reconnected=True, seconds=0), each
        assert not worth_another_try(error_of(each, lost=True), attempt=1, reconnected=False, seconds=RETRIED_FOR + 1)
    for each in NEVER:
        assert not needs_new_connection(each), each
        assert not worth_another_try(error_of(each), attempt=1, reconnected=False, seconds=0), each


def lose_the_reply(backend: SqlAlchemyBackend, word: str) -> list[str]:
    """Break the connection after the first statement of a kind was done; return those that were lost."""
    lost: list[str] = []

    def lose(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(word) and not lost:
            lost.append(statement)
            raise DBAPIError(statement, None, Exception("gone"), connection_invalidated=True)

    event.listen(backend._engine, "after_cursor_execute", lose)
    return lost


def test_a_create_whose_reply_was_lost(tmp_path: Path) -> None:
    """The second attempt finds its own row and says that it is stored; another payload is still a taken key."""
    backend = backend_on(f"sqlite:///{tmp_path}/sessions.db")
    lost = lose_the_reply(backend, "INSERT")
    assert backend.create("key", b"1", 60)
    assert len(lost) == 1
    assert not backend.create("key", b"1", 60)
    lost.clear()
    backend.create("other", b"theirs", 60)
    lost.clear()
    backend.delete("other")
    backend.create("other", b"theirs", 60)
    assert not backend.create("other", b"mine", 60)


def test_a_replace_whose_reply_was_lost(tmp_path: Path) -> None:
    """The second attempt finds its own payload, which is no change of another request."""
    backend = backend_on(f"sqlite:///{tmp_path}/sessions.db")
    backend.create("key", b"1", 60)
    lost = lose_the_reply(backend, "UPDATE")
    assert backend.replace("key", b"2", 60, b"1").outcome is Outcome.STORED
    assert len(lost) == 1
    assert backend.replace("key", b"3", 60, b"1").outcome is Outcome.CONFLICT


# What a table refuses

#: A table as restored or made by hand, what the database says of it, and the remedy.
TABLES: dict[str, dict[str, tuple[str, str, str]]] = {
    "postgresql": {
        "a sequence left behind": (
            "CREATE TABLE refusing (id SERIAL PRIMARY KEY, session_id VARCHAR(255) UNIQUE, "
            "data BYTEA, expiry TIMESTAMP);"
            "INSERT INTO refusing SELECT n, 'restored' || n, '', now() FROM generate_series(1, 50) n",
            'duplicate key value violates unique constraint "refusing_pkey"',
            "setval",
        ),
        "no default": (
            "CREATE TABLE refusing (id INT PRIMARY KEY, session_id VARCHAR(255) UNIQUE, data BYTEA, expiry TIMESTAMP)",
            'null value in column "id"',
            "GENERATED BY DEFAULT AS IDENTITY",
        ),
        "a check": (
            "CREATE TABLE refusing (id SERIAL PRIMARY KEY, session_id VARCHAR(255) UNIQUE, "
            "data BYTEA CONSTRAINT small CHECK (length(data) < 5), expiry TIMESTAMP)",
            'violates check constraint "small"',
            "constraint",
        ),
        "a short column": (
            "CREATE TABLE refusing (id SERIAL PRIMARY KEY, session_id VARCHAR(20) UNIQUE, "
            "data BYTEA, expiry TIMESTAMP)",
            "value too long for type character varying(20)",
            "column",
        ),
    },
    "mariadb": {
        "no default": (
            "CREATE TABLE refusing (id INT PRIMARY KEY, session_id VARCHAR(255) UNIQUE, "
            "data LONGBLOB, expiry DATETIME)",
            "Field 'id' doesn't have a default value",
            "AUTO_INCREMENT",
        ),
        "a check": (
            "CREATE TABLE refusing (id INT PRIMARY KEY AUTO_INCREMENT, session_id VARCHAR(255) UNIQUE, "
            "data LONGBLOB, expiry DATETIME, CONSTRAINT small CHECK (length(data) < 5))",
            "CONSTRAINT `small` failed",
            "constraint",
        ),
        "a short column": (
            "CREATE TABLE refusing (id INT PRIMARY KEY AUTO_INCREMENT, session_id VARCHAR(20) UNIQUE, "
            "data LONGBLOB, expiry DATETIME)",
            "Data too long for column 'session_id'",
            "column",
        ),
        "a small blob": (
            "CREATE TABLE refusing (id INT PRIMARY KEY AUTO_INCREMENT, session_id VARCHAR(255) UNIQUE, "
            "data TINYBLOB, expiry DATETIME)",
            "Data too long for column 'data'",
            "column",
        ),
    },
    "sqlite": {
        "no default": (
            "CREATE TABLE refusing (id INT NOT NULL PRIMARY KEY, session_id VARCHAR(255) UNIQUE, "
            "data BLOB, expiry DATETIME)",
            "NOT NULL constraint failed: refusing.id",
            "INTEGER PRIMARY KEY",
        ),
        "a check": (
            "CREATE TABLE refusing (id INTEGER PRIMARY KEY, session_id VARCHAR(255) UNIQUE, "
            "data BLOB CONSTRAINT small CHECK (length(data) < 5), expiry DATETIME)",
            "CHECK constraint failed: small",
            "constraint",
        ),
        "another unique column": (
            "CREATE TABLE refusing (id INTEGER PRIMARY KEY, session_id VARCHAR(255) UNIQUE, data BLOB, "
            "expiry DATETIME, site TEXT DEFAULT 'shop' UNIQUE); INSERT INTO refusing (session_id) VALUES ('restored')",
            "UNIQUE constraint failed: refusing.site",
            "constraint",
        ),
    },
}
CASES = [
    *((*("postgresql", case), driver) for case in TABLES["postgresql"] for driver in POSTGRESQL),
    *(("mariadb", case, "pymysql") for case in TABLES["mariadb"]),
    *(("sqlite", case, "pysqlite") for case in TABLES["sqlite"]),
]


@pytest.fixture
def make_table(
    request: pytest.FixtureRequest, tmp_path: Path, admin: Callable[[str], Connection]
) -> Generator[Callable[[str, str], str]]:
    """A function that makes a table ``refusing`` on a server, and returns the server's URL."""
    used: list[Connection] = []

    def make(server: str, statements: str) -> str:
        url = f"sqlite:///{tmp_path}/shop.db" if server == "sqlite" else request.getfixturevalue(f"{server}_url")
        connection = admin(str(url))
        used.append(connection)
        connection.exec_driver_sql("DROP TABLE IF EXISTS refusing")
        for statement in statements.split(";"):
            connection.execute(text(statement))
        return str(url)

    yield make
    for connection in used:
        connection.exec_driver_sql("DROP TABLE refusing")


@pytest.mark.parametrize(("server", "case", "driver"), CASES)
def test_a_table_that_refuses_new_sessions(
    make_table: Callable[[str, str], str], server: str, case: str, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what the database said, and the remedy; neither an id that is taken, nor what was to be stored."""
    statements, said, remedy = TABLES[server][case]
    url = make_table(server, statements)
    app = Flask("shop")
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=address(url, driver))
    app.config["SESSION_SQLALCHEMY_TABLE"] = "refusing"
    LazySession(app)
    ids: list[str] = []

    def view() -> str:
        session["secret"] = "kettle" * 50
        ids.append(session.sid)  # type: ignore[attr-defined]
        return ""

    app.add_url_rule("/", view_func=view)
    causes: list[BaseException] = []

    def unavailable(error: Any) -> tuple[str, int]:
        cause: BaseException | None = error
        while cause is not None:
            causes.append(cause)
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        return "", 503

    app.register_error_handler(503, unavailable)
    assert app.test_client().get("/").status_code == 503
    assert said in caplog.text
    assert remedy in caplog.text
    assert "SESSION_ID_LENGTH" not in caplog.text
    logged = caplog.text + "".join(map(str, causes))
    assert causes
    assert ids[0] not in logged
    assert "kettle" not in logged
    assert b"kettle".hex() not in logged


@pytest.mark.parametrize("server", ["postgresql", "mariadb", "sqlite"])
def test_a_key_that_is_taken(request: pytest.FixtureRequest, tmp_path: Path, server: str) -> None:
    """It is taken by a live row, an expired one, and one without an expiry."""
    url = f"sqlite:///{tmp_path}/shop.db" if server == "sqlite" else request.getfixturevalue(f"{server}_url")
    backend = backend_on(url)
    for lifetime in (1000, -1000):
        backend.delete("taken")
        assert backend.create("taken", b"1", lifetime)
        assert not backend.create("taken", b"2", 1000)
    with backend._engine.connect() as connection:
        connection.execute(text("UPDATE sessions SET expiry = NULL WHERE session_id = 'taken'"))
    assert not backend.create("taken", b"2", 1000)
    assert backend.read_and_touch("taken", 1000, 1000) is None
    assert backend.replace("taken", b"2", 1000, b"1").outcome is Outcome.MISSING
    backend.delete("taken")
