"""Sessions in memcached: an item for each session, through a client of pymemcache or pylibmc."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

from lazysession.backend import Outcome, Problem, Record, TouchFailed, WriteResult
from lazysession.backends.memcached.check import is_python_memcached, timeout_problems
from lazysession.backends.memcached.commands import PAST, Commands
from lazysession.backends.memcached.connect import client_of_url
from lazysession.backends.memcached.pylibmc import PylibmcCommands
from lazysession.backends.memcached.pymemcache import PymemcacheCommands
from lazysession.processes import Recent

#: Known by name, so that no library is imported that the app does not use.
_LIBRARIES: dict[str, type[PymemcacheCommands | PylibmcCommands]] = {
    "pymemcache.client.base.Client": PymemcacheCommands,
    "pymemcache.client.base.PooledClient": PymemcacheCommands,
    "pymemcache.client.hash.HashClient": PymemcacheCommands,
    "pylibmc.client.Client": PylibmcCommands,
}
_LONGEST_KEY = 250
_LONGEST_RELATIVE = 30 * 86400  # anything larger is taken for seconds since the epoch
#: A difference of so many seconds is one of the clocks of memcached and of the app, and no refresh by another process.
_CLOCKS_APART = 60.0
_ATTEMPTS = 10
_UNTAKEN_CHARACTER = re.compile("[\0- \x7f]")
_UNTAKEN = (
    "memcached takes keys of up to 250 bytes without spaces and control characters: "
    "shorten SESSION_KEY_PREFIX, SESSION_ID_LENGTH or the prefix of the client."
)


class _Known(NamedTuple):
    """What this process knows of an item: the expiry that it has set, and the token of the payload that it has read."""

    expiry: int = 0
    token: Any = None
    digest: bytes = b""


class MemcachedBackend:
    """Keep each payload as an item with its own expiry.

    Each process remembers the token of what it has read, so that a change is one round trip.

    :param client: a client of pymemcache or pylibmc.
    :param clock: the present time, in seconds since the epoch.
    :raises ValueError: for any other client.
    """

    interface_class: ClassVar[str | None] = "flask_session.memcached.memcached:MemcachedSessionInterface"

    def __init__(self, client: Any, *, clock: Callable[[], float] = time.time) -> None:
        self.client = client
        self.clock = clock
        self._commands = _commands_of(client)
        self._known: Recent[_Known] = Recent()
        self._longest_key = _LONGEST_KEY - len(getattr(client, "key_prefix", b""))
        self._ascii_only = not getattr(client, "allow_unicode_keys", True)

    @classmethod
    def from_interface(cls, interface: Any) -> MemcachedBackend | None:
        """Take over the client of Flask-Session's interface.

        :raises ValueError: for a client that cannot compare and set, and for a prefix too long for memcached.
        :returns: None for a client of python-memcached, which is unmaintained: the generic adapter is used for it.
        """
        if is_python_memcached(interface.client):
            return None
        backend = cls(interface.client)
        if not backend._takes(interface.key_prefix + "k" * -(-interface.sid_length * 4 // 3)):
            raise ValueError(_UNTAKEN)
        return backend

    @classmethod
    def from_setting(cls, value: Any, **options: object) -> MemcachedBackend | None:
        """Return a backend of SESSION_MEMCACHED, where that is a URL, such as ``memcached://host:port``.

        :raises ValueError: for what is neither a URL nor a client.
        :returns: None for a client, which Flask-Session uses, and without a value: it then uses the memcached on
            localhost.
        """
        if isinstance(value, str):
            return cls(client_of_url(value))
        if value is not None and not is_python_memcached(value):
            _commands_of(value)  # raises
        return None

    def read(self, key: str) -> Record | None:
        """Read with ``gets``."""
        if not self._takes(key):
            return None
        return self._record(key, *self._commands.gets(key), self._of(key).expiry)

    def read_and_touch(self, key: str, ttl: float | None, unless_more_than: float) -> Record | None:
        """Read with ``gats``, which always touches: memcached does not compare an expiry.

        :raises TouchFailed: when the record was read, and its expiry could not be moved.
        """
        if ttl is None or not self._takes(key):
            return self.read(key)
        expiry = self._expiry(ttl)
        payload, token, touched = self._commands.gats(key, expiry)
        record = self._record(key, payload, token, expiry if touched is True else 0)
        if record is None:
            return None
        if isinstance(touched, Exception):
            raise TouchFailed(record) from touched
        return record._replace(touched=touched)

    def _record(self, key: str, payload: bytes | None, token: Any, expiry: int) -> Record | None:
        """Return what was read, and remember its token."""
        if payload is None:
            self._known.forget(key)
            return None
        self._known.put(key, _Known(expiry, token, _digest(payload)))
        return Record(payload)

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        """Create with ``add``.

        :raises ValueError: for a key that memcached does not take; only a wrong prefix makes one.
        """
        if not self._takes(key):
            raise ValueError(_UNTAKEN)
        expiry = self._expiry(ttl)
        created = self._commands.add(key, payload, expiry)
        if created:
            self._known.put(key, _Known(expiry))
        return created

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        """Replace with ``cas``; ``gets`` comes first where this process did not read ``expected`` itself.

        :param ttl: None keeps what ``mg`` returns: TTL_UNKNOWN with pylibmc, and before memcached 1.6.
        """
        if not self._takes(key):
            return WriteResult(Outcome.MISSING)
        expiry = self._expiry_to_keep(key) if ttl is None else self._expiry(ttl)
        return self._compare(key, expected) if expiry is None else self._change(key, payload, expiry, expected)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Delete with ``gets``, which returns what is deleted, and ``cas``; an expected payload with ``cas`` alone."""
        if not self._takes(key):
            return WriteResult(Outcome.MISSING)
        if expected is not None:
            return self._change(key, b"", PAST, expected)  # an item that has expired already
        current: bytes | None = None
        for _ in range(_ATTEMPTS):  # return exactly what is deleted: a rotation in between leaves a forwarding record
            current, token = self._commands.gets(key)
            if token is None or self._commands.cas(key, b"", PAST, token) is Outcome.STORED:
                break
        else:
            self._commands.delete(key)
        self._known.forget(key)
        return WriteResult(Outcome.MISSING if current is None else Outcome.STORED, current)

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        """Move the expiry with ``touch``, which cannot compare: ``expected`` is not looked at."""
        expiry = self._expiry(ttl)
        touched = self._takes(key) and self._commands.touch(key, expiry)
        if touched:
            self._known.put(key, self._of(key)._replace(expiry=expiry))
        return touched

    def check(self) -> Iterable[Problem]:
        """Report clients without a timeout, servers that evict sessions, and clients that unpickle what they read."""
        yield from timeout_problems(self.client)
        evicted = sum(int(each.get("evictions", each.get(b"evictions", 0))) for each in self._commands.statistics())
        if evicted:
            what = f"memcached has evicted {evicted} items to make room, and sessions may be among them."
            remedy = "Give it more memory (memcached -m), or the sessions a memcached of their own."
            yield Problem("warning", what, remedy, "memcached-evictions")
        if self._commands.unpickles:
            what = "The client of memcached unpickles what it reads, so anyone who can write there can run code here."
            remedy = "Use pymemcache without a serde: SESSION_MEMCACHED = 'memcached://...'."
            yield Problem("warning", what, remedy, "memcached-pickle")

    def _compare(self, key: str, expected: bytes) -> WriteResult:
        """Return TTL_UNKNOWN while the payload is the expected one: the replace with a ttl then needs no other read."""
        if self._of(key).digest != _digest(expected):
            record = self.read(key)
            if record is None:
                return WriteResult(Outcome.MISSING)
            if record.payload != expected:
                return WriteResult(Outcome.CONFLICT, record.payload)
        return WriteResult(Outcome.TTL_UNKNOWN)

    def _change(self, key: str, payload: bytes, expiry: int, expected: bytes) -> WriteResult:
        known = self._of(key)
        token = known.token if known.digest == _digest(expected) else None
        for _ in range(_ATTEMPTS):  # Flask-Session rewrites the same bytes at every request: each time another token
            if token is None:
                current, token = self._commands.gets(key)
                if current is not None and current != expected:
                    return WriteResult(Outcome.CONFLICT, current)
            outcome = Outcome.MISSING if token is None else self._commands.cas(key, payload, expiry, token)
            if outcome is Outcome.MISSING or expiry == PAST:
                self._known.forget(key)
            elif outcome is Outcome.STORED:
                self._known.put(key, _Known(expiry))
            if outcome is not Outcome.CONFLICT:
                return WriteResult(outcome)
            token = None
        return WriteResult(Outcome.CONFLICT)

    def _of(self, key: str) -> _Known:
        return self._known.get(key) or _Known()

    # Keys and seconds

    def _takes(self, key: str) -> bool:
        if len(key.encode("utf-8", "replace")) > self._longest_key or (self._ascii_only and not key.isascii()):
            return False
        return _UNTAKEN_CHARACTER.search(key) is None

    def _expiry(self, ttl: float) -> int:
        seconds = max(1, int(ttl))  # 0 would be no expiry
        return seconds if seconds <= _LONGEST_RELATIVE else seconds + int(self.clock())

    def _expiry_to_keep(self, key: str) -> int | None:
        """Return the expiry that an item has; None when that cannot be known.

        Example of more than 30 days: this process has set the date 2,900,000. At 100,000 memcached reports 2,800,010 s
        left, as its clock is 10 s behind. Adding 10 s at each change would add up, so the same date is set again.
        """
        ttl, now, date = self._commands.ttl(key), self.clock(), self._of(key).expiry
        if ttl is None:
            return None
        if ttl == -1:
            return 0
        if ttl > _LONGEST_RELATIVE:
            if abs(date - now - ttl) <= _CLOCKS_APART:
                return date
            ttl -= 1  # no write may make it longer
        return self._expiry(ttl)


def _commands_of(client: object) -> Commands:
    """Return the commands through a client.

    :raises ValueError: for a client of another library, and for what is no client.
    """
    names = [f"{base.__module__}.{base.__qualname__}" for base in type(client).__mro__]
    for name in filter(_LIBRARIES.__contains__, names):
        return _LIBRARIES[name](client)
    raise ValueError(
        f"a {names[0]} is neither a URL such as 'memcached://localhost:11211', nor a Client, PooledClient or "
        "HashClient of pymemcache, nor a Client of pylibmc or of python-memcached."
    )


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).digest()
