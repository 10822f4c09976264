"""What a client gets when a store fails that is no server: a SQLite file, a directory of cachelib's."""

from __future__ import annotations

import logging
import socket
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session

from lazysession import LazySession
from tests.support.faults import MODES, FaultProxy
from tests.support.stores.base import LIVE, backend_of

KINDS = {
    "Not used": "/untouched",
    "Read": "/read",
    "Read, refresh due": "/read",
    "Changed": "/change",
    "Cleared without a read": "/clear",
}
#: What the client gets, by store and fault, for each of these kinds.
TABLE = {
    ("sqlite", "locked"): ("200", "200", "200", "503", "503"),
    ("sqlite", "no table"): ("200", "503", "503", "503", "503"),
    ("files", "no directory"): ("200", "503", "503", "503", "503"),
}
OLD = {"a": 1}


def settings_of(store: str, folder: Path) -> dict[str, Any]:
    if store == "files":
        return {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": (folder / "sessions").as_uri()}
    return {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": f"sqlite:///{folder}/sessions.db?timeout=0.2"}


@contextmanager
def fault(name: str, folder: Path) -> Generator[None]:
    """Make a store fail until the block ends."""
    if name == "no directory":  # but a file, as this process may be one that permissions do not hold back
        (folder / "sessions").rename(folder / "kept")
        (folder / "sessions").write_text("")
        yield
        (folder / "sessions").unlink()
        (folder / "kept").rename(folder / "sessions")
        return
    with closing(sqlite3.connect(folder / "sessions.db", isolation_level=None)) as other:
        if name == "locked":
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        else:
            other.execute("ALTER TABLE sessions RENAME TO kept")
            yield
            other.execute("ALTER TABLE kept RENAME TO sessions")


@pytest.fixture
def make_app(tmp_path: Path) -> Generator[Callable[[str], Flask]]:
    """A function that makes an app on a store by its name."""
    apps: list[Flask] = []

    def make(store: str) -> Flask:
        app = Flask("shop", static_folder=None)
        app.config.update(SECRET_KEY="key", **settings_of(store, tmp_path))
        LazySession(app)
        app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
        app.add_url_rule("/read", view_func=lambda: str(session.get("a")), endpoint="read")
        app.add_url_rule("/change", view_func=lambda: session.update(a=2) or "", endpoint="change")
        app.add_url_rule("/clear", view_func=lambda: str(session.clear()), endpoint="clear")  # type: ignore[func-returns-value]
        apps.append(app)
        return app

    yield make
    for app in apps:
        engine = getattr(backend_of(app), "_engine", None)
        if engine is not None:
            engine.dispose()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("store", "failing"), TABLE, ids=map("-".join, TABLE))
def test_what_the_client_gets(
    make_app: Callable[[str], Flask],
    tmp_path: Path,
    store: str,
    failing: str,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each cell; what failed is not half done, and the next request finds the session as it was."""
    app = make_app(store)
    expected = TABLE[store, failing][list(KINDS).index(kind)]
    lifetime = app.permanent_session_lifetime.total_seconds()
    payload = app.session_interface.handler.codec.encode({"_permanent": True, **OLD})  # type: ignore[attr-defined]
    left = lifetime / 2 if "refresh" in kind else lifetime
    assert backend_of(app).create(f"session:{LIVE}", payload, left)
    browser = app.test_client()
    browser.set_cookie("session", LIVE)
    with caplog.at_level(logging.WARNING), fault(failing, tmp_path):
        response = browser.get(KINDS[kind])
    assert str(response.status_code) == expected
    assert "Set-Cookie" not in response.headers
    if expected == "200" and "refresh" in kind:
        assert "could not be refreshed" in caplog.text
    assert backend_of(app).read(f"session:{LIVE}").payload == payload
    assert browser.get("/change").status_code == 200


def has_ended(near: socket.socket) -> bool:
    try:
        return near.recv(1) == b""
    except ConnectionResetError:  # the proxy had not come to accept it
        return True


def test_the_proxy_leaves_nothing() -> None:
    """When it is closed, its thread has ended, its connections are cut and its port is free, whatever its mode was."""
    before = threading.active_count()
    for mode in MODES:
        with socket.create_server(("127.0.0.1", 0)) as server:
            with (
                FaultProxy(server.getsockname()[1]) as proxy,
                socket.create_connection(("127.0.0.1", proxy.port)) as near,
            ):
                proxy.mode = mode
                near.settimeout(10)
                assert mode != "refuse" or has_ended(near)
                proxy.close()
                assert mode == "refuse" or has_ended(near)
            assert threading.active_count() == before
            socket.create_server(("127.0.0.1", proxy.port)).close()


def test_each_answer_is_delayed() -> None:
    """In the mode ``slow`` an answer comes as it was sent, in one piece with its rest, after the delay."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        FaultProxy(server.getsockname()[1], mode="slow", delay=0.005) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port)) as near,
        server.accept()[0] as far,
    ):
        for number in range(3):
            near.sendall(b"question")
            assert far.recv(100) == b"question"
            far.sendall(b"answer " * 3000)
            received = b""
            while len(received) < 7 * 3000:
                received += near.recv(2**16)
            assert received == b"answer " * 3000
            assert len(proxy.trips) == number + 1
