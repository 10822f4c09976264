"""Random programs of two and three requests on one session, in any order of their steps, on every store.

What is stored is what a serial order of the programs gives, or one program's whole session, or a request was refused
and stored nothing; the one exception is a single key that a program both read and changed, and no other.

Each run plays the same cases. SERIALIZABLE_EXAMPLES=1500 plays that many others, and SERIALIZABLE_SHRINKS=1 lets
Hypothesis mix them, which then looks for the shortest programs that fail.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazysession import session_conflict, session_write_dropped
from tests.support.interleaved import OpenRequest, parse_cookie, view
from tests.support.programs import (
    EXEMPT,
    LIST,
    STARTS,
    Case,
    Data,
    Decide,
    Flash,
    Pick,
    Program,
    Shuffle,
    Step,
    View,
    Write,
    make_case,
    make_write,
)
from tests.support.rules_model import RULES, Model
from tests.support.serial import Answer, Torn, Trial
from tests.support.stores import Store

MakeApp = Callable[..., Flask]
PREFIX = "session:"
QUICK_EXAMPLES = 150
EXAMPLES = int(os.environ.get("SERIALIZABLE_EXAMPLES", "0"))
SHRINKS = "SERIALIZABLE_SHRINKS" in os.environ
SETTINGS = settings(
    max_examples=EXAMPLES or QUICK_EXAMPLES,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
#: A test that never meets one of these does not test it.
KINDS = ("refused", "merged", "rotated", "late", "late and refused", "merged late", "cleared", "dropped", "own session")


@pytest.fixture
def store(any_store: Store) -> Store:
    """The tests of this file run on every store."""
    return any_store


class AppPlayer:
    """Plays requests on an app, each in a context of its own."""

    def __init__(self, app: Flask, store: Store, start: Data, sid: str) -> None:
        self.app, self.store, self.sid = app, store, sid
        self.old = store.payloads(app)
        self.requests: list[OpenRequest] = []
        self.ids = {sid}
        store.put(app, PREFIX + sid, msgspec.msgpack.encode({"_permanent": True, **start}))

    def begin(self) -> OpenRequest:
        """Begin a request with the id of the stored session."""
        request = OpenRequest(self.app, "", self.sid)
        self.requests.append(request)
        return request

    def take(self, request: OpenRequest, step: Step) -> Any:
        """Take a step in the context of its request."""

        def rotate() -> None:
            self.app.session_interface.regenerate(request.session)  # type: ignore[attr-defined]

        return request.run(lambda session: step.run(View(session, rotate)))

    def finish(self, request: OpenRequest) -> Answer:
        """Make Flask build the response, and listen to the signals meanwhile."""
        with self.listening() as (contested, dropped):
            response = request.finish()
        cookies = response.headers.getlist("Set-Cookie")
        self.ids |= {parse_cookie(cookie)["session"] for cookie in cookies} - {""}
        return Answer(response.status_code >= 400, bool(cookies), frozenset(contested), bool(dropped))

    @contextmanager
    def listening(self) -> Iterator[tuple[list[str], list[Any]]]:
        """Collect what the signals say."""
        contested: list[str] = []
        dropped: list[Any] = []

        def conflict(_app: Flask, keys: tuple[str, ...], **_: Any) -> None:
            contested.extend(keys)

        def drop(app: Flask, **_: Any) -> None:
            dropped.append(app)

        with session_conflict.connected_to(conflict, self.app), session_write_dropped.connected_to(drop, self.app):
            yield contested, dropped

    def stored(self) -> dict[str, Data]:
        """Return what these requests have stored."""
        payloads = self.store.payloads(self.app).items()
        return {name: msgspec.msgpack.decode(payload) for name, payload in payloads if name not in self.old}

    def close(self) -> None:
        """Remove what was stored."""
        for request in self.requests:
            request.abandon()
        for sid in self.ids:
            self.store.remove(self.app, PREFIX + sid)


Play = Callable[[Case, "Counter[str]"], None]


@pytest.fixture
def play(store: Store, make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> Play:
    """A function that plays a case on the store, and fails where what is stored could not be."""
    caplog.set_level(logging.CRITICAL)
    app = make_app()
    app.testing = False
    app.add_url_rule("/", view_func=view)
    numbers = itertools.count(1)

    def play_on_app(case: Case, counts: Counter[str]) -> None:
        player = AppPlayer(app, store, case.start, f"{next(numbers):043}")
        try:
            Trial(player, case, counts).play()
        finally:
            player.close()

    return play_on_app


Make = Callable[[Pick, Shuffle], Case]


def seeds() -> Iterator[int]:
    """Return the seeds of this run's cases: they spread more evenly than what Hypothesis draws."""
    first = random.SystemRandom().randrange(10**9) if EXAMPLES else 0
    return iter(range(first, first + (EXAMPLES or QUICK_EXAMPLES)))


def case_of(seed: int, make: Make) -> Case:
    """Return the case of a seed."""
    chance = random.Random(seed)
    return make(chance.choice, lambda turns: chance.sample(turns, len(turns)))


def play_many(play: Callable[[Case], None], make: Make) -> None:
    """Play all cases of this run."""

    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        return make(lambda items: draw(st.sampled_from(items)), lambda turns: draw(st.permutations(turns)))

    if SHRINKS:
        SETTINGS(given(cases())(play))()
        return
    for seed in seeds():
        play(case_of(seed, make))


def test_programs(play: Play, store: Store) -> None:
    """No order of the steps of any programs leaves a session that they could not have made, or a cookie for none."""
    counts: Counter[str] = Counter()
    play_many(lambda case: play(case, counts), make_case)
    print(f"{store.label or type(store).__name__}: {dict(counts)}")  # noqa: T201
    assert SHRINKS or [kind for kind in KINDS if not counts[kind]] == []


# What random programs meet too rarely


def orders(programs: tuple[Program, ...]) -> list[tuple[int, ...]]:
    """Return every order of two requests that overlap: they all load before one of them ends."""
    first, second = (len(program) for program in programs)
    begun = (*(0,) * first, *(1,) * second)
    return [(*begun, 0, 1), (*begun, 1, 0)]


def take(*keys: str) -> Program:
    """Return steps that remove keys and look at what they were."""
    return tuple(Decide("pop", key, 99, ()) for key in keys)


def given_in(way: str, key: str, target: str) -> Decide:
    """Return an assignment that is made where a key is there."""
    return Decide(way, key, True, (Write("[]=", target, 1),))


PAIRS: dict[str, tuple[Data, Program, Program]] = {
    "a one-time code, taken by pop": (
        {"a": 0, "b": 1},
        (Write("[]=", "a", 1), Write("[]=", "b", 2), *take("c")),
        (Decide("pop", "b", 1, (Write("[]=", "c", 1),)),),
    ),
    "a one-time code, taken by del": (
        {"a": 0, "b": 1},
        (Write("[]=", "a", 1), *take("b", "c")),
        (given_in("del", "b", "c"),),
    ),
    "empty after removals": (
        {"a": 0, "b": 1},
        (*take("a"), given_in("bool", "a", "c")),
        (*take("b"), given_in("in", "c", LIST)),
    ),
    "a value that is written back": (
        {"a": 0, "b": 0},
        (Write("[]=", "a", 1), Write("[]=", "b", 1)),
        (Decide("[]", "a", 0, (Write("[]=", "a", 0),)), Write("[]=", "c", 2)),
    ),
    "an equal value": (
        {"a": 0, "b": 0},
        (Write("[]=", "a", 1), Write("[]=", "b", 0)),
        (Decide("[]", "a", 0, (Write("[]=", "b", 1),)),),
    ),
}


def test_pairs(play: Play) -> None:
    """Each pair of FAULTS 1 and its siblings, in both orders: what is stored could be, or the later one is refused."""
    counts: Counter[str] = Counter()
    for start, *programs in PAIRS.values():
        for order in orders(tuple(programs)):
            play(Case(start, tuple(programs), order), counts)
    assert counts["refused"] >= len(PAIRS)


def make_exempt_case(pick: Pick, shuffle: Shuffle) -> Case:
    """Return a program that only adds and takes messages, one that only writes, and an order of their steps."""

    def make_flash() -> Flash:
        return Flash(pick(EXEMPT), pick((True, False)))

    flashes = tuple(make_flash() for _ in range(pick((1, 2))))
    other = tuple(make_flash() if pick((True, False)) else make_write(pick) for _ in range(pick((1, 2, 3))))
    turns = [number for number, program in enumerate((flashes, other)) for _ in range(len(program) + 1)]
    start = {**pick(STARTS), **pick(({}, {"_flashes": [0]}))}
    return Case(start, (flashes, other), tuple(shuffle(turns)))


def test_exempt_keys(play: Play) -> None:
    """Programs that change only exempt keys, or only write, are never refused because of each other."""
    counts: Counter[str] = Counter()
    play_many(lambda case: play(case, counts), make_exempt_case)
    assert counts["requests"]
    assert not counts["refused"]


# The test of the test: a model of the rules, and what it misses


def torn_cases(rules: frozenset[str], number: int, counts: Counter[str]) -> int:
    """Return how many of so many cases the model leaves torn."""
    torn = 0
    for seed in range(number):
        case = case_of(seed, make_case)
        try:
            Trial(Model(case.start, rules), case, counts).play()
        except Torn:
            torn += 1
    return torn


class TestTheModel:
    """The rules in a few lines, on a dict: all of them keep every case whole, and each that is missing is found."""

    def test_all_rules(self) -> None:
        """Nothing is torn, and every kind of case comes up."""
        counts: Counter[str] = Counter()
        assert torn_cases(RULES, 1500, counts) == 0
        assert [kind for kind in KINDS if not counts[kind]] == []

    @pytest.mark.parametrize("missing", sorted(RULES - {"bool reads what is left"}))
    def test_a_missing_rule(self, missing: str) -> None:
        """Where a part of the rules is missing, some cases are torn."""
        assert torn_cases(RULES - {missing}, 1500, Counter()) > 0

    def test_bool_after_removals(self) -> None:
        """Random programs hardly meet it; the pair does."""
        start, *programs = PAIRS["empty after removals"]
        case = Case(start, tuple(programs), orders(tuple(programs))[1])
        Trial(Model(start), case, Counter()).play()
        with pytest.raises(Torn):
            Trial(Model(start, RULES - {"bool reads what is left"}), case, Counter()).play()
