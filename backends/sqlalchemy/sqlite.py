"""Waiting for SQLite's write lock: as long as the driver would, but not at all if this thread holds it itself.

Sessions have connections of their own. So a request that has written on ``db.session``, and not committed, would wait
for itself: it releases its lock only after the session is saved. Any other holder releases it sooner or later.

Example: request 1 has inserted a row and will commit it; request 2 saves its session, and waits for it. Request 3
has inserted a row, does not commit, and saves its session: that fails at once, as its own thread holds the lock.

SQLite's own ``busy_timeout`` would block all greenlets of a thread, also the one that holds the lock and has to release
it. During ``time.sleep``, that greenlet can run.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import Pool

logger = logging.getLogger("lazysession")
Fetched = TypeVar("Fetched")

#: The option of a statement that does not wait for a lock.
AT_ONCE = {"lazysession_waits": False}
_TIMEOUT = "lazysession_timeout"
#: Seconds between the attempts, as SQLite's own; the last one is repeated.
_DELAYS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.025, 0.025, 0.05, 0.05, 0.1)
_REMEDY = (
    "switch the file to WAL, or give the sessions a file of their own: SESSION_SQLALCHEMY = 'sqlite:///sessions.db'."
)
_HELD_HERE = (
    "A session could not be reached: a transaction of its own request locks the SQLite file (a write that is not "
    f"committed, or an open read without WAL). End it before the response, {_REMEDY}"
)
_HELD_ELSEWHERE = (
    "A session could not be reached: another connection locked its SQLite file for %g s. Keep transactions short, "
    f"{_REMEDY}"
)


class _Borrowed(NamedTuple):
    """A connection that is out of its pool.

    :param changes: how many rows it had changed before.
    """

    thread: int
    connection: sqlite3.Connection
    changes: int


#: By the id of the pool's record: what is out of any pool, of the app's engines as well.
_borrowed: dict[int, _Borrowed] = {}


def _add_borrowed(connection: Any, record: object, _proxy: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        _borrowed[id(record)] = _Borrowed(threading.get_ident(), connection, connection.total_changes)


def _remove_borrowed(_connection: object, record: object) -> None:
    _borrowed.pop(id(record), None)


@cache
def _follow_pools() -> None:
    event.listen(Pool, "checkout", _add_borrowed)
    for name in ("checkin", "detach"):
        event.listen(Pool, name, _remove_borrowed)


def wait_for_locks(engine: Engine) -> None:
    """Make each statement of an engine wait for its lock: as long as its connections would, by their ``timeout``.

    Other drivers than Python's own ``sqlite3`` wait in their own way.
    """
    _follow_pools()
    event.listen(engine, "connect", _take_over)
    event.listen(engine, "do_execute", _execute)


def wait_for_lock(connection: Any, statement: str, record: Any) -> None:
    """Execute a statement on a connection that is being made."""
    timeout: float | None = record.info.get(_TIMEOUT)
    if timeout is None:
        connection.execute(statement)
    else:
        _repeat(lambda: connection.execute(statement), connection, timeout)


def until_unlocked(connection: Connection, fetch: Callable[[], Fetched]) -> Fetched:
    """Return what is fetched, and execute it anew while another connection holds the lock.

    A statement that returns rows is committed with the last of them: too late for :func:`wait_for_locks`.
    """
    timeout: float | None = connection.info.get(_TIMEOUT)
    if timeout is None:
        return fetch()
    driver: Any = connection.connection.dbapi_connection
    return _repeat(fetch, driver, timeout)


def _take_over(connection: Any, record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        record.info[_TIMEOUT] = connection.execute("PRAGMA busy_timeout").fetchone()[0] / 1000
        connection.execute("PRAGMA busy_timeout = 0")


def _execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    timeout: float | None = context.root_connection.info.get(_TIMEOUT)
    if timeout is None or not context.execution_options.get("lazysession_waits", True):
        return False
    _repeat(lambda: cursor.execute(statement, parameters), cursor.connection, timeout)
    return True


def _repeat(work: Callable[[], Fetched], connection: sqlite3.Connection, timeout: float) -> Fetched:
    """Do the work, and repeat it while another connection holds the lock.

    :param timeout: seconds.
    :raises sqlite3.OperationalError: when the lock is held for longer, or by this thread; as SQLAlchemy raises it.
    """
    deadline, delays, is_first = time.monotonic() + timeout, iter(_DELAYS), True
    while True:
        try:
            return work()
        except (sqlite3.OperationalError, OperationalError) as error:
            left = deadline - time.monotonic()
            if "database is locked" not in str(error):
                raise
            if is_first and _is_held_here(connection):
                logger.error(_HELD_HERE)
                raise
            if left <= 0:
                logger.error(_HELD_ELSEWHERE, timeout)
                raise
        is_first = False
        time.sleep(min(next(delays, _DELAYS[-1]), left))


def _is_held_here(connection: sqlite3.Connection) -> bool:
    """Return whether a transaction of this thread, or greenlet, is in the way of a write to the same file."""
    of_thread = [each for each in list(_borrowed.values()) if each.thread == threading.get_ident()]
    others = [each for each in of_thread if each.connection is not connection and each.connection.in_transaction]
    if not others:
        return False
    files, reads_block = set(_files(connection)), not _is_wal(connection)
    return any(
        (reads_block or _may_have_written(each)) and not files.isdisjoint(_files(each.connection)) for each in others
    )


def _may_have_written(borrowed: _Borrowed) -> bool:
    """Return whether an open transaction may have written.

    The driver begins a transaction only before the first write. Where the app begins each one (SQLAlchemy's recipe),
    the number of changed rows shows it.
    """
    connection: Any = borrowed.connection
    begun_by_driver = connection.isolation_level is not None and getattr(connection, "autocommit", -1) == -1
    return begun_by_driver or connection.total_changes > borrowed.changes


def _is_wal(connection: sqlite3.Connection) -> bool:
    return any("wal" in row for row in _rows(connection, "PRAGMA journal_mode"))


def _files(connection: sqlite3.Connection) -> Iterator[str]:
    return (os.fsdecode(row[2]) for row in _rows(connection, "PRAGMA database_list") if row[2])


def _rows(connection: sqlite3.Connection, statement: str) -> list[Any]:
    cursor = connection.cursor()
    cursor.row_factory = None  # an app may have set another
    try:
        return cursor.execute(statement).fetchall()
    except sqlite3.Error:  # locked for reading, too
        return []
    finally:
        cursor.close()
