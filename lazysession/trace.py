"""Who asked for the session, and where, in the words of headers and logs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import FrameType

from flask import Request, has_request_context, request

_MACHINERY = ("lazysession", "werkzeug.local", "flask.ctx", "flask.globals", "_collections_abc", "collections.abc")


def caller() -> str:
    """Answer ``"module:function:line"`` of the code whose use of the session is running now."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and _is_machinery(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    if frame is None:
        return "unknown"
    return f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_name}:{frame.f_lineno}"


def is_called_from(*methods: str) -> bool:
    """Return whether a method of Flask's that has one of these names is running, and has called what asks.

    An app may override such a method. A function of the app's own that has its name counts as well; nothing depends on
    that but the moment at which an error is shown.
    """
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "wsgi_app":
        if frame.f_code.co_name in methods:
            return True
        frame = frame.f_back
    return False


def place_of(request: Request) -> str:
    """Answer a request's endpoint: its path is the client's, and may hold a secret or the end of a line."""
    return request.endpoint or "unrouted paths"


def this_place() -> str:
    """Answer the endpoint of the current request."""
    return place_of(request) if has_request_context() else "no request"


def names(keys: Iterable[object]) -> str:
    """Return the names of keys for a log line, the first five of them."""
    sorted_names = sorted(map(repr, keys))
    return ", ".join(sorted_names[:5]) + (", ..." if len(sorted_names) > 5 else "")


class Once:
    """Says what has to be logged once per endpoint."""

    def __init__(self) -> None:
        self._places: set[str] = set()

    def first(self, place: str) -> bool:
        """Return whether this is the first time for an endpoint, or an endpoint and a reason."""
        if place in self._places:
            return False
        self._places.add(place)
        return True


def server_timing(description: str) -> str:
    """Answer the value of a Server-Timing header; names of functions may hold any letters, headers may not."""
    text = description.encode("ascii", "backslashreplace").decode().replace("\\", "/").replace('"', "'")
    return f'session;desc="{text}"'


def _is_machinery(module: str) -> bool:
    return module in _MACHINERY or module.startswith("lazysession.")
