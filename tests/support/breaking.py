"""Stores that fail on request, and requests that overlap with another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from flask import Flask
from flask.testing import FlaskClient

from lazysession.backend import Outcome
from tests.support.stores.base import LIVE, backend_of

KEY = f"session:{LIVE}"


class StoreDown(Exception):
    """The error of a store's client."""


def break_verbs(app: Flask, *verbs: str, error: type[BaseException] = StoreDown) -> list[str]:
    """Make methods of the app's backend fail, and return the list of attempts."""
    attempts: list[str] = []

    def failing(verb: str) -> Callable[..., Any]:
        def fail(*_: Any, **__: Any) -> Any:
            attempts.append(verb)
            raise error(verb)

        return fail

    backend = backend_of(app)
    for verb in verbs:
        setattr(backend, verb, failing(verb))
    if "read" in verbs and hasattr(backend, "read_and_touch"):
        backend.read_and_touch = failing("read")
    return attempts


def repair_verbs(app: Flask) -> None:
    """Take that back."""
    for verb in ("read", "read_and_touch", "create", "replace", "delete"):
        vars(backend_of(app)).pop(verb, None)


def visitor(app: Flask, **data: Any) -> FlaskClient:
    """Return a client that has a stored session."""
    payload = msgspec.msgpack.encode({"_permanent": True, **data})
    assert backend_of(app).create(KEY, payload, app.permanent_session_lifetime.total_seconds())
    client = app.test_client()
    client.set_cookie("session", LIVE)
    return client


def stored(app: Flask) -> dict[str, Any]:
    """Return what is stored for the visitor."""
    data = msgspec.msgpack.decode(backend_of(app).read(KEY).payload)
    assert data.pop("_permanent") is True
    return dict(data)


def another_request_changes(app: Flask, **data: Any) -> None:
    """Store what another request of the visitor changes while one is running."""
    seen = backend_of(app).read(KEY).payload
    payload = msgspec.msgpack.encode({**msgspec.msgpack.decode(seen), **data})
    assert backend_of(app).replace(KEY, payload, None, seen).outcome is Outcome.STORED
