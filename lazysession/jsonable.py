"""JSON of the session object through Flask's provider: encoders written in C look past ``__class__``."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask.json.provider import DefaultJSONProvider
from werkzeug.local import LocalProxy

from .session import DeferredSession


def encode_sessions(app: Flask) -> None:
    """Make the app's JSON provider encode a session object as the dict that it stands for."""
    provider = app.json
    dumps = provider.dumps

    def dumps_sessions(obj: Any, **options: Any) -> str:
        if isinstance(provider, DefaultJSONProvider):  # others are asked for the outermost value alone
            default = options.get("default") or provider.default
            options["default"] = lambda value: default(value) if as_dict(value) is value else as_dict(value)
        return dumps(as_dict(obj), **options)

    provider.dumps = dumps_sessions  # type: ignore[method-assign]


def as_dict(value: Any) -> Any:
    """Return the dict of a session object, or of ``flask.session``; any other value unchanged."""
    current = value._get_current_object() if isinstance(value, LocalProxy) else value
    return dict(current) if type(current) is DeferredSession else value
