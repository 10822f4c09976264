"""``regenerate(session)``: a function that type checkers know, unlike the method of the session interface."""

from __future__ import annotations

from flask import current_app, has_app_context, has_request_context
from flask.sessions import SessionMixin
from werkzeug.local import LocalProxy

from .errors import ConfigurationError
from .interface import LazySessionInterface
from .session import DeferredSession, behind_proxy


def regenerate(session: SessionMixin) -> None:
    """Give a session a new id, and keep its data: call it where a visitor logs in, or gains rights.

    An attacker may have planted the old id (session fixation). At the end of the request, the session is stored under
    the new id, and then a forwarding record replaces the old one for ten seconds. Sessions in signed cookies have no
    id: for them nothing happens.

    :param session: ``flask.session``, or the object behind it.
    :raises SessionReadOnly: where the mode of the request forbids writes.
    :raises ConfigurationError: for a session that LazySession has not made.
    :raises RuntimeError: outside of a request, where ``flask.session`` has no session.
    """
    if isinstance(session, LocalProxy) and not has_request_context():
        raise RuntimeError("regenerate() was called outside of a request, where flask.session has no session.")
    current = behind_proxy(session)
    if type(current) is DeferredSession:
        current.lazy_owner.regenerate(current)
        return
    if not isinstance(current, SessionMixin):
        raise TypeError(f"regenerate() takes flask.session, not an object of type {type(current).__name__}.")
    interface = current_app.session_interface if has_app_context() else None
    if type(interface) is not LazySessionInterface:
        app = f": the app {current_app.name!r} has none" if has_app_context() else ""
        raise ConfigurationError(f"regenerate() needs a session that LazySession(app) serves{app}.")
    if interface.is_null_session(current):
        current.update()  # no SECRET_KEY: Flask's own error says what to set
    interface.regenerate(current)
