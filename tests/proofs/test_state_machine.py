"""Many clients and overlapping requests against a model of their sessions: as Hypothesis mixes them, and by hand.

Each run takes the same examples. STATE_MACHINE_EXAMPLES=5000 takes that many random ones, and STATE_MACHINE_SHRINKS=1
looks for the shortest way to a failure, which takes minutes.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Generator

import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.interleaved import Faults, OpenRequest, view
from tests.support.machine import Sessions
from tests.support.records import LIFETIME, THROTTLE
from tests.support.stores import Store

MakeApp = Callable[..., Flask]
MakeSessions = Callable[[], Sessions]

EXAMPLES = 250

pytestmark = pytest.mark.parametrize("store", ["fakeredis", "redis", "sqlite"], indirect=True)


@pytest.fixture
def make_sessions(store: Store, make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> Generator[MakeSessions]:
    """A function that makes a machine on an empty store; what all of them met is printed at the end."""
    caplog.set_level(logging.CRITICAL)
    app = make_app(PERMANENT_SESSION_LIFETIME=LIFETIME, LAZYSESSION_REFRESH_THROTTLE=THROTTLE)
    app.testing = False
    app.add_url_rule("/", view_func=view)
    faults = Faults(app.session_interface.handler.backend)  # type: ignore[attr-defined]
    counts: Counter[str] = Counter()
    yield lambda: Sessions(app, store, faults, counts)
    print(f"{store.label or 'fake'}: {dict(counts)}")  # noqa: T201


@pytest.fixture
def sessions(make_sessions: MakeSessions) -> Generator[Sessions]:
    """A machine that a test drives by hand: ann is logged in, with her phone as well."""
    machine = make_sessions()
    machine.log_in()
    yield machine
    machine.teardown()


def test_sessions(make_sessions: MakeSessions) -> None:
    """Whatever clients do, and however the store fails: what was confirmed stays, what has ended stays ended."""
    examples, shrinks = int(os.environ.get("STATE_MACHINE_EXAMPLES", "0")), "STATE_MACHINE_SHRINKS" in os.environ
    run_state_machine_as_test(
        make_sessions,  # type: ignore[arg-type]  # any function that makes one will do
        settings=settings(
            max_examples=examples or EXAMPLES,
            derandomize=not examples,
            database=None,
            stateful_step_count=30,
            phases=[Phase.generate, *([Phase.shrink] if shrinks else [])],
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )


# What mixing meets too rarely


def do(sessions: Sessions, client: str, *steps: tuple[str, str]) -> None:
    """Make a whole request."""
    sessions.finish(sessions.begin(client, list(steps)))


def ann_and_phone(sessions: Sessions) -> tuple[OpenRequest, OpenRequest]:
    """The two requests that have read the session and are open."""
    browser, phone = sessions.open
    return browser, phone


@pytest.mark.parametrize("invented", ["x" * 43, "../x"])
@pytest.mark.parametrize("steps", [["put"], ["clear", "put"], ["rotate", "put"], ["put", "rotate"], ["clear"]])
def test_an_invented_id(sessions: Sessions, invented: str, steps: list[str]) -> None:
    """A client that sends an invented id, and writes, gets another one; and so does the next client with it."""
    for client in ("mallory", "bob"):
        sessions.take_cookie(client, invented)
        do(sessions, client, *((step, "a") for step in steps))
        assert sessions.jars[client] != invented
    assert len(sessions.model.records) == 1 + 2 * ("put" in steps)


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize("step", ["read", "put", "rotate", "clear"])
def test_a_renewal_of_a_changed_session(sessions: Sessions, step: str, slow: bool) -> None:
    """A slow request renews no cookie of a session that has ended or has another id now; a quick one does not look."""
    sessions.pass_time(minutes=2)
    renewing = sessions.begin("ann", [("read", "")])
    sessions.finish(sessions.begin("anns phone", [(step, "a")]), slow=False)
    renewals = sessions.counts["renewals"]
    sessions.finish(renewing, slow=slow)
    assert sessions.counts["renewals"] - renewals == (not slow or step in ("read", "put"))


@pytest.mark.parametrize("late", [["clear"], ["read", "clear"], ["read", "clear", "put", "rotate"]])
@pytest.mark.parametrize("brings", [["rotate", "put"], ["remove_others", "remove", "rotate", "put"]])
@pytest.mark.parametrize("loaded", ["before", "after"])
def test_a_late_clear(sessions: Sessions, late: list[str], brings: list[str], loaded: str) -> None:
    """A late request that clears ends the rotated session, whether it has read it or not."""
    before, phone = ann_and_phone(sessions)
    after = sessions.begin("ann", [])
    sessions.use(phone, [(step, "a") for step in brings])
    sessions.finish(phone)
    clearing = before if loaded == "before" else after
    sessions.use(clearing, [(step, "b") for step in late])
    sessions.finish(clearing)
    assert [set(record.data) - {"_permanent"} for record in sessions.model.records.values()] == (
        [{"b"}] if "put" in late else []
    )


@pytest.mark.parametrize("steps", [["clear", "rotate", "put"], ["read", "clear", "rotate", "put"]])
@pytest.mark.parametrize("late", ["read", "put", "rotate", "clear", "empty"])
def test_late_after_a_login_that_clears(sessions: Sessions, steps: list[str], late: str) -> None:
    """Requests with the old id then see nothing, and change nothing."""
    before, _ = ann_and_phone(sessions)
    do(sessions, "ann", *((step, "a") for step in steps))
    for request in (before, sessions.begin("anns phone", [])):
        sessions.use(request, [(late, "b")])
        sessions.finish(request)
    (record,) = sessions.model.records.values()
    assert set(record.data) - {"_permanent"} == {"a"}


@pytest.mark.parametrize("key", ["a", "b"])
@pytest.mark.parametrize("step", ["put", "remove", "change_inside"])
@pytest.mark.parametrize("loaded", ["before", "after"])
def test_a_late_rotation(sessions: Sessions, key: str, step: str, loaded: str) -> None:
    """It begins a session of its own with what it adds; where it only removes, that is removed from the rotated one."""
    before, phone = ann_and_phone(sessions)
    after = sessions.begin("ann", [])
    sessions.use(phone, [("rotate", ""), ("put", "a")])
    sessions.finish(phone)
    late = before if loaded == "before" else after
    sessions.use(late, [("rotate", ""), (step, key)])
    sessions.finish(late)
    own = step != "remove"
    assert sessions.counts["own session"] == own
    assert len(sessions.model.records) == 1 + own


@pytest.mark.parametrize("with_data", [True, False])
def test_a_session_stored_over_a_forwarding_record(sessions: Sessions, with_data: bool) -> None:
    """It is treated as no session, and is removed when it is read."""
    do(sessions, "ann", ("rotate", ""), ("put", "a"))
    sessions.store_over_forwarding("anns phone", with_data)
    assert len(sessions.store.payloads(sessions.app)) == 2
    do(sessions, "anns phone", ("read", ""))
    assert len(sessions.store.payloads(sessions.app)) == 1
    assert sessions.counts["spoilt forwarding records"] == 1


@pytest.mark.parametrize("step", ["read", "put", "remove", "rotate", "clear"])
def test_a_view_continues_without_a_store(sessions: Sessions, step: str) -> None:
    """Every use raises again, and the response is the 503: no swallowed error is a success."""
    request = sessions.begin("ann", [])
    sessions.fail_to_read(request, done=False, caught=True)
    sessions.use(request, [(step, "b")])
    sessions.finish(request)
    do(sessions, "ann", ("put", "a"))
    assert sessions.counts["without a store"] == 1


def test_a_logout_by_key_during_a_write(sessions: Sessions) -> None:
    """Emptied key by key, a session keeps what another request has added to it meanwhile."""
    do(sessions, "ann", ("remove", "b"))
    emptying = sessions.begin("ann", [("remove_others", "b")])
    do(sessions, "anns phone", ("put", "b"))
    sessions.finish(emptying)
    (record,) = sessions.model.records.values()
    assert record.data.keys() == {"_permanent", "b"}


def test_a_clear_next_to_a_session_stored_over_a_forwarding_record(sessions: Sessions) -> None:
    """What ended there leaves no forwarding record: the old one led nowhere."""
    before, phone = ann_and_phone(sessions)
    sessions.use(phone, [("rotate", "a")])
    sessions.finish(phone, slow=False)
    sessions.store_over_forwarding("ann", False)
    sessions.use(before, [("clear", "a"), ("put", "a")])
    sessions.finish(before)
    assert len(sessions.model.records) == 2
