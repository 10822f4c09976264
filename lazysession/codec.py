"""The dict of a session to stored bytes and back, exactly as Flask-Session 0.8 writes them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

import msgspec
from markupsafe import Markup

from .backend import from_extension, plain_value, to_extension
from .pages import Page, see

Argument = TypeVar("Argument")
Result = TypeVar("Result")

FORMATS = ("msgpack", "json")
#: The options of msgspec's encoders and decoders besides the hook for encoding, where its version has them.
ENCODER_OPTIONS = ("decimal_format", "uuid_format", "order")
DECODER_OPTIONS = ("type", "strict", "dec_hook", "ext_hook", "float_hook")
_UNDECODABLE = (TypeError, ValueError, OverflowError)  # what msgspec raises of hostile bytes
#: Classes of texts that are translated when they are shown: Flask-Babel's, speaklater's, Babel's.
_LAZY_TEXTS = ("LazyString", "_LazyString", "LazyProxy")


class Codec:
    """Encode and decode payloads.

    :param format: ``"msgpack"`` or ``"json"`` (SESSION_SERIALIZATION_FORMAT); the other one is still read.
    :param allow_pickle: also read what only pickle understands, as Flask-Session before 0.7 wrote it. An attacker
        who can write to the store can then run code in the app; False unless a migration needs it.
    :param encoder, decoder: msgspec's of the format, whose options are used; any, as only those of one format are here.
    """

    def __init__(self, format: str, *, allow_pickle: bool = False, encoder: Any = None, decoder: Any = None) -> None:
        msgpack, json = msgspec.msgpack.Decoder(ext_hook=from_extension), msgspec.json.Decoder()
        self._encoder = (
            msgspec.msgpack.Encoder(**_encoder_options(encoder, _to_msgpack))
            if format == "msgpack"
            else msgspec.json.Encoder(**_encoder_options(encoder, _to_plain))
        )
        decoders = (msgpack, json) if format == "msgpack" else (json, msgpack)
        self._decoders: tuple[Any, Any] = (_decoder_like(decoder, decoders[0]), decoders[1])
        self.allow_pickle = allow_pickle

    def encode(self, data: Mapping[str, Any]) -> bytes:
        """Return the bytes of the session's items, in their order.

        What Flask-Session cannot store is stored as its plain value (a class derived from ``str``, ``int`` or
        ``float``; a lazy text), ``Markup`` in msgpack as what it is.

        :raises TypeError: when a value has no form in the format; the message names its key and type.
        """
        try:
            return self._encode(dict(data))  # a copy: a lazy text may change the session while it is made
        except Exception as error:  # what msgspec raises, and a lazy text that cannot be made
            raise TypeError(self._explain(data, error)) from error

    def _encode(self, value: object) -> bytes:
        try:
            return self._encoder.encode(value)
        except RecursionError:
            return _on_a_new_stack(self._encoder.encode, value)

    def same(self, one: Any, other: Any) -> bool:
        """Return whether two values are stored as the same bytes, unlike 1 and True; any, as sessions hold anything."""
        try:
            return self._encode(one) == self._encode(other)
        except Exception:  # from an old pickle, or a lazy text that cannot be made
            with suppress(Exception):  # whatever the values make of it
                return bool(one == other)
            return False

    def read_back(self, payload: bytes, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the items of a payload that is about to be stored.

        :param data: what the payload was made of.
        :raises TypeError: when it was encoded and cannot be decoded, such as a dict whose keys are dataclasses; the
            message is that of :meth:`encode`.
        """
        items = self.decode(payload)
        if items is None:
            raise TypeError(self._explain(data, ValueError("it could not be read back")))
        return items

    def _explain(self, data: Mapping[str, Any], error: Exception) -> str:
        for key, value in data.items():
            try:
                self._decoders[0].decode(self._encoder.encode({key: value}))
            except Exception as own:
                reason = getattr(own, "reason", own)  # without the text that cannot be encoded
                return (
                    f"session[{key!r}] cannot be stored ({type(value).__name__}: {reason}). Nothing of this request's "
                    f"session was stored. Store plain values, such as an id. {see(Page.CANNOT_BE_STORED)}"
                )
        return f"The session cannot be stored: {error}"

    def decode(self, payload: bytes) -> dict[str, Any] | None:
        """Return the session's items, or None when the payload is no session: damaged, foreign, not a dict."""
        data: object = None
        try:
            data = self._decode(payload)
        except RecursionError:
            with suppress(RecursionError):
                data = _on_a_new_stack(self._decode, payload)
        if isinstance(data, dict):
            return data
        return self._unpickle(payload) if self.allow_pickle else None

    def _decode(self, payload: bytes) -> object:
        """Decode either format; the other one only if this one can encode what it holds."""
        own, other = self._decoders
        try:
            data: object = own.decode(payload)
        except _UNDECODABLE:
            try:
                data = other.decode(payload)
                self._encoder.encode(data)
            except _UNDECODABLE:
                return None
        return data

    def _unpickle(self, payload: bytes) -> dict[str, Any] | None:
        try:
            data = pickle.loads(payload)  # noqa: S301 - asked for by ALLOW_PICKLE, and warned about at start-up
        except Exception:  # a pickle may raise whatever it names
            return None
        return data if isinstance(data, dict) else None


def _on_a_new_stack(act: Callable[[Argument], Result], argument: Argument) -> Result:
    """Call a function in a thread, whose stack is empty: the view's frames count for the limit of recursion."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(copy_context().run, act, argument).result()


def _encoder_options(encoder: Any, ours: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the options of an app's encoder; what its hook refuses is tried with ours."""
    theirs: Any = getattr(encoder, "enc_hook", None)

    def hook(value: Any) -> Any:
        try:
            return theirs(value)
        except (TypeError, NotImplementedError):
            return ours(value)

    options = {name: getattr(encoder, name) for name in ENCODER_OPTIONS if hasattr(encoder, name)}
    return {**options, "enc_hook": ours if theirs is None else hook}


def _decoder_like(decoder: Any, ours: Any) -> Any:
    """Return a decoder with the options of an app's; extension types are decoded by ours where it has no hook."""
    if decoder is None:
        return ours
    options = {name: getattr(decoder, name) for name in DECODER_OPTIONS if hasattr(decoder, name)}
    if "ext_hook" in options and options["ext_hook"] is None:
        options["ext_hook"] = from_extension
    return type(ours)(**options)


def _to_msgpack(value: Any) -> Any:
    if isinstance(value, Markup):
        return to_extension(value)
    return _to_plain(value)


def _to_plain(value: Any) -> Any:
    """Return the plain value of an object of a derived class, and the text of a lazy one."""
    plain = plain_value(value)
    if plain is not None:
        return plain
    if type(value).__name__ in _LAZY_TEXTS:
        return str(value)
    raise TypeError(f"a value of type {type(value).__module__}.{type(value).__qualname__} has no stored form")
