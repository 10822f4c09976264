"""The session handler over any other session interface, which loads and saves by its own methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from flask import Flask, Response
from flask.sessions import (
    NullSession,
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)

from .errors import SessionReadOnly
from .modes import Mode
from .pages import Page, see
from .use import Origin, SessionUse


class Wrapped:
    """Load and save sessions with the wrapped interface's own ``open_session`` and ``save_session``.

    :param interface: Flask's signed cookie, a custom one, or one of Flask-Session's without an adapter.
    :param loads_before_view: it uses the app's database session.
    """

    def __init__(self, interface: SessionInterface, *, loads_before_view: bool) -> None:
        self.wrapped = interface
        self.session_class: type[SessionMixin] = getattr(interface, "session_class", None) or SessionMixin
        self.loads_before_view = loads_before_view
        self.clears_unread = False
        self.may_be_unavailable = isinstance(interface, SecureCookieSessionInterface)

    def unavailable(self, app: Flask) -> bool:
        """Return whether Flask's signed cookie has no SECRET_KEY: it loads nothing then, and returns None."""
        return self.may_be_unavailable and not app.secret_key

    def load(self, app: Flask, use: SessionUse) -> None:
        """Load through the wrapped interface; where it returns None, take its null session."""
        session = self.wrapped.open_session(app, use.request)
        if session is None:
            session = self.wrapped.make_null_session(app)
        elif self.session_class is SessionMixin:  # not known before
            self.session_class = type(session)
        use.begin(session, Origin.STORED)

    def start_over(self, app: Flask, use: SessionUse) -> None:
        """Load the session: only the wrapped interface can end it."""
        self.load(app, use)

    def begin_empty(self, use: SessionUse, origin: Origin) -> None:
        """Begin an empty session of the wrapped class, or of Flask's where that one needs arguments."""
        try:
            session = self.session_class()
        except TypeError:
            session = SecureCookieSession()
        use.begin(session, origin)

    def end(self, use: SessionUse) -> None:
        """Do nothing: the wrapped interface ends a cleared session when it saves it."""

    def save(self, app: Flask, use: SessionUse, response: Response) -> None:
        """Save through the wrapped interface, except what the mode forbids."""
        session = use.session
        if not use.is_saveable or self.wrapped.is_null_session(session):
            return
        changed = self.is_changed(app, use)
        if changed and use.mode is Mode.READONLY:
            raise SessionReadOnly(f"The session was changed in mode readonly ({use.rule}).")
        if changed or self.may_renew(use, response):
            self.write(app, session, response)

    def is_changed(self, app: Flask, use: SessionUse) -> bool:
        """Return whether the session is marked as changed."""
        return use.session.modified

    def may_renew(self, use: SessionUse, response: Response) -> bool:
        """Return whether the wrapped interface is called for an unchanged session; it decides what that means."""
        return use.mode is Mode.NORMAL

    def write(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save through the wrapped interface."""
        self.wrapped.save_session(app, session, response)

    def rotate(self, session: SessionMixin) -> None:
        """Rotate as the wrapped interface does; one without session ids has nothing to rotate."""
        regenerate = getattr(self.wrapped, "regenerate", None)
        if regenerate is not None:
            regenerate(session)


class NoSecretKey(NullSession):
    """Flask's null session: it is empty, and writing to it is an error, which here names the page of the docs.

    :param check: called before; raises if SESSION_TYPE was set too late, for a store that needs no SECRET_KEY.
    """

    def __init__(self, check: Callable[[], None] | None) -> None:
        super().__init__()
        self._check = check

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        if self._check is not None:
            self._check()
        raise RuntimeError(
            "The session is unavailable because no secret key was set. Set SECRET_KEY, or SESSION_TYPE for sessions in "
            f"a store. {see(Page.NO_SECRET_KEY)}"
        )

    __setitem__ = __delitem__ = clear = pop = popitem = update = setdefault = _refuse
