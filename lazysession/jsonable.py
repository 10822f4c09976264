"""JSON of the session object by Flask's provider: encoders written in C do not look at ``__class__``."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from .session import DeferredSession, behind_proxy


def encode_sessions(app: Flask) -> None:
    """Make the app's JSON provider encode a session object as a dict."""
    provider = app.json
    dumps = provider.dumps
    #: Another provider may have an encoder of its own, which options would replace.
    usual = provider if getattr(dumps, "__func__", None) is DefaultJSONProvider.dumps else None

    def dumps_sessions(obj: Any, **options: Any) -> str:
        if isinstance(usual, DefaultJSONProvider):
            default = options.get("default") or usual.default

            def encode(value: Any) -> Any:
                plain = as_dict(value)
                return default(value) if plain is value else plain

            options["default"] = encode
        return dumps(as_dict(obj), **options)

    provider.dumps = dumps_sessions  # type: ignore[method-assign]


def as_dict(value: Any) -> Any:
    """Return the dict of a session object, or of ``flask.session``; any other value unchanged."""
    current = behind_proxy(value)
    return dict(current) if type(current) is DeferredSession else value
