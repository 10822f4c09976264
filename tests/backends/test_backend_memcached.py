"""The memcached adapter against the contract, on a real server through each client, and what only memcached has."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.serde import compressed_serde

from lazysession.backend import Outcome, Record, SupportsCheck, SupportsPurge, WriteResult
from lazysession.backends.memcached import MemcachedBackend
from lazysession.processes import Recent
from lazysession.testing import KEY, ComparesAtomically, Contract, Held, KeepsTtl, ReadsAndTouches, race
from tests.support.connecting import connect_client, connect_pylibmc
from tests.support.on_memcached import CLIENTS, HOURLY, ONE_DAY, Server, Wire, every_client, pylibmc, pymemcache_alone

pytestmark = pytest.mark.usefixtures("close_memcached")

THIRTY_DAYS = 30 * ONE_DAY


def hold(server: Server, client: Any, connect: Callable[[], MemcachedBackend] | None = None, prefix: str = "") -> Held:
    """Return a client's server as Held; time passes at the server and for the process alike."""
    backend = MemcachedBackend(client)

    def pass_time(seconds: float) -> None:
        server.pass_time(seconds, [prefix + KEY])
        now = backend.clock
        backend.clock = lambda: now() + seconds

    return Held(backend, pass_time, connect)


class Memcached(Contract, ReadsAndTouches):
    """An item holds 1 MiB, its key and its head included, so that payloads end a little below."""

    largest_payload = 2**20 - 59 - len(KEY)


class TestUrl(Memcached, KeepsTtl, ComparesAtomically):
    """A URL: pymemcache's PooledClient."""

    @pytest.fixture
    def held(self, server: Server) -> Held:
        connect: Any = partial(MemcachedBackend.from_setting, server.url)
        return hold(server, connect().client, connect)


class TestClient(Memcached, KeepsTtl, ComparesAtomically):
    """pymemcache's Client, which is for one thread, used by many threads."""

    @pytest.fixture
    def held(self, server: Server) -> Held:
        return hold(server, Client(server.address), partial(connect_client, server.address))


class TestHashClient(Memcached, KeepsTtl, ComparesAtomically):
    """pymemcache's HashClient."""

    @pytest.fixture
    def held(self, server: Server) -> Held:
        return hold(server, HashClient([server.address]))


class TestCompressed(Memcached, KeepsTtl, ComparesAtomically):
    """A client with a prefix and a serializer of its own, which compresses."""

    longest_key = 250 - len("shop/")

    @pytest.fixture
    def held(self, server: Server) -> Held:
        return hold(server, PooledClient(server.address, key_prefix=b"shop/", serde=compressed_serde), prefix="shop/")

    def test_a_payload_over_the_limit_is_an_error(self, held: Held) -> None:
        """What counts is the compressed size."""
        assert held.backend.create(KEY, b"a" * 2**21, 1000)
        assert held.read().payload == b"a" * 2**21


class TestPylibmc(Memcached, ComparesAtomically):
    """pylibmc's Client, which is for one thread; it cannot return the ttl."""

    @pytest.fixture
    def held(self, server: Server) -> Held:
        return hold(server, pylibmc.Client([server.spec]), partial(connect_pylibmc, server.spec))


pylibmc_alone = pytest.mark.parametrize("make_client", [CLIENTS["pylibmc"]], ids=["pylibmc"])


def test_optional_verbs() -> None:
    """memcached needs no purging, and can be checked."""
    backend = MemcachedBackend(Client("localhost"))
    assert not isinstance(backend, SupportsPurge)
    assert isinstance(backend, SupportsCheck)


class TestRoundTrips:
    """What each verb sends."""

    @pymemcache_alone
    def test_of_pymemcache(self, wire: Wire, make_client: Callable[[Any], Any]) -> None:
        """One trip for each verb, also for a read that touches; a write that keeps the expiry reads it first."""
        backend = MemcachedBackend(make_client(wire.address))
        backend.create(KEY, b"1", ONE_DAY)
        backend.read(KEY)
        backend.replace(KEY, b"2", ONE_DAY, expected=b"1")
        backend.read_and_touch(KEY, ONE_DAY, ONE_DAY)
        backend.replace(KEY, b"3", None, expected=b"2")
        backend.read_and_touch(KEY, None, 0)
        backend.touch(KEY, ONE_DAY)
        backend.replace(KEY, b"4", ONE_DAY, expected=b"3")
        backend.delete(KEY)
        assert wire.sent == ["add", "gets", "cas", "gats", "mg", "cas", "gets", "touch", "cas", "gets", "cas"]

    @pylibmc_alone
    def test_of_pylibmc(self, wire: Wire, make_client: Callable[[Any], Any]) -> None:
        """It has no command that reads and touches: that is two trips."""
        backend = MemcachedBackend(make_client(wire.address))
        backend.create(KEY, b"1", ONE_DAY)
        backend.read(KEY)
        backend.replace(KEY, b"2", ONE_DAY, expected=b"1")
        backend.read_and_touch(KEY, ONE_DAY, ONE_DAY)
        backend.replace(KEY, b"3", None, expected=b"2")
        backend.touch(KEY, ONE_DAY)
        backend.delete(KEY)
        assert wire.sent == ["add", "gets", "cas", "gets", "touch", "touch", "gets", "cas"]

    @every_client
    def test_of_what_another_process_read(self, wire: Wire, make_client: Callable[[Any], Any]) -> None:
        """Without the token of the expected payload, replace and delete read it first."""
        MemcachedBackend(make_client(wire.address)).create(KEY, b"1", ONE_DAY)
        wire.sent.clear()
        assert (
            MemcachedBackend(make_client(wire.address)).replace(KEY, b"2", ONE_DAY, expected=b"1").outcome
            is Outcome.STORED
        )
        assert MemcachedBackend(make_client(wire.address)).delete(KEY, expected=b"2").outcome is Outcome.STORED
        assert wire.sent == ["gets", "cas"] * 2

    @every_client
    def test_of_deleting_what_was_read(self, wire: Wire, make_client: Callable[[Any], Any]) -> None:
        """With the token of it, deleting an expected payload is one trip."""
        backend = MemcachedBackend(make_client(wire.address))
        backend.create(KEY, b"1", ONE_DAY)
        backend.read_and_touch(KEY, *HOURLY)
        wire.sent.clear()
        assert backend.delete(KEY, expected=b"1").outcome is Outcome.STORED
        assert wire.sent == ["cas"]
        assert backend.read(KEY) is None


class TestTokens:
    """What a process remembers of the items that it has read."""

    def test_they_are_bounded(self, server: Server) -> None:
        """The token read longest ago is removed; the next replace reads first."""
        backend = MemcachedBackend(Client(server.address))
        backend._known = Recent(most=2)
        keys = [KEY + str(number) for number in range(3)]
        for key in keys:
            backend.create(key, b"1", ONE_DAY)
            backend.read(key)
        assert len(backend._known) == 2
        for key in keys:
            assert backend.replace(key, b"2", ONE_DAY, expected=b"1").outcome is Outcome.STORED

    def test_a_deleted_session_leaves_none(self, server: Server) -> None:
        """Whether deleted, read and absent, or deleted with an expected payload."""
        backend, other = (MemcachedBackend(Client(server.address)) for _ in range(2))
        for end in (
            lambda: backend.delete(KEY),
            lambda: other.delete(KEY) and backend.read(KEY),
            lambda: other.delete(KEY) and backend.replace(KEY, b"2", 10, expected=b"1"),
            lambda: backend.delete(KEY, expected=b"1"),
        ):
            backend.create(KEY, b"1", ONE_DAY)
            backend.read(KEY)
            assert len(backend._known) == 1
            end()
            assert len(backend._known) == 0

    @every_client
    def test_the_same_bytes_are_no_conflict(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """Flask-Session writes the same bytes at every request: the token changes, the payload does not."""
        backend = MemcachedBackend(make_client(server.address))
        backend.create(KEY, b"1", ONE_DAY)
        backend.read_and_touch(KEY, *HOURLY)
        server.tell(b"set %s 0 100 1" % KEY.encode(), b"1")
        assert backend.replace(KEY, b"2", ONE_DAY, expected=b"1").outcome is Outcome.STORED
        assert server.item(KEY) == (0, b"2")

    def test_a_token_is_for_the_payload_read(self, server: Server) -> None:
        """Another expected payload than the one that was last read here is compared with the stored one."""
        backend = MemcachedBackend(Client(server.address))
        backend.create(KEY, b"theirs", ONE_DAY)
        backend.read(KEY)
        assert backend.replace(KEY, b"mine", ONE_DAY, expected=b"old") == (Outcome.CONFLICT, b"theirs")

    def test_many_threads_read_their_own(self, server: Server) -> None:
        """A client that is for one thread is not shared: no thread reads the session of another."""
        for make_client in CLIENTS.values():
            backend = MemcachedBackend(make_client(server.address))
            for number in range(8):
                backend.delete(KEY + str(number))
                backend.create(KEY + str(number), b"%d" % number, ONE_DAY)

            def read(number: int, backend: MemcachedBackend = backend) -> set[Any]:
                return {backend.read_and_touch(KEY + str(number), ONE_DAY, ONE_DAY - turn % 2) for turn in range(100)}

            answers = race(*(partial(read, number) for number in range(8)))
            assert [{record.payload for record in answer} for answer in answers] == [{b"%d" % n} for n in range(8)]


class TestExpiry:
    """Seconds as memcached understands them."""

    @pytest.mark.parametrize("lifetime", [1, 1.9, THIRTY_DAYS, THIRTY_DAYS + 1, 31 * ONE_DAY, 400 * ONE_DAY])
    @every_client
    def test_lifetimes(self, server: Server, make_client: Callable[[Any], Any], lifetime: float) -> None:
        """More than 30 days are sent as a date: as a number of seconds they would be one in 1970."""
        backend = MemcachedBackend(make_client(server.address))
        for attempts_left in reversed(range(10 if lifetime < 2 else 1)):
            try:  # on a busy machine an item of a second may end between two commands
                self._check_lifetime(server, backend, lifetime)
            except AssertionError:
                if not attempts_left:
                    raise
            else:
                return

    def _check_lifetime(self, server: Server, backend: MemcachedBackend, lifetime: float) -> None:
        def lives() -> bool:
            # The server's clock ticks once a second.
            return lifetime - 5 < server.ttl() <= lifetime + 1 + server.lag()

        backend.delete(KEY)
        backend.create(KEY, b"1", lifetime)
        assert lives()
        server.tell(b"touch %s 100" % KEY.encode())
        assert backend.replace(KEY, b"2", lifetime, expected=b"1").outcome is Outcome.STORED
        assert lives()
        server.tell(b"touch %s 100" % KEY.encode())
        assert backend.read_and_touch(KEY, lifetime, lifetime) == Record(b"2", None, touched=True)
        assert lives()

    @every_client
    def test_every_item_expires(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """Less than a second is a second: 0 would be no expiry."""
        backend = MemcachedBackend(make_client(server.address))
        for lifetime in (0.5, 0, -1):
            backend.delete(KEY)
            backend.create(KEY, b"1", lifetime)
            assert not server.holds(KEY) or server.ttl() in (0, 1)

    @pymemcache_alone
    def test_kept_as_the_server_has_it(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """A write can keep what is left, whichever process set it last, and however long."""
        backend = MemcachedBackend(make_client(server.address))
        for left in (50, 31 * ONE_DAY):
            backend.delete(KEY)
            backend.create(KEY, b"0", ONE_DAY)
            expiry = left if left <= THIRTY_DAYS else left + int(time.time())
            server.tell(b"touch %s %d" % (KEY.encode(), expiry))
            for number in range(10):  # it does not grow
                backend.replace(KEY, b"%d" % (number + 1), None, expected=b"%d" % number)
            assert server.item(KEY) == (0, b"10")
            assert left - 15 < server.ttl() <= left + 2

    def test_more_than_thirty_days_are_not_added_to(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """memcached's clock is up to a second late, and a date is ours: the second is taken off."""
        backend = MemcachedBackend(Client(server.address), clock=lambda: 10**9)
        backend.create(KEY, b"1", ONE_DAY)
        sent = []
        monkeypatch.setattr(backend._commands, "ttl", lambda _key: 31 * ONE_DAY + 1)
        monkeypatch.setattr(backend._commands, "cas", lambda *arguments: sent.append(arguments[2]) or Outcome.STORED)
        backend.replace(KEY, b"2", None, expected=b"1")
        assert sent == [10**9 + 31 * ONE_DAY]

    @pytest.mark.parametrize("late", [-45, -10, -2, -1, 0, 1, 2, 10, 45])
    @pymemcache_alone
    def test_more_than_thirty_days_do_not_grow(
        self, server: Server, make_client: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, late: int
    ) -> None:
        """memcached's clock is not the app's, and a date is the app's; the difference must not add up."""
        now = 10**9
        backend = MemcachedBackend(make_client(server.address), clock=lambda: now)
        backend.create(KEY, b"0", ONE_DAY)
        dates = [now + 31 * ONE_DAY]  # set by another process
        monkeypatch.setattr(backend._commands, "ttl", lambda _key: dates[-1] - (now - late))
        monkeypatch.setattr(backend._commands, "cas", lambda *sent: dates.append(sent[2]) or Outcome.STORED)
        for number in range(20):
            now += 7
            backend.replace(KEY, b"%d" % (number + 1), None, expected=b"0")
        assert len(dates) == 21
        assert abs(dates[-1] - dates[0]) <= abs(late) + 1

    @pymemcache_alone
    def test_none_is_kept_too(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """An item without an expiry has none after a write that keeps it, and one after the next touch."""
        backend = MemcachedBackend(make_client(server.address))
        server.tell(b"set %s 0 0 1" % KEY.encode(), b"1")
        assert backend.replace(KEY, b"2", None, expected=b"1").outcome is Outcome.STORED
        assert server.ttl() == -1
        backend.read_and_touch(KEY, *HOURLY)
        assert ONE_DAY - 5 < server.ttl() <= ONE_DAY

    @pylibmc_alone
    def test_pylibmc_cannot_keep_it(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """It has no command for the ttl: the outcome says so, and nothing is changed."""
        backend = MemcachedBackend(make_client(server.address))
        backend.create(KEY, b"1", 1000)
        assert backend.replace(KEY, b"2", None, expected=b"1") == WriteResult(Outcome.TTL_UNKNOWN)
        assert server.item(KEY)[1] == b"1"

    @every_client
    def test_a_touch_does_not_compare(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """The expiry is moved whatever is expected, and the payload stays."""
        backend = MemcachedBackend(make_client(server.address))
        assert not backend.touch(KEY, 1000)
        backend.create(KEY, b"1", 100)
        assert backend.touch(KEY, 1000, expected=b"other")
        assert server.item(KEY)[1] == b"1"
        assert 995 < server.ttl() <= 1000


UNTAKEN = {
    "long": "k" * 251,
    "space": "session:a b",
    "control": "session:a\r\nflush_all",
    "null": "session:\0",
    "delete": "session:\x7f",
    "long in bytes": "\N{SNOWMAN}" * 84,
    "surrogate": "session:\udcff" + "k" * 250,
}


class TestKeys:
    """What memcached does not take as a key."""

    @pytest.mark.parametrize("key", UNTAKEN.values(), ids=UNTAKEN.keys())
    @every_client
    def test_are_absent(self, wire: Wire, make_client: Callable[[Any], Any], key: str) -> None:
        """Nothing can be stored under such a key: it is absent, and creating it is an error that says what to do."""
        backend = MemcachedBackend(make_client(wire.address))
        assert backend.read(key) is None
        assert backend.read_and_touch(key, 1000, 1000) is None
        assert backend.replace(key, b"1", 10, expected=b"").outcome is Outcome.MISSING
        assert backend.delete(key).outcome is Outcome.MISSING
        assert not backend.touch(key, 10)
        assert backend.delete(key, expected=b"").outcome is Outcome.MISSING
        with pytest.raises(ValueError, match="shorten SESSION_KEY_PREFIX") as error:
            backend.create(key, b"1", 10)
        assert key not in str(error.value)
        assert wire.sent == []

    @every_client
    def test_beyond_ascii(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """Letters beyond ASCII work with the clients that accept them."""
        client = make_client(server.address)
        backend, key = MemcachedBackend(client), "s\xe9ance:" + "k" * 43
        if isinstance(client, Client | PooledClient | HashClient):
            assert backend.read(key) is None
            with pytest.raises(ValueError, match="SESSION_KEY_PREFIX"):
                backend.create(key, b"1", 10)
            backend = MemcachedBackend(Client(server.address, allow_unicode_keys=True))
        assert backend.create(key, b"1", 10)
        assert backend.read_and_touch(key, 1000, 1000) == Record(b"1", None, touched=True)
        assert backend.replace(key, b"2", 10, expected=b"1").outcome is Outcome.STORED
        backend.delete(key)
        assert backend.read(key) is None

    def test_the_prefix_of_a_client_counts(self, server: Server) -> None:
        """A client with a prefix of its own leaves less for the session's."""
        backend = MemcachedBackend(Client(server.address, key_prefix=b"p" * 200))
        assert backend.create("k" * 50, b"1", 10)
        assert backend.read("k" * 51) is None


class TestValues:
    """What clients make of values."""

    @every_client
    def test_what_is_no_bytes_cannot_be_decoded(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """A value that was stored as something else is an undecodable payload, and no error."""
        client = make_client(server.address)
        backend = MemcachedBackend(client)
        flags = 2 if make_client is CLIENTS["pylibmc"] else 0
        server.tell(b"set %s %d 100 1" % (KEY.encode(), flags), b"7")
        record = backend.read(KEY)
        assert record is not None
        assert record.payload == (b"" if flags else b"7")

    def test_serde(self, server: Server) -> None:
        """Through a serializer of the client's, as with Flask-Session."""
        client = Client(server.address, serde=compressed_serde)
        payload = b"tea" * 1000
        client.set(KEY, payload, expire=100, noreply=False)
        theirs = server.item(KEY)
        backend = MemcachedBackend(client)
        assert backend.read_and_touch(KEY, 1000, 1000) == Record(payload, None, touched=True)
        backend.delete(KEY)
        backend.create(KEY, payload, 100)
        assert server.item(KEY) == theirs
        assert len(theirs[1]) < 100
