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

from lazysession.backend import Outcome, Problem, Record, Renew, WriteResult
from lazysession.backends.common import PerProcess, Preparation, keep_for_good, utc_now
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

logger = logging.getLogger("lazysession")

_LARGER_POOL = (
    "If the database answers quickly, raise pool_size in SESSION_SQLALCHEMY_ENGINE_OPTIONS (for a Flask-SQLAlchemy "
    "object, in SQLALCHEMY_ENGINE_OPTIONS)."
)

#: How many expired rows are deleted in one statement: few enough that nobody waits long for their locks.
PURGED_AT_ONCE = 1000

Answer = TypeVar("Answer")


class SqlAlchemyBackend:
    """Keep each payload in a row, with its expiry beside it; every verb is one statement in autocommit mode.

    :param engine: an engine of the backend's own, in isolation level AUTOCOMMIT.
    :param table: the table, with the columns of :func:`session_table`.
    :param makes_table: create the table where it does not exist, at the latest at the first use.
    :param clock: the present time, in naive UTC.
    """

    drives: ClassVar[str | None] = "flask_session.sqlalchemy.sqlalchemy:SqlAlchemySessionInterface"

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
        return cls(own_engine(engine), session_table(model.name, model.schema), makes_table=True)

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
        """Make a backend of SESSION_SQLALCHEMY: a Flask-SQLAlchemy object, or a database URL.

        The table is created, with an index on its expiry, where it does not exist: by :meth:`prepare`, or at the first
        use.

        :raises ValueError: for anything else, and for a bind key that the object does not have.
        :returns: None without a value: Flask-Session then makes a Flask-SQLAlchemy object of its own.
        """
        if value is None:
            return None
        if isinstance(value, str):
            if bind_key is not None:
                raise ValueError("SESSION_SQLALCHEMY_BIND_KEY goes with a Flask-SQLAlchemy object, not with a URL.")
            engine = engine_of_url(value, engine_options)
        elif engine_options is not None:
            raise ValueError(
                "SESSION_SQLALCHEMY_ENGINE_OPTIONS goes with a URL. The sessions of a Flask-SQLAlchemy object connect "
                "as the app does: set SQLALCHEMY_ENGINE_OPTIONS."
            )
        elif hasattr(value, "engines"):
            engine = own_engine(engine_of_bind(value, bind_key))
        else:
            raise ValueError(
                f"an object of type {type(value).__name__} is neither a Flask-SQLAlchemy object nor a URL such as "
                "'sqlite:///app.db'."
            )
        return cls(engine, session_table(table, schema, sequence), makes_table=True)

    @classmethod
    def left_to_flask_session(
        cls, value: Any, *, table: str = "sessions", schema: str | None = None, bind_key: str | None = None, **_: object
    ) -> bool:
        """Return whether Flask-Session can declare its model: once for each Flask-SQLAlchemy object and table."""
        if isinstance(value, str):
            return False
        metadata = value.metadatas.get(bind_key)
        return metadata is None or (f"{schema}.{table}" if schema else table) not in metadata.tables

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

    def read(self, key: str, renew: Renew | None) -> Record | None:
        """Read with one SELECT; a refresh that is due is one UPDATE of the expiry alone."""
        now = self.clock()

        def work(connection: Connection) -> Record | None:
            row = connection.execute(select(self._rows.data, self._rows.expiry).where(self._is(key))).one_or_none()
            if row is None or row.expiry is None or row.expiry <= now:
                return None
            ttl = (row.expiry - now).total_seconds()
            refreshed = renew is not None and renew.due(ttl) and self._refresh(connection, key, now, renew)
            return Record(bytes(row.data), ttl, refreshed)

        return self._on_connection(work)

    def create(self, key: str, payload: bytes, lifetime: float) -> bool:
        """Create with one INSERT; if the table refuses it, a SELECT tells whether the key is taken.

        :raises TableRefuses: when the key is free, so that another key would be refused as well.
        """
        row = {"session_id": key, "data": payload, "expiry": self._expiry(self.clock(), lifetime)}
        taken = select(self._rows.data).where(self._rows.session_id == key)  # compared as the unique index does
        attempts = 0

        def work(connection: Connection) -> bool:
            nonlocal attempts
            attempts += 1
            try:
                connection.execute(insert(self._table).values(row))
            except IntegrityError:
                found = connection.execute(taken).one_or_none()
                if found is None:
                    raise
                # An INSERT whose response was lost with the connection is repeated, and finds its own row.
                return attempts > 1 and bool(found.data == payload)
            return True

        return self._on_connection(work)

    def replace(self, key: str, payload: bytes, lifetime: float | None, expected: bytes) -> WriteResult:
        """Replace with one UPDATE that names the payload seen; a second statement only tells why none matched."""
        values: dict[str, Any] = {"data": payload}
        if lifetime is not None:
            values["expiry"] = self._expiry(self.clock(), lifetime)
        elif self._engine.dialect.name in MYSQL:  # a TIMESTAMP that is not named may be set to the present time
            values["expiry"] = self._rows.expiry
        return self._change_what_was_seen(update(self._table).values(values), key, expected, payload)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Delete with one DELETE; with a payload seen, it names that as a replace does.

        MySQL does not tell what it deletes, and is asked before.
        """
        if expected is not None:
            return self._change_what_was_seen(delete(self._table), key, expected)
        statement = delete(self._table).where(self._is(key))

        def work(connection: Connection) -> bytes | None:
            if self._engine.dialect.delete_returning:
                deleting = statement.returning(self._rows.data)
                return until_unlocked(connection, lambda: connection.execute(deleting).scalar_one_or_none())
            while True:  # what is told is what goes: a rotation in between leaves a note
                found = connection.execute(select(self._rows.data).where(self._is(key))).scalar_one_or_none()
                if found is None or connection.execute(statement.where(self._rows.data == found)).rowcount:
                    return found

        found = self._on_connection(work)
        return WriteResult(Outcome.STORED, None if found is None else bytes(found))

    def purge(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Delete the rows whose expiry has passed, found through the index on it, in batches of :data:`PURGED_AT_ONCE`.

        :param progress: called after each batch with the number deleted so far and the number found at the start.
        """
        expired = self._rows.expiry <= self.clock()
        batch = select(self._rows.id).where(expired).order_by(self._rows.expiry).limit(PURGED_AT_ONCE)

        def delete_batch(connection: Connection) -> tuple[int, int]:
            ids = connection.execute(batch).scalars().all()
            if not ids:
                return 0, 0
            return len(ids), connection.execute(delete(self._table).where(self._rows.id.in_(ids), expired)).rowcount

        count = select(func.count()).select_from(self._table).where(expired)
        total = self._on_connection(lambda connection: connection.execute(count).scalar_one()) if progress else 0
        deleted, found = 0, PURGED_AT_ONCE
        while found == PURGED_AT_ONCE:  # fewer may be deleted than are found, where somebody else purges as well
            found, gone = self._on_connection(delete_batch)
            deleted += gone
            if progress is not None:
                progress(deleted, total)
        return deleted

    def check(self) -> Iterable[Problem]:
        """Look at the driver's timeouts, at the table and its indexes, and at rows that nobody purges.

        :raises DBAPIError: when the database cannot be asked.
        """
        now = self.clock()
        with self._engine_here.get().connect() as connection:  # past the preparation: a missing table is a finding
            return list(problems_of(connection, self._table, now))

    def _is(self, key: str) -> ColumnElement[bool]:
        """Name a row by its key, letter for letter: the usual collations of MariaDB and MySQL ignore case."""
        named = self._rows.session_id == key
        if self._engine.dialect.name in MYSQL:
            return named & (cast(self._rows.session_id, LargeBinary) == key.encode())
        return named

    def _expiry(self, now: datetime, lifetime: float) -> datetime:
        """Return when a lifetime ends, in whole seconds where the column would round them up."""
        expiry = now + timedelta(seconds=lifetime)
        return expiry.replace(microsecond=0) if self._engine.dialect.name in MYSQL else expiry

    def _change_what_was_seen(
        self, statement: Update | Delete, key: str, expected: bytes, payload: bytes | None = None
    ) -> WriteResult:
        live = self._is(key) & (self._rows.expiry > self.clock())
        attempts = 0

        def work(connection: Connection) -> WriteResult:
            nonlocal attempts
            attempts += 1
            if connection.execute(statement.where(live, self._rows.data == expected)).rowcount:
                return WriteResult(Outcome.STORED)
            found = connection.execute(select(self._rows.data).where(live)).scalar_one_or_none()
            # A change whose response was lost with the connection is repeated, and finds itself done.
            done_before = attempts > 1 and (isinstance(statement, Delete) if found is None else found == payload)
            if found is not None and not done_before:
                return WriteResult(Outcome.CONFLICT, bytes(found))
            return WriteResult(Outcome.STORED if done_before else Outcome.MISSING)

        return self._on_connection(work)

    def _refresh(self, connection: Connection, key: str, now: datetime, renew: Renew) -> bool:
        live = self._is(key) & (self._rows.expiry > now)
        expiry = self._expiry(now, renew.lifetime)
        try:
            statement = update(self._table).where(live).values(expiry=expiry)
            return connection.execute(statement, execution_options=AT_ONCE).rowcount > 0  # it is due again next time
        except DBAPIError as error:
            what = "The expiry of a session could not be refreshed (%s); the session itself was read."
            logger.warning(what, type(error.orig).__name__)
            return False

    def _on_connection(self, work: Callable[[Connection], Answer]) -> Answer:
        """Do a verb's work, and repeat it at once if that can help: after a deadlock, on a stale connection.

        Doing it twice does no harm: at its second attempt, a verb recognizes what it has done.
        """
        began, attempt, reconnected = time.monotonic(), 0, False
        while True:
            attempt += 1
            try:
                self._preparation.ensure()
                with self._engine_here.get().connect() as connection:
                    return work(connection)
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
        self._note_missing_table(error)
        refusal = refusal_of(error, self._engine.dialect.identifier_preparer.format_table(self._table))
        if refusal is not None:
            logger.error("%s", refusal)
            raise refusal from None

    def _note_missing_table(self, error: DBAPIError) -> None:
        """Log that the table was dropped; creating it again could conflict with a migration."""
        if not self._was_missed and misses_table(error):
            self._was_missed = True
            logger.error(
                "The table %s is gone: requests that use the session fail. Restart the app, which creates it, unless a "
                "migration is about to.",
                self._table.fullname,
            )


def _leave_connections(engine: Engine) -> None:
    """Give the engine a new pool and leave the old one to the parent: two on one connection read each other's answers.

    A database in memory has but one connection, which is the database; the fork has copied it.
    """
    if not isinstance(engine.pool, StaticPool):
        keep_for_good(engine.pool)
        engine.dispose(close=False)
