"""The SQL adapter against the contract."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from lazysession.backend import Outcome
from lazysession.backends.sqlalchemy import SqlAlchemyBackend
from lazysession.backends.sqlalchemy.connect import own_engine
from lazysession.testing import (
    KEY,
    ComparesAtomically,
    Contract,
    Held,
    KeepsTtl,
    PurgesExpired,
    ReadsAndTouches,
    SurvivesForks,
    TellsTtl,
)


def hold(url: str, *, shared: bool = True) -> Held:
    """Return a database as Held; time passes on the backend's clock."""
    backend = SqlAlchemyBackend.from_setting(url)
    assert backend is not None
    backend.prepare()
    now, passed = backend.clock, [0.0]
    backend.clock = lambda: now() + timedelta(seconds=passed[0])

    def pass_time(seconds: float) -> None:
        passed[0] += seconds

    return Held(backend, pass_time, partial(SqlAlchemyBackend.from_setting, url) if shared else None)


def hold_server(url: str) -> Iterator[Held]:
    """Return a database server as Held, its table emptied; close its connections at the end."""
    held = hold(url)
    engine = held.backend._engine  # type: ignore[attr-defined]
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM sessions"))
    yield held
    engine.dispose()


class Sql(Contract, ReadsAndTouches, TellsTtl, KeepsTtl, PurgesExpired):
    """What every database does."""


class TestPostgreSQL(Sql, ComparesAtomically, SurvivesForks):
    """PostgreSQL, by psycopg."""

    @pytest.fixture
    def held(self, postgresql_url: str) -> Iterator[Held]:
        yield from hold_server(postgresql_url)


class TestMariaDB(Sql, ComparesAtomically, SurvivesForks):
    """MariaDB, by PyMySQL."""

    @pytest.fixture
    def held(self, mariadb_url: str) -> Iterator[Held]:
        yield from hold_server(mariadb_url)

    @pytest.mark.xfail(strict=True, reason="for the collation of the column, keys that differ only in case are equal")
    def test_keys_do_not_touch_each_other(self, held: Held) -> None:
        super().test_keys_do_not_touch_each_other(held)

    def test_another_case_is_another_key(self, held: Held) -> None:
        """A key in other letters is taken, as the unique index says, but it is neither read nor changed."""
        held.backend.create(KEY, b"1", 1000)
        other = KEY.upper()
        assert not held.backend.create(other, b"2", 1000)
        assert held.backend.read_and_touch(other, 1000, 1000) is None
        assert held.backend.replace(other, b"3", 1000, expected=b"1").outcome is Outcome.MISSING
        held.backend.delete(other)
        assert held.read().payload == b"1"


class TestSqliteFile(Sql, ComparesAtomically, SurvivesForks):
    """A SQLite file."""

    @pytest.fixture
    def held(self, tmp_path: Path) -> Held:
        return hold(f"sqlite:///{tmp_path}/sessions.db")


class TestSqliteInMemory(Sql):
    """A SQLite in memory, as tests use it."""

    @pytest.fixture
    def held(self) -> Held:
        return hold("sqlite://", shared=False)


@pytest.mark.parametrize("whose", ["url", "app"])
def test_every_verb_is_one_trip_to_mariadb(mariadb_url: str, whose: str) -> None:
    """Counted by the server: no BEGIN, COMMIT or ROLLBACK comes with a statement, on either kind of engine."""
    backend = SqlAlchemyBackend.from_setting(mariadb_url)
    assert backend is not None
    backend.prepare()
    engines = [backend._engine]
    if whose == "app":
        engines.append(create_engine(mariadb_url))
        backend = SqlAlchemyBackend(own_engine(engines[-1]), backend._table)
        engines.append(backend._engine)
    counter = create_engine(mariadb_url, isolation_level="AUTOCOMMIT")
    with counter.connect() as connection:

        def questions() -> int:
            return int(connection.execute(text("SHOW GLOBAL STATUS LIKE 'Questions'")).one()[1])

        backend.delete(KEY)
        counts = []
        for verb in (
            lambda: backend.create(KEY, b"1", 1000),
            lambda: backend.read(KEY),
            lambda: backend.read_and_touch(KEY, None, 0),
            lambda: backend.read_and_touch(KEY, 1000, 900),
            lambda: backend.read_and_touch(KEY, 1000, 1000),
            lambda: backend.touch(KEY, 1000),
            lambda: backend.touch(KEY, 1000, b"1"),
            lambda: backend.replace(KEY, b"2", 1000, b"1"),
            lambda: backend.delete(KEY, b"2"),
        ):
            before = questions()
            verb()
            counts.append(questions() - before - 1)
    for engine in (*engines, counter):
        engine.dispose()
    assert counts == [1, 1, 1, 1, 2, 1, 1, 1, 1]
