"""The end of a request whose session could not be loaded or saved: its response never reports success."""

from __future__ import annotations

from typing import Any, Protocol

from flask import Flask, Response
from flask import session as current_session

from .cookies import forbid_storing, vary_by_cookie
from .errors import SessionConflict, SessionUnavailable
from .failures import Failure
from .logs import Once, is_called_from, place_of
from .rendering import render
from .session import DeferredSession
from .use import Opened


class Closes(Protocol):
    """What is needed of a session handler."""

    def close(self, app: Flask, opened: Opened, response: Response) -> None:
        """Bring store and response up to date with the session."""
        ...


class Finishing:
    """Saves sessions; where that fails, or the load had failed, the response becomes an error.

    Only where Flask itself saves is the response the one that goes out. The error is raised to all other callers: code
    of the app that saves by hand, and the test client's ``session_transaction``.
    """

    def __init__(self) -> None:
        self._once = Once()

    def save(self, handler: Closes, app: Flask, session: DeferredSession, opened: Opened, response: Response) -> None:
        """Save a session, or finish the response of a request that failed to: a failed write is not tried again.

        :param handler: saves it.
        :raises SessionConflict: when the change was refused and Flask is not the caller.
        :raises SessionUnavailable: when the store failed and Flask is not the caller.
        """
        if session.lazy_failed:
            self._after_failed_save(app, session, response)
            return
        attributes = session.__dict__  # the quickest way past __setattr__
        attributes["lazy_failed"] = True
        try:
            handler.close(app, opened, response)
        except (SessionConflict, SessionUnavailable) as error:
            attributes["lazy_save_failure"] = failure = Failure.of(error)
            if not _is_saved_by_flask():
                raise
            if response.status_code < 500:
                self._render(app, session, failure, response)
            else:
                self._remove_cookies(session, response)
            self._log_failed_save(session, error, response)
        except BaseException as error:
            attributes["lazy_save_failure"] = Failure.of(error)
            raise
        else:
            attributes["lazy_failed"], attributes["lazy_closed"] = False, True

    def _after_failed_save(self, app: Flask, session: DeferredSession, response: Response) -> None:
        failure = session.lazy_save_failure
        if failure is None:  # it is being saved, and a receiver of a signal saves it again
            return
        if not _is_saved_by_flask():
            raise failure.again()
        if self._reports_success(session, response):
            self._render(app, session, failure, response)
            self._log_failed_save(session, failure.error, response)

    def after_failed_load(self, app: Flask, session: DeferredSession, response: Response) -> None:
        """Finish the response of a request whose session could not be loaded.

        :raises Exception: the error of the load, when Flask is not the caller and has not handled an error.
        """
        failure, by_flask = session.lazy_failure, _is_saved_by_flask()
        if failure is None or not (by_flask or session.lazy_handled):
            raise AssertionError if failure is None else failure.again()
        vary_by_cookie(response)
        forbid_storing(response)
        self._remove_cookies(session, response)
        if by_flask and self._reports_success(session, response):
            self._render(app, session, failure, response)
            self._log(
                session,
                "The response of %s was replaced by a %d, as its session could not be loaded (%s) and the error was "
                "caught. Let it pass, or register an error handler.",
                response.status_code,
                _client_error(failure.error),
            )
        if session.lazy_opened is not None and session.lazy_opened.session.modified:
            self._log(
                session,
                "A change of the session by %s was not saved: the session could not be loaded. Do not write to it in "
                "error handlers and functions for after_request.",
            )

    def _reports_success(self, session: DeferredSession, response: Response) -> bool:
        """Return whether a response is under 400 and not what the app's own error handler made of the failure."""
        is_rendered = response.headers is session.lazy_rendered
        return response.status_code < 400 and not session.lazy_answered and not is_rendered

    def _render(self, app: Flask, session: DeferredSession, failure: Failure, response: Response) -> None:
        render(app, failure.again(), response)
        attributes = session.__dict__
        # An error handler may have returned a redirect: that stands for this response alone.
        attributes["lazy_answered"], attributes["lazy_rendered"] = False, response.headers

    def _remove_cookies(self, session: DeferredSession, response: Response) -> None:
        """Remove the cookies of a response whose session was empty, or not saved: they may have been made of it."""
        if response.headers is not session.lazy_rendered and response.headers.getlist("Set-Cookie"):
            response.headers.remove("Set-Cookie")
            self._log(session, "Cookies of the response of %s were not sent: its session was not loaded or saved.")

    def _log_failed_save(self, session: DeferredSession, error: Exception, response: Response) -> None:
        if isinstance(error, SessionConflict):
            text, what = "A change of the session by %s was refused with a %d. %s", error.detail
        else:
            text, what = "A change of the session by %s was not saved, which is a %d: %s.", _client_error(error)
        self._log(session, text, response.status_code, what)

    def _log(self, session: DeferredSession, text: str, *values: object) -> None:
        self._once.warn(text, place_of(session.lazy_request), *values)


def _is_saved_by_flask() -> bool:
    """Return whether Flask saves the session, which it does when the response is made; asked only after a failure."""
    return is_called_from("process_response")


def _client_error(error: Exception) -> str:
    return type(error.__cause__ or error).__name__


def note_handled(error: object) -> None:
    """Note that Flask handles an exception of the current request; its session then is empty if its load has failed."""
    try:
        current: Any = current_session._get_current_object()  # type: ignore[attr-defined]  # documented by Werkzeug
    except Exception:  # no request, or one that failed before it had a session
        return
    if type(current) is not DeferredSession:
        return
    attributes = current.__dict__
    attributes["lazy_handled"] = True
    if any(
        failure is not None and failure.error is error for failure in (current.lazy_failure, current.lazy_save_failure)
    ):
        attributes["lazy_answered"] = True
