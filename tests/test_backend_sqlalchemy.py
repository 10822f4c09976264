"""The SQL adapter against the contract."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from lazysession.backends.sqlalchemy import SqlAlchemyBackend
from lazysession.testing import ComparesAtomically, Contract, Held, KeepsRemaining, PurgesExpired, TellsRemaining


def hold(url: str, *, shared: bool = True) -> Held:
    """Hold a database; time passes on the backend's clock."""
    backend = SqlAlchemyBackend.from_setting(url)
    assert backend is not None
    now, passed = backend.clock, [0.0]
    backend.clock = lambda: now() + timedelta(seconds=passed[0])

    def pass_time(seconds: float) -> None:
        passed[0] += seconds

    return Held(backend, pass_time, partial(SqlAlchemyBackend.from_setting, url) if shared else None)


class TestSqliteFile(Contract, TellsRemaining, KeepsRemaining, ComparesAtomically, PurgesExpired):
    """A SQLite file."""

    @pytest.fixture
    def held(self, tmp_path: Path) -> Held:
        return hold(f"sqlite:///{tmp_path}/sessions.db")


class TestSqliteInMemory(Contract, TellsRemaining, KeepsRemaining, PurgesExpired):
    """A SQLite in memory, as tests use it."""

    @pytest.fixture
    def held(self) -> Held:
        return hold("sqlite://", shared=False)
