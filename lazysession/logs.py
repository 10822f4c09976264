"""Parts of log messages: the endpoint of a request, and names of keys; messages that are logged once per endpoint."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from traceback import walk_stack

from flask import Request, has_request_context, request

from .pages import Page, see

logger = logging.getLogger("lazysession")


class Once:
    """Logs each message once per endpoint."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def warn(self, message: str, place: str, *values: object, page: Page | None = None) -> None:
        """Log a message, unless it was logged for this endpoint before.

        :param message: with a placeholder for the endpoint, and then those for ``values``.
        :param place: the endpoint, as :func:`place_of` returns it.
        :param page: where the docs say what to do.
        """
        if (message, place) not in self._logged:
            self._logged.add((message, place))
            end = "" if page is None else f" {see(page)}"
            logger.warning(f"{message} Logged once per endpoint.%s", place, *values, end)


def place_of(request: Request) -> str:
    """Return a request's endpoint. Its path is not logged: it may contain a secret or a newline."""
    return request.endpoint or "unrouted paths"


def this_place() -> str:
    """Return the endpoint of the current request."""
    return place_of(request) if has_request_context() else "no request"


def names(keys: Iterable[object]) -> str:
    """Return the names of keys for a log line, the first five of them."""
    sorted_names = sorted(map(repr, keys))
    return ", ".join(sorted_names[:5]) + (", ..." if len(sorted_names) > 5 else "")


def is_called_from(*methods: str) -> bool:
    """Return whether a method of Flask with one of these names is on the call stack, even if the app overrides it.

    A function of the app with such a name counts as well. This only changes when an error is shown.
    """
    for frame, _ in walk_stack(inspect.currentframe()):
        if frame.f_code.co_name == "wsgi_app":
            return False
        if frame.f_code.co_name in methods:
            return True
    return False
