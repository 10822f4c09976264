"""Clients, collections and apps on a MongoDB."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from flask import Flask, session
from pymongo import MongoClient
from pymongo.monitoring import CommandListener

DB, COLLECT = "flask_session", "sessions"  # Flask-Session's defaults
ONE_DAY = 86400


class Commands(CommandListener):
    """Records every command that a client sends."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def started(self, event: Any) -> None:
        self.sent.append(event)

    def succeeded(self, event: Any) -> None:
        """Not of interest."""

    def failed(self, event: Any) -> None:
        """Not of interest."""

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        """Return the names of the commands that the block sends."""
        names: list[str] = []
        already = len(self.sent)
        yield names
        names += [event.command_name for event in self.sent[already:]]


CLIENTS: dict[str, tuple[MongoClient[Any], Commands]] = {}


def client_of(url: str) -> tuple[MongoClient[Any], Commands]:
    """One client for each server, open until this file has been run, and what it sends."""
    if url not in CLIENTS:
        commands = Commands()
        CLIENTS[url] = MongoClient(url, event_listeners=[commands], socketTimeoutMS=60_000), commands
    return CLIENTS[url]


def sessions_of(url: str) -> Any:
    """The collection, emptied and without indexes, as it is before the first start of an app."""
    client, _ = client_of(url)
    client[DB].drop_collection(COLLECT)
    return client[DB][COLLECT]


# Through an app


def make_shop(extension: type, **settings: Any) -> Flask:
    """An app with a page of each kind."""
    app = Flask("shop", static_folder=os.path.dirname(__file__), static_url_path="/static")
    app.config.update(SECRET_KEY="key", SESSION_TYPE="mongodb", PERMANENT_SESSION_LIFETIME=ONE_DAY, **settings)
    extension(app)

    def set_key(key: str, value: str) -> str:
        session[key] = value
        return session.sid  # type: ignore[attr-defined, no-any-return]

    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    app.add_url_rule("/keys", view_func=lambda: ",".join(sorted(session)), endpoint="keys")
    app.add_url_rule("/set/<key>/<value>", view_func=set_key)
    app.add_url_rule("/clear", view_func=lambda: session.clear() or "", endpoint="clear")
    return app
