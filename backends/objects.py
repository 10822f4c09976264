"""What adapters share whose stores keep a session as a dict, not as bytes: the contract over three steps of theirs."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec
from markupsafe import Markup

from lazysession.backend import Outcome, Record, WriteResult, from_extension, plain_value, to_extension
from lazysession.processes import StripedLocks

#: Shared by all backends of the process, so that two of them on one store exclude each other as well.
_LOCKS = StripedLocks()


class Stored(NamedTuple):
    """What a store holds under a key.

    :param data: the session's items.
    :param ttl: seconds left; None when the store cannot tell.
    """

    data: dict[str, Any]
    ttl: float | None


class ObjectBackend(ABC):
    """A backend over a store of dicts: find, put and remove are the store's, comparing is done here.

    Payloads are msgpack of what is stored. What compares before it changes a record does both under :meth:`alone`,
    which excludes the threads of this process; a subclass may exclude more.

    :param clock: seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock

    @abstractmethod
    def find(self, key: str) -> Stored | None:
        """Return what is stored, or None when it is absent, expired or cannot be decoded."""

    @abstractmethod
    def put(self, key: str, data: dict[str, Any], ttl: float) -> None:
        """Store, for so many seconds, whether or not the key is taken; raise when that fails."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove what is stored; absent is fine. Raise when that fails."""

    def alone(self, key: str) -> AbstractContextManager[Any]:
        """Keep others from changing what is under the key."""
        lock: AbstractContextManager[Any] = _LOCKS.of(key)
        return lock

    def add(self, key: str, data: dict[str, Any], ttl: float) -> bool:
        """Store unless the key is taken; return whether it was stored."""
        with self.alone(key):
            if self.find(key) is not None:
                return False
            self.put(key, data, ttl)
            return True

    def read(self, key: str) -> Record | None:
        """Return what is stored."""
        stored = self.find(key)
        return None if stored is None else Record(pack(stored.data), stored.ttl)

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        """Create with :meth:`add`.

        :raises ValueError: for a payload that is no session.
        """
        return self.add(key, unpack(payload), ttl)

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        """Find, compare and put, alone with the key; CONFLICT comes with the current payload.

        :raises ValueError: for a payload that is no session.
        """

        def put(stored: Stored) -> Outcome:
            left = stored.ttl if ttl is None else ttl
            if left is None:
                return Outcome.TTL_UNKNOWN
            self.put(key, keep_unchanged(stored.data, payload), left)
            return Outcome.STORED

        return self._change(key, expected, put)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Compare where a payload is expected, and remove, alone with the key: no touch brings it back."""

        def remove(_: Stored) -> Outcome:
            self.remove(key)
            return Outcome.STORED

        if expected is not None:
            return self._change(key, expected, remove)
        with self.alone(key):
            stored = self.find(key)
            self.remove(key)  # also what cannot be decoded
        return WriteResult(Outcome.MISSING) if stored is None else WriteResult(Outcome.STORED, pack(stored.data))

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        """Store once more what is there, if that is what is expected, alone with the key."""
        with self.alone(key):
            stored = self.find(key)
            if stored is None or (expected is not None and pack(stored.data) != expected):
                return False
            self.put(key, stored.data, ttl)
            return True

    def _change(self, key: str, expected: bytes, change: Callable[[Stored], Outcome]) -> WriteResult:
        with self.alone(key):
            stored = self.find(key)
            if stored is None:
                return WriteResult(Outcome.MISSING)
            current = pack(stored.data)
            return WriteResult(Outcome.CONFLICT, current) if current != expected else WriteResult(change(stored))


logger = logging.getLogger("lazysession")

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)  # what msgspec raises
_reported: set[str] = set()


def pack(data: dict[str, Any]) -> bytes:
    """Return a stored dict as msgpack; what msgpack cannot hold is stood in for by a text, and so is never an error."""
    try:
        return _MSGPACK.encode(data)
    except _UNENCODABLE:  # too large an integer, a lone surrogate, a list within itself: no hook is asked
        return _MSGPACK.encode({str(name): _encodable(value) for name, value in data.items()})


def unpack(payload: bytes) -> dict[str, Any]:
    """Return the dict of a payload in msgpack or JSON.

    :raises ValueError: when the payload is neither, or no dict.
    """
    return _parse(payload)[0]


def keep_unchanged(stored: dict[str, Any], payload: bytes) -> dict[str, Any]:
    """Return the dict of a payload, with the stored values themselves where the payload has them as they were read.

    So a tuple, a set, a date or an object that someone stored stays one until the request changes that very key.

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
            "the class, and stays stored until its key is changed. Said once for each class.",
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
