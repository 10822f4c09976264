"""Putting an error into a response that is made already: while Flask saves a session it handles no errors any more."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from flask import Flask, Response
from flask import request as current_request
from flask.ctx import AppContext

from .cookies import forbid_storing, vary_by_cookie

logger = logging.getLogger("lazysession")

#: Headers that are about the body or the success of the old response, or let caches keep it.
_GO_WITH_THE_BODY = frozenset(
    {
        "accept-ranges",
        "age",
        "cache-control",
        "clear-site-data",
        "content-digest",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-length",
        "content-location",
        "content-md5",
        "content-range",
        "content-type",
        "digest",
        "etag",
        "expires",
        "last-modified",
        "location",
        "pragma",
        "refresh",
        "repr-digest",
        "set-cookie",
        "transfer-encoding",
        "x-lighttpd-send-file",
        "x-sendfile",
    }
)
#: The same, by prefix: headers for nginx (another file, its cache) and for htmx (another page).
_GO_BY_PREFIX = ("x-accel-", "hx-")


def render(app: Flask, error: Exception, response: Response) -> None:
    """Make a response what the app's error handlers make of an error; functions for after_request do not run again.

    What they added to the response stays, except what belonged to its body. An HTTP error without a handler is its
    default page.

    :raises Exception: the error itself where no handler takes it, or what a handler raises.
    """
    rendered = app.make_response(_handle(app, error))
    _take_body(response, rendered)
    _take_headers(response, rendered)
    forbid_storing(response)
    vary_by_cookie(response)


def _handle(app: Flask, error: Exception) -> Any:
    """Return what the app's error handlers return, which may be anything that a view may return."""
    handle: Any = app.handle_user_exception
    try:
        raise error  # it is raised again by Flask where there is no handler
    except Exception as raised:
        if _TAKES_CONTEXT:
            return handle(_context(app), raised)
        return handle(raised)


#: Flask's main branch passes the context; only its request is looked at.
_TAKES_CONTEXT = "ctx" in inspect.signature(Flask.handle_user_exception).parameters


def _context(app: Flask) -> AppContext:
    make: Any = AppContext
    context: AppContext = make(app, request=current_request._get_current_object())  # type: ignore[attr-defined]
    return context


def _take_body(response: Response, rendered: Response) -> None:
    close = getattr(response.response, "close", None)
    if close is not None:
        try:
            close()
        except Exception:  # whatever the body of an app raises; the error that is shown is another one
            logger.exception("The body of a response could not be closed.")
    response.status = rendered.status
    response.response = rendered.response
    response.direct_passthrough = rendered.direct_passthrough
    response.call_on_close(rendered.close)


def _take_headers(response: Response, rendered: Response) -> None:
    headers = response.headers
    for name in {name.lower() for name in headers.keys()}:  # noqa: SIM118 - iterating Headers gives pairs
        if name in _GO_WITH_THE_BODY or name.startswith(_GO_BY_PREFIX):
            del headers[name]
    for name in {name.lower(): name for name in rendered.headers.keys()}.values():  # noqa: SIM118
        if name.lower() == "vary":
            response.vary.update(rendered.vary)
        else:
            headers.setlist(name, rendered.headers.getlist(name))
