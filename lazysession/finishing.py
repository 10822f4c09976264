"""The end of a request that used its session: saves it, or makes the response an error if it cannot be saved."""

from __future__ import annotations

from flask import Flask, Response

from .cookies import forbid_storing, vary_by_cookie
from .errors import SessionConflict, SessionUnavailable
from .logs import Once, is_called_from, place_of
from .pages import Page
from .recorder import server_timing
from .rendering import render
from .skipping import Skipping
from .use import Failure, Origin, Phase, SessionUse


class Finishing:
    """Saves sessions, or makes the response an error if the load or the save failed.

    Only Flask itself passes the response that is sent. To other callers the error is raised: the app's code that calls
    ``save_session``, and the test client's ``session_transaction``.
    """

    def __init__(self) -> None:
        self._once = Once()
        self._skipping = Skipping()

    def finish(self, app: Flask, use: SessionUse, response: Response) -> bool:
        """Save a session, and return True; False if its first use loaded nothing, as the mode forbade it."""
        if use.load_failure is not None:
            self._after_failed_load(app, use, use.load_failure, response)
        elif use.is_loaded:
            self._finish_loaded(app, use, response)
        else:
            return False
        return True

    def _finish_loaded(self, app: Flask, use: SessionUse, response: Response) -> None:
        if use.origin is Origin.SKIPPED:
            self._skipping.finish(use, response, use.owner.get_cookie_name(app))
        else:
            vary_by_cookie(response)
            if not use.is_saveable:
                forbid_storing(response)
            self.save(app, use, response)
        if use.used_by:
            response.headers.add("Server-Timing", server_timing(use.used_by, f"in {use.load_time:.1f} ms {use.mode}"))

    def save(self, app: Flask, use: SessionUse, response: Response) -> None:
        """Save a session; after a failed save, do not try again, but make the response an error.

        :raises SessionConflict: when the change was refused and Flask is not the caller.
        :raises SessionUnavailable: when the store failed and Flask is not the caller.
        """
        if use.is_failed:
            self._after_failed_save(app, use, response)
            return
        use.phase = Phase.SAVING
        try:
            use.owner.handler.save(app, use, response)
        except (SessionConflict, SessionUnavailable) as error:
            use.phase, use.save_failure = Phase.NOT_SAVED, Failure.of(error)
            if not _is_saved_by_flask():
                raise
            if response.status_code < 500:
                self._render(app, use, use.save_failure, response)
            else:
                self._remove_cookies(use, response)
            self._log_failed_save(use, error, response)
        except BaseException as error:
            use.phase, use.save_failure = Phase.NOT_SAVED, Failure.of(error)
            raise
        else:
            use.phase = Phase.SAVED

    def _after_failed_save(self, app: Flask, use: SessionUse, response: Response) -> None:
        failure = use.save_failure
        if failure is None:  # called by a receiver of a signal, while the session is being saved
            return
        if not _is_saved_by_flask():
            raise failure.again()
        if self._reports_success(use, response):
            self._render(app, use, failure, response)
            self._log_failed_save(use, failure.error, response)

    def _after_failed_load(self, app: Flask, use: SessionUse, failure: Failure, response: Response) -> None:
        """Finish the response of a request whose session could not be loaded.

        :raises Exception: the error of the load, when Flask is not the caller and has not handled an error.
        """
        by_flask = _is_saved_by_flask()
        if not by_flask and not use.is_handled:
            raise failure.again()
        vary_by_cookie(response)
        forbid_storing(response)
        self._remove_cookies(use, response)
        if by_flask and self._reports_success(use, response):
            self._render(app, use, failure, response)
            self._log(
                use,
                "The response of %s was replaced by a %d, as its session could not be loaded (%s) and the error was "
                "caught. Do not catch it, or register an error handler.",
                response.status_code,
                _client_error(failure.error),
            )
        if use.is_loaded and use.session.modified:
            self._log(
                use,
                "A change of the session by %s was not saved: the session could not be loaded. Do not write to it in "
                "error handlers and functions for after_request.",
                page=Page.NOT_SAVED,
            )

    def _reports_success(self, use: SessionUse, response: Response) -> bool:
        """Return whether a response is under 400, and not one that an error handler has made for the failure."""
        return response.status_code < 400 and not use.failure_was_handled and response.headers is not use.rendered

    def _render(self, app: Flask, use: SessionUse, failure: Failure, response: Response) -> None:
        render(app, failure.again(), response)
        # An error handler may have returned a redirect. A later response of the request is checked anew.
        use.failure_was_handled, use.rendered = False, response.headers

    def _remove_cookies(self, use: SessionUse, response: Response) -> None:
        """Remove all cookies: their values may depend on a session that was not loaded or not saved."""
        if response.headers is not use.rendered and response.headers.getlist("Set-Cookie"):
            response.headers.remove("Set-Cookie")
            self._log(use, "Cookies of the response of %s were not sent: its session was not loaded or saved.")

    def _log_failed_save(self, use: SessionUse, error: Exception, response: Response) -> None:
        if isinstance(error, SessionConflict):
            text, what = "A change of the session by %s was refused with a %d. %s", error.detail
            page = Page.WHO_GETS_A_409
        else:
            text, what = "A change of the session by %s was not saved; the response is a %d (%s).", _client_error(error)
            page = Page.STORE_UNREACHABLE
        self._log(use, text, response.status_code, what, page=page)

    def _log(self, use: SessionUse, text: str, *values: object, page: Page = Page.STORE_UNREACHABLE) -> None:
        self._once.warn(text, place_of(use.request), *values, page=page)


def _is_saved_by_flask() -> bool:
    """Return whether Flask itself is saving the session; slow, so called only after a failure."""
    return is_called_from("process_response")


def _client_error(error: Exception) -> str:
    return type(error.__cause__ or error).__name__
