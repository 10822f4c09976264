"""What each process makes for itself; a fork is a process id that has changed."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lazysession.backends import _objects
from lazysession.backends._dynamodb import leave_connections
from lazysession.backends._notes import Notes
from lazysession.backends._processes import PerProcess
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
    """Two that ask at once may both make a value, and one of the values is used by both."""
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
    notes = Notes[int]()
    notes.put("key", 1)
    notes._lock.get().acquire()
    for lock in (parents := _objects._LOCKS.get()):
        lock.acquire()
    fork()
    try:
        with ThreadPoolExecutor(1) as other:
            other.submit(notes.put, "key", 2).result(10)
            assert other.submit(lambda: _objects._LOCKS.get()[0].acquire(timeout=10)).result(15)
    finally:
        for lock in parents:
            lock.release()
    assert notes.get("key") == 2


def test_a_lock_of_a_record_that_the_parent_held_is_not_waited_for(fork: Any) -> None:
    """A child takes the lock of the same session at once, without the second that is waited for a slow thread."""
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


def test_a_client_of_another_botocore_is_closed() -> None:
    """Where its connections are not found, the client closes them itself."""
    closed: list[bool] = []

    class Client:
        def close(self) -> None:
            closed.append(True)

    leave_connections(Client())
    assert closed == [True]
