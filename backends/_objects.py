"""What adapters share whose stores keep a session as a dict, not as bytes: the contract over three steps of theirs."""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec

from lazysession.backend import Outcome, Record, Renew, Replaced
from lazysession.backends._forks import renew_after_fork

logger = logging.getLogger("lazysession")

#: Seconds that a record gets where nobody has said how long it lives: Flask's own default of 31 days.
UNKNOWN_LIFETIME = 31 * 86400.0

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)  # what msgspec raises
_reported: set[str] = set()


def pack(data: dict[str, Any]) -> bytes:
    """Answer a stored dict as msgpack; what msgpack cannot hold is stood in for by a text, and so is never an error."""
    try:
        return _MSGPACK.encode(data)
    except _UNENCODABLE:  # too large an integer, a lone surrogate, a list within itself: no hook is asked
        return _MSGPACK.encode({str(name): _encodable(value) for name, value in data.items()})


def unpack(payload: bytes) -> dict[str, Any]:
    """Answer the dict of a payload in msgpack or JSON.

    :raises ValueError: when the payload is neither, or no dict.
    """
    return _parse(payload)[0]


def keep_unchanged(stored: dict[str, Any], payload: bytes) -> dict[str, Any]:
    """Answer the dict of a payload, with the stored values themselves where the payload has them as they were read.

    So a tuple, a set, a date or an object that someone stored stays one until the request changes that very key.

    :raises ValueError: as :func:`unpack`.
    """
    data, encode = _parse(payload)
    for name, value in stored.items():
        if name in data and encode(unpack(pack({name: value}))) == encode({name: data[name]}):
            data[name] = value
    return data


def _parse(payload: bytes) -> tuple[dict[str, Any], Callable[[Any], bytes]]:
    """Answer the dict of a payload, and what encodes its format."""
    for decode, encode in ((msgspec.msgpack.decode, _MSGPACK.encode), (msgspec.json.decode, _JSON.encode)):
        try:
            data = decode(payload)
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict):
            return data, encode
    raise ValueError("The payload is no session: it is no dict in msgpack or JSON.")


def _stand_in(value: Any) -> Any:
    """Answer what an app sees in the place of a value that has no form in msgpack."""
    # Values of a class derived from str, int or float, which are asked for their plain value past what they override.
    if isinstance(value, str):  # markupsafe.Markup, above all
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return _name_class(value)


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
_JSON = msgspec.json.Encoder(enc_hook=_stand_in)

#: Shared by all backends of the process, so that two of them on one store exclude each other as well.
_LOCKS = [threading.RLock() for _ in range(64)]

if hasattr(os, "register_at_fork"):  # threads that are not in the child may hold the parent's
    os.register_at_fork(after_in_child=lambda: _LOCKS.__setitem__(slice(None), [threading.RLock() for _ in _LOCKS]))


def stripe(name: str, count: int) -> int:
    """Answer which of ``count`` locks a name has, the same in every process."""
    return zlib.crc32(name.encode()) % count


class Deadlines:
    """Remember when sessions end, as this process last set it: a note for stores that do not tell.

    :param most: how many sessions are remembered; the one used longest ago is forgotten first.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: OrderedDict[str, float] = OrderedDict()
        renew_after_fork(self)

    def renew(self) -> None:
        """Take a new lock in a forked process."""
        self._lock = threading.Lock()

    def get(self, key: str) -> float | None:
        """Answer when the session ends, in seconds of the clock that it was noted by; None when it is not known."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def note(self, key: str, deadline: float) -> None:
        """Remember when a session ends."""
        with self._lock:
            self._known[key] = deadline
            self._known.move_to_end(key)
            if len(self._known) > self._most:
                self._known.popitem(last=False)

    def forget(self, key: str) -> None:
        """Forget a session that has ended."""
        with self._lock:
            self._known.pop(key, None)


class Stored(NamedTuple):
    """What a store holds under a key.

    :param data: the session's items.
    :param remaining: seconds left; None when the store cannot tell.
    """

    data: dict[str, Any]
    remaining: float | None


class ObjectBackend(ABC):
    """A backend over a store of dicts: find, put and remove are the store's, comparing and refreshing is done here.

    Payloads are msgpack of what is stored. Comparing and replacing, and refreshing by storing once more, happen under
    :meth:`alone`, which excludes the threads of this process; a subclass may exclude more.

    :param clock: seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._deadlines = Deadlines()
        self._lifetime = UNKNOWN_LIFETIME

    @abstractmethod
    def find(self, key: str) -> Stored | None:
        """Answer what is stored, or None when it is absent, expired or cannot be decoded."""

    @abstractmethod
    def put(self, key: str, data: dict[str, Any], lifetime: float) -> None:
        """Store, for so many seconds, whether or not the key is taken; raise when that fails."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove what is stored; absent is fine. Raise when that fails."""

    def alone(self, key: str) -> AbstractContextManager[Any]:
        """Keep others from changing what is under the key."""
        return _LOCKS[stripe(key, len(_LOCKS))]

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
        return Record(pack(stored.data), stored.remaining, refreshed)

    def create(self, key: str, payload: bytes, lifetime: float) -> bool:
        """Create with :meth:`add`.

        :raises ValueError: for a payload that is no session.
        """
        created = self.add(key, unpack(payload), lifetime)
        if created:
            self._note(key, lifetime)
        return created

    def replace(self, key: str, payload: bytes, lifetime: float | None, seen: bytes) -> Replaced:
        """Find, compare and put, alone with the key; CHANGED comes with the payload found.

        :param lifetime: None keeps what the store, or else this process, knows to be left; where neither knows, the
            record gets a whole lifetime.
        :raises ValueError: for a payload that is no session.
        """
        with self.alone(key):
            stored, other = self._compare(key, seen)
            if stored is None:
                return other
            if lifetime is None:
                left = self._left(key, stored)
                lifetime = self._lifetime if left is None else left
            self.put(key, keep_unchanged(stored.data, payload), lifetime)
        self._note(key, lifetime)
        return Replaced(Outcome.STORED)

    def delete(self, key: str, seen: bytes | None = None) -> Replaced:
        """Compare, where something was seen, and delete, alone with the key: no refresh brings it back."""
        with self.alone(key):
            if seen is not None:
                stored, other = self._compare(key, seen)
                if stored is None:
                    return other
            self.remove(key)
        self._deadlines.forget(key)
        return Replaced(Outcome.STORED)

    def _compare(self, key: str, seen: bytes) -> tuple[Stored | None, Replaced]:
        """Answer what is stored, if that is what was seen; else None, and what to answer instead."""
        stored = self.find(key)
        if stored is None:
            return None, Replaced(Outcome.GONE)
        found = pack(stored.data)
        return (stored, Replaced(Outcome.STORED)) if found == seen else (None, Replaced(Outcome.CHANGED, found))

    def _refresh(self, key: str, stored: Stored, renew: Renew) -> bool:
        self._lifetime = renew.lifetime
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
        if stored.remaining is not None:
            return stored.remaining
        deadline = self._deadlines.get(key)
        return None if deadline is None else deadline - self.clock()

    def _note(self, key: str, lifetime: float) -> None:
        self._deadlines.note(key, self.clock() + lifetime)
