"""Sessions in memcached: an item for each session, driven through pymemcache or pylibmc."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from lazysession.backend import Outcome, Problem, Record, Renew, WriteResult
from lazysession.backends.common import LocalExpiries
from lazysession.backends.memcached import clients
from lazysession.backends.memcached.check import is_python_memcached, timeout_problems
from lazysession.backends.memcached.commands import PAST

#: Seconds that a client made of a URL waits for a server.
TIMEOUT = 3.0
_LONGEST_KEY = 250
_LONGEST_RELATIVE = 30 * 86400  # anything larger is taken for seconds since the epoch
#: What differs by no more seconds than this is no refresh of others, but the clocks of memcached and of the app.
_CLOCKS_APART = 60.0
_LAPS = 10
_UNKNOWN_LIFETIME = 3600.0
_URL = "a URL such as 'memcached://localhost:11211' or 'memcached://one:11211,two:11211?timeout=0.5'"
_OPTIONS = (
    "its options are timeout and connect_timeout, in seconds and more than 0, as in "
    "'memcached://localhost:11211?timeout=1'"
)
_UNTAKEN = (
    "memcached takes keys of up to 250 bytes without spaces and control characters: "
    "shorten SESSION_KEY_PREFIX, SESSION_ID_LENGTH or the prefix of the client."
)


class _Note(NamedTuple):
    """What this process knows of a session: when its expiry comes, and the token of the payload that was read."""

    deadline: float | None
    token: Any = None
    digest: bytes = b""


class MemcachedBackend:
    """Keep each payload as an item with its own expiry.

    memcached does not tell what is left of a life, so each process notes what it did itself. A session that it has no
    note of is due for a refresh, which costs no trip: it rides on the read.

    :param client: a client of pymemcache or pylibmc.
    :param clock: the present time, in seconds since the epoch.
    :raises ValueError: for any other client.
    """

    drives: ClassVar[str | None] = "flask_session.memcached.memcached:MemcachedSessionInterface"

    def __init__(self, client: Any, *, clock: Callable[[], float] = time.time) -> None:
        self.client = client
        self.clock = clock
        self._commands = clients.commands_of(client)
        self._local_expiries: LocalExpiries[_Note] = LocalExpiries()
        self._lifetime = 0.0  # the longest asked for
        self._longest_key = _LONGEST_KEY - len(getattr(client, "key_prefix", b""))
        self._ascii_only = not getattr(client, "allow_unicode_keys", True)

    @classmethod
    def from_interface(cls, interface: Any) -> MemcachedBackend | None:
        """Take over the client of Flask-Session's interface.

        :raises ValueError: for a client that cannot compare and set, and for a prefix too long for memcached.
        :returns: None for a client of python-memcached, which is unmaintained: the generic adapter drives it.
        """
        if is_python_memcached(interface.client):
            return None
        backend = cls(interface.client)
        if not backend._takes(interface.key_prefix + "k" * -(-interface.sid_length * 4 // 3)):
            raise ValueError(_UNTAKEN)
        return backend

    @classmethod
    def from_setting(cls, value: Any, **options: object) -> MemcachedBackend | None:
        """Make a backend of SESSION_MEMCACHED: a client, or a URL (``memcached://host:port``), made into pymemcache's.

        :raises ValueError: for anything else.
        :returns: None without a value: Flask-Session then uses the memcached on localhost. Also for a client of
            python-memcached, see :meth:`from_interface`.
        """
        if value is None or is_python_memcached(value):
            return None
        return cls(client_of_url(value) if isinstance(value, str) else value)

    @classmethod
    def left_to_flask_session(cls, value: object, **options: object) -> bool:
        """Return whether Flask-Session uses the client; a URL it would silently replace by a client on localhost."""
        return not isinstance(value, str)

    def read(self, key: str, renew: Renew | None) -> Record | None:
        """Read with ``gets``, or with ``gats`` when the note says that a refresh is due."""
        if not self._takes(key):
            return None
        now, deadline, refreshed = self.clock(), self._note(key).deadline, False
        if renew is not None and renew.due(None if deadline is None else deadline - now):
            self._lifetime = max(self._lifetime, renew.lifetime)
            value, token, refreshed = self._commands.gats(key, self._expiry(renew.lifetime))
            deadline = now + renew.lifetime if refreshed else None
        else:
            value, token = self._commands.gets(key)
        if value is None:
            self._local_expiries.forget(key)
            return None
        self._local_expiries.put(key, _Note(deadline, token, _digest(value)))
        return Record(value, None, refreshed=refreshed)

    def create(self, key: str, payload: bytes, lifetime: float) -> bool:
        """Create with ``add``.

        :raises ValueError: for a key that memcached does not take, which only a wrong prefix makes.
        """
        if not self._takes(key):
            raise ValueError(_UNTAKEN)
        self._lifetime = max(self._lifetime, lifetime)
        created = self._commands.add(key, payload, self._expiry(lifetime))
        if created:
            self._local_expiries.put(key, _Note(self.clock() + lifetime))
        return created

    def replace(self, key: str, payload: bytes, lifetime: float | None, expected: bytes) -> WriteResult:
        """Replace with ``cas``; where this process did not read ``seen`` itself, ``gets`` comes first."""
        if not self._takes(key):
            return WriteResult(Outcome.MISSING)
        if lifetime is None:
            return self._change_what_was_seen(key, payload, *self._expiry_to_keep(key), expected)
        return self._change_what_was_seen(key, payload, self._expiry(lifetime), self.clock() + lifetime, expected)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Delete with ``gets``, which tells what goes, and ``cas``; with a payload seen, with ``cas`` alone."""
        if not self._takes(key):
            return WriteResult(Outcome.STORED if expected is None else Outcome.MISSING)
        if expected is not None:
            return self._change_what_was_seen(key, b"", PAST, None, expected)  # which has expired already
        found: bytes | None = None
        for _ in range(_LAPS):  # what was found is what goes: a rotation in between leaves a note, which is to be told
            found, token = self._commands.gets(key)
            if token is None or self._commands.cas(key, b"", PAST, token) is Outcome.STORED:
                break
        else:
            self._commands.delete(key)
        self._local_expiries.forget(key)
        return WriteResult(Outcome.STORED, found)

    def check(self) -> Iterable[Problem]:
        """Report clients that wait for ever, servers that throw sessions away, and code that runs from the store."""
        yield from timeout_problems(self.client)
        evicted = sum(int(each.get("evictions", each.get(b"evictions", 0))) for each in self._commands.statistics())
        if evicted:
            what = f"memcached has thrown away {evicted} items to make room, and sessions may be among them."
            remedy = "Give it more memory (memcached -m), or the sessions a memcached of their own."
            yield Problem("warning", what, remedy, "memcached-evictions")
        if self._commands.unpickles:
            what = "The client of memcached unpickles what it finds, so anyone who can write there can run code here."
            remedy = "Use pymemcache without a serde: SESSION_MEMCACHED = 'memcached://...'."
            yield Problem("warning", what, remedy, "memcached-pickle")

    def _change_what_was_seen(
        self, key: str, payload: bytes, expiry: int, deadline: float | None, expected: bytes
    ) -> WriteResult:  # fmt: skip
        note = self._note(key)
        token = note.token if note.digest == _digest(expected) else None
        for _ in range(_LAPS):  # Flask-Session rewrites the same bytes at every request: each time another token
            if token is None:
                value, token = self._commands.gets(key)
                if value is not None and value != expected:
                    return WriteResult(Outcome.CONFLICT, value)
            outcome = Outcome.MISSING if token is None else self._commands.cas(key, payload, expiry, token)
            if outcome is Outcome.MISSING or expiry == PAST:
                self._local_expiries.forget(key)
            elif outcome is Outcome.STORED:
                self._local_expiries.put(key, _Note(deadline))
            if outcome is not Outcome.CONFLICT:
                return WriteResult(outcome)
            token = None
        return WriteResult(Outcome.CONFLICT)

    def _note(self, key: str) -> _Note:
        return self._local_expiries.get(key) or _Note(None)

    # Keys and seconds

    def _takes(self, key: str) -> bool:
        encoded = key.encode("utf-8", "replace")
        if len(encoded) > self._longest_key or (self._ascii_only and not key.isascii()):
            return False
        return not any(character <= " " or character == "\x7f" for character in key)

    def _expiry(self, lifetime: float) -> int:
        seconds = max(1, int(lifetime))  # 0 would be for ever
        return seconds if seconds <= _LONGEST_RELATIVE else seconds + int(self.clock())

    def _expiry_to_keep(self, key: str) -> tuple[int, float | None]:
        """Return the expiry that the item has, and when it comes; the note tells what the store does not."""
        now, noted = self.clock(), self._note(key).deadline
        ttl = self._commands.ttl(key)
        if ttl == -1:
            return 0, None
        if ttl is None:
            if noted is None or noted <= now:  # one that is over was moved by others
                noted = now + (self._lifetime or _UNKNOWN_LIFETIME)
            return self._expiry(noted - now), noted
        if ttl > _LONGEST_RELATIVE:
            if noted is not None and abs(noted - now - ttl) <= _CLOCKS_APART:
                return int(noted), noted  # the same date again: what the clocks are apart must not add up
            ttl -= 1  # no write may add to the life
        return self._expiry(ttl), now + ttl


def client_of_url(url: str) -> Any:
    """Make a client of pymemcache that threads may share; any, as pymemcache has no annotations.

    :param url: ``memcached://host:port``, several hosts parted by commas, or ``memcached:///path/of/a/socket``; with
        ``timeout`` and ``connect_timeout`` in seconds.
    :raises ValueError: for anything else; the message does not repeat the URL.
    """
    from pymemcache.client.base import PooledClient, normalize_server_spec
    from pymemcache.client.hash import HashClient

    options: dict[str, Any] = {"timeout": TIMEOUT, "connect_timeout": TIMEOUT, "no_delay": True}
    try:
        parts = urlsplit(url)
        servers = [normalize_server_spec(server) for server in (parts.netloc or parts.path).split(",")]
        given = {name: float(value) for name, value in parse_qsl(parts.query, strict_parsing=bool(parts.query))}
    except ValueError:
        what = f"not {_URL}" if "?" not in url else f"wrong: {_OPTIONS}"
        raise ValueError(f"the value is {what}.") from None
    if not given.keys() <= {"timeout", "connect_timeout"} or any(not seconds > 0 for seconds in given.values()):
        raise ValueError(f"the value is wrong: {_OPTIONS}.")
    if (
        parts.scheme != "memcached"
        or "@" in parts.netloc
        or (parts.netloc and parts.path.strip("/"))
        or not all(server[0] for server in servers)
        or parts.fragment
    ):
        raise ValueError(f"the value is not {_URL}; memcached has no user, password or database.")
    options |= given
    if len(servers) > 1:
        return HashClient(servers, use_pooling=True, **options)
    return PooledClient(servers[0], **options)


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).digest()
