"""A backend of one's own, with all that may be added to the five verbs, and the suite that proves it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import ClassVar

import pytest

from lazysession.backend import (
    Adapter,
    Backend,
    Outcome,
    Problem,
    Record,
    SupportsCheck,
    SupportsExplain,
    SupportsPrepare,
    SupportsPurge,
    SupportsReadAndTouch,
    TouchFailed,
    WriteResult,
)
from lazysession.testing import (
    ComparesAtomically,
    Contract,
    Held,
    KeepsTtl,
    PurgesExpired,
    ReadsAndTouches,
    SurvivesForks,
    TellsTtl,
)


class MemoryBackend:
    """Sessions in a dict; it inherits nothing, as the contract is a protocol."""

    interface_class: ClassVar[str | None] = None

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.records: dict[str, tuple[bytes, float]] = {}

    @classmethod
    def from_interface(cls, interface: object) -> MemoryBackend | None:
        """Leave every interface to the generic adapter."""
        return None

    @classmethod
    def from_setting(cls, value: object, **options: object) -> MemoryBackend:
        """Return a backend; the setting has no value."""
        if value is not None:
            raise ValueError("it takes no value.")
        return cls()

    def read(self, key: str) -> Record | None:
        """Return what is stored."""
        payload, expiry = self.records.get(key, (b"", 0.0))
        return Record(payload, ttl=expiry - self.clock()) if expiry > self.clock() else None

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        """Store a new record."""
        if self.read(key) is not None:
            return False
        self.records[key] = payload, self.clock() + ttl
        return True

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        """Replace what is expected."""
        record = self.read(key)
        if record is None:
            return WriteResult(Outcome.MISSING)
        if record.payload != expected:
            return WriteResult(Outcome.CONFLICT, current=record.payload)
        self.records[key] = payload, self.records[key][1] if ttl is None else self.clock() + ttl
        return WriteResult(Outcome.STORED)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Remove the record."""
        record = self.read(key)
        if record is None:
            return WriteResult(Outcome.MISSING)
        if expected is not None and record.payload != expected:
            return WriteResult(Outcome.CONFLICT, current=record.payload)
        del self.records[key]
        return WriteResult(Outcome.STORED, current=record.payload)

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        """Move the expiry."""
        record = self.read(key)
        if record is None or expected not in (None, record.payload):
            return False
        self.records[key] = record.payload, self.clock() + ttl
        return True

    def read_and_touch(self, key: str, ttl: float | None, unless_more_than: float) -> Record | None:
        """Return what is stored, and move its expiry where that is due."""
        record = self.read(key)
        if record is None or ttl is None or unless_more_than < (record.ttl or 0) <= ttl + 1:
            return record
        if not self.touch(key, ttl):
            raise TouchFailed(record)
        return record._replace(touched=True)

    def purge(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Remove what has expired."""
        expired = [key for key in self.records if self.read(key) is None]
        for done, key in enumerate(expired, 1):
            del self.records[key]
            if progress is not None:
                progress(done, len(expired))
        return len(expired)

    def prepare(self) -> None:
        """Need nothing."""

    def explain(self, error: Exception) -> str:
        """Return what is logged of an error."""
        return type(error).__name__

    def check(self) -> Iterable[Problem]:
        """Return what is wrong with a store in memory."""
        return [Problem("warning", "A restart logs everyone out.", "Use another store.", "memory")]


adapter: type[Adapter] = MemoryBackend
backend: Backend = MemoryBackend()
touching: SupportsReadAndTouch = MemoryBackend()
purged: SupportsPurge = MemoryBackend()
prepared: SupportsPrepare = MemoryBackend()
explaining: SupportsExplain = MemoryBackend()
checked: SupportsCheck = MemoryBackend()


class TestMemory(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, ComparesAtomically, PurgesExpired, SurvivesForks):
    """The class line says what the store can do."""

    largest_payload = None
    longest_key = 5000

    @pytest.fixture
    def held(self) -> Held:
        """Return the backend under test, and a way to pass time."""
        passed = [0.0]

        def pass_time(seconds: float) -> None:
            passed[0] += seconds

        return Held(MemoryBackend(lambda: time.time() + passed[0]), pass_time)


class Halfway:
    """Lacks most of the contract, which a type checker says."""

    def read(self, key: str) -> bytes | None:
        """Return bytes and no record."""
        return None


wrong: Backend = Halfway()  # type: ignore[assignment]
