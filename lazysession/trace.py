"""Where a request is, in the words of headers and logs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from types import FrameType

from flask import Request, has_request_context, request


def is_called_from(*methods: str) -> bool:
    """Return whether a method of Flask's that has one of these names is running, and has called what asks.

    An app may override such a method. A function of the app's own that has its name counts as well; nothing depends on
    that but the moment at which an error is shown.
    """
    for frame in frames():
        if frame.f_code.co_name == "wsgi_app":
            return False
        if frame.f_code.co_name in methods:
            return True
    return False


def frames() -> Iterator[FrameType]:
    """Return the frames of this thread from the innermost outwards."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def place_of(request: Request) -> str:
    """Return a request's endpoint: its path is the client's, and may hold a secret or the end of a line."""
    return request.endpoint or "unrouted paths"


def this_place() -> str:
    """Return the endpoint of the current request."""
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


#: How much of a description a header holds.
_LONGEST_ORIGIN = 200


def server_timing(origin: str, how: str) -> str:
    """Return the value of a Server-Timing header; names of functions and templates may hold any letters.

    :param origin: who used the session; shortened where it is long.
    :param how: what is shown after it.
    """
    letters = "".join(each if each.isprintable() else "?" for each in origin)
    text = letters.encode("ascii", "backslashreplace").decode().replace("\\", "/").replace('"', "'")
    if len(text) > _LONGEST_ORIGIN:
        text = f"{text[: _LONGEST_ORIGIN // 2]}...{text[-_LONGEST_ORIGIN // 2 :]}"
    return f'session;desc="opened by {text} {how}"'
