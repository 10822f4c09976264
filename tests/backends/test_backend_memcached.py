"""The memcached adapter against the contract, on a real server through each client, and what only memcached has."""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import memcache
import msgspec
import pytest
from flask import Flask, session
from flask_session import Session
from flask_session.memcached import MemcachedSession
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient
from pymemcache.exceptions import MemcacheError, MemcacheServerError
from pymemcache.serde import compressed_serde, pickle_serde
from pymemcache.test.utils import MockMemcacheClient

from lazysession import ConfigurationError, LazySession
from lazysession.backend import Outcome, Record, SupportsCheck, SupportsPurge, TouchFailed, WriteResult
from lazysession.backends import objects as _objects
from lazysession.backends.memcached import MemcachedBackend
from lazysession.processes import Recent
from lazysession.testing import KEY, ComparesAtomically, Contract, Held, KeepsTtl, ReadsAndTouches, race
from tests.support.connecting import connect_client, connect_pylibmc
from tests.support.servers import child, free_port, need
from tests.support.stores import LIVE
from tests.support.stores.base import let_pass

pylibmc = pytest.importorskip("pylibmc", reason="pylibmc has no wheel for this Python")

ONE_DAY = 86400
THIRTY_DAYS = 30 * ONE_DAY
HOURLY = ONE_DAY, ONE_DAY - 3600


class Server:
    """What the tests ask of the server itself, past every client."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = ("127.0.0.1", int(url.rpartition(":")[2]))
        self.spec = "{}:{}".format(*self.address)

    def send(self, *commands: bytes, end: bytes = b"MN\r\n") -> bytes:
        answer = b""
        with socket.create_connection(self.address, timeout=10) as connection:
            connection.sendall(b"".join(command + b"\r\n" for command in commands))
            while not answer.endswith(end):
                answer += connection.recv(2**16)
        return answer

    def tell(self, *commands: bytes) -> bytes:
        return self.send(*commands, b"mn").removesuffix(b"MN\r\n")

    def ttl(self, key: str = KEY) -> int:
        answer = self.tell(b"mg %s t" % key.encode())
        assert answer.startswith(b"HD t"), answer
        return int(answer[4:])

    def lag(self) -> int:
        """Return by how many whole seconds the server's clock is late: on a busy machine its timer misses ticks."""
        (now,) = re.findall(rb"STAT time (\d+)", self.tell(b"stats"))
        return max(0, int(time.time() - int(now)))

    def holds(self, key: str) -> bool:
        return self.tell(b"mg %s" % key.encode()).startswith(b"HD")

    def item(self, key: str) -> tuple[int, bytes]:
        """Answer flags and bytes."""
        head, _, rest = self.tell(b"mg %s f v" % key.encode()).partition(b"\r\n")
        _, size, flags = head.split()
        return int(flags[1:]), rest[: int(size)]

    def pass_time(self, seconds: float, keys: Iterable[str]) -> None:
        """Shorten expiries: memcached has no other clock to set."""
        for key in filter(self.holds, keys):
            left = int(self.ttl(key) - seconds)
            self.tell(b"touch %s %d" % (key.encode(), left if left > 0 else -1))


@pytest.fixture
def server(memcached_url: str) -> Server:
    """The server, emptied."""
    server = Server(memcached_url)
    server.tell(b"flush_all", b"stats reset")
    return server


def hold(server: Server, client: Any, connect: Callable[[], MemcachedBackend] | None = None, prefix: str = "") -> Held:
    """Hold a client's server; time passes at the server and for the process alike."""
    backend = MemcachedBackend(client)

    def pass_time(seconds: float) -> None:
        server.pass_time(seconds, [prefix + KEY])
        now = backend.clock
        backend.clock = lambda: now() + seconds

    return Held(backend, pass_time, connect)


@pytest.fixture(autouse=True)
def _every_connection_closed(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Close what the clients opened: they leave it to the garbage collector, and it complains."""
    opened: list[Any] = []

    def note(connect: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def connect_and_note(connection: Any) -> Any:
            opened.append(connection)
            return connect(connection)

        return connect_and_note

    monkeypatch.setattr(Client, "_connect", note(Client._connect))
    monkeypatch.setattr(memcache._Host, "_get_socket", note(memcache._Host._get_socket))
    yield
    for connection in opened:
        (connection.close if isinstance(connection, Client) else connection.close_socket)()


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


CLIENTS: dict[str, Callable[[tuple[str, int]], Any]] = {
    "Client": Client,
    "PooledClient": PooledClient,
    "HashClient": lambda address: HashClient([address]),
    "HashClient, pooled": lambda address: HashClient([address], use_pooling=True),
    "pylibmc": lambda address: pylibmc.Client(["{}:{}".format(*address)]),
}
#: The same, and the one that only Flask-Session's own methods drive.
OF_APPS = CLIENTS | {"python-memcached": lambda address: memcache.Client(["{}:{}".format(*address)])}
every_client = pytest.mark.parametrize("make_client", CLIENTS.values(), ids=CLIENTS.keys())
every_client_of_apps = pytest.mark.parametrize("make_client", OF_APPS.values(), ids=OF_APPS.keys())
pymemcache_alone = pytest.mark.parametrize("make_client", list(CLIENTS.values())[:4], ids=list(CLIENTS)[:4])
pylibmc_alone = pytest.mark.parametrize("make_client", [CLIENTS["pylibmc"]], ids=["pylibmc"])


class Wire:
    """Stands between a client and the server, and lists the commands that are sent: each is a round trip.

    :param refused: commands that the server is made to not know, as an old one does not.
    :param cut: commands on which the connection is closed, as twemproxy does.
    """

    def __init__(self, server: Server, *, refused: tuple[str, ...] = (), cut: tuple[str, ...] = ()) -> None:
        self.sent: list[str] = []
        self._server, self._refused, self._cut = server, refused, cut
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]
        self.address: tuple[str, int] = self._listening.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listening.accept()[0]
                far = socket.create_connection(self._server.address)
                self._sockets += [near, far]
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, listed: bool) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                name = data.split(None, 1)[0].decode() if listed else ""
                if (
                    listed and name != "quit"
                ):  # a client that goes says so, whenever it is collected; nobody waits for it
                    self.sent.append(name)
                if name in self._cut:
                    break
                if name in self._refused:
                    source.sendall(b"ERROR\r\n")
                else:
                    target.sendall(data)
            for each in (source, target):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(server: Server) -> Generator[Wire]:
    """A wire to a server that knows all."""
    wire = Wire(server)
    yield wire
    wire.close()


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
        """The token read longest ago goes; the next replace reads first."""
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

        def lives() -> bool:
            # The server's clock ticks once a second.
            return lifetime - 5 < server.ttl() <= lifetime + 1 + server.lag()

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
            for number in range(10):  # it does not creep
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
    def test_more_than_thirty_days_do_not_creep(
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
        """It has no command for what is left: the outcome says so, and nothing is changed."""
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
        """Nothing can be stored under it, so nothing is; only creating it is an error, and says what to do."""
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
        """Letters beyond ASCII are taken by the clients that take them."""
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
        """Through a serializer of the client's, as Flask-Session goes."""
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


class TestOldServers:
    """Servers and proxies that do not know all commands."""

    @pytest.mark.parametrize("how", ["refused", "cut"])
    @pymemcache_alone
    def test_without_gats(self, server: Server, make_client: Callable[[Any], Any], how: str) -> None:
        """memcached before 1.5.3 and twemproxy: the read is repeated, and the refresh sent after it."""
        wire = Wire(server, **{how: ("gats",)})  # type: ignore[arg-type]
        MemcachedBackend(Client(server.address)).create(KEY, b"1", 100)
        backend = MemcachedBackend(make_client(wire.address))
        assert backend.read_and_touch(KEY, *HOURLY) == Record(b"1", None, touched=True)
        assert wire.sent == ["gats", "gets", "touch"]
        assert ONE_DAY - 5 < server.ttl() <= ONE_DAY
        assert backend.read_and_touch(KEY + "2", *HOURLY) is None
        wire.close()

    @pytest.mark.parametrize("how", ["refused", "cut"])
    @pymemcache_alone
    def test_without_mg(self, server: Server, make_client: Callable[[Any], Any], how: str) -> None:
        """memcached before 1.6 and twemproxy: what is left is unknown, and nothing is changed."""
        wire = Wire(server, **{how: ("mg",)})  # type: ignore[arg-type]
        backend = MemcachedBackend(make_client(wire.address))
        backend.create(KEY, b"1", 1000)
        assert backend.replace(KEY, b"2", None, expected=b"1") == WriteResult(Outcome.TTL_UNKNOWN)
        assert server.item(KEY) == (0, b"1")
        wire.close()

    @every_client
    def test_a_failed_touch_fails_no_read(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """Where the server knows neither gats nor touch, the error holds the record, and its token is remembered."""
        wire = Wire(server, refused=("gats",), cut=("touch",))
        MemcachedBackend(Client(server.address)).create(KEY, b"1", 100)
        backend = MemcachedBackend(make_client(wire.address))
        with pytest.raises(TouchFailed) as failed:
            backend.read_and_touch(KEY, *HOURLY)
        assert failed.value.record == Record(b"1")
        assert isinstance(failed.value.__cause__, Exception)
        wire.sent.clear()
        assert backend.replace(KEY, b"2", ONE_DAY, expected=b"1").outcome is Outcome.STORED
        assert wire.sent == ["cas"]
        wire.close()


#: python-memcached does so with a socket that it cannot connect.
leaves_sockets = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")


class TestOutage:
    """A server that is not there."""

    @leaves_sockets
    @pytest.mark.parametrize(
        "verb",
        [
            lambda backend: backend.read(KEY),
            lambda backend: backend.read_and_touch(KEY, 1000, 1000),
            lambda backend: backend.create(KEY, b"1", 10),
            lambda backend: backend.replace(KEY, b"1", 10, b"2"),
            lambda backend: backend.delete(KEY),
            lambda backend: backend.delete(KEY, b"1"),
            lambda backend: backend.touch(KEY, 10),
        ],
        ids=["read", "read and touch", "create", "replace", "delete", "delete expected", "touch"],
    )
    @pytest.mark.parametrize(
        "make_client",
        [
            *CLIENTS.values(),
            lambda address: Client(address, ignore_exc=True),
            lambda address: PooledClient(address, ignore_exc=True),
            lambda address: HashClient([address], ignore_exc=True, retry_attempts=0),
        ],
        ids=[*CLIENTS, "Client that ignores", "PooledClient that ignores", "HashClient that ignores"],
    )
    def test_is_no_absence(self, make_client: Callable[[Any], Any], verb: Callable[[Any], Any]) -> None:
        """Each verb raises, each time, also with a client that answers an outage as an absence."""
        backend = MemcachedBackend(make_client(("127.0.0.1", free_port())))
        for _ in range(3):
            with pytest.raises((OSError, pylibmc.Error)):
                verb(backend)

    def test_moves_no_session(self, server: Server) -> None:
        """With one of two servers down, its sessions are not looked for on the other, nor written there."""
        client = HashClient([server.address, ("127.0.0.1", free_port())], retry_attempts=0)
        backend = MemcachedBackend(client)
        raised = set()
        for _ in range(3):
            for number in range(20):
                try:
                    backend.read(KEY + str(number))
                except OSError:
                    raised.add(number)
                else:
                    assert number not in raised
        assert 0 < len(raised) < 20

    def test_of_every_server_of_a_hash_client(self, server: Server) -> None:
        """A HashClient that has given all its servers up is an outage as well."""
        client = HashClient([server.address])
        backend = MemcachedBackend(client)
        client.hasher.remove_node(next(iter(client.clients)))
        with pytest.raises(MemcacheError, match="no server is left"):
            backend.read(KEY)

    def test_refused_items(self, server: Server) -> None:
        """What the server refuses is its error, and what was there stays."""
        backend = MemcachedBackend(Client(server.address))
        backend.create(KEY, b"1", 100)
        with pytest.raises(MemcacheServerError, match="too large"):
            backend.replace(KEY, b"a" * 2**20, 100, expected=b"1")
        assert server.item(KEY) == (0, b"1")


def memcached_on(port: int) -> Any:
    """Run a memcached on a port, and again on the same after it has ended."""
    program = need("memcached", "apt-get install memcached")
    return child([program, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "8"], port, user="memcache")


@pytest.fixture
def cut(server: Server) -> Generator[Wire]:
    """A wire whose connections can be closed while they wait, as ``idle_timeout`` does."""
    wire = Wire(server)
    yield wire
    wire.close()


def hang_up(wire: Wire) -> None:
    """Close all connections, and go on listening."""
    for each in wire._sockets[1:]:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class TestClosedWhileWaiting:
    """A connection that the server has closed while nobody used it."""

    @every_client
    def test_costs_no_error(self, cut: Wire, server: Server, make_client: Callable[[Any], Any]) -> None:
        """Each verb goes to a new connection, with the answer that it would have had."""
        backend = MemcachedBackend(make_client(cut.address))

        def after_a_cut(verb: Callable[[], Any]) -> Any:
            hang_up(cut)
            return verb()

        assert backend.create(KEY, b"1", 100)
        assert after_a_cut(lambda: backend.read(KEY)).payload == b"1"
        assert after_a_cut(lambda: backend.read_and_touch(KEY, ONE_DAY, ONE_DAY)).payload == b"1"
        assert after_a_cut(lambda: backend.replace(KEY, b"2", 100, expected=b"1")).outcome is Outcome.STORED
        assert after_a_cut(lambda: backend.replace(KEY, b"3", 100, expected=b"2")).outcome is Outcome.STORED
        assert after_a_cut(lambda: backend.create(KEY + "2", b"1", 100)) is True
        assert after_a_cut(lambda: backend.read(KEY + "3")) is None
        assert backend.read(KEY) is not None
        assert after_a_cut(lambda: backend.delete(KEY, expected=b"3")).outcome is Outcome.STORED
        assert after_a_cut(lambda: backend.delete(KEY + "2")).outcome is Outcome.STORED
        assert not server.holds(KEY)
        assert not server.holds(KEY + "2")

    @pymemcache_alone
    def test_all_that_wait_are_dropped(self, cut: Wire, make_client: Callable[[Any], Any]) -> None:
        """The second attempt does not meet another closed connection."""
        backend = MemcachedBackend(make_client(cut.address))
        connections = backend._commands._connections_to(KEY)  # type: ignore[attr-defined]
        backend.create(KEY, b"1", 100)
        with connections.borrow() as one, connections.borrow() as two, connections.borrow() as three:
            for each in (one, two, three):
                each.get(KEY)
        hang_up(cut)
        record = backend.read(KEY)
        assert record is not None
        assert record.payload == b"1"

    @pymemcache_alone
    def test_a_delete_that_was_done_is_done(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """Cut off after it was sent, deleting what was seen finds nothing the second time, and has deleted it."""
        backend = MemcachedBackend(make_client(server.address))
        backend.create(KEY, b"1", 100)
        backend.read(KEY)
        connections = backend._commands._connections_to(KEY)  # type: ignore[attr-defined]
        run, answers = connections._run, []

        def lose_the_first_answer(command: Callable[[Any], Any]) -> Any:
            answers.append(run(command))
            if len(answers) == 1:
                raise ConnectionResetError
            return answers[-1]

        connections._run = lose_the_first_answer
        assert backend.delete(KEY, expected=b"1").outcome is Outcome.STORED
        assert len(answers) == 2

    @leaves_sockets
    @every_client
    def test_a_restart(self, make_client: Callable[[Any], Any]) -> None:
        """Down it is an error, and up again the session is absent, with no error in between."""
        port = free_port()
        with memcached_on(port):
            backend = MemcachedBackend(make_client(("127.0.0.1", port)))
            backend.create(KEY, b"1", 100)
            assert backend.read(KEY) is not None
        with memcached_on(port):
            assert backend.read(KEY) is None
            assert backend.create(KEY, b"2", 100)
            assert backend.read(KEY) is not None
        with pytest.raises((OSError, pylibmc.Error)):
            backend.read(KEY)


def in_a_fork(work: Callable[[], None]) -> Callable[[], bool]:
    """Run in a forked process; what is answered waits for its end, and tells whether it went well."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return lambda: os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
class TestFork:
    """Workers that are forked from a process that has used sessions."""

    @every_client
    def test_share_no_connection(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """Each reads and changes its own session, at once with the others and with the parent."""
        backend = MemcachedBackend(make_client(server.address))
        keys = [KEY + str(number) for number in range(3)]
        for key in keys:
            backend.create(key, key.encode() + b":0", ONE_DAY)
            backend.read(key)

        def work(key: str) -> None:
            for number in range(100):
                record = backend.read(key)
                assert record is not None
                assert record.payload == b"%s:%d" % (key.encode(), number)
                replaced = backend.replace(key, b"%s:%d" % (key.encode(), number + 1), ONE_DAY, expected=record.payload)
                assert replaced.outcome is Outcome.STORED

        ends = [in_a_fork(partial(work, key)) for key in keys[1:]]
        work(keys[0])
        assert [end() for end in ends] == [True, True]
        assert [server.item(key)[1] for key in keys] == [b"%s:100" % key.encode() for key in keys]

    @every_client
    def test_say_nothing_on_the_parents(self, wire: Wire, make_client: Callable[[Any], Any]) -> None:
        """A child that does nothing, and one that reads, leave the connection of the parent as it is."""
        backend = MemcachedBackend(make_client(wire.address))
        backend.create(KEY, b"1", ONE_DAY)
        wire.sent.clear()
        connections = len(wire._sockets)
        assert in_a_fork(lambda: None)()
        backend.read(KEY)
        assert wire.sent == ["gets"]
        assert in_a_fork(lambda: gc.collect() and None)()
        backend.read(KEY)
        assert wire.sent == ["gets", "gets"]
        assert len(wire._sockets) == connections

    def test_locks_of_other_threads_are_free(self, server: Server) -> None:
        """A lock that a thread of the parent holds is free in the child, where the thread is not."""
        backend, notes = MemcachedBackend(Client(server.address)), Recent[int]()
        held, done = threading.Event(), threading.Event()

        def hold_all() -> None:
            with backend._known._lock.get(), notes._lock.get(), _objects._LOCKS.of(KEY):
                held.set()
                done.wait()

        thread = threading.Thread(target=hold_all)
        thread.start()
        held.wait()

        def work() -> None:
            assert backend.create(KEY, b"1", 100)
            notes.put(KEY, 1)
            assert _objects._LOCKS.of(KEY).acquire(timeout=1)

        ended = in_a_fork(work)()
        done.set()
        thread.join()
        assert ended


class TestSettings:
    """SESSION_MEMCACHED."""

    @pytest.mark.parametrize(
        ("url", "kind", "servers"),
        [
            ("memcached://one", PooledClient, [("one", 11211)]),
            ("memcached://one:1", PooledClient, [("one", 1)]),
            ("memcached://[::1]:1/", PooledClient, [("::1", 1)]),
            ("memcached:///run/memcached.sock", PooledClient, ["/run/memcached.sock"]),
            ("memcached://one:1,two", HashClient, [("one", 1), ("two", 11211)]),
        ],
    )
    def test_urls(self, url: str, kind: type, servers: list[Any]) -> None:
        """A URL names one server or several."""
        backend = MemcachedBackend.from_setting(url + "?timeout=0.5")
        assert backend is not None
        client = backend.client
        assert type(client) is kind
        clients = list(client.clients.values()) if kind is HashClient else [client]
        assert all(type(each) is PooledClient for each in clients)
        assert [each.server for each in clients] == servers
        assert {(each.timeout, each.connect_timeout) for each in clients} == {(0.5, 3.0)}

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "memcached://",
            "localhost:11211",
            "redis://secret",
            "memcached://user:secret@host",
            "memcached://host:secret",
            "memcached://host,:1",
            "memcached://host,",
            "memcached://host/secret",
            "memcached://host#secret",
            "memcached://host?secret=1",
            "memcached://host?timeout=secret",
            "memcached://host?timeout=0",
            "memcached://host?timeout",
            "memcached://[secret",
        ],
    )
    def test_malformed_urls(self, url: str) -> None:
        """A URL that cannot be meant is an error that does not repeat it."""
        with pytest.raises(ValueError, match=r"memcached://localhost:11211") as error:
            MemcachedBackend.from_setting(url)
        assert "secret" not in str(error.value)

    @pytest.mark.parametrize(
        "value", [42, object(), {"a": 1}, MockMemcacheClient(), RetryingClient(Client("localhost"))], ids=repr
    )
    def test_other_values(self, value: Any) -> None:
        """What is no client of a library that can compare and set is an error that names those that can."""
        with pytest.raises(ConfigurationError, match=r"SESSION_MEMCACHED cannot be used: a .* is neither a URL"):
            make(LazySession, value)

    def test_no_value(self) -> None:
        """Without a value, Flask-Session makes its own client."""
        assert MemcachedBackend.from_setting(None) is None

    @pytest.mark.filterwarnings("ignore:No valid memcache.Client:RuntimeWarning")
    def test_flask_sessions_own_client(self) -> None:
        """The client that Flask-Session makes without a value can be driven."""
        app = make(LazySession, None)
        assert type(app.session_interface.handler.backend) is MemcachedBackend  # type: ignore[attr-defined]

    def test_a_prefix_that_is_too_long(self) -> None:
        """After Session(app) the prefix is known, and an error at start-up."""
        app = Flask("shop")
        app.config.update(SESSION_TYPE="memcached", SESSION_MEMCACHED=Client("localhost"), SESSION_KEY_PREFIX="p" * 208)
        Session(app)
        with pytest.raises(ValueError, match="shorten SESSION_KEY_PREFIX"):
            LazySession(app)
        app.session_interface.key_prefix = "p" * 207  # type: ignore[attr-defined]
        LazySession(app)


class TestCheck:
    """What only the user can mend."""

    @every_client
    def test_evictions(self, make_client: Callable[[Any], Any]) -> None:
        """A server that throws items away is reported."""
        with small_memcached() as address:
            backend = MemcachedBackend(make_client(address))
            assert not any("evicted" in problem.what for problem in backend.check())
            for number in range(40):
                backend.create(KEY + str(number), b"a" * 100_000, 1000)
            (problem,) = (problem for problem in backend.check() if "evicted" in problem.what)
            assert problem.severity == "warning"

    def test_pickle(self, server: Server) -> None:
        """A client that unpickles is reported, one that does not is not."""
        serde = {"serde": pickle_serde, "timeout": 60, "connect_timeout": 60}
        unpickling = [CLIENTS["pylibmc"](server.address)]
        unpickling += [Client(server.address, **serde), HashClient([server.address], **serde)]
        assert all("unpickles" in problem.what for client in unpickling for problem in MemcachedBackend(client).check())
        assert all(len(list(MemcachedBackend(client).check())) == 1 for client in unpickling)
        for make_client in list(CLIENTS.values())[:4]:
            (problem,) = MemcachedBackend(make_client(server.address)).check()  # that of a client without timeouts
            assert problem.name == "memcached-timeout"


@contextmanager
def small_memcached() -> Generator[tuple[str, int]]:
    """Run a memcached that is soon full."""
    port = free_port()
    program = need("memcached", "apt-get install memcached")
    with child([program, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "2"], port, user="memcache"):
        yield ("127.0.0.1", port)


# Through apps


def make(extension: type, client: Any, **settings: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", PERMANENT_SESSION_LIFETIME=ONE_DAY, **settings)
    app.config.update(SESSION_TYPE="memcached", SESSION_MEMCACHED=client)
    extension(app)

    @app.route("/set/<key>")
    def set_key(key: str) -> str:
        session[key] = [key, 1, 2.5, None, {"nested": True}, "\N{SNOWMAN}"]
        return session.sid  # type: ignore[attr-defined, no-any-return]

    app.add_url_rule("/untouched", "untouched", lambda: "")
    app.add_url_rule("/keys", "keys", lambda: ",".join(sorted(session)))
    app.add_url_rule("/clear", "clear", lambda: session.clear() or "")
    app.add_url_rule("/class", "class", lambda: str(isinstance(session, MemcachedSession)))
    return app


def answering(client: Any) -> Any:
    """Make a client of pymemcache wait for answers, as Flask-Session does not: its writes are done when it returns."""
    for each in (client, *getattr(client, "clients", {}).values()):
        each.default_noreply = False
    return client


@pytest.mark.parametrize("format", ["msgpack", "json"])
@pytest.mark.parametrize("order", [(Session, LazySession), (LazySession, Session)], ids=["theirs first", "ours first"])
@every_client_of_apps
def test_a_session_wanders_between_both(
    server: Server, make_client: Callable[[Any], Any], format: str, order: tuple[type, type]
) -> None:
    """Written by one, read and changed by the other, read back and ended by the first."""
    settings = {"SESSION_SERIALIZATION_FORMAT": format}
    apps = [make(extension, answering(make_client(server.address)), **settings) for extension in order]
    first, second = (app.test_client() for app in apps)
    sid = first.get("/set/a").text
    cookie = first.get_cookie("session")
    assert cookie is not None
    second.set_cookie("session", cookie.value)
    assert second.get("/keys").text == "_permanent,a"
    assert second.get("/set/b").text == sid
    assert first.get("/keys").text == "_permanent,a,b"
    assert first.get("/set/c").text == sid
    assert second.get("/keys").text == "_permanent,a,b,c"
    assert second.get("/class").text == "True"
    second.get("/clear")
    assert first.get("/keys").text == "_permanent"


@pytest.mark.parametrize("lifetime", [ONE_DAY, 31 * ONE_DAY])
@every_client_of_apps
def test_the_same_item(server: Server, make_client: Callable[[Any], Any], lifetime: int) -> None:
    """Key, bytes, flags and expiry are those that Flask-Session stores."""
    stored = []
    for extension in (Session, LazySession):
        app = make(extension, answering(make_client(server.address)))
        app.config["PERMANENT_SESSION_LIFETIME"] = lifetime
        sid = app.test_client().get("/set/a").text
        assert lifetime - 5 < server.ttl(f"session:{sid}") <= lifetime + 1 + server.lag()
        stored.append(server.item(f"session:{sid}"))
    assert stored[0] == stored[1]


def test_through_a_url(server: Server) -> None:
    """A URL is enough, and sessions keep their class."""
    app = make(LazySession, server.url)
    client = app.test_client()
    sid = client.get("/set/a").text
    assert client.get("/keys").text == "_permanent,a"
    assert client.get("/class").text == "True"
    assert server.holds(f"session:{sid}")


def test_after_session(server: Server) -> None:
    """After Session(app) its client is taken over."""
    app = Flask("shop")
    client = Client(server.address)
    app.config.update(SESSION_TYPE="memcached", SESSION_MEMCACHED=client, SECRET_KEY="key")
    Session(app)
    LazySession(app)
    backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
    assert type(backend) is MemcachedBackend
    assert backend.client is client


@pytest.mark.parametrize("path", ["/untouched", "/keys", "/clear"])
@pytest.mark.parametrize("cookie", ["k" * 251, "a\x01b", "a b", "\xe9" * 43])
@every_client_of_apps
def test_a_cookie_that_is_no_key(server: Server, make_client: Callable[[Any], Any], cookie: str, path: str) -> None:
    """What is a 500 with Flask-Session alone is a visitor without a session."""
    app = make(LazySession, make_client(server.address))
    assert app.test_client(use_cookies=False).get(path, headers={"Cookie": f"session={cookie}"}).status_code == 200


@pytest.mark.parametrize("cookie", ["k" * 251, "\xe9" * 43])
def test_such_a_cookie_breaks_flask_session(server: Server, cookie: str) -> None:
    """The defect that is fixed here exists."""
    app = make(Session, Client(server.address), PROPAGATE_EXCEPTIONS=False)
    assert (
        app.test_client(use_cookies=False).get("/untouched", headers={"Cookie": f"session={cookie}"}).status_code == 500
    )


@pytest.fixture
def counted(wire: Wire, server: Server) -> Callable[..., tuple[list[str], Any]]:
    """A function that makes a request with a live session, and returns what was sent and the response."""
    app = make(LazySession, Client(wire.address))
    handler = app.session_interface.handler  # type: ignore[attr-defined]
    handler.records.create(f"session:{LIVE}", msgspec.msgpack.encode({"_permanent": True, "a": 1}), ONE_DAY)

    def request(path: str, *, sid: str | None = LIVE, later: float = 0) -> tuple[list[str], Any]:
        server.pass_time(later, [f"session:{LIVE}"])
        let_pass(app, later)
        client = app.test_client()
        if sid is not None:
            client.set_cookie("session", sid)
        wire.sent.clear()
        response = client.get(path)
        return list(wire.sent), response

    return request


@pytest.mark.parametrize(
    ("path", "asked", "sent"),
    [
        ("/untouched", {}, []),
        ("/nowhere", {}, []),
        ("/keys", {}, ["gets"]),
        ("/keys", {"later": ONE_DAY / 10}, ["gats"]),
        ("/keys", {"sid": None}, []),
        ("/keys", {"sid": "../../etc/passwd\x7f"}, []),
        ("/set/a", {}, ["gets", "cas"]),
        ("/set/a", {"later": ONE_DAY / 10}, ["gats", "cas"]),
        ("/set/a", {"sid": None}, ["add"]),
        ("/clear", {}, ["gets", "cas"]),
        ("/clear", {"sid": None}, []),
    ],
)
def test_round_trips(
    counted: Callable[..., tuple[list[str], Any]], path: str, asked: dict[str, Any], sent: list[str]
) -> None:
    """What each kind of request costs."""
    assert counted(path, **asked)[0] == sent


def test_a_refresh_renews_the_cookie(counted: Callable[..., tuple[list[str], Any]], server: Server) -> None:
    """Store and cookie are refreshed together, once."""
    assert "Set-Cookie" not in counted("/keys")[1].headers
    assert counted("/keys", later=ONE_DAY / 10)[1].headers["Set-Cookie"].startswith(f"session={LIVE}; Expires=")
    assert ONE_DAY - 5 < server.ttl(f"session:{LIVE}") <= ONE_DAY
    sent, response = counted("/keys")
    assert sent == ["gets"]
    assert "Set-Cookie" not in response.headers


@leaves_sockets
@every_client_of_apps
def test_an_outage_through_an_app(make_client: Callable[[Any], Any]) -> None:
    """Store down: what uses the session is a 503, what does not is not; no cookie is deleted."""
    app = make(LazySession, make_client(("127.0.0.1", free_port())), PROPAGATE_EXCEPTIONS=False)
    client = app.test_client()
    client.set_cookie("session", LIVE)
    for _ in range(2):
        assert client.get("/untouched").status_code == 200
        response = client.get("/keys")
        assert response.status_code == 503
        assert "Set-Cookie" not in response.headers
