"""The stores that the tests run on, each with a way to count its round trips and to pass time."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from .base import LIVE, Store
from .cachelib import FilesStore, MemoryStore
from .documents import DynamoDBStore, MongoDBStore
from .memcached import MemcachedStore
from .redis import CountingClient, FakeRedisStore, RedisStore
from .sql import FlaskSqlStore, MariaDBStore, PostgreSQLStore, SqlStore

__all__ = [
    "EVERY_STORE",
    "LIVE",
    "CountingClient",
    "FakeRedisStore",
    "FlaskSqlStore",
    "RedisStore",
    "SqlStore",
    "Store",
    "prepare",
]

#: Every store, and what opens it: a server's name, the test's own folder, or nothing.
EVERY_STORE: dict[str, tuple[type[Store], str | None]] = {
    "fakeredis": (FakeRedisStore, None),
    "redis": (RedisStore, "redis"),
    "sqlite": (SqlStore, "folder"),
    "flask-sqlalchemy": (FlaskSqlStore, "folder"),
    "postgresql": (PostgreSQLStore, "postgresql"),
    "mariadb": (MariaDBStore, "mariadb"),
    "memcached": (MemcachedStore, "memcached"),
    "mongodb": (MongoDBStore, "mongodb"),
    "dynamodb": (DynamoDBStore, "dynalite"),
    "files": (FilesStore, "folder"),
    "memory": (MemoryStore, None),
}


def prepare(app: Flask) -> None:
    """Do what an app with Flask-SQLAlchemy does before it sets up its sessions."""
    database: Any = app.config.get("SESSION_SQLALCHEMY")
    if isinstance(database, SQLAlchemy):
        database.init_app(app)
