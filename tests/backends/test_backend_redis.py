"""The Redis adapter against the contract, on a fake and on real servers, and what only Redis has."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from flask import session
from flask_session import Session
from flask_session.redis.redis import RedisSession
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from lazysession import ConfigurationError, LazySession
from lazysession.backend import Outcome, Problem, Record, SupportsCheck, SupportsPurge, TouchFailed
from lazysession.backends.redis import RedisBackend
from lazysession.testing import (
    KEY,
    ComparesAtomically,
    Contract,
    Held,
    KeepsTtl,
    ReadsAndTouches,
    SurvivesForks,
    TellsTtl,
)
from tests.support import servers
from tests.support.on_redis import cluster_client, make_app, sentinel_client
from tests.support.stores import CountingClient


def hold(client: Any, url: str | None = None) -> Held:
    """Return a client's server as Held, emptied; time passes by shortening every expiry."""
    client.flushall()
    everywhere = {"target_nodes": RedisCluster.PRIMARIES} if isinstance(client, RedisCluster) else {}

    def pass_time(seconds: float) -> None:
        for key in client.keys(**everywhere):
            client.pexpire(key, int(client.pttl(key) - seconds * 1000))
        now = backend.clock
        backend.clock = lambda: now() + seconds

    backend = RedisBackend(client)
    return Held(backend, pass_time, partial(RedisBackend.from_setting, url) if url else None)


class TestFakeRedis(Contract, ReadsAndTouches, TellsTtl, KeepsTtl):
    """fakeredis, recognized by its methods; it proves nothing about races."""

    @pytest.fixture
    def held(self) -> Held:
        return hold(CountingClient(fakeredis.FakeRedis()))


class TestRedis(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically, SurvivesForks):
    """A real Redis."""

    @pytest.fixture
    def held(self, redis_url: str) -> Held:
        return hold(redis.Redis.from_url(redis_url), redis_url)


class TestRedisCluster(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically):
    """A cluster of three masters and three replicas; the other processes of the races connect by URL."""

    @pytest.fixture
    def held(self, redis_cluster_url: str) -> Held:
        return hold(cluster_client(redis_cluster_url), redis_cluster_url)


class TestRedisSentinel(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically):
    """The master that three Sentinels name."""

    @pytest.fixture
    def held(self, redis_sentinel_url: str) -> Held:
        return hold(sentinel_client(redis_sentinel_url), redis_sentinel_url)


class TestValkeyClient(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically):
    """The client library of Valkey, on a Redis."""

    @pytest.fixture
    def held(self, redis_url: str) -> Held:
        import valkey

        url = redis_url.replace("redis", "valkey")
        return hold(valkey.Valkey.from_url(url), url)


class TestRedisByTls(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically):
    """A Redis behind TLS, its certificate checked."""

    @pytest.fixture
    def held(self, tls_url: str) -> Held:
        return hold_url(tls_url)


class TestRedisByUnixSocket(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically):
    """A Redis behind a Unix socket."""

    @pytest.fixture
    def held(self, unix_url: str) -> Held:
        return hold_url(unix_url)


def hold_url(url: str) -> Held:
    """Return the server of a URL as Held, with the client that the adapter makes of it."""
    backend = RedisBackend.from_setting(url)
    assert backend is not None
    return hold(backend.client, url)


@pytest.fixture(scope="module")
def tls_url(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A Redis that speaks TLS alone, with a certificate of its own making; without Redis (``redis_url``) none."""
    folder, port = tmp_path_factory.mktemp("tls"), servers.free_port()
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    openssl = servers.need("openssl", "apt-get install openssl")
    usages = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=sessions", *usages]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
    options = ["--tls-port", str(port), *files, "--tls-auth-clients", "no"]
    with servers.child([*servers.redis_command(0, folder), *options], port):
        yield f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"


@pytest.fixture(scope="module")
def unix_url(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A Redis with a Unix socket."""
    folder, port = tmp_path_factory.mktemp("unix"), servers.free_port()
    path = folder / "redis.sock"
    with servers.child(servers.redis_command(port, folder, "--unixsocket", str(path)), port):
        yield f"unix://{path}?db=0"


@pytest.fixture
def own_url(redis_url: str) -> Generator[str]:
    """A Redis for one test alone, which may change its settings, stop and kill it; skipped as ``redis_url`` is."""
    with servers.redis() as url:
        yield url


def test_optional_verbs() -> None:
    """Redis needs no purging, and can be checked."""
    backend = RedisBackend(fakeredis.FakeRedis())
    assert not isinstance(backend, SupportsPurge)
    assert isinstance(backend, SupportsCheck)


class TestOnlyRedis:
    """What only Redis has."""

    def test_a_refused_touch(self, redis_url: str) -> None:
        """A server that takes no writes is read, and the error holds the record."""
        client: Any = redis.Redis.from_url(redis_url)
        client.flushall()
        backend = RedisBackend(client)
        backend.create(KEY, b"1", 1000)
        client.config_set("min-replicas-to-write", 1)  # there is none: writes are refused
        try:
            with pytest.raises(TouchFailed) as failed:
                backend.read_and_touch(KEY, 1000, 1000)
        finally:
            client.config_set("min-replicas-to-write", 0)
        assert failed.value.record == Record(b"1", pytest.approx(1000, abs=5))
        assert isinstance(failed.value.__cause__, PermissionError)

    def test_a_restarted_server_gets_the_scripts_again(self, redis_url: str) -> None:
        """A server that has lost the scripts gets them with the next use."""
        client: Any = redis.Redis.from_url(redis_url)
        backend = RedisBackend(client)
        for _ in range(2):
            client.flushall()
            client.script_flush()
            backend.create(KEY, b"1", 1000)
            assert backend.read_and_touch(KEY, 1000, 1000) is not None
            assert backend.replace(KEY, b"2", None, expected=b"1").outcome is Outcome.STORED

    def test_a_key_without_an_expiry_gets_one(self, redis_url: str) -> None:
        """A session without an expiry has one after its next use."""
        client: Any = redis.Redis.from_url(redis_url)
        client.set(KEY, b"1")
        record = RedisBackend(client).read_and_touch(KEY, 1000, 1)
        assert record == Record(b"1", None, touched=True)
        assert 990 < client.ttl(KEY) <= 1000

    def test_other_errors_are_the_clients_own(self, redis_url: str) -> None:
        """A fault of the system raises what the client raises."""
        client: Any = redis.Redis.from_url(redis_url)
        client.delete(KEY)
        client.lpush(KEY, 1)
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            RedisBackend(client).read_and_touch(KEY, 1000, 1000)
        client.delete(KEY)

    def test_each_node_learns_each_script_once(self, redis_cluster_url: str) -> None:
        """On a cluster the first use of a script costs two trips at each master, and every later one a single trip."""
        client = cluster_client(redis_cluster_url)
        client.flushall()
        client.script_flush()
        nodes = [client.get_redis_connection(node) for node in client.get_primaries()]
        for node in nodes:
            node.config_resetstat()
        backend = hold_url(redis_cluster_url).backend
        for number in range(60):
            backend.create(f"{KEY}{number}", b"1", 1000)
            assert backend.read_and_touch(f"{KEY}{number}", 1000, 1000) is not None
        stats = [node.info("commandstats") for node in nodes]
        assert [each["cmdstat_eval"]["calls"] for each in stats] == [1, 1, 1]
        assert [each["cmdstat_evalsha"]["failed_calls"] for each in stats] == [1, 1, 1]
        assert sum(each["cmdstat_evalsha"]["calls"] for each in stats) == 60


class TestUrls:
    """The client has the options of its URL; nothing connects before it is used."""

    @staticmethod
    def options_of(url: str) -> dict[str, Any]:
        backend = RedisBackend.from_setting(url)
        assert backend is not None
        options: dict[str, Any] = backend.client.connection_pool.connection_kwargs  # type: ignore[attr-defined]
        return options

    @pytest.mark.parametrize("url", ["redis://nowhere", "unix:///nowhere", "redis+sentinel://nowhere/sessions"])
    def test_timeouts(self, url: str) -> None:
        """No client waits indefinitely, however old the library; the query of the URL may set other timeouts."""
        options = self.options_of(url)
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (2, 2)
        options = self.options_of(f"{url}?socket_timeout=0.5")
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.5, 0.5)
        options = self.options_of(f"{url}?socket_timeout=0.5&socket_connect_timeout=0.1")
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.5, 0.1)

    def test_sentinels(self) -> None:
        """The account and the options are the master's; ``sentinel_`` makes them the Sentinels'."""
        url = "redis+sentinel://me:p%40ss@one:1,two,[::1]:3/sessions/4?max_connections=5&sentinel_password=theirs"
        backend: Any = RedisBackend.from_setting(url)
        pool = backend.client.connection_pool
        master, sentinels = pool.connection_kwargs, pool.sentinel_manager.sentinels
        assert (master["username"], master["password"], master["db"]) == ("me", "p@ss", 4)
        assert (pool.service_name, pool.max_connections) == ("sessions", 5)
        addresses = [each.connection_pool.connection_kwargs for each in sentinels]
        assert [(each["host"], each["port"]) for each in addresses] == [("one", 1), ("two", 26379), ("::1", 3)]
        assert {(each.get("username"), each["password"]) for each in addresses} == {(None, "theirs")}
        assert {each["socket_timeout"] for each in addresses} == {2}

    def test_sentinels_by_tls(self) -> None:
        """``rediss`` is TLS to the master and to the Sentinels, with the same certificates."""
        backend: Any = RedisBackend.from_setting("rediss+sentinel://one/sessions?ssl_ca_certs=ca.pem")
        pool = backend.client.connection_pool
        theirs = pool.sentinel_manager.sentinels[0].connection_pool
        assert pool.connection_class.__name__ == "SentinelManagedSSLConnection"
        assert theirs.connection_class.__name__ == "SSLConnection"
        assert pool.connection_kwargs["ssl_ca_certs"] == theirs.connection_kwargs["ssl_ca_certs"] == "ca.pem"

    def test_a_cluster_through_any_of_its_nodes(self, redis_cluster_url: str) -> None:
        """A node that is down makes no difference, while another one is up."""
        nodes = redis_cluster_url.partition("://")[2]
        backend = hold_url(f"redis+cluster://127.0.0.1:{servers.free_port()},{nodes}").backend
        assert backend.create(KEY, b"1", 1000)

    @pytest.mark.parametrize(
        "url",
        [
            "redis://me:se/cret@localhost",
            "redis://me:secret@localhost:port",
            "redis://me:secret@localhost?db=x",
            "redis://me:secret@localhost?pasword=secret",
            "rediss://me:secret@localhost?ssl_cert_reqs=secret",
            "redis+cluster://me:secret@localhost:port,two",
            "redis+cluster://me:secret@localhost,two:port",
            "redis+cluster://me:secret@localhost/1",
            "redis+cluster://me:secret@localhost?read_from_replicas=1",
            "redis+sentinel://me:secret@localhost",
            "redis+sentinel://me:secret@localhost/sessions/secret",
            "redis+sentinel://me:secret@localhost/sessions?pasword=secret",
            "redis+sentinel://me:secret@localhost/sessions?sentinel_pasword=secret",
            "redis+sentinel://me:se#cret@localhost/sessions",
            "http://me:secret@localhost",
            "me:secret@localhost:6379",
            "redis+proxy://me:secret@localhost",
            b"redis://me:secret@localhost",
            ["redis://me:secret@localhost"],
        ],
    )
    def test_a_wrong_url_is_an_error_at_start_up(self, url: object) -> None:
        """A malformed URL is an error of the configuration that repeats no part of a password."""
        with pytest.raises(ConfigurationError, match=r"SESSION_REDIS cannot be used: .* URL ") as raised:
            make_app(url)
        error: BaseException | None = raised.value
        while error is not None:  # as a traceback shows it
            assert "cret" not in str(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    def test_unknown_schemes_name_the_known(self) -> None:
        """The error says what there is."""
        with pytest.raises(ValueError, match=r"redis://, rediss://, unix://, redis\+cluster://.* redis\+sentinel://"):
            RedisBackend.from_setting("memcached://localhost")

    def test_valkey_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says how to install it."""
        monkeypatch.setitem(import_module("sys").modules, "valkey", None)
        with pytest.raises(ConfigurationError, match="pip install valkey"):
            make_app("valkey://localhost")

    @pytest.mark.parametrize("scheme", ["valkey", "valkeys", "valkey+cluster", "valkey+sentinel", "valkeys+sentinel"])
    def test_valkey_schemes(self, scheme: str) -> None:
        """Each scheme of Redis is there for Valkey."""
        backend = RedisBackend.from_setting(f"{scheme}://localhost/{'sessions' if 'sentinel' in scheme else ''}")
        assert backend is not None
        if "cluster" not in scheme:  # which is made when it is used
            assert type(backend.client).__name__ == "Valkey"


class TestNoServer:
    """Where no server listens an app starts, and what uses its session gets the client's own exception."""

    @pytest.fixture(params=["redis://{}", "redis+cluster://{}", "redis+sentinel://{}/sessions", "valkey://{}"])
    def url(self, request: pytest.FixtureRequest) -> str:
        return str(request.param.format(f"127.0.0.1:{servers.free_port()}"))

    @pytest.mark.parametrize(
        "verb",
        [
            lambda backend: backend.read(KEY),
            lambda backend: backend.read_and_touch(KEY, 1000, 1000),
            lambda backend: backend.create(KEY, b"1", 1000),
            lambda backend: backend.replace(KEY, b"2", 1000, b"1"),
            lambda backend: backend.delete(KEY),
            lambda backend: backend.delete(KEY, b"1"),
            lambda backend: backend.touch(KEY, 1000),
            lambda backend: backend.touch(KEY, 1000, b"1"),
            lambda backend: list(backend.check()),
        ],
        ids=[
            "read",
            "read and touch",
            "create",
            "replace",
            "delete",
            "delete expected",
            "touch",
            "touch expected",
            "check",
        ],
    )
    def test_verbs(self, url: str, verb: Callable[[Any], object]) -> None:
        """Each verb raises what the client raises."""
        with pytest.raises(Exception) as raised:  # noqa: PT011 - recognized by name, as each library has its own
            verb(RedisBackend.from_setting(url))
        assert raised.type.__name__ in {"ConnectionError", "RedisClusterException", "MasterNotFoundError"}
        assert raised.type.__module__.split(".")[0] in {"redis", "valkey"}

    def test_app(self, url: str) -> None:
        """A read is 503, a write too and without a cookie, and what uses no session is served."""
        app = make_app(url)
        client = app.test_client()
        assert client.get("/first").status_code == 503
        assert "Set-Cookie" not in client.get("/first").headers
        client.set_cookie("session", "a" * 43)
        assert client.get("/count/a").status_code == 503
        assert client.get("/untouched").status_code == client.get("/skipped").status_code == 200


def test_a_hanging_server_hangs_no_request(own_url: str) -> None:
    """A Redis that takes connections and never answers costs a request its timeout, once, and then 503."""
    client = make_app(f"{own_url}?socket_timeout=1").test_client()
    client.get("/count/a")
    process = redis.Redis.from_url(own_url).info("server")["process_id"]
    os.kill(process, signal.SIGSTOP)
    try:
        before = time.monotonic()
        assert client.get("/count/a").status_code == 503
        assert 0.9 < time.monotonic() - before < 1.8
        assert client.get("/untouched").status_code == 200
    finally:
        os.kill(process, signal.SIGCONT)
    assert client.get("/count/a").text == "2"


def test_a_lost_connection_is_made_anew(own_url: str) -> None:
    """A command during which the server closes the connection is sent again, once, on a new one."""
    client = make_app(own_url).test_client()
    client.get("/count/a")
    other: Any = redis.Redis.from_url(own_url)
    other.client_pause(10_000, all=False)  # scripts wait, as they may write
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.get, "/count/a")
        servers.wait_until(lambda: other.info("clients")["blocked_clients"] == 1, "the command")
        other.client_kill_filter(_type="normal", skipme=True)
        other.client_unpause()
        assert answer.result().text == "2"


@pytest.mark.parametrize("order", [(Session, LazySession), (LazySession, Session)], ids=["theirs first", "ours first"])
@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_flask_session_behind_sentinel(redis_sentinel_url: str, format: str, order: tuple[type, type]) -> None:
    """A Sentinel's master is a client that Flask-Session takes too: half a fleet may run on each."""
    client = sentinel_client(redis_sentinel_url)
    clients = [make_app(client, extension, SESSION_SERIALIZATION_FORMAT=format).test_client() for extension in order]
    clients[0].get("/count/a")
    cookie = clients[0].get_cookie("session")
    assert cookie is not None
    clients[1].set_cookie("session", cookie.value)
    assert [clients[number % 2].get("/count/a").text for number in (1, 0, 1, 0)] == ["2", "3", "4", "5"]


def test_the_session_of_a_cluster_is_a_redis_session(redis_cluster_url: str) -> None:
    """By URL too, a session has Flask-Session's class, and the client is an attribute of the interface."""
    app = make_app(redis_cluster_url)
    with app.test_client() as client:
        client.get("/first")
        assert isinstance(session, RedisSession)
        client_of_app: Any = app.session_interface.client  # type: ignore[attr-defined]
        assert client_of_app.nodes_manager is client_of_app.nodes_manager  # made once
        assert client_of_app.exists(f"session:{session.sid}") == 1


def problems_of(backend: RedisBackend) -> list[Problem]:
    """Return what the user can fix: not which path commands take, nor whether a faster parser is there."""
    return [problem for problem in backend.check() if problem.severity != "info"]


class TestCheck:
    """What only the user can fix is found, and nothing else."""

    @staticmethod
    def found(url: str, **settings: object) -> list[tuple[str, str]]:
        """Set settings of the server, and return the findings, except those about the disk: tests use none."""
        client: Any = redis.Redis.from_url(url)
        for name, value in settings.items():
            client.config_set(name.replace("_", "-"), value)
        backend = RedisBackend.from_setting(url)
        assert backend is not None
        problems = problems_of(backend)
        assert all(problem.remedy for problem in problems)
        return [(problem.severity, problem.what) for problem in problems if "on disk" not in problem.what]

    def test_all_is_well(self, own_url: str, redis_cluster_url: str, redis_sentinel_url: str) -> None:
        """A sound setup has no findings: with a limit that is far, in a cluster, and behind Sentinels."""
        assert self.found(own_url, maxmemory="1gb", maxmemory_policy="noeviction", appendonly="yes") == []
        assert self.found(own_url, maxmemory=0, maxmemory_policy="allkeys-lru") == []
        for url in (own_url, redis_cluster_url, redis_sentinel_url):
            assert problems_of(hold_url(url).backend) == []  # type: ignore[arg-type]

    @pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"])
    def test_eviction(self, own_url: str, policy: str) -> None:
        """A policy that removes sessions is found where there is a limit."""
        ((severity, what),) = self.found(own_url, maxmemory="1gb", maxmemory_policy=policy)
        assert (severity, policy in what) == ("warning", True)
        assert ("any key" in what) is policy.startswith("allkeys")

    def test_memory_is_short(self, own_url: str) -> None:
        """Without eviction, writes fail when memory is full: near is a warning, reached is an error."""
        used = redis.Redis.from_url(own_url).info("memory")["used_memory"]
        ((severity, what),) = self.found(own_url, maxmemory=int(used * 1.15))
        assert (severity, "of maxmemory" in what) == ("warning", True)
        ((severity, _),) = self.found(own_url, maxmemory=used // 2)
        assert severity == "error"

    def test_nothing_is_kept(self, own_url: str) -> None:
        """No disk and no replica: a restart logs everyone out."""
        (problem,) = problems_of(RedisBackend(redis.Redis.from_url(own_url, socket_timeout=1)))
        assert (problem.severity, "a restart logs everyone out" in problem.what) == ("warning", True)

    def test_replicas(self, own_url: str, tmp_path: Path) -> None:
        """Two replicas without min-replicas-to-write are found; so is a client that is connected to a replica."""
        master = own_url.removeprefix("redis://").removesuffix("/0").replace(":", " ")
        first, second = servers.free_port(), servers.free_port()
        options = ("--replicaof", master, "--repl-diskless-sync-delay", "0")
        with (
            servers.child(servers.redis_command(first, tmp_path, *options), first),
            servers.child(servers.redis_command(second, tmp_path, *options), second),
        ):
            client: Any = redis.Redis.from_url(own_url)
            servers.wait_until(lambda: client.info("replication")["connected_slaves"] == 2, "two replicas")
            ((severity, what),) = self.found(own_url)
            assert (severity, "has lost its replicas" in what) == ("warning", True)
            assert self.found(own_url, min_replicas_to_write=1) == []
            replica: Any = redis.Redis(port=first)
            ((severity, what),) = self.found(f"redis://127.0.0.1:{first}")
            assert (severity, "is connected to a replica" in what) == ("error", True)
            with pytest.raises(redis.ReadOnlyError):
                RedisBackend(replica).create(KEY, b"1", 1000)

    def test_no_timeout(self, own_url: str) -> None:
        """A client without a timeout is found, for one server and for a cluster's."""
        client = redis.Redis.from_url(own_url, socket_timeout=None)
        assert "no socket_timeout" in next(iter(RedisBackend(client).check())).what

    @pytest.mark.skipif(not hasattr(Retry, "get_retries"), reason="this redis-py does not tell, and repeats nothing")
    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ({"retry": Retry(NoBackoff(), 10)}, "11 times and waits 5 s"),
            ({"retry": Retry(NoBackoff(), -1)}, "until it succeeds"),
            ({"retry": Retry(NoBackoff(), 10, (redis.TimeoutError,))}, "11 times and waits 5 s"),
            ({"retry": Retry(NoBackoff(), 10, (redis.ConnectionError,))}, None),
            ({"retry": Retry(NoBackoff(), 1)}, None),  # 10 s
            ({"retry": None}, None),
        ],
    )
    def test_long_retries(self, own_url: str, options: dict[str, Any], found: str | None) -> None:
        """A client that repeats timeouts for more than 10 s is found, with its numbers."""
        client = redis.Redis.from_url(own_url, socket_timeout=5, **options)
        texts = [each.what for each in RedisBackend(client).check() if each.name == "redis-retries"]
        assert len(texts) == (found is not None)
        assert all(str(found) in text for text in texts)

    def test_long_timeout_in_a_url(self, own_url: str) -> None:
        """A client that LazySession makes of a URL repeats no timeout."""
        backend = RedisBackend.from_setting(f"{own_url}?socket_timeout=9")
        assert backend is not None
        assert "redis-retries" not in [each.name for each in backend.check()]

    def test_no_timeout_on_a_cluster(self, redis_cluster_url: str) -> None:
        """Three masters of one client are one finding."""
        node = redis_cluster_url.replace("+cluster", "").split(",")[0]
        (problem,) = problems_of(RedisBackend(RedisCluster.from_url(node, socket_timeout=None)))
        assert "no socket_timeout" in problem.what

    def test_commands_may_be_forbidden(self, own_url: str) -> None:
        """Without CONFIG the rest is checked; without INFO that is the finding."""
        client: Any = redis.Redis.from_url(own_url)
        client.config_set("maxmemory", "1gb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.execute_command("ACL SETUSER", "plain", "on", ">secret", "~*", "+@all", "-config")
        url = own_url.replace("redis://", "redis://plain:secret@")
        backend = RedisBackend.from_setting(url)
        assert backend is not None
        (problem,) = problems_of(backend)
        assert "allkeys-lru" in problem.what
        client.execute_command("ACL SETUSER", "plain", "-info")
        (problem,) = problems_of(backend)
        assert (problem.severity, "may not use INFO" in problem.what) == ("warning", True)

    @pytest.mark.parametrize(("version", "found"), [("5.0.14", ["error"]), ("6.0.0", []), ("10.1", [])])
    def test_old_servers(self, version: str, found: list[str]) -> None:
        """What KEEPTTL needs is Redis 6.0."""

        class OldServer:
            def execute_command(self, *command: Any, **_: Any) -> Any:
                return {"redis_version": version, "role": "master"} if command == ("INFO",) else {}

        assert [problem.severity for problem in problems_of(RedisBackend(OldServer()))] == found
