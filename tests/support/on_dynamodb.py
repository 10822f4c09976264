"""Clients, tables and apps on a DynamoDB, and ways to watch and disturb them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import boto3
from botocore.config import Config
from flask import Flask, session
from flask_session.dynamodb.dynamodb import DynamoDBSession

from lazysession.backends.dynamodb import DynamoDBBackend
from lazysession.testing import KEY

ONE_DAY = 86400
LIVE = "a" * 43
ACCOUNT = {"region_name": "us-west-2", "aws_access_key_id": "dummy", "aws_secret_access_key": "dummy"}
LONG_TIMEOUTS: dict[str, Any] = {"connect_timeout": 30, "read_timeout": 30}
_numbers = itertools.count()


def new_table() -> str:
    """Return a name that no test has used."""
    return f"Sessions-{next(_numbers)}"


def resource(url: str) -> Any:
    return boto3.resource("dynamodb", endpoint_url=url, config=Config(**LONG_TIMEOUTS), **ACCOUNT)


def client(url: str, **options: Any) -> Any:
    return boto3.client("dynamodb", endpoint_url=url, **ACCOUNT, config=Config(**LONG_TIMEOUTS | options))


def url_of(endpoint: str, table: str = "") -> str:
    return f"dynamodb://us-west-2/{table}?endpoint_url={endpoint}"


def make(value: Any, table: str | None = None) -> DynamoDBBackend:
    """Make a backend of a setting, on a table of its own."""
    backend = DynamoDBBackend.from_setting(value, table=table or new_table())
    assert backend is not None
    backend.prepare()
    return backend


# Watching and disturbing a client


@contextmanager
def counted(client: Any) -> Generator[list[str]]:
    """Count what a client really sends, attempt by attempt."""
    names: list[str] = []

    def note(request: Any, **_: Any) -> None:
        names.append(request.headers["X-Amz-Target"].decode().partition(".")[2])

    client.meta.events.register("before-send.dynamodb", note)
    try:
        yield names
    finally:
        client.meta.events.unregister("before-send.dynamodb", note)


@contextmanager
def before(client: Any, operation: str, do: Callable[[], Any]) -> Generator[None]:
    """Do something just before a client sends; what it returns is the response, and nothing is sent."""

    def on_call(**_: Any) -> Any:
        return do()

    client.meta.events.register_first(f"before-call.dynamodb.{operation}", on_call)
    try:
        yield
    finally:
        client.meta.events.unregister(f"before-call.dynamodb.{operation}", on_call)


def failing(code: str) -> Callable[[], Any]:
    """Return an error of DynamoDB's."""
    return lambda: (SimpleNamespace(status_code=400), {"Error": {"Code": code, "Message": "on purpose"}})


def stored(backend: DynamoDBBackend, key: str = KEY) -> dict[str, Any]:
    """Return the item as it is stored."""
    low_level = client(backend.client.meta.endpoint_url)
    item: dict[str, Any] = low_level.get_item(TableName=backend._table, Key={"id": {"S": key}}).get("Item", {})
    return item


# Through an app


def make_app(extension: type, value: Any, table: str, **settings: Any) -> Flask:
    """Make an app with a page of each kind."""
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", PERMANENT_SESSION_LIFETIME=ONE_DAY, **settings)
    app.config.update(SESSION_TYPE="dynamodb", SESSION_DYNAMODB=value, SESSION_DYNAMODB_TABLE=table)
    extension(app)

    def set_key(key: str) -> str:
        session[key] = [key, 1, 2.5, None, {"nested": True}, "\N{SNOWMAN}"]
        return session.sid  # type: ignore[attr-defined, no-any-return]

    app.add_url_rule("/set/<key>", view_func=set_key)
    app.add_url_rule("/keys", view_func=lambda: ",".join(sorted(session)), endpoint="keys")
    app.add_url_rule("/clear", view_func=lambda: session.clear() or "", endpoint="clear")
    app.add_url_rule("/class", view_func=lambda: str(isinstance(session, DynamoDBSession)), endpoint="class")
    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    return app


def visitor(app: Flask, sid: str | None = None) -> Any:
    client = app.test_client()
    if sid is not None:
        client.set_cookie("session", sid)
    return client
