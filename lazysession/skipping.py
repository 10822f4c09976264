"""The end of a skipped request that used its session: what must not reach the browser, and what is logged."""

from __future__ import annotations

from flask import Response

from .cookies import cookie_value
from .logs import Once, names, place_of
from .modes import AT_THE_VIEW, STATIC
from .use import SessionUse

#: What a guard answers to a visitor whom it does not know.
_TURNED_AWAY = frozenset({301, 302, 303, 307, 308, 401, 403})
#: The same for static files, which are there: a guard may answer 404.
_TURNED_AWAY_FROM_FILES = _TURNED_AWAY | {404, 410}


class Skipping:
    """Ends skipped requests that used their session, which is empty for them."""

    def __init__(self) -> None:
        self._once = Once()

    def finish(self, use: SessionUse, response: Response, cookie_name: str) -> None:
        """Remove the cookies of the response, and log what the empty session may have led to.

        :param cookie_name: the name of the session cookie.
        """
        if use.session or use.session.modified:  # what is not there may have been removed
            message = "A change of the session was dropped: requests to %s skip it (%s). Keys: %s."
            self._log(message, use, names(use.keys.changed) or "unknown")
        self._remove_cookies(use, response)
        turned_away = _TURNED_AWAY_FROM_FILES if use.rule == STATIC.reason else _TURNED_AWAY
        if response.status_code in turned_away and cookie_value(use.request, cookie_name):
            self._note_turned_away(use, response.status_code)

    def _remove_cookies(self, use: SessionUse, response: Response) -> None:
        """Remove every cookie, as it may have been made of what is in the session.

        A page sends the cookie csrf=1 and stores 1 in the session. A stylesheet's hook sees an empty session and sends
        csrf=2: the browser would send csrf=2 with the next form, and the app would refuse it.
        """
        cookies = response.headers.getlist("Set-Cookie")
        if cookies:
            response.headers.remove("Set-Cookie")
            sent = ", ".join(dict.fromkeys(cookie.partition("=")[0].strip() for cookie in cookies))
            self._log("Cookies were not sent: requests to %s skip the session (%s). Names: %s.", use, sent)

    def _note_turned_away(self, use: SessionUse, status: int) -> None:
        """Skip static files no more where a guard may have missed the session; a rule of the app's own stands."""
        skip = "skip the session"
        if use.rule == STATIC.reason and use.request.endpoint is not None:
            use.owner.rules.stop_skipping(use.request.endpoint)
            skip = "no longer skip the session in this process"
        self._log(f"Requests to %s {skip} (%s): one with a session cookie got %s.", use, str(status))

    def _log(self, message: str, use: SessionUse, detail: str) -> None:
        """Log a message once per endpoint, with the way out."""
        way = way_out(use.rule, use.request.endpoint)
        self._once.warn(f"{message} %s", place_of(use.request), use.rule, detail, way)


def way_out(rule: str, endpoint: str | None) -> str:
    """Return what makes requests to an endpoint use their session, for logs.

    :param rule: what decided that they skip it.
    """
    if rule == AT_THE_VIEW:
        return "To use it, take @session_mode off the view."
    taking_back = "a rule with mode 'normal'" if endpoint is None else f"('endpoint:{endpoint}', 'normal')"
    return f"To use it, put {taking_back} first in LAZYSESSION_RULES."
