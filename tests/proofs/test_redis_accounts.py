"""Accounts and servers of Redis that run no scripts."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
import valkey
from flask import Flask, session
from redis.cluster import RedisCluster
from redis.sentinel import Sentinel

from lazysession import LazySession
from lazysession.backend import Outcome, Record, TouchFailed, WriteResult
from lazysession.backends.redis import RedisBackend
from lazysession.backends.redis.scripts import TOUCH_IF_DUE
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
from tests.support.stores import RedisStore

USER = "unscripted"
WITHOUT_SCRIPTS = ("on", ">secret", "~*", "&*", "+@all", "-@scripting")


def with_account(url: str) -> str:
    """Return a server's URL with the account of these tests."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{USER}:secret@{rest}"


@pytest.fixture
def server(redis_url: str) -> Generator[Any]:
    """The server, emptied, with an account that may do everything but run scripts."""
    client: Any = redis.Redis.from_url(redis_url)
    client.flushall()
    client.execute_command("ACL", "SETUSER", USER, "reset", *WITHOUT_SCRIPTS)
    yield client
    client.execute_command("ACL", "DELUSER", USER)


@pytest.fixture
def account_url(server: Any, redis_url: str) -> str:
    """The URL of that account."""
    return with_account(redis_url)


def hold(client: Any, pass_time_of: Any, connect: Callable[[], RedisBackend | None] | None = None) -> Held:
    """Hold an account's server; time passes by shortening every expiry."""
    everywhere = {"target_nodes": RedisCluster.PRIMARIES} if isinstance(pass_time_of, RedisCluster) else {}
    backend = RedisBackend(client)

    def pass_time(seconds: float) -> None:
        for key in pass_time_of.keys(**everywhere):
            pass_time_of.pexpire(key, int(pass_time_of.pttl(key) - seconds * 1000))
        now = backend.clock
        backend.clock = lambda: now() + seconds

    return Held(backend, pass_time, connect)


class TestRedis(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically, SurvivesForks):
    """A real Redis, by URL."""

    @pytest.fixture
    def held(self, server: Any, account_url: str) -> Held:
        return hold(redis.Redis.from_url(account_url), server, partial(RedisBackend.from_setting, account_url))


class TestValkeyClient(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically):
    """The client library of Valkey."""

    @pytest.fixture
    def held(self, server: Any, account_url: str) -> Held:
        url = account_url.replace("redis://", "valkey://")
        return hold(valkey.Valkey.from_url(url), server, partial(RedisBackend.from_setting, url))


class OwnRedis(redis.Redis):
    """A client with an ``execute_command`` of its own, which changes nothing: instrumentation makes such."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return super().execute_command(*args, **options)


class TestInstrumentedClient(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically):
    """A client whose ``execute_command`` is replaced, as tracing libraries do."""

    @pytest.fixture
    def held(self, server: Any, account_url: str) -> Held:
        return hold(OwnRedis.from_url(account_url), server)


class TestRedisCluster(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically):
    """A cluster, by URL: the master of a key is watched."""

    @pytest.fixture
    def held(self, redis_cluster_url: str) -> Generator[Held]:
        client: Any = RedisCluster.from_url(redis_cluster_url.replace("+cluster", "").split(",")[0])
        client.flushall()
        client.execute_command("ACL SETUSER", USER, "reset", *WITHOUT_SCRIPTS, target_nodes=RedisCluster.ALL_NODES)
        url = with_account(redis_cluster_url)
        yield hold(_backend_of(url).client, client, partial(RedisBackend.from_setting, url))
        client.execute_command("ACL DELUSER", USER, target_nodes=RedisCluster.ALL_NODES)


class TestRedisSentinel(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically):
    """The master that Sentinels name."""

    @pytest.fixture
    def held(self, redis_sentinel_url: str) -> Generator[Held]:
        nodes, _, service = redis_sentinel_url.partition("://")[2].partition("/")
        sentinels = [(node.split(":")[0], int(node.split(":")[1])) for node in nodes.split(",")]
        client: Any = Sentinel(sentinels).master_for(service)
        client.flushall()
        client.execute_command("ACL", "SETUSER", USER, "reset", *WITHOUT_SCRIPTS)
        url = with_account(redis_sentinel_url)
        yield hold(_backend_of(url).client, client, partial(RedisBackend.from_setting, url))
        client.execute_command("ACL", "DELUSER", USER)


@pytest.fixture(scope="module")
def unscripted_url(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A Redis that knows neither scripts nor GETDEL; without Redis (``redis_url``) none."""
    port = servers.free_port()
    unknown = [part for name in ("EVAL", "EVALSHA", "GETDEL") for part in ("--rename-command", name, f"no-{name}")]
    command = servers.redis_command(port, tmp_path_factory.mktemp("unknown"), *unknown)
    with servers.child(command, port):
        yield f"redis://127.0.0.1:{port}/0"


class TestUnknownCommands(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically):
    """A server, or a proxy, that does not know the commands; nor GETDEL, as before Redis 6.2."""

    @pytest.fixture
    def held(self, unscripted_url: str) -> Held:
        client: Any = redis.Redis.from_url(unscripted_url)
        client.flushall()
        return hold(client, client, partial(RedisBackend.from_setting, unscripted_url))


def _backend_of(url: str) -> RedisBackend:
    backend = RedisBackend.from_setting(url)
    assert backend is not None
    return backend


# An app


def shop(client: Any, **settings: Any) -> Flask:
    """Make an app that logs in, changes, reads and logs out; errors are responses."""
    app = Flask("shop", static_folder=None)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client, PERMANENT_SESSION_LIFETIME=2000, **settings)
    LazySession(app)
    app.logger.setLevel("CRITICAL")
    app.add_url_rule("/set/<value>", "set", lambda value: str(session.update(user=value)))
    app.add_url_rule("/get", "get", lambda: str(session.get("user")))
    app.add_url_rule("/clear", "clear", lambda: str(session.clear()))
    app.add_url_rule("/out", "out", lambda: str(session.pop("user")))

    @app.route("/rotate")
    def rotate() -> str:
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        return str(session["user"])

    return app


@pytest.mark.parametrize("logout", ["/out", "/clear"])
def test_an_app(logout: str, server: Any, account_url: str) -> None:
    """It logs in, changes, refreshes, rotates and logs out."""
    app = shop(redis.Redis.from_url(account_url), LAZYSESSION_REFRESH_THROTTLE=0)
    browser = app.test_client()
    for value in ("ada", "bob"):
        assert browser.get(f"/set/{value}").status_code == 200
        assert browser.get("/get").text == value
    (key,) = server.keys()
    server.expire(key, 1000)
    assert shop(redis.Redis.from_url(account_url)).test_client().get("/get").text == "None"
    assert browser.get("/get").text == "bob"
    assert server.ttl(key) > 1000
    assert browser.get("/rotate").text == "bob"
    assert browser.get("/get").text == "bob"
    assert browser.get(logout).status_code == 200
    server.delete(key)  # the forwarding record of the rotation
    assert server.keys() == []


def counted(store: RedisStore, work: Callable[[], object]) -> list[str]:
    """Return the round trips of some work."""
    with store.counted() as trips:
        work()
    return trips


@pytest.fixture
def plain_store(redis_url: str) -> Generator[RedisStore]:
    """A Redis, counted on the wire, with a client of the account."""
    store = RedisStore(redis_url)
    store.server.execute_command("ACL", "SETUSER", USER, "reset", *WITHOUT_SCRIPTS)
    store.client = redis.Redis(
        port=store.client.connection_pool.connection_kwargs["port"], username=USER, password="secret"
    )
    yield store
    store.server.execute_command("ACL", "DELUSER", USER)
    store.close()


def test_what_it_costs(plain_store: RedisStore) -> None:
    """The refusal is remembered for a minute; then a script is tried again, and used where it may be."""
    backend = RedisBackend(plain_store.client)
    backend.create(KEY, b"one", 1000)
    watched = ["WATCH", "GET", "MULTI+PSETEX+EXEC"]
    assert counted(plain_store, lambda: backend.replace(KEY, b"two", 1000, b"one")) == ["EVALSHA", *watched]
    assert counted(plain_store, lambda: backend.replace(KEY, b"three", 1000, b"two")) == watched
    assert counted(plain_store, lambda: backend.read_and_touch(KEY, 1000, 900)) == ["GET+PTTL"]
    assert counted(plain_store, lambda: backend.read_and_touch(KEY, 1000, 1000)) == ["GET+PTTL", "PEXPIRE"]
    assert counted(plain_store, lambda: backend.read_and_touch(KEY, None, 0)) == ["GET+PTTL"]
    assert counted(plain_store, lambda: backend.read(KEY)) == ["GET"]
    assert counted(plain_store, lambda: backend.touch(KEY, 1000)) == ["PEXPIRE"]
    assert counted(plain_store, lambda: backend.touch(KEY, 1000, b"three")) == ["WATCH", "GET", "MULTI+PEXPIRE+EXEC"]
    assert counted(plain_store, lambda: backend.delete(KEY)) == ["GETDEL"]
    backend.create(KEY, b"one", 1000)
    plain_store.server.execute_command("ACL", "SETUSER", USER, "+@scripting")
    assert counted(plain_store, lambda: backend.replace(KEY, b"two", 1000, b"one")) == watched
    now = backend.clock()
    backend.clock = lambda: now + 61
    assert counted(plain_store, lambda: backend.replace(KEY, b"three", 1000, b"two")) == ["EVALSHA"]
    assert counted(plain_store, lambda: backend.delete(KEY)) == ["EVALSHA"]


def test_the_refusal_is_logged_once(server: Any, account_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log says once in a process what is slow, and what to allow."""
    backend = RedisBackend(redis.Redis.from_url(account_url))
    backend.create(KEY, b"one", 1000)
    for _ in range(3):
        backend.replace(KEY, b"one", 1000, b"one")
        backend.read_and_touch(KEY, 1000, 1000)
    (message,) = caplog.messages
    assert "+eval +evalsha" in message
    assert len(message) < 200


def test_a_key_that_never_rests(server: Any, account_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every attempt meets another request's refresh, the attempts end with CONFLICT."""
    backend = RedisBackend(redis.Redis.from_url(account_url))
    backend.create(KEY, b"one", 1000)
    attempts = []
    plain = redis.client.Pipeline.multi

    def multi(pipeline: Any) -> None:
        attempts.append(server.pexpire(KEY, 900_000))  # another request's refresh
        plain(pipeline)

    monkeypatch.setattr(redis.client.Pipeline, "multi", multi)
    assert backend.replace(KEY, b"two", 1000, b"one") == WriteResult(Outcome.CONFLICT, b"one")
    assert backend.delete(KEY, b"one") == WriteResult(Outcome.CONFLICT, b"one")
    assert len(attempts) <= 20
    monkeypatch.undo()
    assert backend.replace(KEY, b"two", 1000, b"one").outcome is Outcome.STORED


def test_a_change_in_between_is_reported(server: Any, account_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another request stores between WATCH and EXEC stays, and is in the result."""
    backend = RedisBackend(redis.Redis.from_url(account_url))
    plain = redis.client.Pipeline.multi

    def multi(pipeline: Any) -> None:
        server.set(KEY, b"theirs")
        plain(pipeline)

    monkeypatch.setattr(redis.client.Pipeline, "multi", multi)
    for change in (partial(backend.replace, KEY, b"two", 1000, b"one"), partial(backend.delete, KEY, b"one")):
        server.set(KEY, b"one")
        assert change() == WriteResult(Outcome.CONFLICT, b"theirs")
        assert server.get(KEY) == b"theirs"


class TestNoTransactionsEither:
    """An account that may neither run scripts nor watch."""

    @pytest.fixture
    def backend(self, server: Any, account_url: str) -> RedisBackend:
        server.execute_command("ACL", "SETUSER", USER, "-@transaction")
        return RedisBackend(redis.Redis.from_url(account_url))

    def test_comparing_is_refused(self, server: Any, backend: RedisBackend) -> None:
        """The error names the account's missing rights, and nothing is changed."""
        backend.create(KEY, b"one", 1000)
        for change in (partial(backend.replace, KEY, b"two", 1000, b"one"), partial(backend.delete, KEY, b"one")):
            with pytest.raises(PermissionError, match=r"ACL SETUSER .* \+eval \+evalsha") as raised:
                change()
            assert KEY not in str(raised.value)
        assert server.get(KEY) == b"one"

    def test_reading_and_deleting(self, server: Any, backend: RedisBackend) -> None:
        """A session is read and refreshed, and deleted whatever its payload is."""
        backend.create(KEY, b"one", 500)
        assert backend.read_and_touch(KEY, 1000, 1000) == Record(b"one", pytest.approx(500, abs=2), touched=True)
        assert server.ttl(KEY) > 990
        assert backend.delete(KEY) == WriteResult(Outcome.STORED, b"one")
        assert backend.delete(KEY) == WriteResult(Outcome.MISSING)

    def test_an_app(self, backend: RedisBackend, caplog: pytest.LogCaptureFixture) -> None:
        """A change is a 503, and the log names the remedy."""
        browser = shop(backend.client).test_client()
        assert browser.get("/set/ada").status_code == 200
        assert browser.get("/get").text == "ada"
        assert browser.get("/set/bob").status_code == 503
        assert "+eval +evalsha" in caplog.text
        assert browser.get("/clear").status_code == 200
        assert browser.get("/get").text == "None"


def test_keys_that_the_account_may_not_use(
    server: Any, account_url: str, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    """A right to the keys that is missing is not taken for one to scripts: the error is the server's own."""
    server.execute_command("ACL", "SETUSER", USER, "+@scripting", "resetkeys", "~other:*")
    backend = RedisBackend(redis.Redis.from_url(account_url))
    with pytest.raises(redis.exceptions.NoPermissionError, match="key"):
        backend.replace(KEY, b"two", 1000, b"one")
    assert caplog.text == ""  # no advice to allow scripts, which are allowed


class PrefixedRedis(redis.Redis):
    """A client that puts a prefix before each key."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        at = 3 if str(args[0]).startswith("EVAL") else 1
        args = tuple(f"tenant:{part}" if number == at else part for number, part in enumerate(args))
        return super().execute_command(*args, **options)


def test_a_client_that_changes_keys(server: Any, account_url: str) -> None:
    """Its pipelines would name other keys: nothing is changed, and the error names the remedy."""
    backend = RedisBackend(PrefixedRedis.from_url(account_url))
    assert backend.create(KEY, b"one", 1000)
    record = backend.read_and_touch(KEY, 1000, 1000)
    assert record is not None
    assert record.payload == b"one"
    with pytest.raises(PermissionError, match=r"\+eval \+evalsha"):
        backend.replace(KEY, b"two", 1000, b"one")
    assert server.keys() == [b"tenant:" + KEY.encode()]
    assert backend.delete(KEY) == WriteResult(Outcome.STORED, b"one")


# The check


def found(backend: RedisBackend) -> dict[str, str]:
    """Return the findings of a backend, and how severe each is."""
    return {problem.name: problem.severity for problem in backend.check()}


@pytest.mark.parametrize("missing", ["-@scripting", "-eval", "-evalsha"])
def test_check_finds_it(missing: str, server: Any, account_url: str) -> None:
    """Each right that is missing is a warning, and an error where transactions are refused as well."""
    server.execute_command("ACL", "SETUSER", USER, "+@scripting", missing)
    backend = RedisBackend(redis.Redis.from_url(account_url))
    assert found(backend)["redis-scripts"] == "warning"
    server.execute_command("ACL", "SETUSER", USER, "-@transaction")
    assert found(backend)["redis-scripts"] == "error"


def test_check_finds_nothing(server: Any) -> None:
    """Where scripts may run, there is no finding."""
    assert "redis-scripts" not in found(RedisBackend(server))


def test_check_finds_unknown_commands(redis_url: str, tmp_path: Path) -> None:
    """A server that does not know the commands is found as well."""
    port = servers.free_port()
    unknown = [part for name in ("EVAL", "EVALSHA") for part in ("--rename-command", name, f"no-{name}")]
    with servers.child(servers.redis_command(port, tmp_path, *unknown), port):
        assert found(RedisBackend(redis.Redis(port=port)))["redis-scripts"] == "warning"


# A cluster that moves a key


class MovedCluster:
    """A cluster's client whose first answers come from a node that has lost the key.

    :param lost: how many answers; ``error`` is what that node raises.
    """

    def __init__(self, lost: int, error: Exception) -> None:
        self.node, self.lost, self.error = fakeredis.FakeRedis(), lost, error
        self.asked: list[str] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.asked.append(str(args[0]))
        if str(args[0]).startswith("EVAL"):
            raise redis.exceptions.NoPermissionError("this user has no permissions to run the command")
        return self.node.execute_command(*args, **options)

    def get_node_from_key(self, key: str) -> str:
        return "node"

    def get_redis_connection(self, node: str) -> Any:
        self.lost -= 1
        return self if self.lost >= 0 else self.node

    def pipeline(self, transaction: bool) -> Any:
        raise self.error


ERRORS = [
    redis.exceptions.MovedError("1 127.0.0.1:1"),
    redis.exceptions.ReadOnlyError("READONLY"),
    redis.exceptions.ConnectionError("gone"),
    valkey.exceptions.ClusterDownError("CLUSTERDOWN down"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_key_that_moved(error: Exception) -> None:
    """The cluster's client is asked, which learns of the new master, and the change is made there."""
    client = MovedCluster(1, error)
    client.node.set(KEY, b"one")
    assert RedisBackend(client).replace(KEY, b"two", 1000, b"one") == WriteResult(Outcome.STORED)
    assert client.node.get(KEY) == b"two"
    assert client.asked == ["EVALSHA", "EXISTS"]


def test_a_key_that_is_nowhere() -> None:
    """After the second failure the error is the client's own."""
    with pytest.raises(redis.exceptions.ConnectionError):
        RedisBackend(MovedCluster(2, redis.exceptions.ConnectionError("gone"))).replace(KEY, b"two", 1000, b"one")


def test_an_error_shows_no_command(server: Any, account_url: str) -> None:
    """What a pipeline puts into the message of an error, the session's key and data, is taken out."""
    server.execute_command("ACL", "SETUSER", USER, "-psetex")
    backend = RedisBackend(redis.Redis.from_url(account_url))
    backend.create(KEY, b"one", 1000)
    with pytest.raises(redis.exceptions.NoPermissionError) as raised:
        backend.replace(KEY, b"private", 1000, b"one")
    assert "private" not in str(raised.value)
    assert KEY not in str(raised.value)
    assert server.get(KEY) == b"one"


#: What docs/reference/stores/redis.rst names, as accounts have it that were made for LazySession before.
DOCUMENTED = ("+get", "+set", "+unlink", "+pttl", "+pexpire", "+psetex", "+evalsha", "+eval")


@pytest.mark.parametrize("known", [False, True], ids=["new-script", "known-script"])
def test_an_account_with_the_documented_rights(server: Any, account_url: str, *, known: bool) -> None:
    """Its sessions are refreshed, and the first refresh that a server sees is no error."""
    server.execute_command("ACL", "SETUSER", USER, "-@all", *DOCUMENTED)
    server.script_flush()
    backend = RedisBackend(redis.Redis.from_url(account_url))
    if known:
        server.script_load(TOUCH_IF_DUE)
    assert backend.create(KEY, b"one", 50)
    assert backend.read_and_touch(KEY, 100, 100) == Record(b"one", pytest.approx(50, abs=1), touched=True)
    assert server.ttl(KEY) > 90
    server.delete(KEY)
    server.rpush(KEY, "task")
    server.expire(KEY, 50)
    assert backend._scripts.run(TOUCH_IF_DUE, KEY, 100_000, 100_000, otherwise=list) == [-2, 0]
    assert server.ttl(KEY) <= 50


def test_a_touch_that_fails_is_no_failed_read(server: Any, account_url: str) -> None:
    """The session was read, also where the server does not know the script yet and then refuses what it does."""
    server.execute_command("ACL", "SETUSER", USER, "-@all", "+get", "+set", "+eval", "+evalsha")
    server.script_flush()
    backend = RedisBackend(redis.Redis.from_url(account_url))
    assert backend.create(KEY, b"one", 50)
    with pytest.raises(TouchFailed) as failed:
        backend.read_and_touch(KEY, 100, 100)
    assert failed.value.record == Record(b"one")
    assert type(failed.value.__cause__).__name__ == "ResponseError"
