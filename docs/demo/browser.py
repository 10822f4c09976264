"""A client that fetches pages as a browser does: cookies, a cache that revalidates, six connections to one host."""

from __future__ import annotations

import hashlib
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from types import TracebackType
from typing import Literal
from urllib.parse import urlencode, urljoin

import urllib3
from counting import RECORD, StoreCounts

#: The number of connections that browsers open to one host over HTTP/1.1.
CONNECTIONS = 6
_FETCHED_RELATIONS = {"stylesheet", "preload", "icon", "manifest"}
#: What a request is for: a posted form, the page itself, or something that the page contains.
Role = Literal["form", "page", "part"]


class Subresources(HTMLParser):
    """Collects what a browser fetches for a page: scripts, stylesheets, images, preloads, icons, the manifest."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: dict[str, None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the URL of one tag."""
        values = dict(attrs)
        path = None
        if tag in {"script", "img"}:
            path = values.get("src")
        elif tag == "link" and values.get("rel") in _FETCHED_RELATIONS:
            path = values.get("href")
        if path:
            self.paths[path] = None


@dataclass(frozen=True)
class Answer:
    """One response of the server, whether the request carried a cookie, and what it sent to the store."""

    path: str
    role: Role
    cookie_sent: bool
    status: int
    digest: str
    cookies_set: int
    varies_by_cookie: bool
    store: StoreCounts
    location: str | None
    text: str


@dataclass
class Visit:
    """Everything that was fetched for one page view, and how long it took."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def contents(self) -> dict[str, tuple[int, str]]:
        """Status and content by path, to compare with another server. A 304 counts as the response that it confirms."""
        return {answer.path: (200 if answer.status == 304 else answer.status, answer.digest) for answer in self.answers}


class Browser:
    """One visitor: a cookie jar and a cache of its own, connections that stay open."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._jar = CookieJar()
        self._cache: dict[str, tuple[str, str]] = {}
        self._http = urllib3.PoolManager(num_pools=1, maxsize=CONNECTIONS, retries=False, timeout=30)
        self._threads = ThreadPoolExecutor(CONNECTIONS)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._threads.shutdown()
        self._http.clear()

    def open(self, path: str) -> Visit:
        """View a page: the page first, then everything in it, six at a time."""
        return self._view([], path, time.perf_counter())

    def submit(self, path: str, fields: dict[str, str]) -> Visit:
        """Post a form, then view the page that it redirects to."""
        started = time.perf_counter()
        posted = self._fetch(path, "form", urlencode(fields))
        return self._view([posted], posted.location or path, started)

    def _view(self, before: list[Answer], path: str, started: float) -> Visit:
        page = self._fetch(path, "page")
        found = Subresources()
        found.feed(page.text)
        rest = list(self._threads.map(self._fetch, found.paths))
        return Visit([*before, page, *rest], time.perf_counter() - started)

    def _fetch(self, path: str, role: Role = "part", form: str | None = None) -> Answer:
        url = urljoin(self._origin, path)
        asked = urllib.request.Request(url)  # never sent: the jar needs the URL
        self._jar.add_cookie_header(asked)
        headers = dict(asked.header_items())
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif url in self._cache:
            headers["If-None-Match"] = self._cache[url][0]
        method = "GET" if form is None else "POST"
        response = self._http.request(method, url, body=form, headers=headers, redirect=False)
        self._jar.extract_cookies(response, asked)  # type: ignore[arg-type]  # it only needs info()
        return Answer(
            path=path,
            role=role,
            cookie_sent="Cookie" in headers,
            status=response.status,
            digest=self._digest(url, response),
            cookies_set=len(response.headers.getlist("Set-Cookie")),
            varies_by_cookie="cookie" in response.headers.get("Vary", "").lower(),
            store=StoreCounts(*map(int, response.headers[RECORD].split())),
            location=response.headers.get("Location"),
            text=response.data.decode() if "text/html" in response.headers.get("Content-Type", "") else "",
        )

    def _digest(self, url: str, response: urllib3.BaseHTTPResponse) -> str:
        """Return a digest of the content, and keep it in the cache if the response can be revalidated."""
        if response.status == 304:
            return self._cache[url][1]
        digest = hashlib.sha256(response.data).hexdigest()
        if etag := response.headers.get("ETag"):
            self._cache[url] = (etag, digest)
        return digest
