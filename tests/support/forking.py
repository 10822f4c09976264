"""Workers that are forked as uWSGI forks them by default: in C, where Python's at-fork hooks do not run."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, session
from flask.sessions import SessionInterface
from flask_sqlalchemy import SQLAlchemy

from lazysession import LazySession

#: Workers of one app, the requests of each, and how many sessions take turns in each.
WORKERS, REQUESTS, VISITORS = 3, 60, 3

#: Every store that processes can share, and what its address is: a server's name, or the test's own folder.
STORES = {
    "redis": "redis",
    "sqlite": "folder",
    "postgresql": "postgresql",
    "psycopg2": "postgresql",
    "mariadb": "mariadb",
    "memcached": "memcached",
    "mongodb": "mongodb",
    "dynamodb": "dynalite",
    "files": "folder",
}
#: The same for clients of the app's own.
CLIENTS = {
    "flask-sqlalchemy": "postgresql",
    "pymemcache": "memcached",
    "pylibmc": "memcached",
    "python-memcached": "memcached",
}
#: The same behind an interface with storage methods of its own, which LazySession calls.
OVERRIDDEN = {f"overridden {name}": "memcached" for name in ("pymemcache", "PooledClient", "HashClient", "pylibmc")}
OVERRIDDEN["overridden python-memcached"] = "memcached"


def fork_in_c(work: Callable[[], None]) -> Callable[[], bool]:
    """Run in a process that C forked; call the result to wait for its end, and to get whether it succeeded.

    ``PyDLL`` keeps the interpreter's lock through the call, as uWSGI does.
    """
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        signal.alarm(30)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return lambda: os.waitpid(pid, 0)[1] == 0


def app_with_url(store: str, address: str) -> Flask:
    """Make an app whose store is named by a URL, with a page that writes the session and one that shows it."""
    app = Flask("shop", static_folder=None)
    app.config.update(SECRET_KEY="key", **settings_of(store, address))
    database = app.config.get("SESSION_SQLALCHEMY")
    if isinstance(database, SQLAlchemy):
        database.init_app(app)
    if store in OVERRIDDEN:
        app.session_interface = overriding(app)
    LazySession(app)

    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["name"] = name
        session["data"] = [name] * 50
        return name

    @app.get("/")
    def home() -> str:
        name = str(session.get("name", ""))
        return name if session.get("data", [""]) == [name] * 50 or not name else "torn"

    return app


def overriding(app: Flask) -> SessionInterface:
    """Return an interface on the app's client of memcached with a storage method of its own, as one that encrypts."""
    from flask_session.memcached import MemcachedSessionInterface

    class Overriding(MemcachedSessionInterface):  # type: ignore[misc]  # Flask-Session has no annotations
        def _retrieve_session_data(self, store_id: str) -> Any:
            return super()._retrieve_session_data(store_id)

    interface: SessionInterface = Overriding(app, client=app.config["SESSION_MEMCACHED"])
    return interface


def clients_of(store: str, address: str) -> dict[str, object]:
    """Return the settings of a store whose client, or Flask-SQLAlchemy object, is the app's own."""
    server = address.removeprefix("memcached://")
    if store == "flask-sqlalchemy":
        return {"SESSION_SQLALCHEMY": SQLAlchemy(), "SQLALCHEMY_DATABASE_URI": address, "SESSION_TYPE": "sqlalchemy"}
    store = store.removeprefix("overridden ")
    if store == "pymemcache":
        client: object = importlib.import_module("pymemcache.client.base").Client(server, default_noreply=False)
    elif store == "PooledClient":
        client = importlib.import_module("pymemcache.client.base").PooledClient(server, default_noreply=False)
    elif store == "HashClient":
        client = importlib.import_module("pymemcache.client.hash").HashClient([server])
        for each in client.clients.values():
            each.default_noreply = False
    elif store == "pylibmc":
        client = importlib.import_module("pylibmc").Client([server], binary=False)
    else:
        client = importlib.import_module("memcache").Client([server])
    return {"SESSION_TYPE": "memcached", "SESSION_MEMCACHED": client}


def settings_of(store: str, address: str) -> dict[str, object]:
    """Return the settings of a store that is named by a URL.

    :param address: the URL of its server, or a folder.
    """
    if store in CLIENTS or store in OVERRIDDEN:
        return clients_of(store, address)
    if store == "sqlite":
        return {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": f"sqlite:///{address}/sessions.db?timeout=20"}
    if store in ("postgresql", "psycopg2", "mariadb"):
        url = address.replace("+psycopg:", "+psycopg2:") if store == "psycopg2" else address
        return {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": url}
    if store == "files":
        return {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": f"{address}/sessions", "SESSION_FILE_THRESHOLD": 0}
    if store == "dynamodb":
        os.environ |= {"AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy"}
        return {
            "SESSION_TYPE": "dynamodb",
            "SESSION_DYNAMODB": f"dynamodb://us-west-2/Sessions?endpoint_url={address}",
        }
    return {"SESSION_TYPE": store, f"SESSION_{store.upper()}": address}


def look_around(app: Flask, worker: str, seen: Counter[str]) -> None:
    """Log in some visitors, and count whose pages they get."""
    visitors = {f"{worker}-{number}": app.test_client() for number in range(VISITORS)}
    for name, client in visitors.items():
        seen["error"] += client.get(f"/login/{name}").status_code != 200
    for number in range(REQUESTS):
        name, client = list(visitors.items())[number % VISITORS]
        response = client.get("/")
        if response.status_code != 200:
            seen["error"] += 1
        elif response.text != name:
            seen["another visitor's" if response.text else "lost"] += 1


def main() -> None:
    """Use a session, fork workers that use their own at once, and exit with what any of them saw."""
    store, address, before = sys.argv[1:]
    app = app_with_url(store, address)
    app.logger.disabled = True
    if before == "used":
        look_around(app, "before", Counter())

    def work(worker: str) -> None:
        seen: Counter[str] = Counter()
        look_around(app, worker, seen)
        assert not +seen, f"{worker}: {dict(seen)}"

    ends = [fork_in_c(partial(work, f"worker{number}")) for number in range(WORKERS)]
    work("parent")
    went_well = [end() for end in ends]
    sys.exit(not all(went_well))
