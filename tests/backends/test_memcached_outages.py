"""A memcached that is old, down, slow or gone while a connection waits, and processes that fork."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheError, MemcacheServerError

from lazysession.backend import Outcome, Record, TouchFailed, WriteResult
from lazysession.backends import objects as _objects
from lazysession.backends.memcached import MemcachedBackend
from lazysession.processes import Recent
from lazysession.testing import KEY
from tests.support.on_memcached import (
    CLIENTS,
    HOURLY,
    ONE_DAY,
    Server,
    Wire,
    every_client,
    leaves_sockets,
    pylibmc,
    pymemcache_alone,
)
from tests.support.servers import child, free_port, need

pytestmark = pytest.mark.usefixtures("close_memcached")


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


class TestOutage:
    """A server that is down."""

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
        """Each verb raises, each time, also with a client that treats an outage as an absence."""
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
        """A HashClient that has no server left is an outage as well."""
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


def hang_up(wire: Wire) -> None:
    """Close all connections, and continue to listen."""
    for each in wire._sockets[1:]:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class TestClosedWhileWaiting:
    """A connection that the server has closed while it was not used."""

    @every_client
    def test_costs_no_error(self, wire: Wire, server: Server, make_client: Callable[[Any], Any]) -> None:
        """Each verb goes to a new connection, with the same result."""
        backend = MemcachedBackend(make_client(wire.address))

        def after_a_cut(verb: Callable[[], Any]) -> Any:
            hang_up(wire)
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
    def test_all_that_wait_are_dropped(self, wire: Wire, make_client: Callable[[Any], Any]) -> None:
        """The second attempt does not meet another closed connection."""
        backend = MemcachedBackend(make_client(wire.address))
        connections = backend._commands._connections_to(KEY)  # type: ignore[attr-defined]
        backend.create(KEY, b"1", 100)

        def use_at_once(count: int, client: Any) -> None:
            client.get(KEY)
            if count > 1:
                connections.call(partial(use_at_once, count - 1))

        connections.call(partial(use_at_once, 3))
        hang_up(wire)
        record = backend.read(KEY)
        assert record is not None
        assert record.payload == b"1"

    @pymemcache_alone
    def test_a_delete_that_was_done_is_done(self, server: Server, make_client: Callable[[Any], Any]) -> None:
        """A delete with an expected payload that is cut off and repeated finds nothing, and has deleted it."""
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
    """Run in a forked process; the function that is returned waits for its end, and returns whether it succeeded."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return lambda: os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: run it on Linux or macOS")
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
