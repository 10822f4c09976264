"""The idle and the absolute lifetime together, on every store: the store's expiry goes beyond neither."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from flask import Flask, session
from flask.testing import FlaskClient

from lazysession.modes import Mode
from lazysession.records.expiry import CREATED, Lifetimes, Refresh
from lazysession.records.store import RecordStore
from tests.support.stores import LIVE, Store

MakeApp = Callable[..., Flask]
KEY = f"session:{LIVE}"
IDLE, ABSOLUTE = 1000, 2500


@pytest.fixture
def store(any_store: Store) -> Store:
    """The tests of this file run on every store."""
    return any_store


class Clock:
    """The time of an app and of its store."""

    def __init__(self, store: Store, app: Flask) -> None:
        self.store, self.app = store, app
        handler: Any = app.session_interface.handler  # type: ignore[attr-defined]
        self.now = handler.clock()
        handler.clock = lambda: self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.store.pass_time(self.app, seconds)


def client_of(app: Flask) -> FlaskClient:
    app.add_url_rule("/", "read", lambda: str(session.get("a")))
    app.add_url_rule("/set", "set", lambda: session.update(a=1) or "")
    client = app.test_client()
    client.set_cookie("session", LIVE)
    return client


def put(store: Store, app: Flask, lifetime: float = IDLE, **items: Any) -> None:
    store.put(app, KEY, msgspec.msgpack.encode({"_permanent": True, **items}), lifetime)


def test_a_session_in_use_ends_with_its_absolute_lifetime(store: Store, make_app: MakeApp) -> None:
    """However often it is used; and the store never keeps it longer than that, nor than the idle lifetime."""
    app = make_app(PERMANENT_SESSION_LIFETIME=IDLE, LAZYSESSION_ABSOLUTE_LIFETIME=ABSOLUTE)
    clock, client = Clock(store, app), client_of(app)
    client.get("/set")
    (key,) = store.payloads(app)
    for used in range(400, ABSOLUTE - 1, 400):
        clock.pass_time(400)
        assert client.get("/").text == "1"
        if tells_remaining(app, key):
            left = min(IDLE, ABSOLUTE - used)
            assert left - 2 <= store.ttl(app, key) <= left + 1
    clock.pass_time(400)
    assert client.get("/").text == "None"
    assert store.payloads(app).keys() <= {key}


def tells_remaining(app: Flask, key: str) -> bool:
    record = RecordStore(app.session_interface.handler.backend).load(key, None)  # type: ignore[attr-defined]
    return record is not None and record.ttl is not None


def test_a_session_beyond_its_absolute_lifetime_is_removed(store: Store, make_app: MakeApp) -> None:
    """A record that the store would keep (the limit was lowered) is no session, and is removed when it is read."""
    app = make_app(PERMANENT_SESSION_LIFETIME=IDLE, LAZYSESSION_ABSOLUTE_LIFETIME=ABSOLUTE)
    clock, client = Clock(store, app), client_of(app)
    put(store, app, a=1, **{CREATED: clock.now - ABSOLUTE - 1})
    response = client.get("/")
    assert (response.text, response.headers.get("Set-Cookie")) == ("None", None)
    assert store.payloads(app) == {}


def test_a_session_that_cannot_be_removed_is_over(store: Store, make_app: MakeApp) -> None:
    """A store that refuses writes, as a replica does, fails no read of a session whose time is over."""
    app = make_app(LAZYSESSION_ABSOLUTE_LIFETIME=100, LAZYSESSION_ON_READ_ERROR="raise")
    client = client_of(app)
    client.get("/set")
    handler = app.session_interface.handler  # type: ignore[attr-defined]
    started = handler.clock()
    handler.clock = lambda: started + 101

    def refuse(*_: Any) -> None:
        raise OSError("read only")

    handler.backend.delete = refuse
    assert client.get("/").text == "None"


def test_sessions_older_than_the_setting(store: Store, make_app: MakeApp) -> None:
    """Their time starts to count at their next write; until then they are refreshed as before."""
    app = make_app(PERMANENT_SESSION_LIFETIME=IDLE, LAZYSESSION_ABSOLUTE_LIFETIME=ABSOLUTE)
    clock, client = Clock(store, app), client_of(app)
    put(store, app, a=0)
    for _ in range(5):
        clock.pass_time(700)
        assert client.get("/").text == "0"
    (payload,) = store.payloads(app).values()
    assert CREATED not in msgspec.msgpack.decode(payload)
    client.get("/set")
    (payload,) = store.payloads(app).values()
    assert msgspec.msgpack.decode(payload)[CREATED] == clock.now
    for text in ("1", "1", "1", "None"):
        clock.pass_time(700)
        assert client.get("/").text == text


def test_the_time_of_creation_is_not_shown(store: Store, make_app: MakeApp) -> None:
    """The app never sees when its session began, also after the setting was removed; reading writes nothing."""
    app = make_app(PERMANENT_SESSION_LIFETIME=IDLE)
    seen: list[Any] = []
    app.add_url_rule("/keys", "keys", lambda: str(seen.append(dict(session))))
    client = client_of(app)
    put(store, app, a=1, **{CREATED: 1.0})
    before = store.payloads(app)
    client.get("/keys")
    assert seen == [{"_permanent": True, "a": 1}]
    assert store.payloads(app) == before


def test_trips_with_an_absolute_lifetime(store: Store, make_app: MakeApp) -> None:
    """A read is one round trip; one that refreshes is one more, where the store tells what is left."""
    app = make_app(PERMANENT_SESSION_LIFETIME=IDLE, LAZYSESSION_ABSOLUTE_LIFETIME=ABSOLUTE)
    clock, client = Clock(store, app), client_of(app)
    put(store, app, a=1, **{CREATED: clock.now})
    if not tells_remaining(app, KEY):
        pytest.skip("does not apply: this store does not return the ttl")
    with store.counted() as trips:
        client.get("/")
    assert tuple(trips) == store.read
    clock.pass_time(500)
    with store.counted() as trips:
        client.get("/")
    assert tuple(trips) == store.peek + store.touch


@pytest.mark.parametrize(
    "created_at", [True, "1", None, float("nan"), float("inf"), [], 10**400, -1, 1e15], ids=lambda value: str(value)[:9]
)
def test_unsound_times_of_creation(created_at: Any) -> None:
    """What is no time of creation counts as none."""
    assert Lifetimes(absolute=ABSOLUTE).pop_created_at({CREATED: created_at}) is None


@pytest.mark.parametrize("created_at", ["ahead", "1", True, -1])
def test_an_unsound_time_of_creation_is_no_change(store: Store, make_app: MakeApp, created_at: Any) -> None:
    """Reading a session whose time of creation is unsound, or from a machine with another clock, writes nothing."""
    app = make_app(LAZYSESSION_RULES=[("/**", "readonly")], LAZYSESSION_ABSOLUTE_LIFETIME=ABSOLUTE)
    clock, client = Clock(store, app), client_of(app)
    put(store, app, a=1, **{CREATED: clock.now + 5 if created_at == "ahead" else created_at})
    before = [msgspec.msgpack.decode(payload) for payload in store.payloads(app).values()]
    assert client.get("/").text == "1"
    assert [msgspec.msgpack.decode(payload) for payload in store.payloads(app).values()] == before


def test_a_late_request_after_the_end(store: Store, make_app: MakeApp) -> None:
    """A forwarding record does not lead to a session that is beyond its absolute lifetime."""
    app = make_app(PERMANENT_SESSION_LIFETIME=IDLE, LAZYSESSION_ABSOLUTE_LIFETIME=ABSOLUTE)
    app.add_url_rule("/rotate", "rotate", lambda: app.session_interface.regenerate(session) or "")  # type: ignore[attr-defined]
    clock, client = Clock(store, app), client_of(app)
    put(store, app, a=1, **{CREATED: clock.now - ABSOLUTE + 5})
    late = app.test_client()
    late.set_cookie("session", LIVE)
    client.get("/rotate")
    assert late.get("/").text == "1"
    clock.now += 6
    assert late.get("/").text == "None"


def test_a_login_that_clears_begins_anew(store: Store, make_app: MakeApp) -> None:
    """A session that was read, cleared and given a new id counts from then."""
    app = make_app(PERMANENT_SESSION_LIFETIME=IDLE, LAZYSESSION_ABSOLUTE_LIFETIME=ABSOLUTE)
    clock, client = Clock(store, app), client_of(app)

    @app.route("/login")
    def login() -> str:
        len(session)
        session.clear()
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        session["a"] = 2
        return ""

    put(store, app, a=1, **{CREATED: clock.now - ABSOLUTE + 5})
    client.get("/login")
    clock.pass_time(20)
    assert client.get("/").text == "2"


def test_a_no_refresh_write_of_a_session_without_a_time(store: Store, make_app: MakeApp) -> None:
    """It begins to count, so the store keeps it no longer than it may live."""
    app = make_app(LAZYSESSION_ABSOLUTE_LIFETIME=ABSOLUTE, LAZYSESSION_RULES=[("/**", "no_refresh")])
    _, client = Clock(store, app), client_of(app)
    put(store, app, lifetime=31 * 86400, a=0)
    client.get("/set")
    if tells_remaining(app, KEY):
        assert store.ttl(app, KEY) <= ABSOLUTE


def test_the_lifetime_may_change(memory_app: MakeApp) -> None:
    """Some apps set it in each request; the throttle stays below it."""
    app = memory_app(LAZYSESSION_REFRESH_THROTTLE=100)
    lifetimes = app.session_interface.handler.lifetimes  # type: ignore[attr-defined]
    wanted = []
    for seconds in (1000, 50, 1000):
        app.permanent_session_lifetime = timedelta(seconds=seconds)
        wanted.append(lifetimes.refresh(app, Mode.NORMAL))
    assert wanted == [Refresh(1000, 100), Refresh(50, 5), Refresh(1000, 100)]
    app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    assert lifetimes.refresh(app, Mode.NORMAL) is None


def test_a_time_in_the_future_counts_from_now() -> None:
    """It makes no session last longer."""
    lifetimes = Lifetimes(absolute=ABSOLUTE, clock=lambda: 1000.0)
    assert lifetimes.pop_created_at({CREATED: 10.0**9}) == 1000.0
    assert lifetimes.absolute_ttl(1000.0) == ABSOLUTE


@pytest.mark.parametrize(("left", "lifetime"), [(None, IDLE), (8.0, 8.0), (0.5, 1.0)])
def test_the_life_of_a_write(memory_app: MakeApp, left: float | None, lifetime: float) -> None:
    """A whole idle lifetime, or what was left; never more than the absolute lifetime leaves."""
    app = memory_app(PERMANENT_SESSION_LIFETIME=IDLE)
    clock = lambda: 5000.0  # noqa: E731
    assert Lifetimes(clock=clock).of_write(app, left, None) == lifetime
    assert Lifetimes(absolute=ABSOLUTE, clock=clock).of_write(app, IDLE, 5000.0 - ABSOLUTE + 5) == 5
