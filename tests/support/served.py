"""A threaded HTTP server for an app, and a client that leaves cookies to its caller."""

from __future__ import annotations

import http.client
import re
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.support.processes import SHARED_STORES

_SESSION_COOKIE = re.compile(r"session=([^;]*)")


class _Handler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Print no access log."""


@contextmanager
def serving(app: Flask) -> Generator[int]:
    """Serve an app on a free port, each request in a thread of its own, until the block ends; yield the port."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Answer(NamedTuple):
    """A response.

    :param cookie: the session cookie that it sets; empty where it deletes it, None where it does neither.
    """

    status: int
    body: str
    cookie: str | None


class Connection:
    """A tab of a browser: one request at a time. Werkzeug's server closes the connection after each."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str, cookie: str | None = None, **headers: str) -> Answer:
        """Return the response to a GET request with a session cookie."""
        return self._request("GET", path, None, cookie, headers)

    def post(self, path: str, form: dict[str, str], cookie: str | None = None, **headers: str) -> Answer:
        """Return the response to a POST request with a form; a redirect is not followed."""
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return self._request("POST", path, urlencode(form), cookie, headers)

    def _request(self, method: str, path: str, body: str | None, cookie: str | None, headers: dict[str, str]) -> Answer:
        if cookie:
            headers["Cookie"] = f"session={cookie}"
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        text = response.read().decode()
        set_cookies = [_SESSION_COOKIE.match(line) for line in response.headers.get_all("Set-Cookie") or ()]
        return Answer(response.status, text, next((match[1] for match in set_cookies if match), None))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def open_shared(request: pytest.FixtureRequest) -> Generator[tuple[str, str]]:
    """Yield the name and address of the store that is the parameter of a fixture; a folder is in memory if possible.

    On a busy disk, a thousand tries on SQLite waited two minutes for its commits to be written.
    """
    needs = SHARED_STORES[request.param]
    if needs != "folder":
        yield request.param, request.getfixturevalue(f"{needs}_url")
        return
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield request.param, folder
