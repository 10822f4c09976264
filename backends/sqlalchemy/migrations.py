"""The table of the sessions in the app's metadata: Alembic writes a ``drop_table`` for a table that is not there."""

from __future__ import annotations

import os
import sys
from typing import Any

from sqlalchemy import URL, Column, DateTime, Engine, Index, LargeBinary, MetaData, Table, UniqueConstraint, inspect
from sqlalchemy.exc import SQLAlchemyError

from lazysession.backends.sqlalchemy.connect import MYSQL

_COLUMNS = {"id", "session_id", "data", "expiry"}


def declare_in(database: Any, engine: Engine, table: Table) -> None:
    """Declare the table, as the database has it, in the metadata of a Flask-SQLAlchemy object; inside an app context.

    Only if Alembic is imported, and the object uses the same database.

    :param database: any, as Flask-SQLAlchemy is no requirement.
    """
    if "alembic" not in sys.modules or not (hasattr(database, "engines") and hasattr(database, "metadatas")):
        return  # or another extension of this name, such as Flask-SQLAlchemy-Lite
    for bind_key, bound in database.engines.items():
        metadata = database.metadatas.get(bind_key)
        if metadata is not None and is_same_database(bound.url, engine.url):
            try:
                _declare(metadata, engine, table)
            except SQLAlchemyError:  # it is down, and no migration can be written
                return


def is_same_database(one: URL, other: URL) -> bool:
    """Return whether two URLs lead to one database, by whatever driver and account."""
    return _place_of(one) == _place_of(other)


def _place_of(url: URL) -> tuple[object, ...]:
    name = url.get_backend_name().replace("mariadb", "mysql")
    if name == "sqlite":
        in_memory = url.database in (None, "", ":memory:")
        return (name, object() if in_memory else os.path.realpath(str(url.database)))  # each in memory is another
    host = "127.0.0.1" if url.host == "localhost" else url.host
    return (name, host, url.port or {"postgresql": 5432, "mysql": 3306}.get(name), url.database, url.query.get("host"))


def _declare(metadata: MetaData, engine: Engine, table: Table) -> None:
    declared = metadata.tables.get(table.fullname)
    if declared is None:
        declared = table.to_metadata(metadata)
        declared.c.expiry.type = DateTime()  # a plain one, as a migration has to name it
    inspector = inspect(engine)
    if (
        declared.c.keys()
        and set(declared.c.keys()) >= _COLUMNS
        and inspector.has_table(table.name, schema=table.schema)
    ):
        columns = {each["name"]: each for each in inspector.get_columns(table.name, schema=table.schema)}
        _take_types(declared, columns, engine.dialect.name)
        _take_index(declared, {each["name"] for each in inspector.get_indexes(table.name, schema=table.schema)})
        _take_name(declared, inspector.get_unique_constraints(table.name, schema=table.schema))


def _take_types(declared: Table, columns: dict[str, Any], dialect: str) -> None:
    """Take over types of the database that differ in what Alembic compares: the size, and the time zone."""
    for name, plain in (("data", LargeBinary()), ("expiry", DateTime())):
        found = columns[name]["type"]
        if dialect in MYSQL:
            declared.c[name].type = plain.with_variant(found, *MYSQL)
        elif getattr(found, "timezone", False):
            declared.c[name].type = DateTime(timezone=True)


def _take_index(declared: Table, names: set[str | None]) -> None:
    """Declare the index on the expiry where the database has it, and only there."""
    name = f"ix_{declared.name}_expiry"
    present = [index for index in declared.indexes if index.name == name]
    if name in names and not present:
        Index(name, declared.c.expiry)
    elif name not in names:
        declared.indexes.difference_update(present)


def _take_name(declared: Table, constraints: list[Any]) -> None:
    """Give the unique constraint its name in the database: the naming convention of the metadata may make another."""
    names = [each["name"] for each in constraints if each["column_names"] == ["session_id"]]
    for constraint in declared.constraints:
        if isinstance(constraint, UniqueConstraint) and _names_of(constraint) == ["session_id"] and names:
            constraint.name = names[0]


def _names_of(constraint: UniqueConstraint) -> list[str]:
    columns: list[Column[Any]] = list(constraint.columns)
    return [column.name for column in columns]
