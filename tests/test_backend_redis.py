"""The Redis adapter against the contract, on a fake and on real servers, and what only Redis has."""

from __future__ import annotations

from functools import partial
from typing import Any

import fakeredis
import pytest
import redis
from stores import CountingClient

from lazysession.backend import Checks, Outcome, Purges, Record, Renew
from lazysession.backends.redis import RedisBackend
from lazysession.testing import ALWAYS, KEY, ComparesAtomically, Contract, Held, KeepsRemaining, TellsRemaining

NEVER = Renew(1000, 999)


def hold(client: Any, url: str | None = None) -> Held:
    """Hold a client's server, emptied; time passes by shortening every expiry."""
    client.flushall()

    def pass_time(seconds: float) -> None:
        for key in client.keys():
            client.pexpire(key, int(client.pttl(key) - seconds * 1000))

    return Held(RedisBackend(client), pass_time, partial(RedisBackend.from_setting, url) if url else None)


class TestFakeRedis(Contract, TellsRemaining, KeepsRemaining):
    """fakeredis, known by its methods only; it proves no race."""

    @pytest.fixture
    def held(self) -> Held:
        return hold(CountingClient(fakeredis.FakeRedis()))


class TestRedis(Contract, TellsRemaining, KeepsRemaining, ComparesAtomically):
    """A real Redis."""

    @pytest.fixture
    def held(self, redis_url: str) -> Held:
        return hold(redis.Redis.from_url(redis_url), redis_url)


def test_optional_verbs() -> None:
    """Redis needs no purging."""
    backend = RedisBackend(fakeredis.FakeRedis())
    assert not isinstance(backend, Purges)
    assert not isinstance(backend, Checks)


class TestOnlyRedis:
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
