"""What the errors of a database mean for a session: which are tried again, and what a table refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

#: How many attempts there are of a statement that the server keeps rolling back.
ATTEMPTS = 10
#: Seconds after which no further attempt begins: what took so long was a timeout, and would take as long again.
RETRIED_FOR = 5

# The tables decide by SQLSTATE (PostgreSQL, and ODBC) and by error number (MySQL and MariaDB).
#
# Not in them: 57P03 and similar, which a server sends at a connection attempt and would send again at once; a lock or
# a statement that the user's own timeout ended (55P03, 57014, 1317, 1969); and errors in the statement itself.

#: The statement was rolled back, and the same one can succeed: at once, on the same connection.
_AGAIN: dict[str | int, str] = {
    "40001": "serialization failure: another transaction changed the row",
    "40P01": "deadlock",
    1213: "deadlock, or a Galera node that certified another change first",
    1205: "timeout while waiting for a lock, which may be free now",
    1020: "MariaDB's snapshot isolation: another transaction changed the row",
    3101: "MySQL's group replication certified another change first",
}
#: This connection cannot be used any more, or its server may not write. A new connection may reach another server, or
#: the same one as a primary again.
_ELSEWHERE: dict[str | int, str] = {
    "25006": "read-only transaction: the primary that it was connected to is a replica now",
    "57P01": "shut down by an administrator",
    "57P02": "shut down as another process of the server crashed",
    "57P05": "closed as it was idle",
    1290: "the server runs with --read-only",
    1792: "read-only transaction",
    1836: "the server is in read-only mode",
    1047: "this Galera node is not part of the cluster at present",
    1053: "the server shuts down",
    1927: "the connection was killed",
}
#: There is no table of this name.
_NO_TABLE: frozenset[str | int] = frozenset({"42P01", 1146})


def worth_another_try(error: DBAPIError, *, attempt: int, reconnected: bool, seconds: float) -> bool:
    """Return whether a verb that failed is tried once more.

    A verb that failed may have been committed: the server shut down, or the connection was lost, after the commit and
    before its response. So each verb recognizes its own work at a second attempt.

    :param attempt: how many attempts there were.
    :param reconnected: an attempt before this one had lost its connection as well.
    :param seconds: since the first attempt began.
    """
    if seconds > RETRIED_FOR or attempt >= ATTEMPTS:
        return False
    if error.connection_invalidated:
        return not reconnected
    return not _AGAIN.keys().isdisjoint(_codes_of(error.orig))


def needs_new_connection(error: BaseException | None) -> bool:
    """Return whether a driver's error says that the statement needs a new connection, perhaps to another server."""
    return not _ELSEWHERE.keys().isdisjoint(_codes_of(error))


def _codes_of(error: BaseException | None) -> Iterator[str | int]:
    """Return the codes of a driver's error: attributes (psycopg, psycopg2, the connectors), or its first argument."""
    codes: list[Any] = [getattr(error, name, None) for name in ("sqlstate", "pgcode", "errno")]
    first: Any = next(iter(error.args), None) if error is not None else None
    codes.append(first.get("C") if isinstance(first, dict) else first)  # pg8000 has a dict
    yield from (code for code in codes if isinstance(code, (str, int)))


def misses_table(error: DBAPIError) -> bool:
    """Return whether a statement failed because there is no table, as SQLite, PostgreSQL and MariaDB say it."""
    return "no such table" in str(error.orig) or not _NO_TABLE.isdisjoint(_codes_of(error.orig))


class TableRefuses(Exception):
    """The table refuses a row, and not because its key is taken. The message has no part of the row."""


#: Refusals of MySQL and MariaDB that PyMySQL raises as errors of the system.
_REFUSALS = {1364, 3819, 4025}


def refusal_of(error: DBAPIError, table: str) -> TableRefuses | None:
    """Return the error to raise where a table refuses a row, with what the database said and the way out.

    :param table: its name, as it is written in a statement.
    :returns: None for an error of another kind.
    """
    if not isinstance(error, (IntegrityError, DataError)) and _REFUSALS.isdisjoint(_codes_of(error.orig)):
        return None
    said = _message_of(error.orig)
    return TableRefuses(f"The table {table} refuses sessions: {said}. {_remedy_for(said, table)}")


#: Where MySQL and MariaDB show a value.
_VALUE = re.compile(r"(Duplicate entry|Incorrect \w+ value:?) '.*' for", re.DOTALL)


def _message_of(error: Any) -> str:
    """Return what the database said, without its details, which show the row; any, as drivers differ."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)  # psycopg and psycopg2
    if primary is not None:
        return str(primary)
    arguments: tuple[Any, ...] = getattr(error, "args", ())
    if arguments and isinstance(arguments[0], dict):
        return str(arguments[0].get("M"))
    if type(error).__module__ == "sqlite3":
        return str(error)
    if len(arguments) > 1 and isinstance(arguments[0], int):  # MySQL's and MariaDB's
        return _VALUE.sub(r"\1 for", str(arguments[1]))
    return type(error).__name__  # a text that may show the row


def _remedy_for(said: str, table: str) -> str:
    """Return the way out of a refusal."""
    if "_pkey" in said:
        highest = f"(SELECT max(id) FROM {table})"  # noqa: S608 - shown, not sent
        return f"If its sequence is behind its ids: SELECT setval(pg_get_serial_sequence('{table}', 'id'), {highest})"
    if "PRIMARY" in said or f"{table}.id" in said or re.search(r"['\"`]id['\"`]", said):
        return (
            "The column id must number its rows: GENERATED BY DEFAULT AS IDENTITY (PostgreSQL), AUTO_INCREMENT (MySQL, "
            "MariaDB), INTEGER PRIMARY KEY (SQLite)."
        )
    if "too long" in said or "too large" in said:
        return "Make the column wider; 'flask lazysession check' names those that are too small."
    return "Change that constraint or column of the table: LazySession fills only session_id, data and expiry."
