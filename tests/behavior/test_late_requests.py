"""Requests that come with an old id, after a rotation gave the session a new one or while it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from flask import Flask, session

from lazysession import session_conflict, session_write_dropped
from lazysession.records.rotation import FORWARDING_LIFETIME
from tests.support.stores import EVERY_STORE, LIVE, Store
from tests.support.tabs import OLD, MakeApp, Tabs, load, log_in

pytestmark = pytest.mark.parametrize("store", EVERY_STORE, indirect=True)


@pytest.fixture
def tabs(store: Store, make_app: MakeApp) -> Tabs:
    """A session with a cart, a token and a theme."""
    return Tabs(store, make_app(), cart=["book"], token="anonymous", theme="dark")


def test_opened_before_the_rotation(tabs: Tabs) -> None:
    """A change by a request that read the old record reaches the rotated session, and the cookie is left alone."""

    def late() -> None:
        assert session["theme"] == "dark"
        tabs.rotate(user=1, token="authenticated")
        session["theme"] = "light"
        session.pop("cart")

    response = tabs.request(tabs.other, late)
    assert (response.status_code, response.headers.get("Set-Cookie")) == (200, None)
    assert tabs.seen_by(tabs.user) == {"user": 1, "token": "authenticated", "theme": "light"}


def test_opened_after_the_rotation(tabs: Tabs) -> None:
    """A request with the old id sees what was there and is still the same, and may change it."""
    tabs.rotate(user=1, token="authenticated")
    assert tabs.seen_by(tabs.other) == {"cart": ["book"], "theme": "dark"}
    response = tabs.request(tabs.other, lambda: session["cart"].append("pen"))
    assert (response.status_code, response.headers.get("Set-Cookie")) == (200, None)
    assert tabs.seen_by(tabs.user) == {
        "cart": ["book", "pen"],
        "user": 1,
        "token": "authenticated",
        "theme": "dark",
    }


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_what_the_rotation_changed_stands(tabs: Tabs, loaded: str, caplog: pytest.LogCaptureFixture) -> None:
    """A request with the old id can neither read nor write what a login set, changed or removed; a signal says so."""
    received: list[Any] = []

    def collect(_app: Flask, keys: Any) -> None:
        received.append(sorted(keys))

    def late() -> None:
        load()
        if loaded == "before":
            log_in(tabs)
        session.update(user=2, token="x", theme="y")

    if loaded == "after":
        log_in(tabs)
    with session_conflict.connected_to(collect, tabs.app):
        response = tabs.request(tabs.other, late)
    assert (response.status_code, response.headers.get("Set-Cookie")) == (200, None)
    assert tabs.seen_by(tabs.other) == {"cart": ["book"]}
    assert tabs.seen_by(tabs.user) == {"cart": ["book"], "user": 1, "token": "new"}
    assert received == [["theme", "token", "user"]]
    assert "('theme', 'token', 'user')" in caplog.text


@pytest.mark.parametrize("loaded", ["before", "after"])
@pytest.mark.parametrize(
    "change",
    [
        lambda: session.update(token="x", cart=[]),  # shares a key with the rotated session, and not all
        lambda: session.update(cart=[session.get("user")]),  # depends on what the login changed
        lambda: session.update(cart=[len(session)]),
        lambda: session.update(cart=[bool(session.pop("token", None))]),
    ],
    ids=["shares", "reads", "reads all", "pops"],
)
def test_half_of_a_late_change_is_never_stored(tabs: Tabs, loaded: str, change: Callable[[], Any]) -> None:
    """What depends on a key that the rotated session holds otherwise, or shares one, is refused as a whole."""

    def late() -> None:
        load()
        if loaded == "before":
            log_in(tabs)
        change()

    if loaded == "after":
        log_in(tabs)
    response = tabs.request(tabs.other, late)
    assert (response.status_code, response.headers.get("Set-Cookie")) == (409, None)
    assert tabs.seen_by(tabs.user) == {"cart": ["book"], "user": 1, "token": "new"}
    assert len(tabs.records()) == 1


@pytest.mark.parametrize("changes", [{}, {"token": "new"}])
def test_overwriting_with_an_old_id(store: Store, make_app: MakeApp, changes: dict[str, Any]) -> None:
    """CONFLICT = overwrite stores one session whole; an old id overwrites only what the rotated one left as it was."""
    tabs = Tabs(store, make_app(LAZYSESSION_CONFLICT="overwrite"), token="old", cart=["book"])
    tabs.rotate(**changes)
    assert tabs.request(tabs.other, lambda: session.update(cart=[])).status_code == 200
    assert tabs.seen_by(tabs.user) == {"token": "old", "cart": [] if not changes else ["book"], **changes}


def test_nothing_is_left_to_see(tabs: Tabs) -> None:
    """Where the rotated session holds nothing of the old one, late requests see nothing, end nothing and add theirs."""

    def replace_everything() -> None:
        for key in list(session):
            del session[key]
        tabs.regenerate()
        session["user"] = 1

    tabs.request(tabs.user, replace_everything)
    assert tabs.seen_by(tabs.other) == {}
    assert "Set-Cookie" not in tabs.request(tabs.other, lambda: session.pop("cart", None)).headers
    assert "Set-Cookie" not in tabs.request(tabs.other, lambda: session.update(extra=1)).headers
    assert tabs.seen_by(tabs.user) == {"user": 1, "extra": 1}
    assert len(tabs.records()) == 1


def test_the_new_id_is_not_sent(tabs: Tabs) -> None:
    """A late request sees its own id, and no header or body that it gets has the new one."""
    tabs.rotate(user=1)
    cookie = tabs.user.get_cookie("session")
    assert cookie is not None
    response = tabs.request(tabs.other, lambda: f"{session.sid} {session!r} {dict(session)}")  # type: ignore[attr-defined]
    assert response.text.startswith(LIVE)
    assert cookie.value not in response.text + str(response.headers)


def test_after_the_seconds(tabs: Tabs) -> None:
    """When the time of the forwarding record is over, the old id is unknown, also where a read had prolonged it."""
    tabs.rotate(user=1)
    tabs.seen_by(tabs.other)
    assert tabs.store.ttl(tabs.app, OLD) <= FORWARDING_LIFETIME + 1 or not has_ttl(tabs)
    tabs.time += FORWARDING_LIFETIME
    assert tabs.seen_by(tabs.other) == {}
    response = tabs.request(tabs.other, lambda: session.update(a=1))
    assert LIVE not in response.headers["Set-Cookie"]
    assert "a" not in tabs.seen_by(tabs.user)


def has_ttl(tabs: Tabs) -> bool:
    backend = tabs.app.session_interface.handler.backend  # type: ignore[attr-defined]
    record = backend.read(OLD)
    return record is not None and record.ttl is not None


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_after_the_end(tabs: Tabs, loaded: str) -> None:
    """A session that was rotated and then ended is not revived: a late change is dropped, and a signal says so."""
    dropped: list[Any] = []

    def collect(app: Flask) -> None:
        dropped.append(app)

    def end() -> None:
        tabs.rotate(user=1)
        tabs.request(tabs.user, lambda: session.clear())

    def late() -> None:
        assert session["theme"] == "dark"
        end()
        session["theme"] = "light"

    with session_write_dropped.connected_to(collect, tabs.app):
        if loaded == "before":
            response = tabs.request(tabs.other, late)
            assert len(dropped) == 1
            assert "Set-Cookie" not in response.headers
        else:
            end()
            assert tabs.seen_by(tabs.other) == {}
    assert tabs.records() == []


def test_a_session_stored_over_a_forwarding_record(tabs: Tabs) -> None:
    """Flask-Session stores what a view writes, and would keep a fixated id alive: such a record is no session."""
    tabs.rotate(user=1)
    (forwarding,) = (payload for payload in tabs.store.payloads(tabs.app).values() if b"moved_to" in payload)
    tabs.store.remove(tabs.app, OLD)
    tabs.store.put(tabs.app, OLD, msgspec.msgpack.encode(msgspec.msgpack.decode(forwarding) | {"x": 1}), 31 * 86400)
    assert tabs.seen_by(tabs.other) == {}
    assert tabs.records() == [{"_permanent": True, "cart": ["book"], "token": "anonymous", "theme": "dark", "user": 1}]


def test_late_changes_with_conflict_raise(store: Store, make_app: MakeApp) -> None:
    """CONFLICT = raise concerns what changed since the request read: a late request reads what is there now."""
    tabs = Tabs(store, make_app(LAZYSESSION_CONFLICT="raise"), theme="dark")
    tabs.rotate(user=1)
    assert tabs.request(tabs.other, lambda: session.update(theme="light")).status_code == 200
    assert tabs.seen_by(tabs.user) == {"theme": "light", "user": 1}


@pytest.mark.parametrize("stands", [True, False])
def test_a_slow_renewal_reads_again(store: Store, make_app: MakeApp, stands: bool) -> None:
    """A slow request renews the cookie only while its id stands: its response may arrive after that of a login."""
    tabs = Tabs(store, make_app(LAZYSESSION_REFRESH_THROTTLE=0), cart=["book"])

    def late() -> None:
        load()
        if not stands:
            tabs.rotate(user=1)
        tabs.time += 1

    response = tabs.request(tabs.other, late)
    assert ("Set-Cookie" in response.headers) is stands
