"""The new session handler after an app sets an attribute of its session interface, such as the serializer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from flask.sessions import SessionInterface

from . import registry
from .attributes import NOT_OF_THE_STORE
from .codec import Codec
from .errors import ConfigurationError
from .flasksession import StoreInterface, codec_of, is_own, load, read_safely, session_type_of
from .serverside import ServerSide
from .startup.clients import refuse_unusable
from .use import Handler

#: The same for an interface that LazySession made: its backend does not depend on these either.
_NOT_OF_OUR_STORE = NOT_OF_THE_STORE | {"key_prefix", "sid_length"}


def follow(app: Flask, handler: Handler, name: str, *, again: Callable[[Flask, SessionInterface], Handler]) -> Handler:
    """Return the session handler that follows an attribute of the wrapped interface, which was just set or deleted.

    :param again: makes the handler of an interface, as when the app was set up.
    :raises ConfigurationError: when the value cannot be used, or comes too late.
    """
    try:
        return _handler_after(name, app, handler) or again(app, handler.wrapped)
    except ValueError as error:
        raise ConfigurationError(f"session_interface.{name} cannot be changed: {error}") from error


def _handler_after(name: str, app: Flask, handler: Handler) -> Handler | None:
    """Return the handler after an attribute was set; None if it must be made anew from the interface."""
    wrapped = handler.wrapped
    if name == "client":
        refuse_unusable("the client", getattr(wrapped, name, None), {})
    if not isinstance(handler, ServerSide):
        return handler if name == "serializer" else None
    if name == "serializer":
        return with_serializer(handler)
    made_here = isinstance(wrapped, StoreInterface)
    if name in (_NOT_OF_OUR_STORE if made_here else NOT_OF_THE_STORE):
        return handler.over(handler.backend, handler.codec)
    if made_here:
        setting = f"SESSION_{session_type_of(app.config).upper()}"
        raise ConfigurationError(
            f"LazySession made the store from {setting}. Set {setting} before LazySession(app) instead."
        )
    return None


def with_serializer(handler: ServerSide) -> ServerSide:
    """Return a session handler that stores through the serializer that the wrapped interface has now.

    It may be an object, a module or a class, as Flask-Session takes it: for encryption, compression, another format.

    :raises ValueError: when it cannot be used, or the store would not use it.
    """
    interface: Any = handler.wrapped
    backend: Any = getattr(handler.backend, "unserialized", handler.backend)  # without the serializer before this one
    allow_pickle, generic = handler.settings.allow_pickle, registry.find(registry.GENERIC)
    if generic is not None and isinstance(backend, generic):  # its methods use the serializer themselves
        read_safely(interface, allow_pickle=allow_pickle)
        return handler
    if is_own(interface.serializer) or interface.serializer is None:
        backend = load("lazysession.backends.serialized:SerializedBackend")(backend, interface)
        codec = Codec("msgpack", allow_pickle=allow_pickle)
    else:
        codec = codec_of(interface.serializer, allow_pickle=allow_pickle)
    if isinstance(interface, StoreInterface):
        interface.use(backend, codec)
    return handler.over(backend, codec)
