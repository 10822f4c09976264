"""What each process makes for itself; a fork is a process id that has changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pymemcache.client.base import PooledClient

from lazysession.backends import objects as _objects
from lazysession.backends.client_connections import ClientUse
from lazysession.backends.dynamodb.connect import leave_connections
from lazysession.backends.memcached.connect import PooledConnections
from lazysession.backends.sqlalchemy import SqlAlchemyBackend
from lazysession.processes import PerProcess, Recent
from lazysession.records.locks import lock_for


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function after which this process has the id of a child."""
    parent = os.getpid()
    return lambda: monkeypatch.setattr(os, "getpid", lambda: parent + 1)


def test_a_process_makes_its_value_once(fork: Any) -> None:
    """It is made at the first use, and again in a child, which leaves the parent's alone."""
    made: list[object] = []
    left: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    value = PerProcess(make, left.append)
    assert made == []
    parents = value.get()
    assert value.get() is parents
    fork()
    childs = value.get()
    assert value.get() is childs is not parents
    assert (made, left) == ([parents, childs], [parents])


def test_threads_of_a_child_get_the_same_value(fork: Any) -> None:
    """Two at once may both make a value, and one of the values is used by both."""
    both_make = threading.Barrier(2)
    forked = False

    def make() -> object:
        if forked:
            both_make.wait(10)
        return object()

    value = PerProcess(make)
    parents = value.get()
    fork()
    forked = True
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: value.get(), range(2))
    assert first is second is value.get() is not parents


def test_locks_that_the_parent_held_are_not_waited_for(fork: Any) -> None:
    """A thread that holds one in the parent does not exist in the child."""
    recent = Recent[int]()
    recent.put("key", 1)
    recent._lock.get().acquire()
    parents = _objects._LOCKS.of("key")
    parents.acquire()
    fork()
    try:
        with ThreadPoolExecutor(1) as other:
            other.submit(recent.put, "key", 2).result(10)
            assert other.submit(lambda: _objects._LOCKS.of("key").acquire(timeout=10)).result(15)
    finally:
        parents.release()
    assert recent.get("key") == 2


def test_a_lock_of_a_record_that_the_parent_held_is_not_waited_for(fork: Any) -> None:
    """A child takes the lock of the same session at once, without the second of waiting for a slow thread."""
    taken: list[bool] = []

    def take() -> None:
        with lock_for("key"):
            taken.append(True)

    with lock_for("key"):
        fork()
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.9)
        assert taken


def held_by_another_thread(lock: Any) -> Callable[[], None]:
    """Take a lock in a thread, as it may be at a fork; call the result to release it."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    return lambda: (done.set(), thread.join(10))[1]


def test_the_pool_of_a_database_that_the_parent_held_is_not_waited_for(fork: Any, tmp_path: Path) -> None:
    """A child reads on a pool of its own, while a thread of the parent holds the locks of the old one."""
    backend = SqlAlchemyBackend.from_setting(f"sqlite:///{tmp_path}/sessions.db")
    assert backend is not None
    backend.read("key")
    pool: Any = backend._engine.pool
    give_back = held_by_another_thread(pool._pool.mutex)
    fork()
    try:
        with ThreadPoolExecutor(1) as other:
            assert other.submit(backend.read, "key").result(10) is None
    finally:
        give_back()
        backend._engine.dispose()
        pool.dispose()


def test_the_pool_of_a_client_that_the_parent_held_is_not_waited_for(fork: Any) -> None:
    """So does a client of memcached with a pool, driven by the adapter or by an interface's own methods."""
    adapters, interfaces = (PooledClient(("localhost", 11211)) for _ in range(2))
    connections = PooledConnections(adapters, ())
    use = ClientUse(SimpleNamespace(client=interfaces))
    give_back = [held_by_another_thread(client.client_pool._lock) for client in (adapters, interfaces)]
    fork()

    def borrow() -> bool:
        with use():
            return connections.call(bool) and interfaces.client_pool.get() is not None

    try:
        with ThreadPoolExecutor(1) as other:
            assert other.submit(borrow).result(10)
    finally:
        for each in give_back:
            each()


def test_a_client_that_the_parent_used_is_not_waited_for(fork: Any) -> None:
    """A client that one thread uses at a time has another lock in a child."""

    class Client:
        left = 0

        def disconnect_all(self) -> None:
            self.left += 1

    client = Client()
    use = ClientUse(SimpleNamespace(client=client))

    def in_use() -> int:
        with use():
            return client.left

    with use():
        assert in_use_by_another(in_use) is None
        fork()
        assert in_use_by_another(in_use) == 1


def test_two_apps_share_a_client() -> None:
    """A client that one thread uses at a time is used by one app at a time."""

    class Client:
        def disconnect_all(self) -> None:
            raise AssertionError

    client = Client()
    mine, others = (ClientUse(SimpleNamespace(client=client)) for _ in range(2))

    def in_use() -> int:
        with others():
            return 1

    with mine():
        assert in_use_by_another(in_use) is None
    assert in_use_by_another(in_use) == 1


def in_use_by_another(work: Callable[[], int]) -> int | None:
    """Run in another thread; return None where it waits."""
    found: list[int] = []
    threading.Thread(target=lambda: found.append(work()), daemon=True).start()
    deadline = threading.Event()
    for _ in range(50):
        if found:
            return found[0]
        deadline.wait(0.01)
    return None


def test_a_client_of_another_botocore_is_closed() -> None:
    """Where its connections are not found, the client closes them itself."""
    closed: list[bool] = []

    class Client:
        def close(self) -> None:
            closed.append(True)

    leave_connections(Client())
    assert closed == [True]
