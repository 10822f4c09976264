"""Items that a serializer or an interface has read, as msgpack: what that cannot hold is replaced by a text."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from markupsafe import Markup

from lazysession.backend import from_extension, plain_value, to_extension

logger = logging.getLogger("lazysession")

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)  # what msgspec raises
_reported: set[str] = set()


def pack(data: dict[str, Any]) -> bytes:
    """Return a stored dict as msgpack; a value that msgpack cannot hold becomes a text, not an error."""
    try:
        return _MSGPACK.encode(data)
    except _UNENCODABLE:  # msgspec calls no hook: too large an integer, a lone surrogate, a list within itself
        return _MSGPACK.encode({str(name): _encodable(value) for name, value in data.items()})


def unpack(payload: bytes) -> dict[str, Any]:
    """Return the dict of a payload in msgpack or JSON.

    :raises ValueError: when the payload is neither, or no dict.
    """
    return _parse(payload)[0]


def keep_unchanged(stored: dict[str, Any], payload: bytes) -> dict[str, Any]:
    """Return the dict of a payload, with the stored values themselves where the payload has them as they were read.

    Example: a stored tuple is read as a list. It stays a tuple in the store until a request changes its key.

    :raises ValueError: as :func:`unpack`.
    """
    data, encode = _parse(payload)
    for name, value in stored.items():
        if name in data and encode(unpack(pack({name: value}))) == encode({name: data[name]}):
            data[name] = value
    return data


def _parse(payload: bytes) -> tuple[dict[str, Any], Callable[[Any], bytes]]:
    """Return the dict of a payload, and what encodes its format."""
    for decode, encode in ((_FROM_MSGPACK.decode, _MSGPACK.encode), (msgspec.json.decode, _JSON.encode)):
        try:
            data = decode(payload)
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict):
            return data, encode
    raise ValueError("The payload is no session: it is no dict in msgpack or JSON.")


def _stand_in(value: Any) -> Any:
    """Return what an app sees in the place of a value that has no form in msgpack."""
    return to_extension(value) if isinstance(value, Markup) else _stand_in_for_json(value)


def _stand_in_for_json(value: Any) -> Any:
    plain = plain_value(value)
    return _name_class(value) if plain is None else plain


def _name_class(value: Any) -> str:
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if name not in _reported:
        _reported.add(name)
        logger.warning(
            "A stored session has a value of class %s, which sessions cannot hold: it is read as a text that names "
            "the class, and stays stored until its key is changed. Logged once per class.",
            name,
        )
    return f"<a value of class {name}>"


def _encodable(value: Any) -> Any:
    try:
        _MSGPACK.encode(value)
    except _UNENCODABLE:
        return _name_class(value)
    return value


_MSGPACK = msgspec.msgpack.Encoder(enc_hook=_stand_in)
_FROM_MSGPACK = msgspec.msgpack.Decoder(ext_hook=from_extension)
_JSON = msgspec.json.Encoder(enc_hook=_stand_in_for_json)
