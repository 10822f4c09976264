"""Sessions in a SQL table, the same as Flask-Session's, on connections that the app's ``db.session`` never sees."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Engine,
    LargeBinary,
    Table,
    Update,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.pool import StaticPool

from lazysession.backend import Outcome, Problem, Record, TouchFailed, WriteResult
from lazysession.backends.common import Preparation, utc_now
from lazysession.backends.sqlalchemy.check import problems_of
from lazysession.backends.sqlalchemy.connect import (
    MYSQL,
    create_if_absent,
    describe_pool,
    engine_of_bind,
    engine_of_url,
    explain,
    own_engine,
    session_table,
)
from lazysession.backends.sqlalchemy.errors import TableRefuses, misses_table, refusal_of, worth_another_try
from lazysession.backends.sqlalchemy.migrations import declare_in
from lazysession.backends.sqlalchemy.sqlite import AT_ONCE, until_unlocked
from lazysession.processes import PerProcess, keep_for_good

logger = logging.getLogger("lazysession")

_LARGER_POOL = (
    "If the database answers quickly, raise pool_size in SESSION_SQLALCHEMY_ENGINE_OPTIONS (for a Flask-SQLAlchemy "
    "object, in SQLALCHEMY_ENGINE_OPTIONS)."
)

#: How many expired rows are deleted in one statement: few enough that no request waits long for their locks.
PURGED_AT_ONCE = 1000

Result = TypeVar("Result")
#: Does the work of a verb on a connection; it may be an attempt after one that failed, and may have been done.
Work = Callable[[Connection, bool], Result]


class SqlAlchemyBackend:
    """Keep each payload in a row, with its expiry; every verb is one statement in autocommit mode.

    :param engine: an engine of the backend's own, in isolation level AUTOCOMMIT.
    :param table: the table, with the columns of :func:`session_table`.
    :param makes_table: create the table where it does not exist, at the latest at the first use.
    :param clock: the present time, in naive UTC.
    """

    interface_class: ClassVar[str | None] = "flask_session.sqlalchemy.sqlalchemy:SqlAlchemySessionInterface"

    def __init__(
        self, engine: Engine, table: Table, *, makes_table: bool = False, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._engine = engine
        self._rows = table.c
        self._table = table
        self.clock = clock
        self._engine_here = PerProcess(lambda: engine, _leave_connections)
        self._engine_here.get()  # what is connected from now on is this process's
        self._preparation = Preparation(
            lambda: create_if_absent(self._engine_here.get(), table), is_done=not makes_table
        )
        self._was_missed = False

    @classmethod
    def from_interface(cls, interface: Any) -> SqlAlchemyBackend:
        """Take over the table of Flask-Session's model, on an engine of our own to the same database."""
        model = interface.sql_session_model.__table__
        engine = interface.client.engines[model.metadata.info.get("bind_key")]
        sequence = getattr(model.c.id.default, "name", None)
        return cls(own_engine(engine), session_table(model.name, model.schema, sequence), makes_table=True)

    @classmethod
    def from_setting(
        cls,
        value: Any,
        *,
        table: str = "sessions",
        schema: str | None = None,
        sequence: str | None = None,
        bind_key: str | None = None,
        engine_options: object = None,
        **options: object,
    ) -> SqlAlchemyBackend | None:
        """Return a backend of SESSION_SQLALCHEMY, which is a Flask-SQLAlchemy object or a database URL.

        :meth:`prepare` or the first use creates the table, with an index on its expiry, where it does not exist.

        :raises ValueError: for anything else, and for a bind key that the object does not have.
        :returns: None where Flask-Session can declare its model, and without a value: it then makes a Flask-SQLAlchemy
            object of its own.
        """
        if value is None:
            return None
        if isinstance(value, str):
            if bind_key is not None:
                raise ValueError("SESSION_SQLALCHEMY_BIND_KEY goes with a Flask-SQLAlchemy object, not with a URL.")
            return cls(engine_of_url(value, engine_options), session_table(table, schema, sequence), makes_table=True)
        if engine_options is not None:
            raise ValueError(
                "SESSION_SQLALCHEMY_ENGINE_OPTIONS goes with a URL. The sessions of a Flask-SQLAlchemy object connect "
                "as the app does: set SQLALCHEMY_ENGINE_OPTIONS."
            )
        if not hasattr(value, "engines"):
            raise ValueError(
                f"an object of type {type(value).__name__} is neither a Flask-SQLAlchemy object nor a URL such as "
                "'sqlite:///app.db'."
            )
        engine, own = engine_of_bind(value, bind_key), session_table(table, schema, sequence)
        metadata = value.metadatas.get(bind_key)
        if metadata is None or own.fullname not in metadata.tables:
            return None  # Flask-Session declares a table once for each Flask-SQLAlchemy object
        return cls(own_engine(engine), own, makes_table=True)

    def prepare(self) -> None:
        """Create the table unless it exists.

        :raises ValueError: when the driver refuses the URL.
        :raises DBAPIError: when the database is down, or refuses the account.
        """
        try:
            self._preparation.ensure()
        finally:
            self._leave_none_to_workers()

    def explain(self, error: Exception) -> str:
        """Return the database's message if it refused a connection; of any other error, only the name."""
        return explain(self._engine_here.get(), error)

    def declare_tables(self, database: Any) -> None:
        """Declare the table in the metadata of the app's Flask-SQLAlchemy object, so that migrations do not drop it."""
        try:
            declare_in(database, self._engine_here.get(), self._table)
        finally:
            self._leave_none_to_workers()

    def _leave_none_to_workers(self) -> None:
        """Close the connections of the start-up: forked workers would inherit them."""
        engine = self._engine_here.get()
        if not isinstance(engine.pool, StaticPool):  # its one connection is a database in memory
            engine.dispose()

    def read(self, key: str) -> Record | None:
        """Read with one SELECT."""
        return self._on_connection(lambda connection, _: self._select(connection, key))

    def read_and_touch(self, key: str, ttl: float | None, unless_more_than: float) -> Record | None:
        """Read with one SELECT, and when the touch is due, move the expiry with one UPDATE on the same connection.

        :raises TouchFailed: when the record was read, and its expiry could not be moved.
        """

        def work(connection: Connection, _: bool) -> Record | None:
            record = self._select(connection, key)
            if record is None or record.ttl is None or ttl is None or unless_more_than < record.ttl <= ttl + 1:
                return record
            try:
                return record._replace(touched=self._move_expiry(connection, key, ttl))
            except DBAPIError as error:
                raise TouchFailed(record) from error

        return self._on_connection(work)

    def _select(self, connection: Connection, key: str) -> Record | None:
        now = self.clock()
        row = connection.execute(select(self._rows.data, self._rows.expiry).where(self._is(key))).one_or_none()
        if row is None or row.expiry is None or row.expiry <= now:
            return None
        return Record(bytes(row.data), (row.expiry - now).total_seconds())

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        """Create with one INSERT; if the table refuses it, a SELECT finds out whether the key is taken.

        :raises TableRefuses: when the key is free, so that another key would be refused as well.
        """
        row = {"session_id": key, "data": payload, "expiry": self._expiry(self.clock(), ttl)}
        taken = select(self._rows.data).where(self._rows.session_id == key)  # compared as the unique index does

        def work(connection: Connection, again: bool) -> bool:
            try:
                connection.execute(insert(self._table).values(row))
            except IntegrityError:
                current = connection.execute(taken).one_or_none()
                if current is None:
                    raise
                # An INSERT whose response was lost with the connection is repeated, and finds its own row.
                return again and bool(current.data == payload)
            return True

        return self._on_connection(work)

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        """Replace with one UPDATE that compares the payload; a second statement only finds out why none matched."""
        values: dict[str, Any] = {"data": payload}
        if ttl is not None:
            values["expiry"] = self._expiry(self.clock(), ttl)
        elif self._engine.dialect.name in MYSQL:  # a TIMESTAMP that is not named may be set to the present time
            values["expiry"] = self._rows.expiry
        return self._change(update(self._table).values(values), key, expected, payload)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Delete with one DELETE, which compares the expected payload as a replace does.

        MySQL cannot return the deleted row, so it is read first.
        """
        if expected is not None:
            return self._change(delete(self._table), key, expected)
        statement = delete(self._table).where(self._is(key))

        def work(connection: Connection, again: bool) -> WriteResult:
            if self._engine.dialect.delete_returning:
                deleting = statement.returning(self._rows.data)
                removed = until_unlocked(connection, lambda: connection.execute(deleting).scalar_one_or_none())
            else:
                removed = self._delete_what_is_read(connection, key, statement)
            if removed is not None:
                return WriteResult(Outcome.STORED, bytes(removed))
            return WriteResult(Outcome.STORED if again else Outcome.MISSING)  # or deleted by the first attempt

        return self._on_connection(work)

    def _delete_what_is_read(self, connection: Connection, key: str, statement: Delete) -> Any:
        """Return exactly what is deleted: a rotation between two statements leaves a forwarding record."""
        while True:
            current = connection.execute(select(self._rows.data).where(self._is(key))).scalar_one_or_none()
            if current is None or connection.execute(statement.where(self._rows.data == current)).rowcount:
                return current

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        """Move the expiry with one UPDATE, which compares the expected payload."""
        return self._on_connection(lambda connection, _: self._move_expiry(connection, key, ttl, expected))

    def _move_expiry(self, connection: Connection, key: str, ttl: float, expected: bytes | None = None) -> bool:
        """Move the expiry, without waiting for a lock of SQLite: it is due again at the next use."""
        now = self.clock()
        named = self._is(key) & (self._rows.expiry > now)
        if expected is not None:
            named &= self._rows.data == expected
        statement = update(self._table).where(named).values(expiry=self._expiry(now, ttl))
        return connection.execute(statement, execution_options=AT_ONCE).rowcount > 0

    def purge(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Delete the rows whose expiry has passed, found through the index on it, in batches of :data:`PURGED_AT_ONCE`.

        :param progress: called after each batch with the number deleted so far and the number found at the start.
        """
        expired = self._rows.expiry <= self.clock()
        batch = select(self._rows.id).where(expired).order_by(self._rows.expiry).limit(PURGED_AT_ONCE)

        def delete_batch(connection: Connection, _: bool) -> tuple[int, int]:
            ids = connection.execute(batch).scalars().all()
            if not ids:
                return 0, 0
            return len(ids), connection.execute(delete(self._table).where(self._rows.id.in_(ids), expired)).rowcount

        count = select(func.count()).select_from(self._table).where(expired)
        total = self._on_connection(lambda connection, _: connection.execute(count).scalar_one()) if progress else 0
        deleted, found = 0, PURGED_AT_ONCE
        while found == PURGED_AT_ONCE:  # fewer may be deleted than are found, where another process purges as well
            found, removed = self._on_connection(delete_batch)
            deleted += removed
            if progress is not None:
                progress(deleted, total)
        return deleted

    def check(self) -> Iterable[Problem]:
        """Return problems of the driver's timeouts, the table and its indexes, and expired rows that are not purged.

        :raises DBAPIError: when the database cannot be reached.
        """
        now = self.clock()
        with self._engine_here.get().connect() as connection:  # without the preparation: a missing table is a finding
            return list(problems_of(connection, self._table, now))

    def _is(self, key: str) -> ColumnElement[bool]:
        """Return the condition on a key, letter for letter: the usual collations of MariaDB and MySQL ignore case."""
        named = self._rows.session_id == key
        if self._engine.dialect.name in MYSQL:
            return named & (cast(self._rows.session_id, LargeBinary) == key.encode())
        return named

    def _expiry(self, now: datetime, ttl: float) -> datetime:
        """Return when a record expires, in whole seconds where the column would round them up."""
        expiry = now + timedelta(seconds=ttl)
        return expiry.replace(microsecond=0) if self._engine.dialect.name in MYSQL else expiry

    def _change(
        self, statement: Update | Delete, key: str, expected: bytes, payload: bytes | None = None
    ) -> WriteResult:
        named = self._is(key) & (self._rows.expiry > self.clock())

        def work(connection: Connection, again: bool) -> WriteResult:
            if connection.execute(statement.where(named, self._rows.data == expected)).rowcount:
                return WriteResult(Outcome.STORED)
            current = connection.execute(select(self._rows.data).where(named)).scalar_one_or_none()
            # A change whose response was lost with the connection is repeated, and finds itself done.
            if again and current == payload:  # both None: deleted
                return WriteResult(Outcome.STORED)
            return WriteResult(Outcome.MISSING) if current is None else WriteResult(Outcome.CONFLICT, bytes(current))

        return self._on_connection(work)

    def _on_connection(self, work: Work[Result]) -> Result:
        """Do a verb's work, and repeat it at once if that can help: after a deadlock, on a stale connection.

        Doing it twice does no harm: in its second attempt, a verb recognizes what it has done.
        """
        began, attempt, reconnected = time.monotonic(), 0, False
        while True:
            attempt += 1
            try:
                self._preparation.ensure()
                with self._engine_here.get().connect() as connection:
                    return work(connection, attempt > 1)
            except NoConnection:
                logger.error("A request waited %s. %s", describe_pool(self._engine.pool), _LARGER_POOL)
                raise
            except TableRefuses as refusal:
                logger.error("%s", refusal)
                raise
            except DBAPIError as error:
                seconds = time.monotonic() - began
                if not worth_another_try(error, attempt=attempt, reconnected=reconnected, seconds=seconds):
                    self._explain(error)
                    raise
                reconnected = reconnected or error.connection_invalidated

    def _explain(self, error: DBAPIError) -> None:
        """Log what to do about an error, if that is known.

        :raises TableRefuses: in place of an error whose message may show the row.
        """
        if not self._was_missed and misses_table(error):  # creating it again could conflict with a migration
            self._was_missed = True
            logger.error(
                "The table %s is missing: requests that use the session fail. Restart the app, which creates it, "
                "unless a migration is about to.",
                self._table.fullname,
            )
        refusal = refusal_of(error, self._engine.dialect.identifier_preparer.format_table(self._table))
        if refusal is not None:
            logger.error("%s", refusal)
            raise refusal from None


def _leave_connections(engine: Engine) -> None:
    """Give the engine a new pool and leave the old one to the parent, whose responses this process would read.

    A database in memory has only one connection, which is the database; the fork has copied it.
    """
    if not isinstance(engine.pool, StaticPool):
        keep_for_good(engine.pool)
        engine.dispose(close=False)
