"""Everything that is known of Flask-Login: its logins and logouts, and the user that it offers to each template."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, g, has_request_context, session

from .backend import PayloadCodec
from .interface import LazySessionInterface
from .serverside import ServerSide
from .session import DeferredSession
from .use import SessionUse

#: What Flask-Login writes into the session at a login, before it sends its signal, and removes at a logout.
_LOGIN_KEYS = frozenset({"_user_id", "_fresh", "_id"})


def follow_flask_login(app: Flask, *, rotate: bool) -> None:
    """Follow the logins and logouts of Flask-Login.

    :param rotate: give the session a new id at each login, also at one by a remember cookie: this prevents session
        fixation.
    """
    try:
        from flask_login import session_protected, user_loaded_from_cookie, user_logged_in, user_logged_out
    except ImportError:
        return
    _offer_user_lazily(app)
    user_logged_out.connect(_on_logout, app)
    session_protected.connect(_on_protection, app)
    if rotate:
        user_logged_in.connect(_rotate, app)
        user_loaded_from_cookie.connect(_rotate, app)


def _rotate(app: Flask, **_: object) -> None:
    current = _deferred_session()
    interface = None if current is None else current.lazy_owner  # not app.session_interface, which may wrap it
    if current is None or not isinstance(interface, LazySessionInterface):
        return
    use, handler = current.lazy_loaded, interface.handler
    if use is not None and isinstance(handler, ServerSide) and _holds_login(use, handler.codec):
        return
    interface.regenerate(current)
    if current.lazy_loaded is not None:
        current.lazy_loaded.login_keys = _LOGIN_KEYS


def _on_protection(app: Flask, **_: object) -> None:
    current = _deferred_session()
    if current is not None and current.lazy_loaded is not None:
        _ignore_freshness_without_login(current.lazy_loaded)


def _on_logout(app: Flask, **_: object) -> None:
    """Record that login keys were removed, even if the session has none: Flask-Login removes only those present."""
    current = _deferred_session()
    if current is not None:
        current.lazy_count_removal()
        if current.lazy_loaded is not None:
            current.lazy_loaded.logout_keys = _LOGIN_KEYS


def _deferred_session() -> DeferredSession | None:
    """Return the session of the request, unless another interface made it."""
    current = session._get_current_object()  # type: ignore[attr-defined]  # the proxy's type does not have it
    return current if type(current) is DeferredSession else None


def _holds_login(use: SessionUse, codec: PayloadCodec) -> bool:
    """Return whether the stored session holds the login that was just written into it, of the same user and client.

    A login that is fresh where the stored one is not, and one after a logout in the same request, are new ones.
    """
    if use.payload is None or use.ended or use.is_late or use.logout_keys:
        return False
    before, now = codec.decode(use.payload) or {}, use.session
    same = "_user_id" in before and all(before.get(key) == now.get(key) for key in ("_user_id", "_id"))
    return same and bool(before.get("_fresh") or not now.get("_fresh"))


def _ignore_freshness_without_login(use: SessionUse) -> None:
    """Make the changes of a request independent of ``_fresh``, if its session holds no login.

    Flask-Login's session protection reads ``_fresh`` in each session that holds anything, and sets it to False where
    another browser may have sent the cookie. Without a login, ``_fresh`` means nothing.

    Example: a visitor who is not logged in puts two articles into the cart, by two requests at once. Both have read and
    changed ``_fresh``, so the second would be refused. Instead, it depends on ``_user_id``, which a login changes.
    """
    keys = use.keys
    if not use.is_late and "_user_id" not in use.session and "_user_id" not in keys.changed:
        keys.add_read("_user_id")
        keys.read.discard("_fresh")


def _offer_user_lazily(app: Flask) -> None:
    """Make Flask-Login's context processor offer the proxy, now or when it is set up: its user loads the session.

    Flask-Login must be installed.
    """
    processors = app.template_context_processors
    processors[None] = _Processors(processors[None])


class _Processors(list[Callable[[], Any]]):
    """The context processors of an app, with ours instead of Flask-Login's."""

    def __init__(self, processors: Iterable[Callable[[], Any]]) -> None:
        super().__init__(map(_in_place_of, processors))

    def append(self, processor: Callable[[], Any]) -> None:
        super().append(_in_place_of(processor))


def _in_place_of(processor: Callable[[], Any]) -> Callable[[], Any]:
    from flask_login import current_user, utils

    if processor is not getattr(utils, "_user_context_processor", None):
        return processor

    def offer_user() -> Any:
        current = _deferred_session() if has_request_context() else None
        if current is None or current.lazy_loaded is not None or "_login_user" in g:
            return processor()
        return {"current_user": current_user}

    return offer_user
