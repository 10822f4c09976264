"""Serve two shops at once, show one of them, and count what each request cost in either.

A browser sees one shop. Each of its requests goes to the other as well, with that shop's own session cookie, so both
get the same visitors. What belongs to one page view is what came since a browser last opened a page: two browsers at
the same time are counted as one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from counting import SqlCounter
from stores import Sessions
from werkzeug.datastructures import Headers
from werkzeug.http import parse_cookie
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: The footer of each page asks here for the costs; this request is not counted.
PATH = "/costs-of-this-page"


@dataclass
class PageView:
    """The requests of one page view, which of them used the session, and the costs in each shop."""

    requests: int = 0
    with_cookie: int = 0
    used: list[str] = field(default_factory=list)
    used_at_no_cost: list[str] = field(default_factory=list)
    round_trips: dict[Sessions, int] = field(default_factory=lambda: dict.fromkeys(Sessions, 0))
    cookies_set: dict[Sessions, int] = field(default_factory=lambda: dict.fromkeys(Sessions, 0))

    def add(self, environ: WSGIEnvironment, headers: dict[Sessions, Headers], trips: dict[Sessions, int]) -> None:
        """Count one request. LazySession adds ``Vary: Cookie`` where the session was used, and nowhere else."""
        self.requests += 1
        self.with_cookie += bool(session_cookie(environ.get("HTTP_COOKIE")))
        if "cookie" in headers[Sessions.LAZY].get("Vary", "").lower():
            used = self.used if trips[Sessions.LAZY] else self.used_at_no_cost
            used.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        for one in Sessions:
            self.round_trips[one] += trips[one]
            self.cookies_set[one] += len(headers[one].getlist("Set-Cookie"))

    def as_json(self) -> str:
        """Return the numbers for the footer: of LazySession first."""
        order = (Sessions.LAZY, Sessions.FLASK_SESSION)
        return json.dumps(
            {
                "used": self.used,
                "usedAtNoCost": self.used_at_no_cost,
                "rows": [
                    ["Requests", self.requests, self.requests],
                    ["of them with a session cookie", self.with_cookie, self.with_cookie],
                    ["Round trips to the store", *(self.round_trips[one] for one in order)],
                    ["Set-Cookie headers", *(self.cookies_set[one] for one in order)],
                ],
            }
        )


class SideBySide:
    """The WSGI app that serves both shops; ``shown`` is the one whose responses the browser gets."""

    def __init__(self, shops: dict[Sessions, WSGIApplication], shown: Sessions, counter: SqlCounter) -> None:
        self._shops, self._shown, self._counter = shops, shown, counter
        self._other = next(one for one in Sessions if one is not shown)
        self._lock = threading.Lock()
        self._view = PageView()
        self._after_form = False
        self._cookies: dict[str, str] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request by both shops; a request for the costs is not counted."""
        if environ["PATH_INFO"] == PATH:
            return Response(self._view.as_json(), mimetype="application/json")(environ, start_response)
        view = self._view_of(environ)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        trips: dict[Sessions, int] = {}
        answers = {one: self._ask(one, environ, body, trips) for one in (self._shown, self._other)}
        headers = {one: answer[2] for one, answer in answers.items()}
        with self._lock:
            view.add(environ, headers, trips)
            self._pair_cookies(environ, headers)
        content, status, own_headers = answers[self._shown]
        start_response(status, list(own_headers))
        return content

    def _view_of(self, environ: WSGIEnvironment) -> PageView:
        """Return the page view of a request; only what opens a page accepts HTML first, and a form opens the next."""
        with self._lock:
            if environ.get("HTTP_ACCEPT", "").startswith("text/html"):
                if not self._after_form:
                    self._view = PageView()
                self._after_form = environ["REQUEST_METHOD"] == "POST"
            return self._view

    def _ask(
        self, one: Sessions, environ: WSGIEnvironment, body: bytes, trips: dict[Sessions, int]
    ) -> tuple[Iterable[bytes], str, Headers]:
        """Return a shop's response, and count the round trips of this thread meanwhile."""
        own: dict[str, Any] = {**environ, "wsgi.input": BytesIO(body)}
        if one is self._other and (cookie := session_cookie(environ.get("HTTP_COOKIE"))):
            own["HTTP_COOKIE"] = f"session={self._cookies.get(cookie, cookie)}"
        before = self._counter.counts_of_this_thread().round_trips
        answer = run_wsgi_app(self._shops[one], own, buffered=True)
        trips[one] = self._counter.counts_of_this_thread().round_trips - before
        return answer

    def _pair_cookies(self, environ: WSGIEnvironment, headers: dict[Sessions, Headers]) -> None:
        """Remember which session cookie of the other shop belongs to the one that the browser has."""
        came = session_cookie(environ.get("HTTP_COOKIE"))
        shown = session_cookie(headers[self._shown].get("Set-Cookie")) or came
        other = session_cookie(headers[self._other].get("Set-Cookie")) or self._cookies.get(came)
        if shown and other:
            self._cookies[shown] = other


def session_cookie(header: str | None) -> str:
    """Return the session cookie of a Cookie or Set-Cookie header; empty if there is none."""
    return parse_cookie(header or "").get("session", "")
