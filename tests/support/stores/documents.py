"""MongoDB and DynamoDB."""

from __future__ import annotations

import functools
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import boto3
from flask import Flask
from pymongo import MongoClient
from pymongo.monitoring import CommandListener

from .base import Store, added_since, backend_of, let_pass


class Commands(CommandListener):
    """Records the name of every command that a client of MongoDB sends."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: Any) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: Any) -> None:
        """Not of interest."""

    def failed(self, event: Any) -> None:
        """Not of interest."""


class MongoDBStore(Store):
    """A real MongoDB, counted by the commands that PyMongo sends; time passes on the backend's clock."""

    label = "MongoDB"
    read, refresh, write, create, delete = ("find",), ("findAndModify",), ("update",), ("insert",), ("findAndModify",)
    delete_seen, touch = ("delete",), ("update",)
    session_type = "mongodb"

    def __init__(self, url: str) -> None:
        self._commands = Commands()
        self.client: MongoClient[dict[str, Any]] = MongoClient(url, event_listeners=[self._commands])
        self.sessions = self.client["flask_session"]["sessions"]
        self.sessions.delete_many({})

    def config(self) -> dict[str, Any]:
        return {"SESSION_TYPE": "mongodb", "SESSION_MONGODB": self.client}

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        yield from added_since(self._commands.names)

    def pass_time(self, app: Flask, seconds: float) -> None:
        let_pass(app, seconds)
        backend = backend_of(app)
        now = backend.clock
        backend.clock = lambda: now() + timedelta(seconds=seconds)

    def payloads(self, app: Flask) -> dict[str, bytes]:
        return {document["id"]: document["val"] for document in self.sessions.find()}

    def remove(self, app: Flask, key: str) -> None:
        self.sessions.delete_one({"id": key})

    def close(self) -> None:
        self.client.close()


@functools.cache
def resource_of(url: str) -> Any:
    """Make one resource for each server: boto3 takes its time for it."""
    return boto3.resource(
        "dynamodb",
        endpoint_url=url,
        region_name="us-west-2",
        aws_access_key_id="dummy",
        aws_secret_access_key="dummy",
    )


class DynamoDBStore(Store):
    """dynalite, counted by the requests that botocore sends, each attempt; time passes on the backend's clock."""

    label = "DynamoDB"
    read, refresh, write = ("GetItem",), ("GetItem", "UpdateItem"), ("UpdateItem",)
    create, delete, delete_seen = ("PutItem",), ("DeleteItem",), ("DeleteItem",)
    touch = ("UpdateItem",)
    session_type = "dynamodb"

    def __init__(self, url: str) -> None:
        self.resource = resource_of(url)
        self.table = self.resource.Table("Sessions")
        self._names: list[str] = []
        if any(table.name == "Sessions" for table in self.resource.tables.all()):
            for item in self.table.scan()["Items"]:
                self.table.delete_item(Key={"id": item["id"]})
        self.resource.meta.client.meta.events.register("before-send.dynamodb", self._note)

    def _note(self, request: Any, **_: Any) -> None:
        self._names.append(request.headers["X-Amz-Target"].decode().partition(".")[2])

    def config(self) -> dict[str, Any]:
        return {"SESSION_TYPE": "dynamodb", "SESSION_DYNAMODB": self.resource}

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        yield from added_since(self._names)

    def pass_time(self, app: Flask, seconds: float) -> None:
        let_pass(app, seconds)
        backend = backend_of(app)
        now = backend.clock
        backend.clock = lambda: now() + seconds

    def payloads(self, app: Flask) -> dict[str, bytes]:
        return {item["id"]: item["val"].value for item in self.table.scan(ConsistentRead=True)["Items"]}

    def remove(self, app: Flask, key: str) -> None:
        self.table.delete_item(Key={"id": key})

    def close(self) -> None:
        self.resource.meta.client.meta.events.unregister("before-send.dynamodb", self._note)


def create_plain(held: Any, table: str) -> None:
    """Create a table as Flask-Session does."""
    held.create_table(
        TableName=table,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    held.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1})
