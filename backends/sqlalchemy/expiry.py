"""The type of the column ``expiry``: naive UTC for the backend, whatever type the column of the table has."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import DateTime, Engine, Table, false, select
from sqlalchemy.types import TypeDecorator

from lazysession.backends.sqlalchemy.errors import TableRefuses

_TIMESTAMPTZ = 1184  # its number in PostgreSQL


class Expiry(TypeDecorator[datetime]):
    """A date and time in naive UTC.

    :param aware: the column has a time zone. The database would read a naive value in the zone of the connection: in
        New York, a session would live four or five hours too long.
    """

    impl = DateTime
    cache_ok = True

    def __init__(self, aware: bool = False) -> None:
        super().__init__()
        self.aware = aware

    def load_dialect_impl(self, dialect: Any) -> Any:
        """Return the type of the database; any, as SQLAlchemy's annotations are."""
        return dialect.type_descriptor(DateTime(timezone=self.aware))

    def process_bind_param(self, value: datetime | None, dialect: object) -> datetime | None:
        """Return what is sent."""
        return value.replace(tzinfo=timezone.utc) if value is not None and self.aware else value

    def process_result_value(self, value: Any, dialect: object) -> datetime | None:
        """Return what was read; any, as the column may hold anything."""
        if value is None:
            return None
        if not isinstance(value, datetime):
            raise TableRefuses(
                f"The column expiry of the sessions holds a {type(value).__name__}, not a date with a time. "
                "'flask lazysession check' shows how to change it."
            )
        return value if value.tzinfo is None else value.astimezone(timezone.utc).replace(tzinfo=None)


def learn_expiry(engine: Engine, table: Table) -> None:
    """Learn whether PostgreSQL's column has a time zone, from the cursor of a statement."""
    if engine.dialect.name != "postgresql":
        return
    with engine.connect() as connection:
        cursor: Any = connection.execute(select(table.c.expiry).where(false())).cursor
        table.c.expiry.type = Expiry(aware=cursor.description[0][1] == _TIMESTAMPTZ)
