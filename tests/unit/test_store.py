"""When a record is refreshed, and what a process remembers of its expiry."""

from __future__ import annotations

import pytest

from lazysession.backend import Outcome, Record, TouchFailed, WriteResult
from lazysession.records.expiry import Refresh
from lazysession.records.store import LOCAL_EXPIRY_LIFETIME, RecordStore

REFRESH = Refresh(1000, 100)


class Plain:
    """A store of one record, which lists its calls."""

    def __init__(self, ttl: float | None = None) -> None:
        self.ttl = ttl
        self.calls: list[tuple[object, ...]] = []
        self.error: Exception | None = None

    def read(self, key: str) -> Record | None:
        self.calls.append(("read",))
        return Record(b"1", self.ttl)

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        return True

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        self.calls.append(("replace", ttl))
        return WriteResult(Outcome.TTL_UNKNOWN if ttl is None else Outcome.STORED)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        return WriteResult(Outcome.STORED)

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        self.calls.append(("touch", ttl, expected))
        if self.error is not None:
            raise self.error
        return True


class Touching(Plain):
    """One that touches as it reads, and tells what is left only then."""

    def read(self, key: str) -> Record | None:
        self.calls.append(("read",))
        return Record(b"1")

    def read_and_touch(self, key: str, ttl: float | None, unless_more_than: float) -> Record | None:
        self.calls.append(("read_and_touch", ttl, unless_more_than))
        record = Record(b"1", self.ttl, touched=ttl is not None and (self.ttl or 0) <= unless_more_than)
        if self.error is not None:
            raise TouchFailed(record._replace(touched=False)) from self.error
        return record


class Clock:
    """The time of a process."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_store_that_touches_as_it_reads() -> None:
    """It is asked once a minute, and when a refresh is due; all other reads are plain."""
    backend, clock = Touching(999), Clock()
    records = RecordStore(backend, clock)
    for seconds in (0, LOCAL_EXPIRY_LIFETIME - 1, 2):
        clock.now += seconds
        records.load("key", REFRESH)
    asked = ("read_and_touch", 1000, 900)
    assert backend.calls == [asked, ("read",), asked]


def test_what_is_left_is_asked_without_a_touch() -> None:
    """For each request that must not refresh: another process may have moved the expiry."""
    backend = Touching(950)
    records = RecordStore(backend, Clock())
    assert records.load("key", None) == Record(b"1", 950)
    assert records.load("key", None) == Record(b"1", 950)
    assert backend.calls == [("read_and_touch", None, 0.0)] * 2


def test_a_store_that_tells_no_ttl_is_believed_to_the_end() -> None:
    """memcached cannot tell more when it is asked again."""
    backend, clock = Touching(None), Clock()
    records = RecordStore(backend, clock)
    records.load("key", REFRESH)
    clock.now += 99
    records.load("key", REFRESH)
    clock.now += 1
    records.load("key", REFRESH)
    assert [call[0] for call in backend.calls] == ["read_and_touch", "read", "read_and_touch"]


@pytest.mark.parametrize(("ttl", "due"), [(901, False), (900, True), (1001, False), (1002, True), (None, True)])
def test_when_a_refresh_is_due(ttl: float | None, due: bool) -> None:
    """When the throttle has passed, when the lifetime was shortened, and when the ttl is unknown."""
    backend = Plain(ttl)
    assert RecordStore(backend, Clock()).refresh("key", Record(b"1", ttl), REFRESH) is due
    assert backend.calls == ([("touch", 1000, b"1")] if due else [])


@pytest.mark.parametrize("kind", [Plain, Touching])
def test_a_refresh_that_fails(kind: type[Plain], caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, without key or payload, and the record was read."""
    backend = kind(10)
    backend.error = OSError("key")
    records = RecordStore(backend, Clock())
    record = records.load("key", REFRESH)
    assert record == Record(b"1", 10)
    assert caplog.messages == ["The expiry of a session could not be refreshed (OSError); the session itself was read."]
    assert [call[0] for call in backend.calls] == (["read_and_touch"] if kind is Touching else ["read", "touch"])


def test_a_ttl_that_the_store_cannot_keep() -> None:
    """It is replaced with what this process remembers, or with the longest lifetime that was asked for."""
    backend, clock = Plain(), Clock()
    records = RecordStore(backend, clock)
    records.create("key", b"1", 1000)
    clock.now += 400
    assert records.replace("key", b"2", None, b"1").outcome is Outcome.STORED
    assert records.replace("other", b"2", None, b"1").outcome is Outcome.STORED
    assert backend.calls == [("replace", None), ("replace", 600), ("replace", None), ("replace", 1000)]
