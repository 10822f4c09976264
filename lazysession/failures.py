"""A failed load: its error is raised at every use of the session, until Flask handles an exception of the request.

After that, and in functions for after_request and teardown, the session is an empty one of which nothing is saved.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Request, Response, after_this_request
from flask import request as current_request
from werkzeug.datastructures import Headers

from .errors import SessionUnavailable
from .logs import is_called_from

#: What runs functions for after_request and teardown.
_HOOKS = ("process_response", "do_teardown_request", "do_teardown_appcontext")


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
    #: The headers of the response that was made the response to the failure.
    lazy_rendered: Headers | None = None
    if TYPE_CHECKING:
        lazy_request: Request


def goes_on_empty(session: Failures, error: Exception) -> bool:
    """Remember why the session could not be loaded, and return whether an empty session takes its place already."""
    attributes = session.__dict__  # past DeferredSession.__setattr__
    if session.lazy_failure is None:
        attributes["lazy_failure"] = Failure.of(error)
        if is_current(session.lazy_request):
            after_this_request(_handled_by(attributes))
    if not session.lazy_handled and is_called_from(*_HOOKS):
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
