"""Calling an app as a WSGI server does, without HTTP."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.test import EnvironBuilder

#: A session id of the right form that no store has.
BOGUS = "session=" + "b" * 43


class Caller:
    """Sends one request to one app, again and again."""

    def __init__(self, app: Flask, path: str, cookie: str | None = None) -> None:
        self._app = app
        self._environ = EnvironBuilder(path=path).get_environ()
        if cookie is not None:
            self._environ["HTTP_COOKIE"] = cookie
        self.status = ""
        self.headers: list[tuple[str, str]] = []

    def once(self, cookie: str | None = None) -> bytes:
        """Send it once, with another cookie if one is given, and return the body."""
        environ = dict(self._environ)
        if cookie is not None:
            environ["HTTP_COOKIE"] = cookie
        body = self._app.wsgi_app(environ, self._start)
        try:
            return b"".join(body)
        finally:
            body.close()  # type: ignore[attr-defined]  # as every response of Werkzeug's has

    def send(self, times: int) -> None:
        """Send it many times."""
        once, check = self.once, self.check
        for _ in range(times):
            once()
            check()

    def check(self) -> None:
        """Raise an error if the last response was one: then the bench measures something else."""
        if not self.status.startswith("200"):
            raise RuntimeError(f"{self._environ['PATH_INFO']} was answered with {self.status or 'nothing'}")

    def new_cookie(self) -> str | None:
        """Return the cookie that the last response set."""
        found = [value for name, value in self.headers if name == "Set-Cookie"]
        return found[-1].partition(";")[0] if found else None

    def _start(self, status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        self.status, self.headers = status, headers


def log_in(app: Flask) -> str:
    """Begin a session and return its cookie."""
    caller = Caller(app, "/login")
    caller.send(1)
    return caller.new_cookie() or BOGUS
