"""Opening and closing over any session interface that is not driven through a backend: it keeps its own ways."""

from __future__ import annotations

from flask import Flask, Request, Response
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin

from .dbsession import uses_db_session
from .errors import ConfigurationError, SessionReadOnly
from .modes import Decision, Mode
from .use import Opened


class Wrapped:
    """Keep sessions through the wrapped interface's own ``open_session`` and ``save_session``.

    :param interface: Flask's signed cookie, a custom one, or one of Flask-Session's without an adapter.
    """

    def __init__(self, interface: SessionInterface) -> None:
        self.wrapped = interface
        self.session_class: type[SessionMixin] = getattr(interface, "session_class", None) or SessionMixin
        self._plain_cookie = type(interface) is SecureCookieSessionInterface
        self.loads_before_view = uses_db_session(interface)
        self.may_be_unavailable = isinstance(interface, SecureCookieSessionInterface)

    def unavailable(self, app: Flask) -> bool:
        """Tell that Flask's signed cookie has no SECRET_KEY: it reads nothing then, and answers None."""
        return self.may_be_unavailable and not app.secret_key

    def new(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Return an empty session of the wrapped class, or of Flask's where that one needs arguments."""
        try:
            session = self.session_class()
        except TypeError:
            session = SecureCookieSession()
        return Opened(session, decision.mode, decision.reason, saves=False)

    def open(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Open through the wrapped interface; where it answers None, its null session.

        :raises ConfigurationError: when SESSION_TYPE was set after LazySession(app), which has no effect.
        """
        if self._plain_cookie and str(app.config.get("SESSION_TYPE") or "null").lower() != "null":
            raise ConfigurationError(
                "SESSION_TYPE was set after LazySession(app): sessions would be cookies that visitors can read. Load "
                "the config before."
            )
        session = self.wrapped.open_session(app, request)
        if session is None:
            session = self.wrapped.make_null_session(app)
        elif self.session_class is SessionMixin:  # nobody told before
            self.session_class = type(session)
        return Opened(session, decision.mode, decision.reason)

    def start_over(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Open as ever: only the wrapped interface knows how to end a session without reading it."""
        return self.open(app, request, decision)

    def open_nothing(self, app: Flask, request: Request) -> Opened:
        """Return an empty session of which nothing is saved."""
        opened = self.new(app, request, Decision(Mode.NORMAL, "the session is not available"))
        opened.missing = True
        return opened

    def end(self, opened: Opened) -> None:
        """Leave it at the cleared session: only the wrapped interface knows how it ends."""

    def close(self, app: Flask, opened: Opened, response: Response) -> None:
        """Save through the wrapped interface, except what the mode forbids."""
        session = opened.session
        if not opened.saves or self.wrapped.is_null_session(session):
            return
        if opened.mode is Mode.READONLY and session.modified:
            raise SessionReadOnly(f"The session was marked as changed in mode readonly ({opened.rule}).")
        if session.modified or opened.mode is Mode.NORMAL:
            self.wrapped.save_session(app, session, response)

    def rotate(self, session: SessionMixin) -> None:
        """Rotate as the wrapped interface does; one without session ids has nothing to rotate."""
        regenerate = getattr(self.wrapped, "regenerate", None)
        if regenerate is not None:
            regenerate(session)
