"""The records of a store, and what a process remembers of their expiries."""

from __future__ import annotations

from fakeredis import FakeRedis, FakeServer

from lazysession.backend import Outcome, Record, WriteResult
from lazysession.backends.redis import RedisBackend
from lazysession.records.expiry import Refresh
from lazysession.records.store import RecordStore

HOUR = Refresh(3600, 360)


class Untelling:
    """A store that touches as it reads, and can neither keep nor tell the ttl of a record, as pylibmc's memcached."""

    def __init__(self) -> None:
        self.payload = b"1"
        self.ttls: dict[str, float] = {}

    def read(self, key: str) -> Record | None:
        return Record(self.payload)

    def read_and_touch(self, key: str, ttl: float | None, unless_more_than: float) -> Record | None:
        if ttl is not None:
            self.ttls[key] = ttl
        return Record(self.payload, None, touched=ttl is not None)

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        self.ttls[key] = ttl
        return True

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        if ttl is None:
            return WriteResult(Outcome.TTL_UNKNOWN)
        self.ttls[key] = ttl
        return WriteResult(Outcome.STORED)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        return WriteResult(Outcome.STORED, self.payload)

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        self.ttls[key] = ttl
        return True


def test_a_ttl_that_cannot_be_known_is_the_lifetime_that_was_asked_for() -> None:
    """A process that has only read sessions gives one that it does not know an hour, and not 31 days."""
    backend = Untelling()
    records = RecordStore(backend)
    records.load("known", HOUR)
    records.load("other", None)
    records.replace("other", b"2", None, b"1")
    assert backend.ttls["other"] == 3600


def test_a_ttl_that_is_remembered_is_kept() -> None:
    """A read without a refresh does not forget the expiry that this process has set."""
    backend, now = Untelling(), [0.0]
    records = RecordStore(backend, lambda: now[0])
    records.load("known", HOUR)
    now[0] = 100
    record = records.load("known", None)
    assert record is not None
    assert record.ttl == 3500
    records.replace("known", b"2", None, b"1")
    assert backend.ttls["known"] == 3500


def test_the_ttl_of_a_read_without_a_refresh_is_the_stores_own() -> None:
    """Another process has refreshed the record meanwhile: a rotation in mode no_refresh must not shorten its life."""
    server = FakeServer()
    mine, other = (RecordStore(RedisBackend(FakeRedis(server=server))) for _ in range(2))
    mine.create("key", b"1", 50)
    record = other.load("key", HOUR)
    assert record is not None
    assert record.touched
    record = mine.load("key", None)
    assert record is not None
    assert record.ttl is not None
    assert record.ttl > 3500


def test_a_record_without_an_expiry_says_nothing_of_the_others() -> None:
    """Redis tells the ttl of other records all the same, so this process asks for them again after a minute."""
    client, now = FakeRedis(), [0.0]
    records = RecordStore(RedisBackend(client), lambda: now[0])
    client.set("endless", b"1")
    records.create("before", b"1", 3600)
    records.load("before", HOUR)
    now[0] = 70
    records.load("before", HOUR)
    records.load("endless", HOUR)
    records.create("key", b"1", 3600)
    now[0] += 61
    assert records.expiries.left("key") is None
