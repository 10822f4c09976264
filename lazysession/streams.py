"""Uses of a session after the response was made: by its stream, by a thread, or when it is closed."""

from __future__ import annotations

import logging

from flask import Flask, Response
from werkzeug.datastructures import Headers
from werkzeug.wsgi import ClosingIterator

from .cookies import varies_by_cookie, vary_by_cookie
from .logs import Once, is_called_from, place_of
from .modes import Mode
from .pages import Page, see
from .use import SessionUse

logger = logging.getLogger("lazysession")


def may_use_session_later(response: Response) -> bool:
    """Return whether the body of a response may use the session after the headers were sent: it is streamed.

    False for a file (``direct_passthrough``), and for an ``HTTPException`` such as a 404: Werkzeug calls it as a WSGI
    app, so that its text is an iterator, with a known length.
    """
    if not response.is_streamed or response.direct_passthrough:
        return False
    return not (isinstance(response.response, ClosingIterator) and "Content-Length" in response.headers)


def announce_use(app: Flask, use: SessionUse, response: Response) -> bool:
    """Add ``Vary: Cookie`` to a streamed response, as its body may use the session after the headers were sent.

    :returns: False in mode ``skip``, where the body gets an empty session and no header is added.
    """
    if use.decide(app).mode is Mode.SKIP:
        return False
    vary_by_cookie(response)
    return True


class LateUses:
    """Logs changes, and first uses without ``Vary: Cookie``, that come after the response was made.

    Streamed responses have that header whether or not their generator uses the session, except files
    (``direct_passthrough``).
    """

    def __init__(self) -> None:
        self._once = Once()

    def log_first_use(self, use: SessionUse, headers: Headers) -> None:
        """Log a first use, once per endpoint, if shared caches may store a response that depends on it.

        :param headers: those of the response.
        """
        if varies_by_cookie(headers):
            return
        # A teardown hook cannot change the response. A view that called save_session itself has not made it yet.
        if is_called_from("do_teardown_request", "dispatch_request"):
            return
        self._once.warn(
            "The session was first used after the response of %s was made without Vary: Cookie; caches may share it. "
            "Use the session in the view or set Vary there.",
            place_of(use.request),
        )

    def log_write(self, use: SessionUse) -> None:
        """Log a change that comes after the session was saved, and so is lost; Flask does not log that."""
        if not use.is_failed and is_called_from("dispatch_request"):
            return  # the view has called save_session itself; Flask will save the session
        logger.warning(
            "The session was changed after the response of %s was made; the change is lost. %s",
            place_of(use.request),
            see(Page.NOT_SAVED),
        )
