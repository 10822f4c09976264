"""What adapters share whose stores keep a session as a dict, not as bytes: the contract over three steps of theirs."""

from __future__ import annotations

import copy
import copyreg
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, NamedTuple, cast

from lazysession.backend import NotStorable, Outcome, Record, WriteResult
from lazysession.processes import StripedLocks

#: Shared by all backends of the process, so that two of them on one store exclude each other as well.
_LOCKS = StripedLocks()
_PLAIN = frozenset({str, bytes, int, bool})


class Stored(NamedTuple):
    """What a store holds under a key.

    :param data: the session's items.
    :param ttl: seconds left; None when the store cannot tell.
    :param pickled: what they were unpickled from; None when the store keeps that to itself, or does not pickle.
    """

    data: dict[str, Any]
    ttl: float | None
    pickled: bytes | None = None


class Items:
    """The payload of a store of objects: a session's items, which are never changed, compared by their types as well.

    :param items: the items.
    :param pickled: what they can be unpickled from, if that is known: it makes copying and comparing fast.
    """

    __slots__ = ("items", "pickled")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, items: dict[str, Any], pickled: bytes | None = None) -> None:
        self.items, self.pickled = items, pickled

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Items):
            return False
        return (self.pickled is not None and self.pickled == other.pickled) or same(self.items, other.items)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # payloads are not logged


class ObjectCodec:
    """Keep what Flask-Session keeps in such a store: tuples, sets, dates, and objects of the app's own classes."""

    def encode(self, data: Mapping[str, Any]) -> Items:
        """Return a copy of the session's items.

        :raises TypeError: when a value cannot be copied, or differs from its copy; the message names its key and type.
        """
        items = dict(data)
        pickled = _pickled(items)
        if pickled is not None:
            copied = self.decode(Items(items, pickled))
            if _pickled(copied) == pickled:  # not so of a set, whose order may be another one
                return Items(copied, pickled)
        copied = self._copy(items)
        for key, value in items.items():
            if not same(copied[key], value):
                raise TypeError(_refusal(key, value, "it differs from its copy"))
        return Items(copied)

    def decode(self, payload: Items) -> dict[str, Any]:
        """Return a copy of the items of a payload: the app may change what is inside of them.

        :raises TypeError: when a value cannot be copied; the message names its key and type.
        """
        if payload.pickled is not None:
            with suppress(Exception):  # whatever the values raise
                return cast("dict[str, Any]", pickle.loads(payload.pickled))  # noqa: S301 - found so in the store, or made here
        return self._copy(payload.items)

    def read_back(self, payload: Items, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the items of a payload that is about to be stored."""
        return self.decode(payload)

    def same(self, one: Any, other: Any) -> bool:
        """Return whether two values are stored alike, unlike 1 and True; any, as sessions hold anything."""
        return same(one, other)

    @staticmethod
    def _copy(items: dict[str, Any]) -> dict[str, Any]:
        try:
            return copy.deepcopy(items)
        except Exception as error:  # whatever the values raise
            raise _explained(items, error, copy.deepcopy) from error


def _pickled(items: dict[str, Any]) -> bytes | None:
    """Return items as pickle; None for values that it does not take, some of which can be copied."""
    try:
        return pickle.dumps(items, pickle.HIGHEST_PROTOCOL)
    except Exception:  # whatever the values raise
        return None


def same(one: Any, other: Any, compared: frozenset[tuple[int, int]] = frozenset()) -> bool:
    """Return whether two values have the same types and hold the same, in the same order; any, as sessions hold it.

    An object of another class is what pickle stores of it: two carts with the same apples are the same, also if their
    class does not define that, and a cart is the same as before when it has been in a store.

    :param compared: the ids of the objects around them, which may hold each other.
    """
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind in _PLAIN:
        return bool(one == other)
    pair = id(one), id(other)
    if pair in compared:
        return True
    within = compared | {pair}
    if kind in (set, frozenset):
        found = {each: each for each in other}
        return len(one) == len(other) and all(each in found and same(each, found[each], within) for each in one)
    return _same_parts(_parts(one), _parts(other), within)


def _same_parts(parts: list[Any] | None, others: list[Any] | None, within: frozenset[tuple[int, int]]) -> bool:
    if parts is None or others is None or len(parts) != len(others):
        return False
    for part, other in zip(parts, others, strict=True):  # no generator, as each save comes by here
        if part is not other and not same(part, other, within):
            return False
    return True


def _parts(value: Any) -> list[Any] | None:
    """Return what a value consists of, as pickle stores it; None for what pickle stores as a name, or refuses."""
    kind = type(value)
    if kind in (list, tuple):
        return list(value)
    if kind is dict:
        return [part for pair in value.items() for part in pair]
    if kind in (float, complex):
        return [repr(value)]  # nan is the same as nan
    try:
        reduced = copyreg.dispatch_table[kind](value) if kind in copyreg.dispatch_table else value.__reduce_ex__(4)
    except Exception:  # whatever the app's own class raises
        return None
    if isinstance(reduced, str):
        return None
    return [*reduced[:3], *(None if each is None else list(each) for each in reduced[3:5])]


def _refusal(key: str, value: object, reason: object) -> str:
    return (
        f"session[{key!r}] cannot be stored ({type(value).__name__}: {reason}). Nothing of this request's session was "
        "stored. Store plain values, such as an id."
    )


def _explained(items: Mapping[str, Any], error: Exception, act: Callable[[Any], object]) -> NotStorable:
    """Return an error that names the first key whose value cannot be handled by a function."""
    for key, value in items.items():
        try:
            act(value)
        except Exception as own:
            return NotStorable(_refusal(key, value, own))
    return NotStorable(f"The session cannot be stored: {error}")


@contextmanager
def _naming_keys(data: Mapping[str, Any]) -> Generator[None]:
    """Name the key of a value that the store cannot hold; any other error is the client's own.

    :raises NotStorable: when a value cannot be pickled, or an interface's serializer has named one that it refuses.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, TypeError) and str(error).startswith("session["):
            raise NotStorable(str(error)) from error
        explained = _explained(data, error, pickle.dumps)
        if str(explained).startswith("session["):
            raise explained from error
        raise


class ObjectBackend(ABC):
    """A backend over a store of dicts: find, put and remove are the store's, comparing is done here.

    Its payloads are :class:`Items`. Comparing and changing a record happen under :meth:`locked`, a lock that the
    threads of this process share; a subclass may lock more.

    :param clock: seconds since the epoch.
    """

    codec = ObjectCodec()

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

    def find_again(self, key: str, expected: Items) -> Stored | None:
        """Return what is stored; with the expected items themselves, where the store sees that it holds those."""
        return self.find(key)

    def put_again(self, key: str, data: dict[str, Any], ttl: float) -> None:
        """Store in the place of what was just found, under the key's lock."""
        self.put(key, data, ttl)

    def locked(self, key: str) -> AbstractContextManager[Any]:
        """Return the lock of a key, which the threads of this process share."""
        lock: AbstractContextManager[Any] = _LOCKS.of(key)
        return lock

    def add(self, key: str, data: dict[str, Any], ttl: float) -> bool:
        """Store unless the key is taken; return whether it was stored."""
        with self.locked(key):
            if self.find(key) is not None:
                return False
            self.put(key, data, ttl)
            return True

    def is_expected(self, data: dict[str, Any], expected: Items) -> bool:
        """Return whether stored items are those of a payload."""
        return same(data, expected.items)

    def read(self, key: str) -> Record | None:
        """Return what is stored."""
        stored = self.find(key)
        return None if stored is None else Record(Items(stored.data, stored.pickled), stored.ttl)

    def create(self, key: str, payload: Items, ttl: float) -> bool:
        """Create with :meth:`add`.

        :raises NotStorable: for a value that the store cannot hold.
        """
        with _naming_keys(payload.items):
            return self.add(key, payload.items, ttl)

    def replace(self, key: str, payload: Items, ttl: float | None, expected: Items) -> WriteResult:
        """Find, compare and put under the key's lock; CONFLICT comes with the current payload.

        :raises NotStorable: for a value that the store cannot hold.
        """

        def put(stored: Stored) -> Outcome:
            left = stored.ttl if ttl is None else ttl
            if left is None:
                return Outcome.TTL_UNKNOWN
            with _naming_keys(payload.items):
                self.put_again(key, payload.items, left)
            return Outcome.STORED

        return self._change(key, expected, put)

    def delete(self, key: str, expected: Items | None = None) -> WriteResult:
        """Compare where a payload is expected, and remove, under the key's lock: no touch stores it again."""

        def remove(_: Stored) -> Outcome:
            self.remove(key)
            return Outcome.STORED

        if expected is not None:
            return self._change(key, expected, remove)
        with self.locked(key):
            stored = self.find(key)
            self.remove(key)  # also what cannot be decoded
        return WriteResult(Outcome.MISSING) if stored is None else WriteResult(Outcome.STORED, Items(stored.data))

    def touch(self, key: str, ttl: float, expected: Items | None = None) -> bool:
        """Store once more what is there, if that is what is expected, under the key's lock."""
        with self.locked(key):
            stored = self.find(key)
            if stored is None or (expected is not None and not self.is_expected(stored.data, expected)):
                return False
            self.put(key, stored.data, ttl)
            return True

    def _change(self, key: str, expected: Items, change: Callable[[Stored], Outcome]) -> WriteResult:
        with self.locked(key):
            stored = self.find_again(key, expected)
            if stored is None:
                return WriteResult(Outcome.MISSING)
            if not self.is_expected(stored.data, expected):
                return WriteResult(Outcome.CONFLICT, Items(stored.data, stored.pickled))
            return WriteResult(change(stored))
