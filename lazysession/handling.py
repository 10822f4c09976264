"""Records that Flask handles an exception of a request: wraps the app's methods for it."""

from __future__ import annotations

import weakref
from functools import wraps
from typing import Any

from flask import Flask, got_request_exception
from flask import session as current_session

from .session import DeferredSession

#: Flask calls the first for what a view or before_request hook raises, the second for what is not handled.
_METHODS = ("handle_user_exception", "handle_exception")


def follow_error_handling(app: Flask) -> None:
    """Record in each request that Flask handles an exception of it, before it does."""
    for name in _METHODS:
        setattr(app, name, _recording(app, name))
    got_request_exception.connect(_record_signal, app)


def record_handling(error: object) -> None:
    """Record that Flask handles an exception of the current request."""
    try:
        current: Any = current_session._get_current_object()  # type: ignore[attr-defined]  # documented by Werkzeug
    except Exception:  # no request, or one that failed before it had a session
        return
    if type(current) is DeferredSession:
        current.lazy_begin().begin_error_handling(error)


def _record_signal(_app: Flask, exception: object = None, **_: object) -> None:
    """Record an exception that is handled by an extension which replaced these methods, as Flask-RESTful does."""
    record_handling(exception)


def _recording(app: Flask, name: str) -> Any:
    """Return a method that records its call; any, as Flask's main branch has one more parameter.

    The app holds the method, so the method holds no reference to the app: a dropped app is freed at once.
    """
    on_class: Any = getattr(type(app), name)
    on_app: Any = app.__dict__.get(name)  # set by another extension
    reference = weakref.ref(app)

    @wraps(on_class)
    def handle(*arguments: Any, **named: Any) -> Any:
        record_handling((*arguments, *named.values())[-1] if arguments or named else None)
        if on_app is not None:
            return on_app(*arguments, **named)
        return getattr(type(reference()), name)(reference(), *arguments, **named)

    return handle
