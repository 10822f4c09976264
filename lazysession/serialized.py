"""The serializer that an app gives its session interface: encryption, compression, another format."""

from __future__ import annotations

from typing import Any

from . import registry
from .codec import Codec
from .errors import ConfigurationError
from .flasksession import StoreInterface, codec_of, is_own, load, read_safely
from .serverside import ServerSide


def with_serializer(handler: ServerSide, serializer: Any) -> ServerSide:
    """Return a session handler that stores through a serializer, which becomes that of the wrapped interface.

    :param serializer: an object, a module or a class, as Flask-Session takes it.
    :raises ConfigurationError: when it cannot be used, or the store would not use it; nothing has changed then.
    """
    interface: Any = handler.wrapped
    before = getattr(interface, "serializer", None)
    interface.serializer = serializer
    try:
        return _handler(handler, interface)
    except ValueError as error:
        interface.serializer = before
        raise ConfigurationError(f"The {type(interface).__name__} of this app cannot be used: {error}") from error


def _handler(handler: ServerSide, interface: Any) -> ServerSide:
    """Return the handler for the serializer that the interface has now."""
    backend: Any = getattr(handler.backend, "unserialized", handler.backend)  # without the serializer before this one
    allow_pickle, generic = handler.codec.allow_pickle, registry.find(registry.GENERIC)
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
