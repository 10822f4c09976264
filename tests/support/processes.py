"""Apps in processes of their own: how such a process starts, hears and answers, and its app's settings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from flask import Flask, got_request_exception, session

from tests.support.servers import ROOT, as_child_of_this

Settings = dict[str, Any]

#: Every store that several processes can share, and what its address is: a server's name, or the test's own folder.
SHARED_STORES = {
    "redis": "redis",
    "sqlite": "folder",
    "postgresql": "postgresql",
    "mariadb": "mariadb",
    "memcached": "memcached",
    "mongodb": "mongodb",
    "dynamodb": "dynalite",
    "files": "folder",
}


def command_for(module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``main()`` of a module of the tests.

    The checkout is the last place where it looks for modules, so that an installed package comes first; the folder in
    which it starts is none.
    """
    code = f"import sys; sys.path = [*filter(None, sys.path), {str(ROOT)!r}]; import {module}; {module}.main()"
    return [sys.executable, "-W", "ignore", "-c", code, *arguments]


def run_module(module: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run ``main()`` of a module of the tests in a process of its own, and return what it printed.

    :param timeout: in seconds.
    """
    command = command_for(module, *arguments)
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=timeout)


class Child:
    """A process that runs a function of a test module, and talks with this one in lines of JSON.

    :param module: a module of the tests, by its whole name; its ``main()`` is run.
    """

    def __init__(self, module: str) -> None:
        command, pipe = [*as_child_of_this(), *command_for(module)], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def tell(self, message: Any) -> None:
        """Send a message."""
        assert self._process.stdin is not None
        print(json.dumps(message), file=self._process.stdin, flush=True)

    def hear(self) -> Any:
        """Wait for the next message; a child that ended is an error, and has said why on its own stderr."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the child ended with {self._process.wait(10)}"
        return json.loads(line)

    def ask(self, message: Any) -> Any:
        """Send a message and wait for the answer."""
        self.tell(message)
        return self.hear()

    def stop(self) -> None:
        """Make an end of it."""
        self._process.kill()
        self._process.communicate()  # closes the pipes, broken ones too


def hear() -> Any:
    """In the child: wait for a message; None at the end."""
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def tell(message: Any) -> None:
    """In the child: send a message."""
    print(json.dumps(message), flush=True)  # noqa: T201


def _on_redis(url: str) -> Settings:
    import redis

    return {"SESSION_TYPE": "redis", "SESSION_REDIS": redis.Redis.from_url(url)}


def _on_sql(url: str) -> Settings:
    from flask_sqlalchemy import SQLAlchemy

    return {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": SQLAlchemy(), "SQLALCHEMY_DATABASE_URI": url}


def _on_sqlite(folder: str) -> Settings:
    # Which connection gets SQLite's one lock is random; with many writers, the second that is the default is short.
    return _on_sql(f"sqlite:///{folder}/sessions.db?timeout=60")


def _on_memcached(url: str) -> Settings:
    from pymemcache.client.base import PooledClient

    port = int(url.rpartition(":")[2])
    return {"SESSION_TYPE": "memcached", "SESSION_MEMCACHED": PooledClient(("127.0.0.1", port), no_delay=True)}


def _on_mongodb(url: str) -> Settings:
    from pymongo import MongoClient

    return {"SESSION_TYPE": "mongodb", "SESSION_MONGODB": MongoClient(url)}


def _on_dynamodb(url: str) -> Settings:
    import boto3

    names = {"aws_access_key_id": "dummy", "aws_secret_access_key": "dummy", "region_name": "us-west-2"}
    return {"SESSION_TYPE": "dynamodb", "SESSION_DYNAMODB": boto3.resource("dynamodb", endpoint_url=url, **names)}


def _on_files(folder: str) -> Settings:
    from cachelib import FileSystemCache

    return {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": FileSystemCache(f"{folder}/sessions", threshold=0)}


def _in_memory(_: str) -> Settings:
    from cachelib import SimpleCache

    return {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": SimpleCache(threshold=0)}


_MAKERS: dict[str, Callable[[str], Settings]] = {
    "redis": _on_redis,
    "sqlite": _on_sqlite,
    "postgresql": _on_sql,
    "mariadb": _on_sql,
    "memcached": _on_memcached,
    "mongodb": _on_mongodb,
    "dynamodb": _on_dynamodb,
    "files": _on_files,
    "memory": _in_memory,
}


@contextmanager
def app_on(store: str, address: str, extension: Callable[[Flask], object], **settings: Any) -> Generator[Flask]:
    """Make an app whose sessions are at an address, and close its connections in the end.

    Its pages put what they are asked for into the session.

    :param extension: ``LazySession``, or Flask-Session's ``Session``, on the same client.
    """
    app = Flask("shop", static_folder=None)
    app.logger.disabled = True  # errors are counted instead
    app.config.update(SECRET_KEY="key", **_MAKERS[store](address), **settings)
    database = app.config.get("SESSION_SQLALCHEMY")
    if database is not None:
        database.init_app(app)
    extension(app)
    app.add_url_rule("/set/<key>", "set", _set)
    app.add_url_rule("/look", "look", _look)
    try:
        yield app
    finally:
        _close(app)


def _set(key: str) -> str:
    session[key] = 1
    return ""


def _look() -> dict[str, Any]:
    return {key: session[key] for key in session if key != "_permanent"}


def disconnect(app: Flask) -> None:
    """Close the connections to a database, which are made anew when they are needed."""
    database = app.config.get("SESSION_SQLALCHEMY")
    if database is not None:
        with app.app_context():
            database.engine.dispose()
        handler = getattr(app.session_interface, "handler", None)
        if handler is not None:  # its connections are its own
            handler.backend._engine.dispose()


def _close(app: Flask) -> None:
    disconnect(app)
    for name in ("SESSION_REDIS", "SESSION_MEMCACHED", "SESSION_MONGODB"):
        if app.config.get(name) is not None:
            app.config[name].close()
    if app.config.get("SESSION_DYNAMODB") is not None:
        app.config["SESSION_DYNAMODB"].meta.client.close()


def count_errors(app: Flask) -> Counter[str]:
    """Count the exceptions that requests end with, by their names."""
    errors: Counter[str] = Counter()

    def count(_sender: Flask, exception: BaseException, **_: Any) -> None:
        errors[type(exception).__name__] += 1

    got_request_exception.connect(count, app, weak=False)
    return errors
