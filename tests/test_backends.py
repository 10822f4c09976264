"""The contract of lazysession.backend, on every backend; the races on the real servers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from stores import CountingClient

from lazysession.backend import Backend, Checks, Outcome, Purges, Record, Renew, Replaced
from lazysession.backends.redis import RedisBackend
from lazysession.backends.sqlalchemy import SqlAlchemyBackend

KEY = "session:" + "k" * 43
NEVER = Renew(1000, 999)
ALWAYS = Renew(1000, 0)


class Held:
    """A backend, and the two things that the contract has no verb for."""

    def __init__(self, backend: Any, pass_time: Callable[[float], None]) -> None:
        self.backend: Backend = backend
        self.pass_time = pass_time

    def remaining(self) -> float:
        record = self.backend.read(KEY, Renew(10**6, 10**6 - 1))  # asks, and is never due
        assert record is not None
        assert record.remaining is not None
        return record.remaining


def hold_redis(client: Any) -> Held:
    def pass_time(seconds: float) -> None:
        for key in client.keys():
            client.pexpire(key, int(client.pttl(key) - seconds * 1000))

    return Held(RedisBackend(client), pass_time)


def hold_sql(folder: Path) -> Held:
    backend = SqlAlchemyBackend.from_setting(f"sqlite:///{folder}/sessions.db")
    assert backend is not None
    now = backend.clock
    passed = [0.0]
    backend.clock = lambda: now() + timedelta(seconds=passed[0])

    def pass_time(seconds: float) -> None:
        passed[0] += seconds

    return Held(backend, pass_time)


def hold(name: str, request: pytest.FixtureRequest, folder: Path) -> Held:
    if name == "sqlite":
        return hold_sql(folder)
    if name == "fakeredis":
        return hold_redis(CountingClient(fakeredis.FakeRedis()))
    client = redis.Redis.from_url(request.getfixturevalue("redis_url"))
    client.flushall()
    return hold_redis(client)


@pytest.fixture(params=["fakeredis", "redis", "sqlite"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Held:
    """Each backend, empty, and a fake beside them."""
    return hold(request.param, request, tmp_path)


@pytest.fixture(params=["redis", "sqlite"])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Held:
    """Each backend on its real store, empty: what may prove a race."""
    return hold(request.param, request, tmp_path)


@pytest.mark.parametrize("payload", [b"", b"\x00", b"a" * 2**20], ids=["empty", "one byte", "1 MiB"])
def test_payloads_come_back_as_they_were(held: Held, payload: bytes) -> None:
    """Bytes in, the same bytes out."""
    assert held.backend.create(KEY, payload, 1000)
    record = held.backend.read(KEY, None)
    assert record is not None
    assert record.payload == payload
    assert held.backend.replace(KEY, payload + b"!", 1000, seen=payload) == Replaced(Outcome.STORED)


def test_absent(held: Held) -> None:
    """What is not there is an outcome, whatever is asked."""
    assert held.backend.read(KEY, None) is None
    assert held.backend.read(KEY, ALWAYS) is None
    assert held.backend.replace(KEY, b"new", 1000, seen=b"old") == Replaced(Outcome.GONE)
    assert held.backend.replace(KEY, b"new", None, seen=b"old") == Replaced(Outcome.GONE)
    held.backend.delete(KEY)
    assert held.backend.read(KEY, None) is None


def test_expired(held: Held) -> None:
    """What has expired is absent: not read, not refreshed, not replaced."""
    held.backend.create(KEY, b"old", 1000)
    held.pass_time(1001)
    assert held.backend.read(KEY, ALWAYS) is None
    assert held.backend.replace(KEY, b"new", 1000, seen=b"old") == Replaced(Outcome.GONE)
    assert held.backend.read(KEY, None) is None


def test_create_takes_no_key_twice(held: Held) -> None:
    """A key that is taken stays as it is."""
    assert held.backend.create(KEY, b"first", 1000)
    assert not held.backend.create(KEY, b"second", 2000)
    record = held.backend.read(KEY, None)
    assert record is not None
    assert record.payload == b"first"
    assert held.remaining() <= 1000


def test_replace_names_what_it_saw(held: Held) -> None:
    """Another payload than the one seen is CHANGED, and stays."""
    held.backend.create(KEY, b"theirs", 1000)
    outcome, found = held.backend.replace(KEY, b"mine", 1000, seen=b"other")
    assert outcome is Outcome.CHANGED
    assert found in (b"theirs", None)
    record = held.backend.read(KEY, None)
    assert record is not None
    assert record.payload == b"theirs"


def test_replace_begins_a_new_life_or_keeps_the_old(held: Held) -> None:
    """With a lifetime the record lives that long from now; with None what it had left."""
    held.backend.create(KEY, b"1", 1000)
    held.pass_time(600)
    held.backend.replace(KEY, b"2", None, seen=b"1")
    assert 395 < held.remaining() <= 400
    held.backend.replace(KEY, b"3", 1000, seen=b"2")
    assert 995 < held.remaining() <= 1000


@pytest.mark.parametrize(
    ("passed", "renew", "refreshed"),
    [
        (0, Renew(1000, 100), False),
        (90, Renew(1000, 100), False),
        (101, Renew(1000, 100), True),
        (0, Renew(1000, 0), True),
        (0, Renew(500, 100), True),  # the lifetime was shortened: no session outlives it
        (999, None, False),
    ],
)
def test_refresh_when_due(held: Held, passed: float, renew: Renew | None, refreshed: bool) -> None:
    """A read moves the expiry when the throttle has passed since the last refresh, and changes nothing else."""
    held.backend.create(KEY, b"payload", 1000)
    held.pass_time(passed)
    record = held.backend.read(KEY, renew)
    assert record is not None
    assert (record.payload, record.refreshed) == (b"payload", refreshed)
    if refreshed and renew is not None:
        assert renew.lifetime - 5 < held.remaining() <= renew.lifetime
    else:
        assert held.remaining() <= 1000 - passed


def test_delete(held: Held) -> None:
    """Deleted is gone, and a late replace does not bring it back."""
    held.backend.create(KEY, b"1", 1000)
    held.backend.delete(KEY)
    assert held.backend.replace(KEY, b"2", 1000, seen=b"1") == Replaced(Outcome.GONE)
    assert held.backend.read(KEY, ALWAYS) is None


def race(*works: Callable[[], Any]) -> list[Any]:
    """Run functions at once, each on a thread of its own; answer what they returned."""
    gate = threading.Barrier(len(works))
    answers: list[Any] = [None] * len(works)

    def run(number: int, work: Callable[[], Any]) -> None:
        gate.wait()
        answers[number] = work()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_two_replaces_of_the_same(real: Held) -> None:
    """Of many replaces that saw the same payload, one is stored."""
    for turn in range(20):
        key, seen = f"{KEY}{turn}", b"seen"
        real.backend.create(key, seen, 1000)
        works = [lambda n=n, key=key: real.backend.replace(key, b"%d" % n, 1000, seen=b"seen") for n in range(4)]
        outcomes = [replaced.outcome for replaced in race(*works)]
        assert sorted(outcome.value for outcome in outcomes) == ["changed"] * 3 + ["stored"]
        record = real.backend.read(key, None)
        assert record is not None
        assert record.payload == b"%d" % outcomes.index(Outcome.STORED)


def test_two_creates_of_the_same(real: Held) -> None:
    """Of many creates, one is true."""
    for turn in range(20):
        works = [lambda n=n, turn=turn: real.backend.create(f"{KEY}{turn}", b"%d" % n, 1000) for n in range(4)]
        assert sorted(race(*works)) == [False] * 3 + [True]


def test_a_replace_never_revives(real: Held) -> None:
    """A delete that runs beside replaces and refreshing reads has the last word."""
    for turn in range(20):
        key = f"{KEY}{turn}"
        real.backend.create(key, b"1", 1000)
        race(
            lambda key=key: real.backend.delete(key),
            lambda key=key: real.backend.replace(key, b"2", 1000, seen=b"1"),
            lambda key=key: real.backend.read(key, ALWAYS),
        )
        assert real.backend.read(key, None) is None


def test_optional_verbs_are_told() -> None:
    """What a backend can beside the four verbs is asked with isinstance, once."""
    assert not isinstance(RedisBackend(fakeredis.FakeRedis()), Purges)
    assert isinstance(SqlAlchemyBackend.from_setting("sqlite://"), Purges)
    assert not isinstance(SqlAlchemyBackend.from_setting("sqlite://"), Checks)


def test_purge(tmp_path: Path) -> None:
    """Purging deletes what has expired, and counts it."""
    held = hold_sql(tmp_path)
    assert isinstance(held.backend, Purges)
    for number in range(5):
        held.backend.create(f"{KEY}{number}", b"", 100 if number < 3 else 1000)
    held.pass_time(500)
    assert held.backend.purge() == 3
    assert held.backend.purge() == 0
    assert held.backend.read(f"{KEY}4", None) is not None


class TestRedis:
    """What only Redis has."""

    def test_a_refused_refresh_is_logged(self, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
        """A replica that takes no writes is read all the same."""
        client: Any = redis.Redis.from_url(redis_url)
        client.flushall()
        backend = RedisBackend(client)
        backend.create(KEY, b"1", 1000)
        client.config_set("min-replicas-to-write", 1)  # there is none: writes are refused
        try:
            record = backend.read(KEY, Renew(1000, 0))
        finally:
            client.config_set("min-replicas-to-write", 0)
        assert record is not None
        assert (record.payload, record.refreshed) == (b"1", False)
        assert "refused to refresh" in caplog.text

    def test_a_restarted_server_learns_the_scripts_again(self, redis_url: str) -> None:
        """A server that has forgotten the scripts gets them with the next use."""
        client: Any = redis.Redis.from_url(redis_url)
        backend = RedisBackend(client)
        for _ in range(2):
            client.flushall()
            client.script_flush()
            backend.create(KEY, b"1", 1000)
            assert backend.read(KEY, ALWAYS) is not None
            assert backend.replace(KEY, b"2", None, seen=b"1").outcome is Outcome.STORED

    def test_a_key_without_an_expiry_gets_one(self, redis_url: str) -> None:
        """A session that something made immortal is mortal again at its next use."""
        client: Any = redis.Redis.from_url(redis_url)
        client.set(KEY, b"1")
        record = RedisBackend(client).read(KEY, NEVER)
        assert record == Record(b"1", None, refreshed=True)
        assert 990 < client.ttl(KEY) <= 1000

    def test_other_errors_are_the_clients_own(self, redis_url: str) -> None:
        """A fault of the system raises what the client raises."""
        client: Any = redis.Redis.from_url(redis_url)
        client.delete(KEY)
        client.lpush(KEY, 1)
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            RedisBackend(client).read(KEY, ALWAYS)
        client.delete(KEY)
