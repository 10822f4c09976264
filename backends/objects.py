"""What adapters share whose stores keep a session as a dict, not as bytes: the contract over three steps of theirs."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec
from markupsafe import Markup

from lazysession.backend import Outcome, Record, Renew, WriteResult, from_extension, plain_value, to_extension
from lazysession.backends.common import LocalExpiries, LocksPerProcess

logger = logging.getLogger("lazysession")

#: Seconds that a record gets where nobody has said how long it lives: Flask's own default of 31 days.
UNKNOWN_LIFETIME = 31 * 86400.0

#: Shared by all backends of the process, so that two of them on one store exclude each other as well.
#: Threads that are not in a forked process may hold those of its parent.
_LOCKS = LocksPerProcess(lambda: [threading.RLock() for _ in range(64)])


def stripe(name: str, count: int) -> int:
    """Return which of ``count`` locks a name has, the same in every process."""
    return zlib.crc32(name.encode()) % count


class Stored(NamedTuple):
    """What a store holds under a key.

    :param data: the session's items.
    :param remaining: seconds left; None when the store cannot tell.
    """

    data: dict[str, Any]
    ttl: float | None


class ObjectBackend(ABC):
    """A backend over a store of dicts: find, put and remove are the store's, comparing and refreshing is done here.

    Payloads are msgpack of what is stored. Comparing and replacing, and refreshing by storing once more, happen under
    :meth:`alone`, which excludes the threads of this process; a subclass may exclude more.

    :param clock: seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._deadlines: LocalExpiries[float] = LocalExpiries()
        self._lifetime = 0.0  # the longest asked for

    @abstractmethod
    def find(self, key: str) -> Stored | None:
        """Return what is stored, or None when it is absent, expired or cannot be decoded."""

    @abstractmethod
    def put(self, key: str, data: dict[str, Any], lifetime: float) -> None:
        """Store, for so many seconds, whether or not the key is taken; raise when that fails."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove what is stored; absent is fine. Raise when that fails."""

    def alone(self, key: str) -> AbstractContextManager[Any]:
        """Keep others from changing what is under the key."""
        locks = _LOCKS.get()
        return locks[stripe(key, len(locks))]

    def add(self, key: str, data: dict[str, Any], lifetime: float) -> bool:
        """Store unless the key is taken; answer whether it was stored."""
        with self.alone(key):
            if self.find(key) is not None:
                return False
            self.put(key, data, lifetime)
            return True

    def extend(self, key: str, lifetime: float) -> bool:
        """Give the record so many seconds from now, by storing once more what is there; False when it is gone."""
        with self.alone(key):
            stored = self.find(key)
            if stored is not None:
                self.put(key, stored.data, lifetime)
            return stored is not None

    def read(self, key: str, renew: Renew | None) -> Record | None:
        """Read what is stored; a refresh that is due is :meth:`extend`."""
        stored = self.find(key)
        if stored is None:
            return None
        refreshed = renew is not None and self._refresh(key, stored, renew)
        return Record(pack(stored.data), stored.ttl, refreshed)

    def create(self, key: str, payload: bytes, lifetime: float) -> bool:
        """Create with :meth:`add`.

        :raises ValueError: for a payload that is no session.
        """
        self._lifetime = max(self._lifetime, lifetime)
        created = self.add(key, unpack(payload), lifetime)
        if created:
            self._note(key, lifetime)
        return created

    def replace(self, key: str, payload: bytes, lifetime: float | None, expected: bytes) -> WriteResult:
        """Find, compare and put, alone with the key; CHANGED comes with the payload found.

        :param lifetime: None keeps what the store, or else this process, knows to be left; where neither knows, the
            record gets a whole lifetime.
        :raises ValueError: for a payload that is no session.
        """
        with self.alone(key):
            stored, other = self._compare(key, expected)
            if stored is None:
                return other
            if lifetime is None:
                left = self._left(key, stored)
                lifetime = (self._lifetime or UNKNOWN_LIFETIME) if left is None else left
            self.put(key, keep_unchanged(stored.data, payload), lifetime)
        self._note(key, lifetime)
        return WriteResult(Outcome.STORED)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Compare, where something was seen, and delete, alone with the key: no refresh brings it back."""
        with self.alone(key):
            if expected is None:
                stored = self.find(key)
            else:
                stored, other = self._compare(key, expected)
                if stored is None:
                    return other
            self.remove(key)
        self._deadlines.forget(key)
        return WriteResult(Outcome.STORED, None if expected is not None or stored is None else pack(stored.data))

    def _compare(self, key: str, expected: bytes) -> tuple[Stored | None, WriteResult]:
        """Return what is stored, if that is what was seen; else None, and what to answer instead."""
        stored = self.find(key)
        if stored is None:
            return None, WriteResult(Outcome.MISSING)
        found = pack(stored.data)
        return (
            (stored, WriteResult(Outcome.STORED)) if found == expected else (None, WriteResult(Outcome.CONFLICT, found))
        )

    def _refresh(self, key: str, stored: Stored, renew: Renew) -> bool:
        self._lifetime = max(self._lifetime, renew.lifetime)
        if not renew.due(self._left(key, stored)):
            return False
        try:
            refreshed = self.extend(key, renew.lifetime)
        except Exception as error:  # whatever the client raises
            logger.warning(
                "The expiry of a session could not be refreshed (%s); the session itself was read.",
                type(error).__name__,
            )
            return False
        if refreshed:
            self._note(key, renew.lifetime)
        return refreshed

    def _left(self, key: str, stored: Stored) -> float | None:
        if stored.ttl is not None:
            return stored.ttl
        deadline, now = self._deadlines.get(key), self.clock()
        return None if deadline is None or deadline <= now else deadline - now  # one that is over was moved by others

    def _note(self, key: str, lifetime: float) -> None:
        self._deadlines.put(key, self.clock() + lifetime)


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
