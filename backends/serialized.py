"""Storing with a serializer that the app sets, next to the comparisons and ttls of the store itself."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

import flask_session.base

from lazysession.backend import (
    Backend,
    BringsCodec,
    Outcome,
    Problem,
    Record,
    SupportsCheck,
    SupportsPurge,
    SupportsReadAndTouch,
    TouchFailed,
    WriteResult,
)
from lazysession.backends.generic import pickle_problems
from lazysession.backends.packing import keep_unchanged, pack, unpack

logger = logging.getLogger("lazysession")

#: What Flask-Session calls, in the order of preference: its development branch has the second pair.
_PAIRS = (("encode", "decode"), ("dumps", "loads"))


class Converter:
    """Call an app's serializer as Flask-Session does, of 0.8 and of its development branch.

    :param serializer: any, as it may be an object, a module or a class.
    :raises ValueError: when it has neither ``encode`` and ``decode`` nor ``dumps`` and ``loads``.
    """

    def __init__(self, serializer: Any) -> None:
        self._serializer = serializer
        pairs = _PAIRS if hasattr(flask_session.base.Serializer, "encode") else _PAIRS[::-1]
        for names in pairs:
            if all(_takes_one(getattr(serializer, name, None)) for name in names):
                self._encode, self._decode = names
                self._takes_session = self._encode == "encode"
                return
        name = getattr(serializer, "__name__", type(serializer).__name__)
        raise ValueError(
            f"its serializer is {name!r}, which cannot be called as Flask-Session does: it needs "
            "encode(session) and decode(payload), or dumps and loads; of a class, set an instance."
        )

    def encode(self, session: Any) -> bytes:
        """Return the serializer's bytes of a session.

        :raises TypeError: when it returns neither bytes nor a text.
        """
        to_bytes: Any = getattr(self._serializer, self._encode)  # each time, as the app may set another one
        encoded = to_bytes(session if self._takes_session else dict(session))
        if isinstance(encoded, str):
            return encoded.encode()
        if not isinstance(encoded, (bytes, bytearray, memoryview)):
            raise TypeError(f"session_interface.serializer returned {type(encoded).__name__} instead of bytes.")
        return bytes(encoded)

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the items of a stored payload; whatever the serializer raises passes through.

        :raises TypeError: when it returns no dict.
        """
        items: Any = getattr(self._serializer, self._decode)(payload)
        if not isinstance(items, dict):
            raise TypeError(f"session_interface.serializer returned {type(items).__name__} instead of a dict.")
        return items


def _takes_one(method: Any) -> bool:
    """Return whether a function can be called with one argument: a class's method without its instance cannot."""
    if not callable(method):
        return False
    try:
        inspect.signature(method).bind(None)
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True


class _Decoded(bytes):
    """A payload as the core knows it, which also knows the stored bytes that it was decoded from."""

    stored: bytes


class SerializedBackend:
    """Store what the app's serializer makes of each session; the keys, ttls and comparisons are the store's own.

    The core compares payloads, and a serializer may make other bytes of equal data each time (encryption with a
    nonce). So the core is given msgpack, and the store compares the bytes that were read from it: two processes never
    lose a change to each other.

    :param backend: the store; one of bytes.
    :param interface: the interface whose serializer and session class are used; any, as Flask-Session has no
        annotations.
    :raises ValueError: for a store of objects, which would not use the serializer, and for a serializer that
        cannot be called.
    """

    def __init__(self, backend: Backend, interface: Any) -> None:
        if isinstance(backend, BringsCodec):
            raise ValueError(
                f"its serializer was set, and {type(backend).__name__} stores objects without it. Set the cache's own "
                "(SESSION_CACHELIB.serializer), or use another SESSION_TYPE."
            )
        self.unserialized = backend
        self.client = getattr(backend, "client", None)
        self._interface = interface
        self._convert = Converter(interface.serializer)
        if isinstance(backend, SupportsPurge):
            self.purge = backend.purge
        if isinstance(backend, SupportsReadAndTouch):
            self._touches_as_it_reads, self.read_and_touch = backend, self._read_and_touch

    def read(self, key: str) -> Record | None:
        """Read, and decode."""
        return self._decoded(self.unserialized.read(key))

    def _read_and_touch(self, key: str, ttl: float | None, unless_more_than: float) -> Record | None:
        try:
            return self._decoded(self._touches_as_it_reads.read_and_touch(key, ttl, unless_more_than))
        except TouchFailed as failure:
            raise TouchFailed(self._decode_record(failure.record)) from failure.__cause__

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        """Encode, and create."""
        return self.unserialized.create(key, self._encode(key, unpack(payload)), ttl)

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        """Encode, and replace the bytes that ``expected`` was decoded from; unchanged values stay as they were."""

        def act(stored: bytes) -> WriteResult:
            items = keep_unchanged(self._convert.decode(stored), payload)
            return self.unserialized.replace(key, self._encode(key, items), ttl, stored)

        return self._compare(key, expected, act)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Delete; a logout does not fail because the serializer cannot decode what was deleted."""
        if expected is not None:
            return self._compare(key, expected, lambda stored: self.unserialized.delete(key, stored))
        deleted = self.unserialized.delete(key)
        try:
            return deleted if deleted.current is None else deleted._replace(current=self._decode(deleted.current))
        except Exception as error:  # whatever the serializer raises: an older key or serializer made the bytes
            logger.warning("A deleted session could not be decoded by the app's serializer: %s", type(error).__name__)
            return deleted._replace(current=None)

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        """Touch; what is expected is the stored bytes that it was decoded from."""
        return self.unserialized.touch(key, ttl, getattr(expected, "stored", None))

    def check(self) -> Iterator[Problem]:
        """Return the problems of the store, if it can be checked, and of the serializer."""
        if isinstance(self.unserialized, SupportsCheck):
            yield from self.unserialized.check()
        yield from pickle_problems(self._interface)

    def _compare(self, key: str, expected: bytes, act: Callable[[bytes], WriteResult]) -> WriteResult:
        """Act on the stored bytes while they decode to ``expected``: equal data may be in other bytes meanwhile."""
        stored: bytes | None = getattr(expected, "stored", None)
        while True:
            found = None
            if stored is not None:
                result = act(stored)
                if result.outcome is not Outcome.CONFLICT:
                    return result
                found = result.current
            if found is None:
                record = self.unserialized.read(key)
                if record is None:
                    return WriteResult(Outcome.MISSING)
                found = record.payload
            current = self._decode(found)
            if current not in (expected, self._as_read_back(key, expected)):
                return WriteResult(Outcome.CONFLICT, current)
            stored = found

    def _decoded(self, record: Record | None) -> Record | None:
        return None if record is None else self._decode_record(record)

    def _decode_record(self, record: Record) -> Record:
        return record._replace(payload=self._decode(record.payload))

    def _as_read_back(self, key: str, payload: bytes) -> bytes:
        """Return the payload as a later read returns it: JSON makes a list of a tuple, for example."""
        return self._decode(self._encode(key, unpack(payload)))

    def _encode(self, key: str, items: dict[str, Any]) -> bytes:
        session = self._interface.session_class(items, sid=key.removeprefix(self._interface.key_prefix))
        return self._convert.encode(session)

    def _decode(self, stored: bytes) -> bytes:
        payload = _Decoded(pack(self._convert.decode(stored)))
        payload.stored = stored
        return payload
