"""A failed load: its error is raised at every use of the session, until Flask handles an exception of the request.

After that, and in functions for after_request and teardown, the session is an empty one of which nothing is saved.
"""

from __future__ import annotations

import inspect
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask, Request, Response, after_this_request
from flask import request as current_request

from .errors import SessionUnavailable


class Failure(NamedTuple):
    """Why the session could not be loaded or saved.

    :param traceback: where the error came from; each further raise would add to the error's own.
    """

    error: Exception
    traceback: TracebackType | None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return the failure of an error; one that only interrupts (a timeout of gevent's) counts as the store's."""
        if isinstance(error, Exception):
            return cls(error, error.__traceback__)
        unavailable = SessionUnavailable()
        unavailable.__cause__ = error
        return cls(unavailable, None)

    def again(self) -> Exception:
        """Return the error, to be raised once more."""
        return self.error.with_traceback(self.traceback)


class Failures:
    """What a deferred session knows of its failures; class attributes are the defaults, so that these cost nothing."""

    #: Why it could not be loaded, and why it could not be saved.
    lazy_failure: Failure | None = None
    lazy_save_failure: Failure | None = None
    #: Saving has begun, or failed.
    lazy_failed = False
    #: Flask has handled an exception of the request, or runs after_request: a failed load is an empty session now.
    lazy_handled = False
    #: The app's error handlers were asked for the response to the failure.
    lazy_answered = False
    if TYPE_CHECKING:
        lazy_request: Request


def goes_on_empty(session: Failures, error: Exception) -> bool:
    """Remember why the session could not be loaded, and return whether an empty session takes its place already."""
    attributes = session.__dict__  # past DeferredSession.__setattr__
    if session.lazy_failure is None:
        attributes["lazy_failure"] = Failure.of(error)
        if is_current(session.lazy_request):
            after_this_request(_handled_by(attributes))
    if not session.lazy_handled and _is_in_hook():
        attributes["lazy_handled"] = True
    return session.lazy_handled


def is_current(request: Request) -> bool:
    """Return whether this is the request that Flask works on in this thread."""
    try:
        current = current_request._get_current_object()  # type: ignore[attr-defined]  # documented by Werkzeug
    except RuntimeError:
        return False
    return current is request


def _handled_by(attributes: dict[str, Any]) -> Any:
    """Return what Flask calls before all functions for after_request, also before those that run in other threads."""

    def mark(response: Response) -> Response:
        attributes["lazy_handled"] = True
        return response

    return mark


_HOOKS = {
    inspect.unwrap(method).__code__
    for method in (Flask.process_response, Flask.do_teardown_request, Flask.do_teardown_appcontext)
}
_REQUEST = inspect.unwrap(Flask.wsgi_app).__code__


def _is_in_hook() -> bool:
    """Return whether a function for after_request or teardown is running; asked only where a load has failed."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code is not _REQUEST:
        if frame.f_code in _HOOKS:
            return True
        frame = frame.f_back
    return False
