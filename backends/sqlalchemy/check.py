"""The problems of a table of sessions, its database and the driver that only the user can fix."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, TIMESTAMP, Connection, DateTime, Inspector, String, Table, func, inspect, select
from sqlalchemy.dialects.mysql import LONGBLOB, MEDIUMBLOB
from sqlalchemy.types import LargeBinary

from lazysession.backend import Problem
from lazysession.backends.sqlalchemy.connect import MYSQL

#: How many expired rows are a problem; no more are counted.
UNPURGED = 10_000

#: The length of ``session:`` and an id as Flask-Session makes it by default.
USUAL_KEY = 51

_URL_ARGUMENT = "in a URL, '?{name}={seconds}'; with Flask-SQLAlchemy, "
_ENGINE_ARGUMENT = "SQLALCHEMY_ENGINE_OPTIONS = {{'connect_args': {{'{name}': {seconds}}}}}."


def problems_of(connection: Connection, table: Table, now: datetime) -> Iterator[Problem]:
    """Return the problems found, with a few small queries."""
    yield from _problems_of_driver(connection)
    if connection.dialect.name == "sqlite":
        yield from _problems_of_sqlite(connection)
    inspector = inspect(connection)
    name = connection.dialect.identifier_preparer.format_table(table)
    if not inspector.has_table(table.name, schema=table.schema):
        yield Problem(
            "error",
            f"There is no table {name}: no session can be stored.",
            "Start the app, which makes the table, or run the migration that makes it.",
            "sql-table",
        )
        return
    yield from _problems_of_ids(inspector, table, name)
    types = {each["name"]: each["type"] for each in inspector.get_columns(table.name, schema=table.schema)}
    of_types = list(_problems_of_types(connection.dialect.name, types, name))
    yield from of_types
    if not any(problem.name == "sql-expiry-type" and problem.severity == "error" for problem in of_types):
        yield from _problems_of_expiry(connection, inspector, table, name, now)
    if connection.dialect.name in MYSQL:
        yield from _problems_of_size(connection, types, name)


def _problems_of_driver(connection: Connection) -> Iterator[Problem]:
    driver: Any = connection.connection.dbapi_connection  # any: its attributes depend on the library
    if connection.dialect.driver in ("psycopg", "psycopg2"):
        given = driver.info.get_parameters() if connection.dialect.driver == "psycopg" else driver.info.dsn_parameters
        if "connect_timeout" not in given:
            yield _no_timeout("connect_timeout", 5, "while PostgreSQL cannot be reached, requests wait for minutes")
    elif connection.dialect.driver == "pymysql" and driver._read_timeout is None:
        yield _no_timeout("read_timeout", 30, "when the database hangs, requests hang with it, for as long")


def _no_timeout(name: str, seconds: int, why: str) -> Problem:
    remedy = f"Set it: {_URL_ARGUMENT}{_ENGINE_ARGUMENT}".format(name=name, seconds=seconds)
    return Problem("warning", f"The connections to the database have no {name}: {why}.", remedy, "sql-timeout")


def _problems_of_sqlite(connection: Connection) -> Iterator[Problem]:
    mode = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())
    if mode == "memory" and not connection.exec_driver_sql("PRAGMA database_list").all()[0][2]:
        yield Problem(
            "warning",
            "The database is in the memory of this process: other workers do not see its sessions, a restart ends all.",
            "Keep it to tests; on one machine, SESSION_SQLALCHEMY = 'sqlite:///sessions.db' does.",
            "sql-memory",
        )
    elif mode != "wal":
        yield Problem(
            "warning",
            f"The SQLite file has journal_mode {mode}: a session cannot be written while anything reads the file, and "
            "the other way round.",
            "Run PRAGMA journal_mode = WAL once, or give the sessions a file of their own by a URL.",
            "sql-wal",
        )


def _problems_of_ids(inspector: Inspector, table: Table, name: str) -> Iterator[Problem]:
    indexes = inspector.get_indexes(table.name, schema=table.schema)
    unique: list[list[Any]] = [each["column_names"] for each in indexes if each["unique"]]
    constraints = inspector.get_unique_constraints(table.name, schema=table.schema)  # SQLite lists no index for one
    unique += [each["column_names"] for each in constraints]
    unique.append(inspector.get_pk_constraint(table.name, schema=table.schema)["constrained_columns"])
    if ["session_id"] not in unique:
        yield Problem(
            "error",
            f"session_id is not unique in {name}: two sessions can have one id, and each request reads all of them.",
            f"CREATE UNIQUE INDEX ix_{table.name}_session_id ON {name} (session_id)",
            "sql-id-index",
        )


def _problems_of_expiry(
    connection: Connection, inspector: Inspector, table: Table, name: str, now: datetime
) -> Iterator[Problem]:
    indexes = inspector.get_indexes(table.name, schema=table.schema)
    if not any(each["column_names"][:1] == ["expiry"] for each in indexes):
        yield Problem(
            "warning",
            f"{name} has no index on expiry: removing expired sessions reads the whole table.",
            f"CREATE INDEX ix_{table.name}_expiry ON {name} (expiry)",
            "sql-expiry-index",
        )
        return  # counting what has expired would read it, too
    some = select(table.c.id).where(table.c.expiry <= now).limit(UNPURGED).subquery()
    if connection.execute(select(func.count()).select_from(some)).scalar_one() >= UNPURGED:
        yield Problem(
            "warning",
            f"{UNPURGED} rows of {name} or more have expired: they are not removed, and the table keeps growing.",
            "Run 'flask lazysession purge' now and then, by cron for example.",
            "sql-unpurged",
        )


def _problems_of_types(dialect: str, types: dict[str, Any], name: str) -> Iterator[Problem]:
    """Return the columns that cannot hold what sessions need; any, as SQLAlchemy does not annotate reflected types."""
    expiry, data, session_id = types["expiry"], types["data"], types["session_id"]
    if not isinstance(expiry, DateTime):
        what = f"The column expiry of {name} is {expiry}: it cannot hold a date with a time."
        yield Problem("error", what, _change(dialect, name, "expiry"), "sql-expiry-type")
    elif dialect in MYSQL and isinstance(expiry, TIMESTAMP):
        what = (
            f"The column expiry of {name} is {expiry}: it holds no date after January 2038, and expiries are an hour "
            "off around the end of daylight saving time."
        )
        yield Problem("warning", what, _change(dialect, name, "expiry"), "sql-expiry-type")
    if dialect != "sqlite" and isinstance(data, (String, JSON)):
        what = f"The column data of {name} is {data}: it cannot hold the bytes of a session."
        yield Problem("error", what, _change(dialect, name, "data"), "sql-data-type")
    length = getattr(session_id, "length", None)
    if dialect != "sqlite" and length is not None and length < USUAL_KEY:
        yield Problem(
            "error",
            f"The column session_id of {name} holds {length} characters; a key has {USUAL_KEY} by default.",
            _change(dialect, name, "session_id"),
            "sql-id-size",
        )


def _change(dialect: str, name: str, column: str) -> str:
    """Return the statement that gives a column the type that LazySession makes it with."""
    kinds = {"expiry": "DATETIME", "data": "MEDIUMBLOB", "session_id": "VARCHAR(255)"}
    if dialect in MYSQL:
        return f"ALTER TABLE {name} MODIFY {column} {kinds[column]}"
    if dialect == "postgresql":
        kinds |= {"expiry": "TIMESTAMP", "data": "BYTEA"}
        using = "" if column != "data" else " USING convert_to(data::text, 'UTF8')"
        return f"ALTER TABLE {name} ALTER {column} TYPE {kinds[column]}{using}"
    return f"Create the table again, with the column {column} as {kinds[column].replace('MEDIUM', '')}."


def _problems_of_size(connection: Connection, types: dict[str, Any], name: str) -> Iterator[Problem]:
    if isinstance(types["data"], LargeBinary) and not isinstance(types["data"], (MEDIUMBLOB, LONGBLOB)):
        strict = "STRICT" in str(connection.exec_driver_sql("SELECT @@sql_mode").scalar_one())
        yield Problem(
            "warning" if strict else "error",
            f"The column data of {name} is {types['data']}: a session of more than 64 KiB "
            f"{'cannot be stored' if strict else 'is cut off and lost, as sql_mode is not strict'}.",
            f"ALTER TABLE {name} MODIFY data MEDIUMBLOB",
            "sql-size",
        )
