"""Stand-ins for what Flask-Session's development branch changes, as it cannot be installed: written after its behavior.

Its serializers have ``dumps(dict)`` and ``loads(bytes)``; SESSION_TYPE "postgresql" is an interface over a pool of
psycopg2; and SESSION_DYNAMODB_TABLE_EXISTS makes its DynamoDB interface create nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import flask_session.base
import flask_session.dynamodb.dynamodb
import msgspec
import pytest
from flask import Flask
from flask_session import Session
from flask_session.base import ServerSideSession, ServerSideSessionInterface
from flask_session.dynamodb import DynamoDBSession
from flask_session.redis import RedisSessionInterface

PLAIN_INIT = Session.init_app


class Serializer(ABC):
    """The base class: it has no ``encode`` and ``decode`` any more."""

    @abstractmethod
    def dumps(self, data: dict[str, Any]) -> bytes:
        """Return the bytes of a session's items."""

    @abstractmethod
    def loads(self, serialized_data: bytes) -> dict[str, Any]:
        """Return the items of stored bytes."""


class MsgSpecSerializer(Serializer):
    """The serializer that its interfaces make: no class of a session, and no pickle."""

    def __init__(self, app: Flask, format: str) -> None:
        self.app = app
        self.encoder: Any = msgspec.msgpack.Encoder() if format == "msgpack" else msgspec.json.Encoder()
        self.decoder: Any = msgspec.msgpack.Decoder() if format == "msgpack" else msgspec.json.Decoder()

    def dumps(self, data: dict[str, Any]) -> bytes:
        assert type(data) is dict
        return bytes(self.encoder.encode(data))

    def loads(self, serialized_data: bytes) -> dict[str, Any]:
        items: dict[str, Any] = self.decoder.decode(serialized_data)
        return items


def _common(app: Flask) -> dict[str, Any]:
    names = {"key_prefix": "KEY_PREFIX", "permanent": "PERMANENT", "serialization_format": "SERIALIZATION_FORMAT"}
    config = {name: app.config.get(f"SESSION_{key}") for name, key in names.items()}
    return {name: value for name, value in config.items() if value is not None}


class PostgreSqlSession(ServerSideSession):  # type: ignore[misc]
    """The session class of SESSION_TYPE "postgresql"."""


class PostgreSqlSessionInterface(ServerSideSessionInterface):  # type: ignore[misc]
    """Sessions in a table of PostgreSQL, through a pool; it has no attribute ``client``."""

    session_class = PostgreSqlSession
    ttl = False

    def __init__(self, app: Flask, pool: Any, table: str = "flask_sessions", schema: str = "public", **common: Any):
        self.pool, self._table = pool, f'"{schema}"."{table}"'
        self.statements: list[str] = []
        self._run(
            f"CREATE TABLE IF NOT EXISTS {self._table} "
            "(session_id VARCHAR(255) PRIMARY KEY, data BYTEA, expiry TIMESTAMP)"
        )
        super().__init__(app, **common)

    @contextmanager
    def _cursor(self) -> Generator[Any]:
        connection = self.pool.getconn()
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        finally:
            self.pool.putconn(connection)

    def _run(self, statement: str, **values: Any) -> Any:
        self.statements.append(statement.partition(" ")[0])
        with self._cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchone() if cursor.description else None

    def _retrieve_session_data(self, store_id: str) -> Any:
        found = self._run(
            f"SELECT data FROM {self._table} WHERE session_id = %(key)s AND expiry >= NOW()", key=store_id
        )
        return None if found is None else self.serializer.loads(bytes(found[0]))

    def _upsert_session(self, session_lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
        assert session.sid == store_id.removeprefix(self.key_prefix)
        self._run(
            f"INSERT INTO {self._table} VALUES (%(key)s, %(data)s, NOW() + %(life)s) ON CONFLICT (session_id) "
            "DO UPDATE SET data = excluded.data, expiry = excluded.expiry",
            key=store_id,
            data=self.serializer.dumps(dict(session)),
            life=session_lifetime,
        )

    def _delete_session(self, store_id: str) -> None:
        self._run(f"DELETE FROM {self._table} WHERE session_id = %(key)s", key=store_id)

    def _delete_expired_sessions(self) -> None:
        self._run(f"DELETE FROM {self._table} WHERE expiry < NOW()")


PostgreSqlSessionInterface.__module__ = "flask_session.postgresql.postgresql"


class DynamoDBSessionInterface(ServerSideSessionInterface):  # type: ignore[misc]
    """The interface that creates no table where ``table_exists`` says that there is one."""

    session_class = DynamoDBSession

    def __init__(
        self, app: Flask, client: Any, table_name: str = "Sessions", table_exists: bool = False, **common: Any
    ):
        self.client = client
        if not table_exists:
            client.create_table(TableName=table_name)
        self.store = client.Table(table_name)
        super().__init__(app, **common)

    def _retrieve_session_data(self, store_id: str) -> Any:
        raise NotImplementedError  # the adapter reads and writes by itself

    _upsert_session = _delete_session = _retrieve_session_data


DynamoDBSessionInterface.__module__ = "flask_session.dynamodb.dynamodb"


class ShelfSessionInterface(PostgreSqlSessionInterface):
    """Stands for an interface of some later version: nothing is known of it but the base class; it keeps a dict."""

    def __init__(self, app: Flask, shelf: dict[str, bytes], **common: Any) -> None:
        self.shelf = shelf
        ServerSideSessionInterface.__init__(self, app, **common)

    def _retrieve_session_data(self, store_id: str) -> Any:
        return self.serializer.loads(self.shelf[store_id]) if store_id in self.shelf else None

    def _upsert_session(self, session_lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
        self.shelf[store_id] = self.serializer.dumps(dict(session))

    def _delete_session(self, store_id: str) -> None:
        self.shelf.pop(store_id, None)

    def _delete_expired_sessions(self) -> None: ...


ShelfSessionInterface.__module__ = "flask_session.shelf.shelf"

BUILD: dict[str, Callable[[Flask], ServerSideSessionInterface]] = {
    "postgresql": lambda app: PostgreSqlSessionInterface(app, app.config["SESSION_POSTGRESQL"], **_common(app)),
    "shelf2": lambda app: ShelfSessionInterface(app, app.config["SESSION_SHELF2"], **_common(app)),
    "dynamodb": lambda app: DynamoDBSessionInterface(
        app,
        app.config["SESSION_DYNAMODB"],
        app.config.get("SESSION_DYNAMODB_TABLE", "Sessions"),
        app.config.get("SESSION_DYNAMODB_TABLE_EXISTS", False),
        **_common(app),
    ),
}


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins in the place of what Flask-Session 0.8 has."""

    def init_app(extension: Session, app: Flask) -> None:
        build = BUILD.get(str(app.config.get("SESSION_TYPE")).lower())
        if build is None:
            PLAIN_INIT(extension, app)
        else:
            app.session_interface = build(app)

    def retrieve(interface: Any, store_id: str) -> Any:
        found = interface.client.get(store_id)
        return interface.serializer.loads(found) if found else None

    def upsert(interface: Any, session_lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
        payload = interface.serializer.dumps(dict(session))
        interface.client.set(name=store_id, value=payload, ex=int(session_lifetime.total_seconds()))

    patch.setattr(MsgSpecSerializer, "__module__", "flask_session.base")
    patch.setattr(flask_session.base, "Serializer", Serializer)
    patch.setattr(flask_session.base, "MsgSpecSerializer", MsgSpecSerializer)
    patch.setattr(flask_session.dynamodb.dynamodb, "DynamoDBSessionInterface", DynamoDBSessionInterface)
    patch.setattr(RedisSessionInterface, "_retrieve_session_data", retrieve)
    patch.setattr(RedisSessionInterface, "_upsert_session", upsert)
    patch.setattr(Session, "init_app", init_app)
