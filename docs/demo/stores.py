"""The store of the sessions, and the session interface: everything that differs between the contenders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from flask import Flask
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from redis import Redis
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from lazysession import LazySession


class Sessions(Enum):
    """Which library stores the sessions."""

    FLASK_SESSION = "flask-session"
    LAZY = "lazy"

    @property
    def title(self) -> str:
        """The name of the library."""
        return "Flask-Session" if self is Sessions.FLASK_SESSION else "LazySession"


class StoreError(Exception):
    """The store that was asked for cannot be used; the message says why."""


@dataclass(frozen=True)
class Store:
    """A store for sessions, named by its URL."""

    url: str
    key_prefix: str = "session:"

    @property
    def is_redis(self) -> bool:
        """Whether this is Redis; otherwise it is SQLite."""
        return self.url.startswith(("redis://", "rediss://", "unix://"))

    @property
    def title(self) -> str:
        """The name of the store, without the URL, which may contain a password."""
        return "Redis" if self.is_redis else "SQLite"

    def share_of(self, sessions: Sessions) -> Store:
        """Return this contender's own part of the store: its own keys in Redis, its own file in SQLite."""
        if self.is_redis:
            return replace(self, key_prefix=f"lazysession-demo:{sessions.value}:")
        url = make_url(self.url)
        path = Path(url.database or "")
        return replace(
            self, url=str(url.set(database=str(path.with_name(f"{path.stem}.{sessions.value}{path.suffix}"))))
        )


def parse_store(text: str) -> Store:
    """Check a ``--store`` argument; relative SQLite files are relative to the working directory."""
    store = Store(text)
    if store.is_redis:
        return store
    try:
        url = make_url(text)
    except ArgumentError:
        raise StoreError(f"{text!r} is not a URL; use redis://HOST:PORT/DB or sqlite:///FILE") from None
    if url.get_backend_name() != "sqlite":
        raise StoreError(f"{url.get_backend_name()!r} is not a store of this demo; use redis:// or sqlite:///")
    if not url.database or url.database == ":memory:":
        raise StoreError("an in-memory SQLite is one database per connection; name a file: sqlite:///FILE")
    return Store(str(url.set(database=str(Path(url.database).absolute()))))


def install_sessions(app: Flask, store: Store, sessions: Sessions) -> None:
    """Configure the store as Flask-Session requires, then install one of the two libraries."""
    app.config["SESSION_KEY_PREFIX"] = store.key_prefix
    if store.is_redis:
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis.from_url(store.url))
    else:
        app.config["SQLALCHEMY_DATABASE_URI"] = store.url
        app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=SQLAlchemy(app))

    if sessions is Sessions.LAZY:
        LazySession(app)
    else:
        Session(app)
