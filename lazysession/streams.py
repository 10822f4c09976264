"""Uses of sessions after the response was made: in a stream, in a thread, when the response is closed."""

from __future__ import annotations

import logging

from flask import Flask, Response
from werkzeug.datastructures import Headers
from werkzeug.wsgi import ClosingIterator

from .cookies import varies_by_cookie, vary_by_cookie
from .logs import Once, is_called_from, place_of
from .modes import Mode
from .use import SessionUse

logger = logging.getLogger("lazysession")


def may_use_session_later(response: Response) -> bool:
    """Return whether a response is streamed, so that its body may use the session when the headers have been sent.

    Not a file (``direct_passthrough``), and not the body of an ``HTTPException`` (a 404, say): Werkzeug runs that as
    a WSGI app, which turns text whose length is known into an iterator.
    """
    if not response.is_streamed or response.direct_passthrough:
        return False
    return not (isinstance(response.response, ClosingIterator) and "Content-Length" in response.headers)


def announce_use(app: Flask, use: SessionUse, response: Response) -> bool:
    """Add ``Vary: Cookie`` to a streamed response, as its body may use the session when it is too late for headers.

    :returns: whether that use may read the session.
    """
    if use.decide(app).mode is Mode.SKIP:
        return False
    vary_by_cookie(response)
    return True


class LateUses:
    """Logs uses that come after the response was made.

    Of first uses those that no ``Vary: Cookie`` announced. Streamed responses have the header before it is known
    whether their generator uses the session, except files (``direct_passthrough``).
    """

    def __init__(self) -> None:
        self._once = Once()

    def note_first_use(self, use: SessionUse, headers: Headers) -> None:
        """Log a first use, once per endpoint, if caches may share what it shows; a teardown hook shows nothing.

        :param headers: those of the response that was made before.
        """
        if varies_by_cookie(headers):
            return
        # In a view: it has called save_session by hand, and its response is still to be made.
        if is_called_from("do_teardown_request", "dispatch_request"):
            return
        self._once.warn(
            "The session was first used after the response of %s was made without Vary: Cookie; caches may share it. "
            "Use the session in the view or set Vary there.",
            place_of(use.request),
        )

    def note_write(self, use: SessionUse) -> None:
        """Log a change that comes after the session was saved: it is lost, and Flask does not log that."""
        if not use.is_failed and is_called_from("dispatch_request"):
            return  # the view has called save_session by hand; Flask will save the session
        logger.warning(
            "The session is changed after the response of %s was made; the change is lost.", place_of(use.request)
        )
