"""First uses of sessions after the response was made: in a stream, in a thread, when the response is closed."""

from __future__ import annotations

from flask import Request, Response
from werkzeug.datastructures import Headers
from werkzeug.wsgi import ClosingIterator

from .cookies import varies_by_cookie
from .logs import Once, is_called_from, place_of


def may_use_session_later(response: Response) -> bool:
    """Return whether a response is streamed, so that its body may use the session when the headers have been sent.

    Not a file (``direct_passthrough``), and not the body of an ``HTTPException`` (a 404, say): Werkzeug runs that as
    a WSGI app, which turns text whose length is known into an iterator.
    """
    if not response.is_streamed or response.direct_passthrough:
        return False
    return not (isinstance(response.response, ClosingIterator) and "Content-Length" in response.headers)


class LateUses:
    """Logs first uses that no ``Vary: Cookie`` announced, once per endpoint.

    Streamed responses have the header before it is known whether their generator uses the session. Those that go past
    Flask (``direct_passthrough``) do not: they are files.
    """

    def __init__(self) -> None:
        self._once = Once()

    def note(self, request: Request, headers: Headers) -> None:
        """Log a first use if caches may share what it shows; a teardown hook shows nothing.

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
            place_of(request),
        )
