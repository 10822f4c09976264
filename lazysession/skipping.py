"""The end of a request in mode ``skip`` that used its session: removes its cookies, and logs what was dropped."""

from __future__ import annotations

from flask import Response

from .cookies import cookie_value
from .logs import Once, names, place_of
from .modes import AT_THE_VIEW, STATIC
from .pages import Page
from .use import SessionUse

#: Statuses of a response to a visitor who is not logged in.
_DENIED = frozenset({301, 302, 303, 307, 308, 401, 403})
#: The same for static files: a view that requires a login may hide a file that exists.
_DENIED_FILES = _DENIED | {404, 410}


class Skipping:
    """Finishes requests in mode ``skip`` that used their session, which is empty for them."""

    def __init__(self) -> None:
        self._once = Once()

    def finish(self, use: SessionUse, response: Response, cookie_name: str) -> None:
        """Remove the cookies of the response, and log a dropped change and a denied visitor.

        :param cookie_name: the name of the session cookie.
        """
        if use.session or use.session.modified:  # modified: an absent key was removed, which may be stored
            message = "A change of the session was dropped: requests to %s skip it (%s). Keys: %s."
            self._log(message, use, names(use.keys.changed) or "unknown")
        self._remove_cookies(use, response)
        denied = _DENIED_FILES if use.rule == STATIC.reason else _DENIED
        if response.status_code in denied and cookie_value(use.request, cookie_name):
            self._stop_skipping_files(use, response.status_code)

    def _remove_cookies(self, use: SessionUse, response: Response) -> None:
        """Remove all cookies: their values may depend on the empty session.

        Example: a page stores csrf=1 in the session and sends it as a cookie. In the request for a stylesheet, the same
        hook gets an empty session and sends the cookie csrf=2. The app would refuse the next form.
        """
        cookies = response.headers.getlist("Set-Cookie")
        if cookies:
            response.headers.remove("Set-Cookie")
            sent = ", ".join(dict.fromkeys(cookie.partition("=")[0].strip() for cookie in cookies))
            self._log("Cookies were not sent: requests to %s skip the session (%s). Names: %s.", use, sent)

    def _stop_skipping_files(self, use: SessionUse, status: int) -> None:
        """Log that a visitor was denied; no longer skip static files, which may need the session for a login check."""
        message = "Requests to %s skip the session (%s): one with a session cookie got %s."
        if use.rule == STATIC.reason and use.request.endpoint is not None:
            use.owner.rules.stop_skipping(use.request.endpoint)
            message = (
                "Requests to %s no longer skip the session in this process (%s): one with a session cookie got %s."
            )
        self._log(message, use, str(status), Page.STATIC_403)

    def _log(self, message: str, use: SessionUse, detail: str, page: Page = Page.EMPTY_SESSION) -> None:
        """Log a message once per endpoint, with the remedy."""
        remedy = remedy_for(use.rule, use.request.endpoint)
        self._once.warn(f"{message} %s", place_of(use.request), use.rule, detail, remedy, page=page)


def remedy_for(rule: str, endpoint: str | None) -> str:
    """Return, for a log, how to make requests to an endpoint use their session.

    :param rule: the reason why they skip it.
    """
    if rule == AT_THE_VIEW:
        return "To use it, take @session_mode off the view."
    new_rule = "a rule with mode 'normal'" if endpoint is None else f"('endpoint:{endpoint}', 'normal')"
    return f"To use it, put {new_rule} first in LAZYSESSION_RULES."
