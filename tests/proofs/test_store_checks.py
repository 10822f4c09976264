"""What the adapters find wrong with real stores, each broken by itself; a sound setup has no findings."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis
from botocore.config import Config
from cachelib import NullCache, SimpleCache
from flask import Flask
from flask_session.redis import RedisSessionInterface
from flask_sqlalchemy import SQLAlchemy
from pymemcache import Client, HashClient, PooledClient
from pymongo import MongoClient
from sqlalchemy import (
    Column,
    DateTime,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    text,
)
from sqlalchemy import insert as insert_into
from sqlalchemy.pool import NullPool

from lazysession import LazySession
from lazysession.backends.cachelib import CacheLibBackend
from lazysession.backends.common import utc_now
from lazysession.backends.dynamodb import DynamoDBBackend
from lazysession.backends.generic import GenericBackend
from lazysession.backends.memcached import MemcachedBackend
from lazysession.backends.mongodb import MongoDBBackend
from lazysession.backends.sqlalchemy import SqlAlchemyBackend
from lazysession.backends.sqlalchemy import check as sql_findings
from tests.support.optional import import_or_skip


def found(backend: Any) -> list[str]:
    """Return the findings of a backend, each as ``severity name``."""
    problems = list(backend.check())
    assert all(problem.what and problem.remedy for problem in problems)
    return [f"{problem.severity} {problem.name}" for problem in problems]


def check_app(app: Flask, *arguments: str) -> str:
    """Return what ``flask lazysession check`` prints."""
    output: str = app.test_cli_runner().invoke(args=["lazysession", "check", *arguments]).output
    return output


# Redis


@pytest.fixture
def redis_settings(redis_url: str) -> Generator[Callable[..., None]]:
    """A function that sets settings of the server; they are set back after the test."""
    client: Any = redis.Redis.from_url(redis_url)
    before: dict[str, str] = {}

    def change(**settings: Any) -> None:
        for setting, value in settings.items():
            name = setting.replace("_", "-")
            before.setdefault(name, client.config_get(name)[name])
            client.config_set(name, value)

    yield change
    for name, value in before.items():
        client.config_set(name, value)
    client.close()


def test_redis(redis_url: str, redis_settings: Callable[..., None]) -> None:
    """The command shows what in the setup of Redis loses sessions, and nothing where none does."""
    app = Flask("shop")
    app.config.update(SESSION_COOKIE_NAME="__Host-session", SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="Lax")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis_url)
    LazySession(app)
    redis_settings(appendonly="yes")
    assert check_app(app, "--ignore", "redis-parser", "--ignore", "redis-path") in (
        "No findings (2 ignored).\n",  # without hiredis
        "No findings (1 ignored).\n",
    )
    redis_settings(maxmemory="1gb", maxmemory_policy="allkeys-lru")
    assert "maxmemory-policy is allkeys-lru: when memory runs out, Redis removes any key" in check_app(app)
    assert "[redis-eviction]" in check_app(app)
    redis_settings(maxmemory_policy="noeviction", appendonly="no", save="")
    assert "[redis-persistence]" in check_app(app)


# SQL


def plain_table(name: str, *, unique: bool = True, index: bool = True) -> Table:
    """Describe a table as Flask-Session makes it (no index on the expiry), or worse."""
    columns: list[Any] = [
        Column("id", Integer, primary_key=True),
        Column("session_id", String(255), unique=unique),
        Column("data", LargeBinary),
        Column("expiry", DateTime),
    ]
    return Table(name, MetaData(), *columns, *([Index(f"ix_{name}_expiry", "expiry")] if index else []))


@contextmanager
def present(url: str, table: Table) -> Generator[Engine]:
    """Make a table in a database until the block ends."""
    engine = create_engine(url, poolclass=NullPool)
    table.drop(engine, checkfirst=True)
    table.create(engine)
    try:
        yield engine
    finally:
        table.drop(engine, checkfirst=True)


@contextmanager
def sql_backend(url: str, table: str) -> Generator[SqlAlchemyBackend]:
    """Make a backend of a URL, and close its connections."""
    backend = SqlAlchemyBackend.from_setting(url, table=table)
    assert backend is not None
    try:
        backend.prepare()
        yield backend
    finally:
        backend._engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL of each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def size(sql_url: str) -> list[str]:
    """What is found of a LargeBinary in this database."""
    return ["warning sql-size"] if sql_url.startswith("mysql") else []


def test_a_table_made_here(sql_url: str) -> None:
    """What the adapter makes itself has everything."""
    table = plain_table("made_here")
    with present(sql_url, table) as engine:
        table.drop(engine)
        with sql_backend(sql_url, "made_here") as backend:
            assert found(backend) == []


def test_a_table_of_flask_session(sql_url: str, size: list[str]) -> None:
    """Flask-Session's table has no index on the expiry, and on MariaDB room for 64 KiB; the remedies work."""
    with present(sql_url, plain_table("theirs", index=False)) as engine, sql_backend(sql_url, "theirs") as backend:
        assert found(backend) == ["warning sql-expiry-index", *size]
        with engine.begin() as connection:
            for problem in list(backend.check()):
                connection.execute(text(problem.remedy.removesuffix(".")))
        assert found(backend) == []


def test_ids_that_are_not_unique(sql_url: str, size: list[str]) -> None:
    """A table made by hand may let two sessions have one id; the remedy works."""
    with present(sql_url, plain_table("by_hand", unique=False)) as engine, sql_backend(sql_url, "by_hand") as backend:
        assert found(backend) == ["error sql-id-index", *size]
        with engine.begin() as connection:
            connection.execute(text(next(iter(backend.check())).remedy.removesuffix(".")))
        assert found(backend) == size


def test_a_table_that_is_gone(sql_url: str) -> None:
    """It was dropped while the app runs."""
    with present(sql_url, plain_table("gone")) as engine, sql_backend(sql_url, "gone") as backend:
        plain_table("gone").drop(engine)
        assert found(backend) == ["error sql-table"]


def test_rows_that_are_not_purged(sql_url: str, size: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """So many expired rows that no purge can be running are found; rows that live do not count."""
    monkeypatch.setattr(sql_findings, "UNPURGED", 3)
    table = plain_table("unpurged")
    with present(sql_url, table) as engine, sql_backend(sql_url, "unpurged") as backend:
        ages = [-60, -60, 60, 60]
        rows = [{"session_id": str(n), "expiry": utc_now() + timedelta(seconds=age)} for n, age in enumerate(ages)]
        with engine.begin() as connection:
            connection.execute(insert_into(table), rows)
        assert found(backend) == size
        with engine.begin() as connection:
            connection.execute(insert_into(table), [{**rows[0], "session_id": "more"}])
        assert found(backend) == ["warning sql-unpurged", *size]
        backend.purge()
        assert found(backend) == size


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_drivers_of_postgresql(postgresql_url: str, driver: str) -> None:
    """A URL with options has those alone: connect_timeout is missing, and then it is not."""
    import_or_skip(driver)
    url = postgresql_url.replace("+psycopg", f"+{driver}")
    with present(postgresql_url, plain_table("drivers")):
        for option, expected in (("application_name=shop", ["warning sql-timeout"]), ("connect_timeout=5", [])):
            with sql_backend(f"{url}?{option}", "drivers") as backend:
                assert found(backend) == expected


def test_the_driver_of_mariadb(mariadb_url: str) -> None:
    """PyMySQL waits for an answer indefinitely by default."""
    url = mariadb_url.partition("?")[0]
    with present(url, plain_table("drivers")):
        for option, expected in (("charset=utf8mb4", ["warning sql-timeout"]), ("read_timeout=30", [])):
            with sql_backend(f"{url}?{option}", "drivers") as backend:
                assert [name for name in found(backend) if name != "warning sql-size"] == expected


def test_flask_sqlalchemy(postgresql_url: str) -> None:
    """The engine of the app's own database is checked as well, and the remedy works."""
    advised = {"connect_args": {"connect_timeout": 5}}
    with present(postgresql_url, plain_table("theirs")):
        for options, expected in (({}, ["warning sql-timeout"]), (advised, [])):
            app = Flask("shop")
            app.config.update(SQLALCHEMY_DATABASE_URI=postgresql_url, SQLALCHEMY_ENGINE_OPTIONS=options)
            database = SQLAlchemy(app)
            app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=database, SESSION_SQLALCHEMY_TABLE="theirs")
            LazySession(app)
            backend: Any = app.session_interface.handler.backend  # type: ignore[attr-defined]
            assert found(backend) == expected
            if not options:
                assert str(advised) in next(iter(backend.check())).remedy
            backend._engine.dispose()
            with app.app_context():
                database.engine.dispose()


def test_sqlite_without_wal(tmp_path: Path) -> None:
    """The app's own file is left in the mode that it has, and the mode is named."""
    app = Flask("shop")
    app.config.update(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/app.db", SESSION_TYPE="sqlalchemy")
    app.config["SESSION_SQLALCHEMY"] = database = SQLAlchemy(app)
    LazySession(app)
    backend: Any = app.session_interface.handler.backend  # type: ignore[attr-defined]
    assert found(backend) == ["warning sql-wal"]
    assert "journal_mode delete" in next(iter(backend.check())).what
    with app.app_context(), database.engine.connect() as connection:
        connection.execute(text("PRAGMA journal_mode = WAL"))
    backend._engine.dispose()  # as the command, which runs in a process of its own, has no connection from before
    assert found(backend) == []
    backend._engine.dispose()
    with app.app_context():
        database.engine.dispose()


def test_sqlite_in_memory() -> None:
    """A database in memory is that of one process."""
    with sql_backend("sqlite://", "sessions") as backend:
        assert found(backend) == ["warning sql-memory"]


# MongoDB


@pytest.mark.parametrize("waits", [{}, {"timeoutMS": 60_000}, {"socketTimeoutMS": 60_000}], ids=str)
def test_mongodb(mongodb_url: str, waits: dict[str, Any]) -> None:
    """Missing indexes are errors; a client that waits indefinitely is a warning, by any of its options."""
    timeout = [] if waits else ["warning mongodb-timeout"]
    with MongoClient[dict[str, Any]](mongodb_url, **waits) as client:
        sessions = client["checks"]["sessions"]
        sessions.drop()
        sessions.insert_one({"id": "a"})
        missing = ["error mongodb-id-index", "error mongodb-ttl-index"]
        assert found(MongoDBBackend(client, sessions)) == [*timeout, *missing]
        sessions.create_index("id")
        assert found(MongoDBBackend(client, sessions)) == [
            *timeout,
            "warning mongodb-id-unique",
            "error mongodb-ttl-index",
        ]
        sessions.drop()
        backend = MongoDBBackend.from_setting(client, db="checks")
        assert found(backend) == timeout
        assert all("30 s" in problem.what for problem in backend.check())  # type: ignore[union-attr]


# DynamoDB


def dynamodb(url: str, **options: Any) -> DynamoDBBackend:
    """Make a backend on a client with these options."""
    account = {"region_name": "us-west-2", "aws_access_key_id": "dummy", "aws_secret_access_key": "dummy"}
    client: Any = boto3.client("dynamodb", endpoint_url=url, config=Config(**options), **account)
    backend = DynamoDBBackend.from_setting(client, table="Checks")
    assert backend is not None
    backend.prepare()
    return backend


def test_dynamodb(moto_url: str) -> None:
    """A client with its defaults waits a minute, twice and more; one of the two timeouts is not enough."""
    late = ["warning dynamodb-timeout"]
    assert found(dynamodb(moto_url)) == late
    assert found(dynamodb(moto_url, read_timeout=2)) == late
    assert found(dynamodb(moto_url, connect_timeout=2)) == late
    backend = dynamodb(moto_url, connect_timeout=2, read_timeout=2)
    assert found(backend) == []
    ((problem), *_) = dynamodb(moto_url, connect_timeout=2, read_timeout=None).check()
    assert "waits for DynamoDB without a timeout" in problem.what
    specification = {"Enabled": False, "AttributeName": "expiration"}
    backend.client.update_time_to_live(TableName="Checks", TimeToLiveSpecification=specification)
    assert found(backend) == ["warning dynamodb-ttl"]


# memcached


PATIENT: dict[str, Callable[[tuple[str, int]], Any]] = {
    "Client": Client,
    "Client, connected": lambda address: Client(address, timeout=2),
    "Client, answered": lambda address: Client(address, connect_timeout=2),
    "PooledClient": PooledClient,
    "HashClient": lambda address: HashClient([address]),
    "HashClient, pooled": lambda address: HashClient([address], use_pooling=True, timeout=2),
}
IMPATIENT: dict[str, Callable[[tuple[str, int]], Any]] = {
    "Client": lambda address: Client(address, timeout=2, connect_timeout=2),
    "PooledClient": lambda address: PooledClient(address, timeout=2, connect_timeout=2),
    "HashClient": lambda address: HashClient([address], timeout=2, connect_timeout=2),
    "pylibmc": lambda address: import_or_skip("pylibmc").Client(["{}:{}".format(*address)]),
    "URL": lambda address: "memcached://{}:{}".format(*address),
}


def memcached(url: str, make_client: Callable[[tuple[str, int]], Any]) -> list[str]:
    """Return what is found of a client, but for pickles."""
    host, _, port = url.removeprefix("memcached://").strip("/").partition(":")
    client = make_client((host, int(port)))
    backend = MemcachedBackend.from_setting(client) if isinstance(client, str) else MemcachedBackend(client)
    assert backend is not None
    try:
        return [each for each in found(backend) if each != "warning memcached-pickle"]
    finally:
        client = backend.client
        (client.close if hasattr(client, "close") else client.disconnect_all)()


@pytest.mark.parametrize("make_client", PATIENT.values(), ids=PATIENT)
def test_clients_of_memcached_without_timeouts(memcached_url: str, make_client: Callable[..., Any]) -> None:
    """Either timeout that is missing is found."""
    assert memcached(memcached_url, make_client) == ["warning memcached-timeout"]


@pytest.mark.parametrize("make_client", IMPATIENT.values(), ids=IMPATIENT)
def test_clients_of_memcached_with_timeouts(memcached_url: str, make_client: Callable[..., Any]) -> None:
    """A client with timeouts, or one that waits for some seconds by default, is sound."""
    assert memcached(memcached_url, make_client) == []


# cachelib, and interfaces of one's own


def test_caches() -> None:
    """A cache that stores nothing is an error, one in memory a warning."""
    assert found(CacheLibBackend(NullCache())) == ["error cachelib-null"]
    assert found(CacheLibBackend(SimpleCache())) == ["warning cachelib-memory"]


def test_an_interface_of_ones_own(redis_url: str) -> None:
    """What drives an interface by its own storage methods says what these cannot do, by the interface's name."""

    class Encrypting(RedisSessionInterface):  # type: ignore[misc]
        def _retrieve_session_data(self, store_id: str) -> Any:
            return super()._retrieve_session_data(store_id)

    app = Flask("shop")
    with closing(redis.Redis.from_url(redis_url)) as client:
        app.session_interface = Encrypting(app, client=client)
        LazySession(app)
        backend = app.session_interface.handler.backend
        assert type(backend) is GenericBackend
        assert found(backend) == ["warning generic-compare"]
        assert "Encrypting stores by methods of its own" in next(iter(backend.check())).what
