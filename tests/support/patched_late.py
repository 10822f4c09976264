"""Apps in a process that gevent patches after they were made, as gunicorn's workers do with --preload.

Greenlets share one thread: a lock that was made before stops all of them, or, where a thread may take it twice, none.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from flask import Flask, copy_current_request_context, session
from flask_session.base import ServerSideSessionInterface

from lazysession import LazySession
from lazysession.backends.generic import GenericBackend
from lazysession.records.locks import lock_for
from tests.support.forking import app_with_url, look_around

VISITORS = 4


def patch() -> Any:
    """Patch, and return gevent."""
    import gevent.monkey

    gevent.monkey.patch_all()
    return gevent


def visits(store: str, address: str) -> None:
    """Use a session, fork, patch, let greenlets use their own at once, and exit with what any of them saw."""
    app = app_with_url(store, address)
    app.logger.disabled = True
    look_around(app, "before", Counter())
    pid = os.fork()
    if pid:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    gevent = patch()
    seen: Counter[str] = Counter()
    greenlets = [gevent.spawn(look_around, app, f"greenlet{number}", seen) for number in range(VISITORS)]
    with gevent.Timeout(60):
        gevent.joinall(greenlets, raise_error=True)
    if +seen:
        sys.exit(str(dict(seen)))


class Client:
    """A client that one greenlet uses at a time."""

    def disconnect_all(self) -> None:
        """Do nothing."""


class Interface(ServerSideSessionInterface):  # type: ignore[misc]  # Flask-Session has no annotations
    """Holds one session, and waits while it is read."""

    client = Client()
    reads = 0

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        import time

        self.reads += 1
        time.sleep(0.05)  # gevent's, once it has patched
        return {"name": "ann"}

    def _upsert_session(self, session_lifetime: timedelta, session: Any, store_id: str) -> None:
        pass

    def _delete_session(self, store_id: str) -> None:
        pass


def locks(lock: str) -> None:
    """Take a lock, patch, and print when two greenlets take it and give it back, and when a third passes by."""
    from lazysession.backends.client_connections import ClientUse

    interface = Interface(Flask("shop"))
    backend, use = GenericBackend(interface), ClientUse(interface)
    makers: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "of a record": lambda: lock_for("key"),
        "of objects": lambda: backend.locked("key"),
        "of a client": use,
    }
    with makers[lock]():
        pass
    gevent = patch()

    def hold(name: str) -> None:
        with makers[lock]():
            print(name)  # noqa: T201
            gevent.sleep(0.1)
            print(name)  # noqa: T201

    def pass_by() -> None:
        gevent.sleep(0.02)
        print("third")  # noqa: T201

    with gevent.Timeout(30):
        greenlets = [gevent.spawn(hold, "first"), gevent.spawn(hold, "second"), gevent.spawn(pass_by)]
        gevent.joinall(greenlets, raise_error=True)


def load() -> None:
    """Patch, use the session of a request in one greenlet, then of one in two, and print how often each was read."""
    app = Flask("shop", static_folder=None)
    app.session_interface = Interface(app)
    LazySession(app)
    gevent = patch()

    @app.get("/<int:count>")
    def home(count: int) -> str:
        looks = [copy_current_request_context(lambda: session["name"]) for _ in range(count)]
        gevent.joinall([gevent.spawn(look) for look in looks], raise_error=True)
        return ""

    interface: Any = app.session_interface
    for count in (1, 2):
        interface.handler.wrapped.reads = 0
        browser = app.test_client()
        browser.set_cookie("session", str(count) * 43)
        assert browser.get(f"/{count}").status_code == 200
        print(interface.handler.wrapped.reads)  # noqa: T201


def main() -> None:
    """Do what the first argument names."""
    {"visits": visits, "locks": locks, "load": load}[sys.argv[1]](*sys.argv[2:])
