"""The engine and the table of the SQL adapter: connections of its own, to the database that the app uses."""

from __future__ import annotations

from inspect import signature
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
)
from sqlalchemy.dialects.mysql import MEDIUMBLOB
from sqlalchemy.engine import ExceptionContext, default
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError
from sqlalchemy.pool import StaticPool

from lazysession.backends.sqlalchemy.errors import needs_new_connection
from lazysession.backends.sqlalchemy.expiry import Expiry, learn_expiry
from lazysession.backends.sqlalchemy.options import check_options, check_query
from lazysession.backends.sqlalchemy.psycopg import limit_reads
from lazysession.backends.sqlalchemy.sqlite import wait_for_lock, wait_for_locks

#: The dialects of MySQL and of what is made of it.
MYSQL = ("mysql", "mariadb")

# hide_parameters: an error's text must not carry session ids and payloads into logs.
_ENGINE_OPTIONS: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "hide_parameters": True}
# From SQLAlchemy 2.0.43 on.
if "skip_autocommit_rollback" in signature(default.DefaultDialect.__init__).parameters:
    _ENGINE_OPTIONS["skip_autocommit_rollback"] = True  # giving a connection back is no round trip

# Seconds, for drivers that would wait indefinitely for a server that does not respond.
_TIMEOUTS: dict[str, dict[str, int]] = {
    "psycopg": {"connect_timeout": 5},
    "psycopg2": {"connect_timeout": 5},
    "pymysql": {"connect_timeout": 5, "read_timeout": 30, "write_timeout": 30},
}
#: Seconds to wait for a connection of a pool that is all in use. Each is borrowed for one operation, so a longer wait
#: means that the server hangs. The timeout for a new connection is the same.
POOL_TIMEOUT = 5
#: The read timeout of psycopg, which has no such option; the query of a URL may set it, as with PyMySQL.
READ_TIMEOUT = 30

#: How many characters of a driver's message are logged.
_LONGEST_MESSAGE = 120


def session_table(name: str, schema: str | None = None, sequence: str | None = None) -> Table:
    """Describe the table as Flask-Session declares it, plus an index on the expiry for when it is created here."""
    identity = Column("id", Integer, *([Sequence(sequence)] if sequence else []), primary_key=True)
    expiry: Column[Any] = Column("expiry", Expiry())
    return Table(
        name,
        MetaData(schema=schema),
        identity,
        Column("session_id", String(255), unique=True),
        Column("data", LargeBinary().with_variant(MEDIUMBLOB(), *MYSQL)),  # their BLOB ends at 64 KiB
        expiry,
        Index(f"ix_{name}_expiry", expiry),
    )


def create_if_absent(engine: Engine, table: Table) -> None:
    """Create the table unless it exists; another process may do the same at the same time.

    :raises ValueError: when the driver refuses the URL.
    :raises DBAPIError: when the database is down, or refuses the account.
    """
    try:
        table.create(engine, checkfirst=True)
    except DBAPIError as error:
        if isinstance(error, ProgrammingError) and error.statement is None:  # before any statement was sent
            raise ValueError(f"its driver refuses the URL ({explain(engine, error)})") from None
        if error.connection_invalidated or error.statement is None or not _exists(engine, table):
            raise
    learn_expiry(engine, table)


def _exists(engine: Engine, table: Table) -> bool:
    return inspect(engine).has_table(table.name, schema=table.schema)


def _set_up_file(connection: Any, record: Any) -> None:
    """Put a SQLite file into WAL mode, where readers and the writer do not wait for each other."""
    wait_for_lock(connection, "PRAGMA journal_mode = WAL", record)
    connection.execute("PRAGMA synchronous = NORMAL")


def explain(engine: Engine, error: Exception) -> str:
    """Return what is logged of an error: the driver's message if it could not connect, otherwise only its name.

    A message about a statement may hold a session id. The password is replaced everywhere.
    """
    if not isinstance(error, DBAPIError):
        return type(error).__name__
    name = type(error.orig).__name__
    if error.statement is not None:
        return name
    message = str(error.orig).partition("\n")[0].strip(" .?")
    secrets = [str(engine.url.password or ""), *(str(engine.url.query.get(key, "")) for key in ("password", "passwd"))]
    for secret in filter(None, secrets):
        message = message.replace(secret, "***")
    return f"{name}: {message[:_LONGEST_MESSAGE]}"


def own_engine(engine: Engine) -> Engine:
    """Make an engine that connects as ``engine`` does, with a pool and transactions of its own.

    The app's pool is not shared: a request that holds its last connection while it waits for one for its session
    would wait for itself. A database in memory is then another one as well.
    """
    _refuse_asynchronous(engine.dialect)
    inherited = {name: value for name, value in engine.get_execution_options().items() if name != "isolation_level"}
    own = create_engine(engine.url, pool=engine.pool.recreate(), execution_options=inherited, **_ENGINE_OPTIONS)
    return _prepare(own, owns_file=False)


def engine_of_url(url: str, engine_options: object = None) -> Engine:
    """Make an engine for a database URL.

    :param engine_options: the value of SESSION_SQLALCHEMY_ENGINE_OPTIONS.
    :raises ValueError: when SQLAlchemy does not understand the URL, or the driver or SQLAlchemy an option.
    """
    dialect, options = _dialect_of(url), check_options(engine_options)
    if dialect is not None:
        _refuse_asynchronous(dialect)
        check_query(make_url(url), dialect)
    try:
        return _engine_of(make_url(url), options)
    except (ArgumentError, ValueError, TypeError) as error:
        if options and "sent to create_engine" in str(error):  # it names arguments, and none of their values
            raise ValueError(f"SESSION_SQLALCHEMY_ENGINE_OPTIONS: {error}") from None
        # The errors of SQLAlchemy may repeat the URL, and so a password.
        raise ValueError(
            f"the database URL is wrong ({type(error).__name__}). It is written as in "
            "'postgresql+psycopg://user:password@host/database', with special characters percent-encoded."
        ) from None


def _engine_of(address: URL, options: dict[str, Any]) -> Engine:
    given: dict[str, Any] = {**options.pop("connect_args", {})}
    read_timeout = float(str(given.pop("read_timeout", READ_TIMEOUT))) if _is_psycopg(address) else READ_TIMEOUT
    defaults: dict[str, Any] = {"pool_recycle": 1800}  # below the idle limits of servers and proxies
    connecting: dict[str, Any] = {}
    forced = dict(_ENGINE_OPTIONS)
    if address.get_backend_name() == "sqlite":
        if _is_in_memory(address):
            # One connection for all threads, and for the life of the process: the database ends with it.
            defaults, connecting = {"poolclass": StaticPool}, {"check_same_thread": False}
            forced["pool_recycle"] = -1
    else:
        if "poolclass" not in options:
            defaults["pool_timeout"] = POOL_TIMEOUT
        if not address.query:  # options in the URL replace all of these
            connecting = {**_TIMEOUTS.get(address.get_driver_name(), {})}
    if _is_psycopg(address):
        read_timeout = float(str(address.query.get("read_timeout", read_timeout)))
        address = address.difference_update_query(["read_timeout"])
    engine = create_engine(address, **(defaults | options | forced), connect_args=connecting | given)
    if _is_psycopg(address):
        limit_reads(engine, read_timeout)
    return _prepare(engine, owns_file=True, may_prepare="prepare_threshold" in given)


def _is_psycopg(address: URL) -> bool:
    return address.get_driver_name() == "psycopg"


def _dialect_of(url: str) -> Any:
    """Return the dialect of a URL; None where there is none, which making an engine of it explains."""
    try:
        return make_url(url).get_dialect()
    except (ArgumentError, ImportError, ValueError):
        return None


def _refuse_asynchronous(dialect: Any) -> None:
    if dialect.is_async:
        raise ValueError(
            f"its driver is asynchronous ({dialect.driver}). Name one that is not, such as postgresql+psycopg, "
            "mysql+pymysql or sqlite."
        )


def _is_in_memory(address: URL) -> bool:
    return address.database in (None, "", ":memory:") or address.query.get("mode") == "memory"


def engine_of_bind(database: Any, bind_key: str | None) -> Engine:
    """Return the engine of a Flask-SQLAlchemy object for a bind key, inside an app context.

    :raises ValueError: when it has none, and for an asynchronous one.
    """
    engines: dict[str | None, Engine] = dict(database.engines)
    if bind_key not in engines:
        raise ValueError(f"SESSION_SQLALCHEMY_BIND_KEY is {bind_key!r}; known are {sorted(map(str, engines))}.")
    _refuse_asynchronous(engines[bind_key].dialect)
    return engines[bind_key]


def _prepare(engine: Engine, *, owns_file: bool, may_prepare: bool = False) -> Engine:
    event.listen(engine, "handle_error", _leave_useless_connections)
    if engine.dialect.driver == "psycopg" and not may_prepare:
        event.listen(engine, "connect", _prepare_no_statement, insert=True)  # before what SQLAlchemy asks first
    if engine.dialect.name == "sqlite":
        wait_for_locks(engine)
        if owns_file:
            event.listen(engine, "connect", _set_up_file)
    return engine


def _leave_useless_connections(context: ExceptionContext) -> None:
    """Make the pool replace all its connections after an error which says that the server may not write, or stops."""
    if context.connection is not None and needs_new_connection(context.original_exception):
        context.is_disconnect = True


def describe_pool(pool: Any) -> str:
    """Return how long a request waited for a connection; any, as pools differ in their methods."""
    return f"{pool.timeout()} s for a connection, and {pool.checkedout()} of its pool were in use"


def _prepare_no_statement(connection: Any, _record: object) -> None:
    """Keep psycopg from preparing a statement that it has sent five times.

    A prepared statement belongs to one connection of the server. Behind a PgBouncer in transaction mode, the next
    statement may go to another connection, where it does not exist or is another client's of the same name.
    """
    connection.prepare_threshold = None
