"""Stored sessions and their clients, and views whose request overlaps with another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from flask import Flask, session
from flask.testing import FlaskClient

from lazysession.records.rotation import forwarding_in
from tests.support.stores import LIVE

MakeApp = Callable[..., Flask]
KEY = f"session:{LIVE}"


def put(store: Any, app: Flask, **data: Any) -> FlaskClient:
    """Store a session, and return a client that has its cookie."""
    store.put(app, KEY, msgspec.msgpack.encode({"_permanent": True, **data}), 31 * 86400)
    client = app.test_client()
    client.set_cookie("session", LIVE)
    return client


def stored(store: Any, app: Flask) -> dict[str, Any]:
    """Return the stored sessions, without the forwarding records that rotations leave."""
    found = {key: msgspec.msgpack.decode(payload) for key, payload in store.payloads(app).items()}
    return {key: items for key, items in found.items() if forwarding_in(items) is None}


def overlapped(app: Flask, path: str, other: Callable[[], Any], change: Callable[[], Any]) -> None:
    """Add a view that loads its session, makes another request, and then changes it."""

    def view() -> str:
        assert session.sid  # type: ignore[attr-defined]  # reads no key
        other()
        change()
        return ""

    app.add_url_rule(path, path.strip("/"), view)


def set_mine() -> None:
    session["mine"] = 1
