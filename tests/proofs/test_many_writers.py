"""Eight processes of four threads write to one session at once: what LazySession and Flask-Session keep of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_session import Session

from lazysession import LazySession
from lazysession.records.expiry import Refresh
from tests.support.processes import SHARED_STORES, Child, app_on
from tests.support.writing import THREADS, write

PROCESSES = 8
REQUESTS = 2000
#: How many sessions share the requests, one after the other: each request adds a key, and the next ones store it again.
SESSIONS = 4


@pytest.fixture(scope="module")
def writers() -> Generator[list[Child]]:
    """The processes, which serve one store after the other."""
    children = [Child("tests.support.writing") for _ in range(PROCESSES)]
    yield children
    for child in children:
        child.stop()


@pytest.fixture
def requests(request: pytest.FixtureRequest) -> int:
    """How many requests are made: a tenth in the quick run."""
    return REQUESTS if request.config.getoption("--require-servers") else REQUESTS // 10


@pytest.fixture(params=SHARED_STORES)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The name and address of each store that processes can share."""
    needs = SHARED_STORES[request.param]
    return request.param, str(tmp_path) if needs == "folder" else request.getfixturevalue(f"{needs}_url")


def shares(keys: list[str], of: int) -> list[list[str]]:
    """Deal keys out."""
    return [keys[number::of] for number in range(of)]


def begin(app: Flask) -> str:
    """Begin the session that all will share; return its cookie."""
    client = app.test_client()
    client.get("/set/first")
    cookie = client.get_cookie("session")
    assert cookie is not None
    return f"session={cookie.value}"


def stored(app: Flask, cookie: str) -> set[str]:
    """Return the keys that the session has, as a new request sees them."""
    answer = app.test_client(use_cookies=False).get("/look", headers={"Cookie": cookie})
    assert answer.status_code == 200
    return set(answer.json or {}) - {"first"}


def in_sessions(requests: int, write_all: Callable[[int], Counter[str]]) -> Counter[str]:
    """Write to one session after the other; return the sum of what was counted."""
    return sum((write_all(requests // SESSIONS) for _ in range(SESSIONS)), Counter[str]())


def in_processes(shared: tuple[str, str], writers: list[Child], requests: int, *, lazy: bool) -> Counter[str]:
    """Make every thread of every process write at once; count what was asked, done, lost and failed."""
    store, address = shared
    dealt = shares([str(number) for number in range(requests)], PROCESSES * THREADS)
    with app_on(store, address, LazySession if lazy else Session) as app:
        cookie = begin(app)
        for number, child in enumerate(writers):
            job = {"store": store, "address": address, "lazy": lazy, "cookie": cookie}
            child.tell({**job, "keys": dealt[number::PROCESSES]})
        assert [child.hear() for child in writers] == ["ready"] * PROCESSES
        for child in writers:
            child.tell("go")
        answers = [child.hear() for child in writers]
        return summed_up(
            f"{'LazySession' if lazy else 'Flask-Session'} on {store}", requests, answers, stored(app, cookie)
        )


def summed_up(name: str, requests: int, answers: list[dict[str, Any]], kept: set[str]) -> Counter[str]:
    """Count, and print the counts."""
    done = {key for answer in answers for key in answer["done"]}
    errors = sum((Counter(answer["errors"]) for answer in answers), Counter[str]())
    counts = Counter(done=len(done), failed=requests - len(done), lost=len(done - kept))
    seconds = max(answer["seconds"] for answer in answers)
    print(  # noqa: T201
        f"{name}: {requests} requests, {counts['lost']} lost keys, {counts['failed']} failed {dict(errors) or ''}"
        f" in {seconds:.1f} s"
    )
    return counts


def test_nothing_is_lost(shared: tuple[str, str], writers: list[Child], requests: int) -> None:
    """Every key whose request was answered as done is in the session, and every request is."""
    counts = in_sessions(requests, partial(in_processes, shared, writers, lazy=True))
    assert counts == {"done": requests}  # none lost, none failed


def test_what_flask_session_loses(shared: tuple[str, str], writers: list[Child], requests: int) -> None:
    """The same on Flask-Session alone, for comparison: each request was answered, and the losses are printed."""
    counts = in_sessions(requests, partial(in_processes, shared, writers, lazy=False))
    assert counts["done"] + counts["failed"] == requests


def test_what_was_just_written_is_not_due() -> None:
    """A clock that is a little behind, or was read before the request waited for the store, calls for no refresh."""
    assert not Refresh(lifetime=1000, throttle=100).due(1000.2)


def in_threads(extension: Callable[[Flask], object], requests: int) -> Counter[str]:
    """Make as many threads of one process write to a session in its memory at once; count the same."""
    with app_on("memory", "", extension) as app:
        cookie = begin(app)
        answer = write(app, cookie, shares([str(number) for number in range(requests)], PROCESSES * THREADS))
        return summed_up(f"{extension.__name__} in memory", requests, [answer], stored(app, cookie))


@pytest.mark.parametrize("extension", [LazySession, Session])
def test_in_memory(extension: Callable[[Flask], object], requests: int) -> None:
    """LazySession loses no key there either; Flask-Session's losses are printed."""
    counts = in_sessions(requests, partial(in_threads, extension))
    if extension is LazySession:
        assert counts == {"done": requests}
