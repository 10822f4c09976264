"""Sessions in a SQL table, the same as Flask-Session's, on connections that the app's ``db.session`` never sees."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Delete,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    Update,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.pool import StaticPool

from lazysession.backend import Outcome, Record, Renew, Replaced

logger = logging.getLogger("lazysession")

# hide_parameters: an error's text must not carry session ids and payloads into logs.
_ENGINE_OPTIONS: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "hide_parameters": True}

#: How long a session waits for SQLite's one write lock, in milliseconds. The holder may be this very request (the app
#: flushed and did not commit), and then waiting is of no use.
SQLITE_BUSY_TIMEOUT = 1000
_SQLITE_DEFAULT_TIMEOUT = 5000  # Python's; any other was chosen by the user, and stays


def utc_now() -> datetime:
    """Answer the present time as Flask-Session stores it: UTC, without a time zone."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


class SqlAlchemyBackend:
    """Keep each payload in a row, with its expiry beside it; every verb is one statement in autocommit mode.

    :param engine: an engine of the backend's own, in isolation level AUTOCOMMIT.
    :param table: the table, with the columns of :func:`session_table`.
    :param clock: the present time, in naive UTC.
    """

    drives: ClassVar[str | None] = "flask_session.sqlalchemy.sqlalchemy:SqlAlchemySessionInterface"

    def __init__(self, engine: Engine, table: Table, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._rows = table.c
        self._table = table
        self.clock = clock

    @classmethod
    def from_interface(cls, interface: Any) -> SqlAlchemyBackend:
        """Take over the table of Flask-Session's model, on an engine of our own to the same database."""
        model = interface.sql_session_model.__table__
        engine = interface.client.engines[model.metadata.info.get("bind_key")]
        return cls._on(own_engine(engine), session_table(model.name, model.schema))

    @classmethod
    def from_setting(
        cls,
        value: Any,
        *,
        table: str = "sessions",
        schema: str | None = None,
        sequence: str | None = None,
        bind_key: str | None = None,
        **options: object,
    ) -> SqlAlchemyBackend | None:
        """Make a backend of SESSION_SQLALCHEMY: a Flask-SQLAlchemy object, or a database URL.

        The table is created, with an index on its expiry, where it does not exist.

        :raises ValueError: for anything else, and for a bind key that the object does not have.
        :returns: None without a value: Flask-Session then makes a Flask-SQLAlchemy object of its own.
        """
        if value is None:
            return None
        if isinstance(value, str):
            if bind_key is not None:
                raise ValueError("SESSION_SQLALCHEMY_BIND_KEY goes with a Flask-SQLAlchemy object, not with a URL.")
            engine = _engine_of_url(value)
        elif hasattr(value, "engines"):
            engine = own_engine(_engine_of_bind(value, bind_key))
        else:
            raise ValueError(f"{value!r} is neither a Flask-SQLAlchemy object nor a URL such as 'sqlite:///app.db'.")
        return cls._on(engine, session_table(table, schema, sequence))

    @classmethod
    def left_to_flask_session(
        cls, value: Any, *, table: str = "sessions", schema: str | None = None, bind_key: str | None = None, **_: object
    ) -> bool:
        """Tell whether Flask-Session can declare its model: once for each Flask-SQLAlchemy object and table."""
        if isinstance(value, str):
            return False
        metadata = value.metadatas.get(bind_key)
        return metadata is None or (f"{schema}.{table}" if schema else table) not in metadata.tables

    @classmethod
    def _on(cls, engine: Engine, table: Table) -> SqlAlchemyBackend:
        create_if_absent(engine, table)
        if not isinstance(engine.pool, StaticPool):  # whose one connection is a database in memory
            engine.dispose()  # no connection made at start-up may be inherited by forked workers
        return cls(engine, table)

    def read(self, key: str, renew: Renew | None) -> Record | None:
        """Read with one SELECT; a refresh that is due is one UPDATE of the expiry alone."""
        now = self.clock()
        with self._engine.connect() as connection:
            row = connection.execute(
                select(self._rows.data, self._rows.expiry).where(self._rows.session_id == key)
            ).one_or_none()
            if row is None or row.expiry is None or row.expiry <= now:
                return None
            remaining = (row.expiry - now).total_seconds()
            refreshed = False
            if renew is not None and renew.due(remaining):
                refreshed = self._refresh(connection, key, now, now + timedelta(seconds=renew.lifetime))
            return Record(bytes(row.data), remaining, refreshed)

    def create(self, key: str, payload: bytes, lifetime: float) -> bool:
        """Create with one INSERT; the unique session_id tells a key that is taken."""
        row = {"session_id": key, "data": payload, "expiry": self.clock() + timedelta(seconds=lifetime)}
        try:
            with self._connect_to_write() as connection:
                connection.execute(insert(self._table).values(row))
        except IntegrityError:
            return False
        return True

    def replace(self, key: str, payload: bytes, lifetime: float | None, seen: bytes) -> Replaced:
        """Replace with one UPDATE that names the payload seen; a second statement only tells why none matched."""
        values: dict[str, Any] = {"data": payload}
        if lifetime is not None:
            values["expiry"] = self.clock() + timedelta(seconds=lifetime)
        return self._change_what_was_seen(update(self._table).values(values), key, seen)

    def delete(self, key: str, seen: bytes | None = None) -> Replaced:
        """Delete with one DELETE; with a payload seen, it names that as a replace does."""
        if seen is None:
            with self._connect_to_write() as connection:
                connection.execute(delete(self._table).where(self._rows.session_id == key))
            return Replaced(Outcome.STORED)
        return self._change_what_was_seen(delete(self._table), key, seen)

    def purge(self) -> int:
        """Delete the rows whose expiry has passed, found through the index on it."""
        with self._connect_to_write() as connection:
            return connection.execute(delete(self._table).where(self._rows.expiry <= self.clock())).rowcount

    def _change_what_was_seen(self, statement: Update | Delete, key: str, seen: bytes) -> Replaced:
        live = (self._rows.session_id == key) & (self._rows.expiry > self.clock())
        with self._connect_to_write() as connection:
            if connection.execute(statement.where(live, self._rows.data == seen)).rowcount:
                return Replaced(Outcome.STORED)
            found = connection.execute(select(self._rows.data).where(live)).scalar_one_or_none()
        return Replaced(Outcome.GONE) if found is None else Replaced(Outcome.CHANGED, bytes(found))

    def _refresh(self, connection: Connection, key: str, now: datetime, expiry: datetime) -> bool:
        live = (self._rows.session_id == key) & (self._rows.expiry > now)
        try:
            with _not_waiting_for_sqlite(connection):
                return connection.execute(update(self._table).where(live).values(expiry=expiry)).rowcount > 0
        except DBAPIError as error:
            logger.warning(
                "The expiry of a session could not be refreshed (%s); the session itself was read.", error.orig
            )
            return False

    @contextmanager
    def _connect_to_write(self) -> Generator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except OperationalError as error:
            if "database is locked" in str(error.orig):
                logger.error(
                    "A session could not be written, as its SQLite file stayed locked. Where the app's own "
                    "transaction holds it (a write that is not committed, or an open read without WAL), end that "
                    "before the request ends, switch the file to WAL, or give the sessions a file of their own: "
                    "SESSION_SQLALCHEMY = 'sqlite:///sessions.db'."
                )
            raise


def session_table(name: str, schema: str | None = None, sequence: str | None = None) -> Table:
    """Describe the table as Flask-Session declares it, plus an index on the expiry for when it is created here."""
    identity = Column("id", Integer, *([Sequence(sequence)] if sequence else []), primary_key=True)
    expiry = Column("expiry", DateTime)
    return Table(
        name,
        MetaData(schema=schema),
        identity,
        Column("session_id", String(255), unique=True),
        Column("data", LargeBinary),
        expiry,
        Index(f"ix_{name}_expiry", expiry),
    )


def create_if_absent(engine: Engine, table: Table) -> None:
    """Create the table unless it exists; another process may do the same at the same time."""
    try:
        table.create(engine, checkfirst=True)
    except DBAPIError:
        if not inspect(engine).has_table(table.name, schema=table.schema):
            raise


def own_engine(engine: Engine) -> Engine:
    """Make an engine that connects as ``engine`` does, with a pool and transactions of its own.

    The app's pool is not shared: a request that holds its last connection while it waits for one for its session
    would wait for itself. A database in memory is then another one as well.
    """
    inherited = {name: value for name, value in engine.get_execution_options().items() if name != "isolation_level"}
    own = create_engine(engine.url, pool=engine.pool.recreate(), execution_options=inherited, **_ENGINE_OPTIONS)
    return _prepare(own, owns_file=False)


def _engine_of_url(url: str) -> Engine:
    try:
        address = make_url(url)
        options = _ENGINE_OPTIONS | {"pool_recycle": 1800}  # below the idle limits of servers and proxies
        if address.get_backend_name() == "sqlite" and address.database in (None, "", ":memory:"):
            options |= {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}  # one for all threads
        return _prepare(create_engine(address, **options), owns_file=True)
    except ArgumentError as error:
        raise ValueError(f"the database URL is wrong: {error}") from None


def _engine_of_bind(database: Any, bind_key: str | None) -> Engine:
    engines: dict[str | None, Engine] = dict(database.engines)
    if bind_key not in engines:
        raise ValueError(f"SESSION_SQLALCHEMY_BIND_KEY is {bind_key!r}; known are {sorted(map(str, engines))}.")
    return engines[bind_key]


def _prepare(engine: Engine, *, owns_file: bool) -> Engine:
    if engine.dialect.name == "sqlite":

        def on_connect(connection: Any, _record: object) -> None:
            if connection.execute("PRAGMA busy_timeout").fetchone()[0] == _SQLITE_DEFAULT_TIMEOUT:
                connection.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_TIMEOUT}")
            if owns_file:  # readers and the writer do not wait for each other
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")

        event.listen(engine, "connect", on_connect)
    return engine


@contextmanager
def _not_waiting_for_sqlite(connection: Connection) -> Generator[None]:
    """Let a refresh fail at once where SQLite is locked: it is due again at the next use."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.dbapi_connection
    timeout = driver.execute("PRAGMA busy_timeout").fetchone()[0]
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA busy_timeout = {timeout}")
