"""SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.pool import NullPool, Pool

from .base import Store, backend_of, let_pass
from .wire import Wire


class SqlStore(Store):
    """A SQLite file, counted by SQLAlchemy's events; time passes on the backend's clock."""

    label: str | None = "SQLite"
    read, refresh, write, create, delete = ("SELECT",), ("SELECT", "UPDATE"), ("UPDATE",), ("INSERT",), ("DELETE",)
    delete_seen, touch = ("DELETE",), ("UPDATE",)
    session_type = "sqlalchemy"

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/sessions.db"

    def config(self) -> dict[str, Any]:
        return {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": self.url}

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        names: list[str] = []

        def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            names.append(statement.split()[0].upper())

        event.listen(Engine, "before_cursor_execute", count)
        try:
            yield names
        finally:
            event.remove(Engine, "before_cursor_execute", count)

    def pass_time(self, app: Flask, seconds: float) -> None:
        let_pass(app, seconds)
        backend = backend_of(app)
        now = backend.clock
        backend.clock = lambda: now() + timedelta(seconds=seconds)

    def _execute(self, app: Flask, statement: Any) -> Any:
        with backend_of(app)._engine.connect() as connection:
            result = connection.execute(statement)
            return result.all() if result.returns_rows else None

    def payloads(self, app: Flask) -> dict[str, bytes]:
        return {row.session_id: row.data for row in self._execute(app, backend_of(app)._table.select())}

    def put(self, app: Flask, key: str, payload: bytes, lifetime: float = 1000) -> None:
        values = {"session_id": key, "data": payload, "expiry": backend_of(app).clock() + timedelta(seconds=lifetime)}
        self._execute(app, backend_of(app)._table.insert().values(values))

    def remove(self, app: Flask, key: str) -> None:
        table = backend_of(app)._table
        self._execute(app, table.delete().where(table.c.session_id == key))


class FlaskSqlStore(SqlStore):
    """The same through a Flask-SQLAlchemy object, whose interface Flask-Session builds."""

    label = "SQLite by Flask-SQLAlchemy"

    def config(self) -> dict[str, Any]:
        return {
            "SESSION_TYPE": "sqlalchemy",
            "SESSION_SQLALCHEMY": SQLAlchemy(),
            "SQLALCHEMY_DATABASE_URI": self.url,
        }


class SqlServerStore(SqlStore):
    """A database server, its table emptied; what SQLAlchemy has no event for (COMMIT, say) is counted on the wire."""

    def __init__(self, url: str) -> None:
        address = make_url(url)
        engine = create_engine(address, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if inspect(connection).has_table("sessions"):
                connection.execute(text("DELETE FROM sessions"))
        assert address.port is not None
        self._wire = Wire(address.port)
        self.url = address.set(port=self._wire.port).render_as_string(hide_password=False)
        self._opened: set[Any] = set()
        event.listen(Pool, "connect", self._note)
        event.listen(Pool, "close", self._forget)

    def _note(self, connection: Any, _record: object) -> None:
        self._opened.add(connection)

    def _forget(self, connection: Any, _record: object) -> None:
        self._opened.discard(connection)

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        already = len(self._wire.trips)
        with super().counted() as names:
            yield names
        names += ["?"] * (len(self._wire.trips) - already - len(names))

    def close(self) -> None:
        event.remove(Pool, "connect", self._note)
        event.remove(Pool, "close", self._forget)
        for connection in self._opened:
            connection.close()
        self._wire.close()


class PostgreSQLStore(SqlServerStore):
    """A real PostgreSQL, by psycopg."""

    label = "PostgreSQL"


class MariaDBStore(SqlServerStore):
    """A real MariaDB, by PyMySQL."""

    label = "MariaDB"
