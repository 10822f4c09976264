"""SQLite's one write lock: waited for as the app's own connections do, except where this very request holds it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event, text

from lazysession import LazySession
from tests.support.stores.base import LIVE, backend_of


class Clock:
    """Time that passes only while a test sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: dict[float, Callable[[], object]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self.at if moment <= self.now]:
            self.at.pop(moment)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which a request waits for a lock."""
    clock = Clock()
    monkeypatch.setattr("lazysession.backends.sqlalchemy.sqlite.time", clock)
    return clock


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock during whose sleep other threads run."""
    clock, sleep = Clock(), time.sleep

    def pause(seconds: float) -> None:
        clock.now += 0.001
        sleep(0.001)

    monkeypatch.setattr(clock, "sleep", pause)
    monkeypatch.setattr("lazysession.backends.sqlalchemy.sqlite.time", clock)
    return clock


class Shop:
    """An app whose own tables are in the file that holds the sessions, too."""

    def __init__(self, folder: Path, *, by_url: bool = False, wal: bool = False, query: str = "") -> None:
        self.path = folder / "shop.db"
        if wal:
            with closing(sqlite3.connect(self.path)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
        self.db = SQLAlchemy()
        url = f"sqlite:///{self.path}{query}"
        self.app = app = Flask("shop")
        app.config.update(SECRET_KEY="key", SQLALCHEMY_DATABASE_URI=url, SESSION_TYPE="sqlalchemy")
        app.config["SESSION_SQLALCHEMY"] = url if by_url else self.db
        self.db.init_app(app)
        LazySession(app)
        with app.app_context():
            self.db.session.execute(text("CREATE TABLE note (name)"))
            self.db.session.commit()
        self.view: Callable[[], Any] = lambda: ""
        app.add_url_rule("/", view_func=lambda: str(self.view()), endpoint="view")
        app.add_url_rule("/change", view_func=lambda: session.update(a=1) or "", endpoint="change")

    def write(self) -> None:
        """Begin a transaction of the app's, and write."""
        self.db.session.execute(text("INSERT INTO note VALUES ('mine')"))

    def write_and_save(self) -> int:
        """Write in a view, do not commit, and change the session; return the status."""

        def view() -> None:
            self.write()
            session["a"] = 1

        self.view = view
        return self.visit()

    def visit(self, path: str = "/") -> int:
        browser = self.app.test_client()
        browser.set_cookie("session", LIVE)
        return browser.get(path).status_code

    def close(self) -> None:
        with self.app.app_context():
            self.db.engine.dispose()
        backend_of(self.app)._engine.dispose()


@pytest.fixture
def make_shop(tmp_path: Path) -> Generator[Callable[..., Shop]]:
    """A function that makes a shop."""
    shops: list[Shop] = []

    def make(**options: Any) -> Shop:
        shops.append(Shop(tmp_path, **options))
        return shops[-1]

    yield make
    for shop in shops:
        shop.close()


@pytest.fixture(params=[False, True], ids=["app", "url"])
def by_url(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[False, True], ids=["rollback-journal", "wal"])
def wal(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_another_process_is_waited_for(make_shop: Callable[..., Shop], clock: Clock, by_url: bool, wal: bool) -> None:
    """A lock that another process releases after four seconds is no error."""
    shop = make_shop(by_url=by_url, wal=wal)
    with closing(sqlite3.connect(shop.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        clock.at[4.0] = lambda: other.execute("ROLLBACK")
        assert shop.visit("/change") == 200
    assert 4.0 <= clock.now < 5.0


def test_readers_are_waited_for(make_shop: Callable[..., Shop], clock: Clock) -> None:
    """A logout that reads nothing is committed with the row that it returns: it waits for a read, without WAL."""
    shop = make_shop()
    backend, key = backend_of(shop.app), f"session:{LIVE}"
    assert backend.create(key, b"1", 1000)
    with closing(sqlite3.connect(shop.path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM sessions").fetchall()
        clock.at[4.0] = lambda: other.execute("ROLLBACK")
        assert backend.delete(key).current == b"1"
        assert backend.read(key) is None
    assert 4.0 <= clock.now < 5.0


@pytest.mark.parametrize(("query", "seconds"), [("", 5.0), ("?timeout=2", 2.0)])
def test_the_wait_has_an_end(
    make_shop: Callable[..., Shop], clock: Clock, query: str, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The wait is the one of the app's own connections: the driver's five seconds, or what the URL says."""
    shop = make_shop(query=query)
    with closing(sqlite3.connect(shop.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert shop.visit("/change") == 503
        other.execute("ROLLBACK")
    assert clock.now == pytest.approx(seconds, abs=0.2)
    assert "another connection locked its SQLite file" in caplog.text
    assert "its own request" not in caplog.text


def test_a_lock_of_this_request_is_not_waited_for(
    make_shop: Callable[..., Shop], clock: Clock, by_url: bool, wal: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What this very request has written and not committed cannot be released while it waits."""
    shop = make_shop(by_url=by_url, wal=wal)
    assert shop.write_and_save() == 503
    assert clock.now == 0.0
    assert "its own request" in caplog.text


def test_another_request_of_this_process_is_waited_for(
    make_shop: Callable[..., Shop], slow_clock: Clock, wal: bool
) -> None:
    """What another thread has written and not committed is waited for until it commits."""
    shop = make_shop(wal=wal)
    has_written, may_commit = threading.Event(), threading.Event()
    statuses: list[int] = []

    def view() -> None:
        shop.write()
        has_written.set()
        may_commit.wait(30)
        shop.db.session.commit()

    def pause(seconds: float) -> None:
        slow_clock.now += 0.001
        may_commit.set()
        time.sleep(0.001)

    slow_clock.sleep = pause  # type: ignore[method-assign]
    shop.view = view
    other = threading.Thread(target=lambda: statuses.append(shop.visit()))
    other.start()
    assert has_written.wait(30)
    assert shop.visit("/change") == 200
    other.join()
    assert statuses == [200]


def begin_for_real(shop: Shop) -> None:
    """Make every transaction of the app's a real one, by SQLAlchemy's recipe: a SELECT begins it, too."""
    with shop.app.app_context():
        engine = shop.db.engine
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    engine.dispose()


def test_a_write_of_this_request_in_a_real_transaction(make_shop: Callable[..., Shop], clock: Clock) -> None:
    """It is distinguished from a read by the rows that it changed."""
    shop = make_shop(wal=True)
    begin_for_real(shop)
    assert shop.write_and_save() == 503
    assert clock.now == 0.0


def test_a_read_of_this_request_without_wal(make_shop: Callable[..., Shop], clock: Clock) -> None:
    """With a rollback journal, an open read of this request blocks each write, and is not waited for."""
    shop = make_shop()
    begin_for_real(shop)

    def view() -> None:
        shop.db.session.execute(text("SELECT * FROM note")).all()
        session["a"] = 1

    shop.view = view
    assert shop.visit() == 503
    assert clock.now == 0.0


def test_a_read_of_this_request_with_wal(make_shop: Callable[..., Shop], clock: Clock) -> None:
    """With WAL an open read blocks nothing: a session waits for a lock that another connection holds meanwhile."""
    shop = make_shop(wal=True)
    begin_for_real(shop)
    with closing(sqlite3.connect(shop.path, isolation_level=None)) as other:

        def view() -> None:
            shop.db.session.execute(text("SELECT * FROM note")).all()
            other.execute("BEGIN IMMEDIATE")
            clock.at[4.0] = lambda: other.execute("ROLLBACK")
            session["a"] = 1

        shop.view = view
        assert shop.visit() == 200
    assert clock.now >= 4.0


def test_a_lock_on_another_file(make_shop: Callable[..., Shop], clock: Clock, tmp_path: Path) -> None:
    """What this request has written to another database does not hold this lock."""
    shop = make_shop()
    elsewhere = SQLAlchemy()
    app = Flask("elsewhere")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/elsewhere.db"
    elsewhere.init_app(app)
    with app.app_context(), closing(sqlite3.connect(shop.path, isolation_level=None)) as other:
        elsewhere.session.execute(text("CREATE TABLE note (name)"))
        elsewhere.session.execute(text("INSERT INTO note VALUES (1)"))
        other.execute("BEGIN IMMEDIATE")
        clock.at[4.0] = lambda: other.execute("ROLLBACK")
        assert shop.visit("/change") == 200
        elsewhere.session.rollback()
        elsewhere.engine.dispose()


def test_a_greenlet_waits_for_another(tmp_path: Path) -> None:
    """Under gevent, the greenlet that waits does not stop the one that holds the lock from releasing it."""
    program = f"""
        from gevent import monkey; monkey.patch_all()
        import gevent, sqlite3, time
        from flask import Flask, session
        from lazysession import LazySession
        app = Flask("shop")
        path = {str(tmp_path / "shop.db")!r}
        app.config.update(SECRET_KEY="key", SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=f"sqlite:///{{path}}")
        LazySession(app)
        app.add_url_rule("/", view_func=lambda: session.update(a=1) or "")

        def hold():
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            gevent.sleep(0.3)
            other.execute("ROLLBACK")

        holder = gevent.spawn(hold)
        gevent.sleep(0)
        print(app.test_client().get("/").status_code, holder.successful())
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["200", "True"], done.stderr
