"""Between the bytes in the store and the dict of a session, exactly as Flask-Session 0.8 writes them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import msgspec

FORMATS = ("msgpack", "json")


class Codec:
    """Encode and decode payloads.

    :param format: ``"msgpack"`` or ``"json"`` (SESSION_SERIALIZATION_FORMAT); the other one is still read.
    :param allow_pickle: also read what only pickle understands, as Flask-Session before 0.7 wrote it. Whoever can
        write to the store can then run code in the app; False unless a migration needs it.
    """

    def __init__(self, format: str, *, allow_pickle: bool = False) -> None:
        msgpack, json = msgspec.msgpack.Decoder(), msgspec.json.Decoder()
        self._encoder = msgspec.msgpack.Encoder() if format == "msgpack" else msgspec.json.Encoder()
        self._decoders = (msgpack, json) if format == "msgpack" else (json, msgpack)
        self._allow_pickle = allow_pickle

    def encode(self, data: Mapping[str, Any]) -> bytes:
        """Answer the bytes of the session's items, in their order.

        :raises TypeError: when a value has no form in the format.
        """
        return self._encoder.encode(dict(data))

    def same(self, one: Any, other: Any) -> bool:
        """Tell whether two values are stored as the same bytes (1 and True are not); any, as sessions hold anything."""
        return self._encoder.encode(one) == self._encoder.encode(other)

    def decode(self, payload: bytes) -> dict[str, Any] | None:
        """Answer the session's items, or None when the payload is no session: damaged, foreign, not a dict."""
        for decoder in self._decoders:
            try:
                data = decoder.decode(payload)
            except (ValueError, TypeError, RecursionError):  # what msgspec raises on hostile bytes
                continue
            return data if isinstance(data, dict) else None
        return self._unpickle(payload) if self._allow_pickle else None

    def _unpickle(self, payload: bytes) -> dict[str, Any] | None:
        try:
            data = pickle.loads(payload)  # noqa: S301 - asked for by ALLOW_PICKLE, and warned about at start-up
        except Exception:  # a pickle may raise whatever it names
            return None
        return data if isinstance(data, dict) else None
