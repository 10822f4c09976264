"""The direct path to Redis: which clients take it, and that no visitor gets the answer of another's command."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
import redis
import valkey
import wrapt
from redis.backoff import NoBackoff
from redis.credentials import UsernamePasswordCredentialProvider
from redis.retry import Retry
from redis.sentinel import Sentinel

from lazysession.backend import Outcome
from lazysession.backends.redis import RedisBackend, direct
from lazysession.backends.redis.connect import client_of
from lazysession.backends.redis.direct import DirectPath
from lazysession.backends.redis.plain_clients import KNOWN, reason_against
from lazysession.backends.redis.scripts import DIGESTS
from tests.support.faults import FaultProxy

ANN, BOB = b"\x81\xa4name\xa3ann", b"\x81\xa4name\xa3bob"


class OwnClient(redis.Redis):
    """An app's client, which may put a prefix before each key."""


class OwnConnection(redis.Connection):
    """A connection that may send commands in its own way."""


# Which clients take it


@pytest.mark.parametrize(
    "client",
    [
        redis.Redis(),
        redis.Redis(decode_responses=True, max_connections=5, health_check_interval=30),
        redis.Redis(ssl=True),
        redis.Redis(unix_socket_path="/run/redis.sock"),
        redis.Redis.from_url("redis://ann:secret@localhost/1?protocol=2"),
        valkey.Valkey(),
        client_of("redis://localhost"),
        client_of("valkeys://localhost"),
    ],
    ids=repr,
)
def test_plain_clients_take_it(client: Any) -> None:
    """A library's own client with its own pool and connections, by whatever address, account and timeouts."""
    assert reason_against(client) is None


def replaced(client: Any, name: str) -> Any:
    """Return a client with an attribute of its own."""
    setattr(client, name, lambda *_, **__: None)
    return client


def with_wrapped_pool() -> Any:
    """Return a client whose pool counts its connections."""
    client = redis.Redis()
    replaced(client.connection_pool, "get_connection")
    return client


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (client_of("redis+cluster://localhost"), "the client is that of a cluster"),
        (client_of("redis+sentinel://localhost/shop"), "its pool is a SentinelConnectionPool"),
        (Sentinel([("localhost", 26379)]).master_for("shop"), "its pool is a SentinelConnectionPool"),
        (OwnClient(), "the client is a tests.backends.test_redis_direct.OwnClient"),
        (replaced(redis.Redis(), "execute_command"), "the client's execute_command is wrapped"),
        (redis.Redis(connection_pool=redis.BlockingConnectionPool()), "its pool is a BlockingConnectionPool"),
        (with_wrapped_pool(), "the pool's get_connection is wrapped"),
        (
            redis.Redis(connection_pool=redis.ConnectionPool(connection_class=OwnConnection)),
            "its connections are of the class OwnConnection",
        ),
        (
            redis.Redis(credential_provider=UsernamePasswordCredentialProvider("ann", "secret")),
            "the client has the option credential_provider",
        ),
        (redis.Redis(encoding="latin-1"), "the client has an encoding other than UTF-8"),
        (object(), "the client is a builtins.object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_others_do_not(client: Any, reason: str) -> None:
    """Whatever may do more than send a command and read its answer is left to the client, and the reason is told."""
    assert reason_against(client) == reason


def test_a_cache_of_the_client_is_left_alone() -> None:
    """It hears from the server which of its keys were changed."""
    cache = pytest.importorskip("redis.cache", reason="redis-py before 5.1 has no cache of its own")
    client = redis.Redis(protocol=3, cache_config=cache.CacheConfig())
    assert reason_against(client) == "the client has a cache of its own"


def test_a_single_connection_is_left_alone(redis_url: str) -> None:
    """A client with one connection has a lock for it."""
    with redis.Redis.from_url(redis_url, single_connection_client=True) as client:
        assert reason_against(client) == "the client has a single connection"


def test_unknown_versions_do_not_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later major version of a library may keep its connections in another way; the ones that are here are known."""
    assert reason_against(redis.Redis()) is None
    monkeypatch.setattr(redis, "__version__", "9.0.0")
    assert 9 not in KNOWN["redis"]
    assert reason_against(redis.Redis()) == "the pool of redis 9.0.0 is not known"


# Instrumentation sees each command


def count_with_wraps(monkeypatch: pytest.MonkeyPatch, seen: list[str]) -> None:
    """Patch the class as Sentry does."""
    original = redis.Redis.execute_command

    @functools.wraps(original)
    def execute_command(self: Any, *command: Any, **options: Any) -> Any:
        seen.append(command[0])
        return original(self, *command, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", execute_command)


def count_with_wrapt(monkeypatch: pytest.MonkeyPatch, seen: list[str]) -> None:
    """Patch the class as OpenTelemetry does: the wrapper has all attributes of what it wraps."""

    def wrapper(wrapped: Any, _: Any, command: Any, options: Any) -> Any:
        seen.append(command[0])
        return wrapped(*command, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", wrapt.FunctionWrapper(redis.Redis.execute_command, wrapper))


@pytest.mark.parametrize("instrument", [count_with_wraps, count_with_wrapt])
@pytest.mark.parametrize("when", ["before", "after"])
def test_instrumentation_sees_each_command(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, instrument: Callable[..., None], when: str
) -> None:
    """Also if it is switched on after the app has started and sent commands."""
    seen: list[str] = []
    client = redis.Redis.from_url(redis_url)
    if when == "before":
        instrument(monkeypatch, seen)
        assert reason_against(client) == "the client's execute_command is wrapped"
    backend = RedisBackend(client)
    assert backend.create("session:seen", ANN, 100)
    if when == "after":
        instrument(monkeypatch, seen)
    seen.clear()
    assert backend.read("session:seen") is not None
    assert backend.replace("session:seen", BOB, 100, ANN).outcome is Outcome.STORED
    assert seen in (["GET", "EVALSHA"], ["GET", "EVALSHA", "EVAL"])
    client.delete("session:seen")
    client.close()


@pytest.mark.parametrize(
    ("owner", "name"),
    [("client's", "parse_response"), ("connections'", "send_command"), ("connections'", "pack_command")],
)
def test_wrappers_of_what_the_direct_path_leaves_out(monkeypatch: pytest.MonkeyPatch, owner: str, name: str) -> None:
    """New Relic wraps ``Connection.send_command``; an app may wrap what reads each answer."""
    kind: Any = redis.Redis if owner == "client's" else redis.Connection
    original = getattr(kind, name)

    def wrapper(*arguments: Any, **options: Any) -> Any:
        return original(*arguments, **options)

    monkeypatch.setattr(kind, name, wrapper)
    assert reason_against(redis.Redis()) == f"the {owner} {name} is wrapped"


def test_a_packer_of_the_apps_own() -> None:
    """It may put a prefix before each key."""
    pool = redis.ConnectionPool(command_packer=object())
    assert reason_against(redis.Redis(connection_pool=pool)) == "the client has the option command_packer"


@pytest.mark.parametrize("kind", [redis.Redis, redis.ConnectionPool], ids=["client", "pool"])
def test_a_mock_with_the_signature_of_a_method_is_a_wrapper(kind: Any) -> None:
    """``autospec`` compiles a function whose globals have no name."""
    name = "execute_command" if kind is redis.Redis else "get_connection"
    owner = "client" if kind is redis.Redis else "pool"
    with mock.patch.object(kind, name, autospec=True):
        assert reason_against(redis.Redis()) == f"the {owner}'s {name} is wrapped"


def test_metrics_of_the_client_see_each_command(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While redis-py records metrics, commands are its own."""
    providers = pytest.importorskip("redis.observability.providers")
    client = redis.Redis.from_url(redis_url)
    path = DirectPath(client)
    client.ping()
    assert path.send(("PING",)) is not None
    monkeypatch.setattr(providers.ObservabilityInstance, "get_provider_manager", lambda _: object())
    assert path.send(("PING",)) is None
    assert reason_against(client) == "the client records metrics"
    client.close()


# Connections


@pytest.fixture
def proxy(redis_url: str) -> Generator[FaultProxy]:
    """A proxy to Redis."""
    port = urlsplit(redis_url).port
    assert port is not None
    with FaultProxy(port) as made:
        yield made


@pytest.fixture
def make(proxy: FaultProxy) -> Generator[Callable[..., RedisBackend]]:
    """A function that makes a backend behind the proxy, with sessions of Ann and Bob; it has sent commands already."""
    made: list[Any] = []

    def backend(retries: int = 0, **options: Any) -> RedisBackend:
        retry = Retry(NoBackoff(), retries)
        client = redis.Redis(port=proxy.port, socket_timeout=0.5, socket_connect_timeout=0.5, retry=retry, **options)
        made.append(client)
        backend = RedisBackend(client)
        for script in DIGESTS:
            client.script_load(script)
        client.set("session:ann", ANN, ex=100)
        client.set("session:bob", BOB, ex=100)
        assert reason_against(client) is None
        del proxy.trips[:]
        return backend

    yield backend
    proxy.mode = "pass"
    for client in made:
        client.delete("session:ann", "session:bob", "session:new")
        client.close()


def payload_of(backend: RedisBackend, key: str) -> bytes | None:
    """Return what is stored, as the backend reads it."""
    record = backend.read(key)
    return None if record is None else record.payload  # type: ignore[return-value]


def test_unread_answers_of_others_are_noticed(make: Callable[..., RedisBackend], proxy: FaultProxy) -> None:
    """The app shares the client, and an interrupted command of its own has left an answer on a connection."""
    backend = make()
    pool: Any = backend.client.connection_pool  # type: ignore[attr-defined]
    dirty = pool.get_connection(*(["GET"] if redis.VERSION < (5, 3) else []))
    dirty.send_command("GET", "session:bob")
    dirty._sock.recv(1, 2)  # MSG_PEEK: wait for the answer, and leave it there
    pool.release(dirty)
    assert payload_of(backend, "session:ann") == ANN
    assert payload_of(backend, "session:bob") == BOB


@pytest.mark.parametrize("left", [1, 2, 3])
def test_answers_read_in_part_are_noticed(make: Callable[..., RedisBackend], proxy: FaultProxy, left: int) -> None:
    """Two commands were sent at once, and an error came between reading their answers."""

    class Stopped(BaseException):
        """Is no Exception, as gevent.Timeout."""

    backend = make()
    path: Any = backend._direct
    connection = path._pool._available_connections[-1]
    read, reads = connection.read_response, iter(range(1, 4))

    def answer(**options: Any) -> Any:
        if next(reads) == left:
            raise Stopped
        return read(**options)

    connection.read_response = answer
    with pytest.raises(Stopped):
        path.send(("GET", "session:bob"), ("GET", "session:bob"), ("GET", "session:bob"))
    connection.read_response = read
    for _ in range(3):
        assert payload_of(backend, "session:ann") == ANN
    assert proxy.connections == 2  # the interrupted one was closed


def test_an_idle_connection_that_the_server_closed(make: Callable[..., RedisBackend], proxy: FaultProxy) -> None:
    """It is noticed before a command is sent, so nothing is sent twice and nothing fails, even without retries."""
    backend = make(retries=0)

    def close_idle() -> None:
        proxy.mode = "refuse"
        proxy.mode = "pass"
        del proxy.trips[:]

    for act, result, words in [
        (lambda: payload_of(backend, "session:ann"), ANN, [b"GET"]),
        (lambda: backend.create("session:new", BOB, 100), True, [b"SET"]),
        (lambda: backend.replace("session:ann", BOB, 100, ANN).outcome, Outcome.STORED, [b"EVALSHA"]),
        (lambda: backend.delete("session:ann").current, BOB, [b"EVALSHA"]),
        (lambda: backend.read_and_touch("session:bob", 100, 0).payload, BOB, [b"GET"]),  # type: ignore[union-attr]
    ]:
        close_idle()
        assert act() == result  # type: ignore[no-untyped-call]
        sent = [word for trip in proxy.trips for word in (b"GET", b"SET\r\n", b"EVALSHA") if word in trip]
        assert [word.strip() for word in sent if b"CLIENT" not in word][:1] == words
        assert len([trip for trip in proxy.trips if b"session:" in trip]) == 1


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("mode", ["blackhole", "reset", "cut"])
def test_as_many_attempts_as_the_client_makes(
    make: Callable[..., RedisBackend], proxy: FaultProxy, mode: str, retries: int
) -> None:
    """A server that hangs, or dies in the middle of an answer, is tried as often as by execute_command."""
    connections = {}
    for how in ("direct", "client"):
        backend = make(retries)
        if how == "client":
            backend._direct = None
        before = proxy.connections
        proxy.mode = mode
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)) as raised:
            backend.read("session:ann")
        connections[how] = proxy.connections - before, raised.type
        proxy.mode = "pass"
    assert connections["direct"] == connections["client"]


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("repeated", [redis.exceptions.ReadOnlyError, redis.ResponseError, redis.ConnectionError])
def test_errors_of_the_server_that_the_client_repeats_after(
    make: Callable[..., RedisBackend], proxy: FaultProxy, repeated: type[Exception], retries: int
) -> None:
    """With ``retry_on_error=[ReadOnlyError]`` the client leaves a demoted master, and finds the new one."""
    connections = {}
    for how in ("direct", "client"):
        backend = make(retries, retry_on_error=[repeated])
        if how == "client":
            backend._direct = None
        client: Any = backend.client
        before = proxy.connections
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            with pytest.raises(redis.exceptions.ReadOnlyError):
                backend.create("session:new", ANN, 100)
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")
        connections[how] = proxy.connections - before
        assert payload_of(backend, "session:ann") == ANN
    assert connections["direct"] == connections["client"]


def test_a_lost_answer_of_a_replacement(make: Callable[..., RedisBackend], proxy: FaultProxy) -> None:
    """The client repeats the script; it finds the payload that the first one stored."""
    backend = make(retries=1)
    proxy.cut_after = 0
    proxy.fail_at(b"EVALSHA", "cut")
    try:
        result = backend.replace("session:ann", BOB, 100, ANN)
    except redis.ConnectionError:  # the second one was cut, too
        proxy.mode = "pass"
        assert payload_of(backend, "session:ann") == BOB
    else:
        assert result.current == BOB


def test_no_more_connections_than_with_the_pool(make: Callable[..., RedisBackend], proxy: FaultProxy) -> None:
    """Eight threads and the app's own commands in between, by one client: as many as there are at the same time."""
    backend = make()
    proxy.mode = "slow"
    client: Any = backend.client
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(5):
            assert payload_of(backend, "session:ann") == ANN
            client.get("session:bob")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert proxy.connections <= 8
    pool = client.connection_pool
    assert not pool._in_use_connections
    assert len(pool._available_connections) == pool._created_connections


def test_a_child_takes_no_connection_of_its_parent(make: Callable[..., RedisBackend], proxy: FaultProxy) -> None:
    """After a fork, also one in C, the process id is compared."""
    backend = make()
    mine = backend._send("CLIENT", "ID")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, str(backend._send("CLIENT", "ID")).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs = int(os.read(reading, 100))
    os.close(reading)
    os.close(writing)
    assert theirs != mine
    assert backend._send("CLIENT", "ID") == mine


def test_a_reset_pool_keeps_its_count(make: Callable[..., RedisBackend]) -> None:
    """A connection that was lent before the app resets the pool is not given back to it."""
    backend = make()
    path: Any = backend._direct
    connection = path._take()
    path._pool.reset()
    path._give_back(connection)
    assert path._pool._available_connections == []
    connection.disconnect()
    assert payload_of(backend, "session:ann") == ANN


def test_errors_of_the_server_are_the_clients_own(make: Callable[..., RedisBackend]) -> None:
    """With two commands the answer to the second is read as well, and the connection stays."""
    backend = make()
    path: Any = backend._direct
    answers = path.send(("LPUSH", "session:ann", "x"), ("GET", "session:ann"))
    assert isinstance(answers[0], redis.ResponseError)
    assert answers[1] == ANN
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        backend._send("LPUSH", "session:ann", "x")
    assert payload_of(backend, "session:bob") == BOB


@pytest.mark.parametrize("size", [0, 1, 5_999, 6_001, 1_000_000])
def test_payloads_of_every_size(make: Callable[..., RedisBackend], size: int) -> None:
    """Commands are packed as the library packs them, keys beyond ASCII too."""
    backend = make()
    client: Any = backend.client
    payload = os.urandom(size)
    command = ("SET", "sitzung:é☂", payload, "PX", 1000)
    assert direct._packed([command]) == b"".join(client.connection_pool.make_connection().pack_command(*command))
    assert backend.create("session:new", payload, 100)
    assert payload_of(backend, "session:new") == payload
    client.delete("session:new")
