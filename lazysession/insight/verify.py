"""Compares a front server with the app behind it: sends the same requests to both and compares the responses."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from flask import Flask

from .locations import Location, Plan

#: The headers that matter to a browser or a cache; others, such as ETag, differ between servers.
HEADERS = (
    "Content-Type",
    "Content-Length",
    "Content-Encoding",
    "Cache-Control",
    "Vary",
    "Location",
    "WWW-Authenticate",
)
_TIMEOUT = 10  # seconds
_MISSING = "lazysession-verify.missing"


@dataclass(frozen=True)
class Fetched:
    """A response, as far as it is compared.

    :param fault: why there is none.
    """

    status: int = 0
    headers: tuple[tuple[str, str | None], ...] = ()
    sets_cookie: bool = False
    body: bytes = b""
    fault: str | None = None


def is_address(url: str) -> bool:
    """Return whether a URL names a server by HTTP or HTTPS, and nothing else."""
    try:
        parts = urlsplit(url)
        plain = parts.username is None and parts.port != 0 and parts.path in ("", "/")
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain and not (parts.query or parts.fragment)


def verify(app: Flask, plan: Plan, url: str) -> tuple[int, list[str]]:
    """Return how many paths were compared, and a sentence for each difference.

    These requests have no cookie: what the app refuses, the front server has to refuse too.
    """
    paths = list(dict.fromkeys(path for location in plan.locations for path in _paths_of(plan, location)))
    differences = []
    for count, path in enumerate(paths):
        behind = _ask_app(app, url, path)
        front = _ask_front(url, path, len(behind.body) + 1)
        differences += [f"{path}: {each}" for each in differ(front, behind)]
        if front.fault is not None:
            return count, differences  # all other requests would fail, too
    return len(paths), differences


def _paths_of(plan: Plan, location: Location) -> Iterator[str]:
    """Yield a file of each suffix that the front server sends, of each kind that the app sends, and a missing one."""
    groups: dict[object, list[tuple[int, str]]] = {}
    for size, name in _files_in(location.folder):
        path = location.url + name
        taken = next((each for each in location.taken_back if each.matches(path)), None)
        groups.setdefault(taken if not plan.serves(path) else _suffix(name), []).append((size, path))
    yield from (quote(min(files)[1]) for files in groups.values())
    yield quote(location.url + _MISSING)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _files_in(folder: str) -> Iterator[tuple[int, str]]:
    """Yield the size and the name of each file in a folder and below."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            if os.path.isfile(path) and path.isprintable():
                yield os.path.getsize(path), os.path.relpath(path, folder).replace(os.sep, "/")


def _ask_app(app: Flask, url: str, path: str) -> Fetched:
    """Fetch a path from the app in this process."""
    try:
        with app.test_client().get(path, base_url=url, buffered=True) as response:
            said = tuple((name, response.headers.get(name)) for name in HEADERS)
            return Fetched(response.status_code, said, "Set-Cookie" in response.headers, response.data)
    except Exception as error:  # in debug mode and in tests, Flask raises what a view raises
        return Fetched(fault=type(error).__name__)


def _ask_front(url: str, path: str, most: int) -> Fetched:
    """Fetch a path from the front server, following no redirect.

    :param most: how many bytes of the body are read at most, because a response may never end.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        with closing(kind(parts.hostname or "", parts.port, timeout=_TIMEOUT)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            said = tuple((name, response.getheader(name)) for name in HEADERS)
            return Fetched(response.status, said, response.getheader("Set-Cookie") is not None, response.read(most))
    except (OSError, UnicodeError, http.client.HTTPException) as error:  # UnicodeError: no host can have this name
        return Fetched(fault=type(error).__name__)


def differ(front: Fetched, app: Fetched) -> Iterator[str]:
    """Yield what differs between the responses of the front server and of the app, without any part of a body."""
    if front.fault is not None or app.fault is not None:
        yield from (f"the request to the front server failed ({front.fault})",) if front.fault else ()
        yield from (f"the request to the app failed ({app.fault})",) if app.fault else ()
        return
    if front.status != app.status:
        yield f"the status is {front.status} from the front server, {app.status} from the app"
        return
    for (name, one), (_, other) in zip(front.headers, app.headers, strict=True):
        if one != other and not (name == "Content-Length" and None in (one, other)):
            yield f"{name} is {one!r} from the front server, {other!r} from the app"
    if front.sets_cookie and not app.sets_cookie:
        yield "the front server sets a cookie, the app does not"
    if front.status == 200 and front.body != app.body:
        yield "the bytes of the file differ"
