"""Settings of Flask-Session for each store, which LazySession reads as well: both get the same client."""

from __future__ import annotations

from typing import Any

from flask_sqlalchemy import SQLAlchemy
from pymemcache.client.base import PooledClient
from pymongo import MongoClient
from redis import Redis

from tests.support.stores.documents import resource_of

#: The stores that the page view is measured on, and their names in tables.
TITLES = {
    "redis": "Redis",
    "postgresql": "PostgreSQL",
    "mongodb": "MongoDB",
    "memcached": "memcached",
    "sqlite": "SQLite",
    "dynamodb": "DynamoDB (dynalite)",
    "files": "Files",
}

#: The stores of the table of every store, and the server that each needs; those without one need a folder.
STORES = {
    "redis": "redis",
    "postgresql": "postgresql",
    "sqlite": None,
    "mongodb": "mongodb",
    "memcached": "memcached",
    "dynamodb": "dynalite",
    "files": None,
}


def settings_of(url: str) -> dict[str, Any]:
    """Return the settings of an app on the store of this URL; ``files://`` is Flask-Session's own type for files."""
    scheme, _, rest = url.partition("://")
    if scheme == "redis":
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": Redis.from_url(url)}
    if scheme == "memcached":
        host, _, port = rest.partition(":")
        return {"SESSION_TYPE": "memcached", "SESSION_MEMCACHED": PooledClient((host, int(port)), no_delay=True)}
    if scheme == "mongodb":
        return {"SESSION_TYPE": "mongodb", "SESSION_MONGODB": MongoClient(url)}
    if scheme == "http":
        return {"SESSION_TYPE": "dynamodb", "SESSION_DYNAMODB": resource_of(url)}
    if scheme == "files":
        return {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": rest}
    return {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": SQLAlchemy(), "SQLALCHEMY_DATABASE_URI": url}
