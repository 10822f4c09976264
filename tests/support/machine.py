"""A machine of many clients and overlapping requests, for Hypothesis to mix or for a test to drive by hand.

No threads: each open request lives in a context of its own, and its steps are taken one by one, in any order. The
model predicts every result. The ledger looks at the store alone, so that model and code cannot err together.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from flask import Flask, Response
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from lazysession import session_conflict, session_write_dropped
from lazysession.errors import SessionUnavailable
from tests.support.interleaved import Fault, Faults, OpenRequest, parse_cookie
from tests.support.records import LIFETIME, PERMANENT, Data, ForwardingRecord, SavePlan, Work
from tests.support.steps import KEYS, RARER, STEPS, Views
from tests.support.stores import Store

CLIENTS = ("ann", "anns phone", "bob", "mallory")
CLIENT = st.sampled_from(["ann"] * 4 + ["anns phone"] * 2 + ["bob", "mallory"])
STEP = st.tuples(st.sampled_from([*STEPS[:5], *STEPS, *RARER]), st.sampled_from(KEYS))
PREFIX = "session:"
FAULT = st.sampled_from([None] * 4 + [Fault(number, done) for number in (1, 2) for done in (False, True)])


def is_forwarding(data: Data) -> bool:
    """Return whether a record is what a rotation left under the old id."""
    return isinstance(data.get(PERMANENT), dict)


class Sessions(Views, RuleBasedStateMachine):
    """Clients, their requests, and one store."""

    requests: Bundle[OpenRequest] = Bundle("requests")

    def __init__(self, app: Flask, store: Store, faults: Faults, counts: Counter[str]) -> None:
        RuleBasedStateMachine.__init__(self)
        Views.__init__(self, app)
        self.store, self.faults, self.counts = store, faults, counts
        self.jars: dict[str, str | None] = dict.fromkeys(CLIENTS)
        self.open: list[OpenRequest] = []
        self.reachable: set[str] = set()
        self.dropped, self.contested = 0, list[tuple[str, ...]]()
        app.session_interface.handler.clock = lambda: self.model.clock  # type: ignore[attr-defined]
        session_write_dropped.connect(self._count_dropped, app)
        session_conflict.connect(self._count_contested, app)
        counts["examples"] += 1
        faults.expect(None)
        for key in store.payloads(app):
            store.remove(app, key)

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            for request in list(self.open):
                self.finish(request)
        session_write_dropped.disconnect(self._count_dropped, self.app)
        session_conflict.disconnect(self._count_contested, self.app)
        for request in self.open:
            request.abandon()
        self.counts["kept numbers"] += self.ledger.kept

    def _count_dropped(self, _app: Flask) -> None:
        self.dropped += 1

    def _count_contested(self, _app: Flask, keys: tuple[str, ...]) -> None:
        self.contested.append(keys)

    def stored(self) -> dict[str, Data]:
        """Return the sessions in the store, without forwarding records and what has expired but is not purged."""
        payloads = self.store.payloads(self.app).items()
        found = {key.removeprefix(PREFIX): msgspec.msgpack.decode(payload) for key, payload in payloads}
        self.reachable |= {data[PERMANENT].get("moved_to", "") for data in found.values() if is_forwarding(data)}
        return {sid: data for sid, data in found.items() if not is_forwarding(data) and sid not in self.model.expired}

    def settle(self, patch: Data, *, ends: bool) -> None:
        """Show the ledger those sessions whose id was sent: a write whose answer was lost leaves others."""
        self.reachable |= set(self.ledger.sent)
        self.ledger.settle(
            {sid: data for sid, data in self.stored().items() if sid in self.reachable}, patch, ends=ends
        )

    # What clients do

    @initialize(target=requests)
    def log_in(self) -> Any:
        """One session that has something of everything, in two browsers; each begins a request."""
        self.finish(self.begin("ann", [("put", key) for key in KEYS]))
        self.take_cookie("anns phone", "ann")
        return multiple(*(self.begin(client, [("load", "")]) for client in CLIENTS[:2]))

    @rule(target=requests, client=CLIENT, steps=st.lists(STEP, max_size=2))
    def begin(self, client: str, steps: list[tuple[str, str]]) -> OpenRequest:
        """A request arrives, and uses its session at once or later."""
        request = OpenRequest(self.app, client, self.jars[client])
        self.open.append(request)
        self.use(request, steps)
        return request

    @rule(request=requests, steps=st.lists(STEP, min_size=1, max_size=2), slow=st.booleans())
    def overlap(self, request: OpenRequest, steps: list[tuple[str, str]], slow: bool) -> None:
        """Another tab sends a whole request while one is open."""
        self.finish(self.begin(request.client, steps), slow=slow)

    @rule(client=st.sampled_from(CLIENTS), source=st.sampled_from(["x" * 43, "../x", *CLIENTS, *range(5)]))
    def take_cookie(self, client: str, source: str | int) -> None:
        """A client takes another one's id (a second browser, an attacker), an old one, or an invented one."""
        if isinstance(source, int):
            self.jars[client] = self.ledger.sent[-1 - source % len(self.ledger.sent)]
        else:
            self.jars[client] = self.jars.get(source, source)

    # What views do

    @rule(request=requests, steps=st.lists(STEP, min_size=1, max_size=3))
    def use(self, request: OpenRequest, steps: list[tuple[str, str]]) -> None:
        """Do some things with the session; a view that has failed does nothing more."""
        for step, key in steps if request.failed is None else ():
            if request.work.lost:
                self.use_without_a_store(request, step)
            else:
                getattr(self, step)(request, key)

    def use_without_a_store(self, request: OpenRequest, step: str) -> None:
        """Every use raises again; the view catches that and continues."""
        uses: dict[str, Callable[[Any], Any]] = {
            "put": lambda session: session.__setitem__("b", 0),
            "remove": lambda session: session.pop("b", None),
            "clear": lambda session: session.clear(),
            "rotate": self.app.session_interface.regenerate,  # type: ignore[attr-defined]
        }
        with pytest.raises(SessionUnavailable):
            request.run(uses.get(step, len))
        request.failed = None

    @rule(request=requests, done=st.booleans(), caught=st.booleans())
    def fail_to_read(self, request: OpenRequest, done: bool, caught: bool = False) -> None:
        """The store fails when the session is loaded; a view that catches that continues without one."""
        work = request.work
        if request.failed is not None or work.loaded or work.lost or work.id_sent is None:
            return
        self.faults.expect(Fault(1, done, read=True))
        with pytest.raises(SessionUnavailable):
            request.run(len)
        self.faults.expect(None)
        if done:
            self.model.refresh(work)
        work.lost = True
        if caught:
            request.failed = None

    # How requests end

    @rule(request=consumes(requests), fault=FAULT, slow=st.booleans())
    def finish(self, request: OpenRequest, fault: Fault | None = None, slow: bool = True) -> None:
        """Make the response; the store may fail meanwhile."""
        self.open.remove(request)
        self.model.clock += slow
        work = request.work
        sid = request.session.sid if work.loaded else ""
        plan = self.model.plan(work, sid)
        self.dropped, self.contested = 0, []
        self.faults.expect(fault)
        response = request.finish()
        hit, effects = self.faults.hit, self.faults.effects
        self.faults.expect(None)
        self.check_response(request, response, plan, hit)
        assert hit or effects in (len(plan.writes), len(plan.writes) - plan.may_skip)
        for write in plan.writes[:effects]:
            write()
        if plan.writes and work.rotated and work.sid and effects == len(plan.writes) and not plan.refused:
            self.ledger.rotated(work.sid)
        self.count(work, plan, hit)
        self.settle(work.mine if work.ended else work.patch(), ends=work.ended)
        self.the_store_is_as_the_model_says()

    def count(self, work: Work, plan: SavePlan, hit: bool) -> None:
        """Count what came up: a machine that never meets a case does not test it."""
        self.counts["requests"] += 1
        self.counts["writes"] += len(plan.writes)
        self.counts["renewals"] += bool(plan.cookie) and not plan.writes
        self.counts["merges"] += plan.merged
        self.counts["contested"] += bool(plan.contested)
        self.counts["dropped"] += plan.dropped
        self.counts["rotations"] += work.rotated and work.base is not None and bool(plan.writes)
        self.counts["own session"] += plan.own
        self.counts["late"] += work.late
        self.counts["without a store"] += work.lost
        self.counts["logouts"] += plan.cookie == ""
        self.counts["failures"] += hit
        self.counts["refused"] += plan.refused

    def check_response(self, request: OpenRequest, response: Response, plan: SavePlan, hit: bool) -> None:
        """Compare what the client gets with the plan."""
        cookies = response.headers.getlist("Set-Cookie")
        assert ("Cookie" in response.vary) is (request.work.loaded or request.work.lost)
        if plan.refused and not hit:
            assert (response.status_code, cookies) == (409, [])
            return
        if hit or request.work.lost:
            assert response.status_code == 503
            assert cookies == []
            return
        assert response.status_code == 200
        assert (self.dropped, sorted(itertools.chain(*self.contested))) == (plan.dropped, sorted(plan.contested))
        if plan.cookie is None:
            assert cookies == []
            return
        (cookie,) = map(parse_cookie, cookies)
        assert cookie["session"] == plan.cookie
        assert request.work.base is not None or plan.cookie != request.work.cookie, "an unknown id was adopted"
        if plan.cookie:
            assert ("Expires" in cookie) is plan.permanent
            self.ledger.sent.append(plan.cookie)
        self.jars[request.client] = plan.cookie or None

    # What happens meanwhile

    @rule(minutes=st.sampled_from([1, 1, 2, 2, 3, 17]))
    def pass_time(self, minutes: int) -> None:
        """Time passes, for the store and for the app."""
        self.store.pass_time(self.app, minutes * 60)
        self.model.pass_time(minutes * 60)
        self.settle({}, ends=True)

    @rule(client=st.sampled_from(CLIENTS), with_data=st.booleans())
    def store_over_forwarding(self, client: str, with_data: bool) -> None:
        """A Flask-Session on the same store takes a forwarding record for a session, and stores a view's changes."""
        sid = self.jars[client]
        if sid is None or sid not in self.model.forwarding:
            return
        spoilt = {PERMANENT: {"before": {}}, **({"a": next(self.numbers)} if with_data else {})}
        self.store.remove(self.app, PREFIX + sid)
        self.store.put(self.app, PREFIX + sid, msgspec.msgpack.encode(spoilt), LIFETIME)
        self.model.forwarding[sid] = ForwardingRecord("", 0.0, {}, self.model.now + LIFETIME)
        self.counts["spoilt forwarding records"] += 1

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        """The store holds exactly the sessions of the model."""
        stored = self.stored()
        assert stored == {sid: record.data for sid, record in self.model.records.items()}
        for sid, record in self.model.records.items():
            record.data = stored[sid]  # in its order, which is not promised
