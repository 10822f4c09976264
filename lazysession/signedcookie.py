"""The session handler over Flask's signed cookie: a permanent session's cookie is renewed when it is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

from flask import Flask, Request, Response
from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin
from itsdangerous import BadSignature

from .cookies import PrivateResponses, cookie_value, is_public
from .modes import Mode
from .records.expiry import Lifetimes
from .use import Origin, SessionUse
from .wrapped import Wrapped

#: The methods of Flask's interface that this handler calls or replaces.
_METHODS = ("get_signing_serializer", "open_session", "save_session", "should_set_cookie", "get_expiration_time")


def is_signed_cookie(interface: SessionInterface) -> TypeGuard[SecureCookieSessionInterface]:
    """Return whether an interface reads, writes and renews its cookie with Flask's own methods, not overridden."""
    return isinstance(interface, SecureCookieSessionInterface) and all(
        getattr(getattr(interface, name), "__func__", None) is getattr(SecureCookieSessionInterface, name)
        for name in _METHODS
    )


class _Cookie(NamedTuple):
    """A valid cookie.

    :param items: the items of the session; of any type, because the app may set another serializer.
    :param payload: their encoding.
    :param signed_at: seconds since the epoch, whole.
    """

    items: Any
    payload: bytes
    signed_at: float


class SignedCookie(Wrapped):
    """Load and save sessions with Flask's interface, but send an unchanged cookie again only when that is due.

    Flask sends a permanent session's cookie with every response. The signature holds the time at which the cookie was
    signed, so its age is known without a store.

    :param interface: one for which :func:`is_signed_cookie` returns true.
    :param throttle: least time between two renewals in seconds; None for a tenth of the lifetime, at most an hour.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        interface: SecureCookieSessionInterface,
        throttle: float | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(interface, loads_before_view=False)
        self.clock = clock
        self._interface = interface
        self._lifetimes = Lifetimes(throttle)
        self._private = PrivateResponses()
        #: The lifetime at the last load, and when this process first saw it (seconds; 0 if at its first load).
        self._lifetime: tuple[float | None, float] = None, 0.0

    def load(self, app: Flask, use: SessionUse) -> None:
        """Load the session of a valid cookie; without a valid one, let Flask's own method open the session."""
        cookie = self._read(app, use.request)
        if cookie is None:
            super().load(app, use)
            use.refreshed = self._is_due(app, use.mode, 0.0)
            return
        use.begin(self._interface.session_class(cookie.items), Origin.STORED)
        use.payload, use.refreshed = cookie.payload, self._is_due(app, use.mode, cookie.signed_at)

    def _read(self, app: Flask, request: Request) -> _Cookie | None:
        """Return the content of a valid cookie, or None; one check of the signature gives the items and the time."""
        serializer = self._interface.get_signing_serializer(app)
        value = cookie_value(request, self._interface.get_cookie_name(app))
        if serializer is None or not value:
            return None
        signer = next(serializer.iter_unsigners())  # Flask has only this one: it knows the fallback keys, too
        max_age = int(app.permanent_session_lifetime.total_seconds())
        try:
            payload, signed_at = signer.unsign(value, max_age=max_age, return_timestamp=True)
        except BadSignature:
            return None
        return _Cookie(serializer.load_payload(payload), payload, signed_at.timestamp())

    def _is_due(self, app: Flask, mode: Mode, signed_at: float) -> bool:
        """Return whether a cookie is due for renewal; Flask rejects one that was signed in the future.

        A cookie that was signed before PERMANENT_SESSION_LIFETIME changed is due as well, because its expiry in the
        browser is unknown. Example: the lifetime was 10 minutes and is now 10 hours, with a throttle of an hour. The
        browser would drop the old cookie before it is an hour old. The time in a signature has whole seconds, so a
        cookie that was signed in the second of the change counts as old.
        """
        refresh = self._lifetimes.refresh(app, mode)
        if refresh is None:
            return False
        now, (lifetime, since) = self.clock(), self._lifetime
        if refresh.lifetime != lifetime:
            since = 0.0 if lifetime is None else now
            self._lifetime = refresh.lifetime, since
        return signed_at <= since or now - signed_at >= refresh.throttle

    def is_changed(self, app: Flask, use: SessionUse) -> bool:
        """Return whether the session is marked as changed, or differs from its cookie and Flask would send it.

        Flask sends a permanent session's cookie with every response, so it also saves a change inside a value.
        """
        session = use.session
        if session.modified:
            return True
        if use.payload is None or not self._interface.should_set_cookie(app, session):
            return False
        serializer = self._interface.get_signing_serializer(app)
        return serializer is not None and serializer.dump_payload(dict(session)) != use.payload

    def may_renew(self, use: SessionUse, response: Response) -> bool:
        """Return whether a permanent session's cookie is due, and no shared cache may store the response."""
        return use.refreshed and use.session.permanent and not is_public(response)

    def write(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Set or delete the cookie, and make the response private if shared caches may store it."""
        self._private.before_cookie(response)
        super().write(app, session, response)
