"""Logouts that come with an old id, or while another request uses it: the session ends under its new id."""

from __future__ import annotations

import pytest
from flask import session
from flask_login import LoginManager, UserMixin, login_user, logout_user

from tests.support.stores import EVERY_STORE, Store
from tests.support.tabs import MakeApp, Tabs, load, read_and_clear

pytestmark = pytest.mark.parametrize("store", EVERY_STORE, indirect=True)


@pytest.fixture
def tabs(store: Store, make_app: MakeApp) -> Tabs:
    """A session with a cart, a token and a theme."""
    return Tabs(store, make_app(), cart=["book"], token="anonymous", theme="dark")


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_a_late_logout(tabs: Tabs, loaded: str) -> None:
    """A late logout ends the session under its new id: no browser stays logged in."""

    def late() -> None:
        load()
        tabs.rotate(a=1)
        session.clear()

    if loaded == "after":
        tabs.rotate(a=1)

    def logout() -> None:
        load()
        session.clear()

    tabs.request(tabs.other, late if loaded == "before" else logout)
    assert tabs.seen_by(tabs.user) == {}
    assert tabs.records() == []


def test_a_late_logout_that_sees_nothing(tabs: Tabs) -> None:
    """It ends the session as well, as it would have before the rotation."""

    def logout() -> None:
        assert set(session) <= {"_permanent"}
        session.clear()

    tabs.rotate(cart=[], token="x", theme="y")
    tabs.request(tabs.other, logout)
    assert tabs.seen_by(tabs.user) == {}


def test_a_logout_by_key(tabs: Tabs) -> None:
    """A late request that removes a key, as Flask-Login's logout does, removes it from the rotated session."""

    def late() -> None:
        load()
        tabs.rotate(a=1)
        session.pop("theme")

    tabs.request(tabs.other, late)
    assert tabs.seen_by(tabs.user) == {"a": 1, "cart": ["book"], "token": "anonymous"}


@pytest.mark.parametrize("loaded", ["before", "after"])
@pytest.mark.parametrize("next_user", ["ada", "bob"])
def test_a_late_logout_before_a_login(store: Store, make_app: MakeApp, next_user: str, loaded: str) -> None:
    """Flask-Login's logout ends the login of the rotated session, also where a login sets the same keys again."""
    app = make_app()
    users = {name: UserMixin() for name in ("ada", "bob")}
    for name, user in users.items():
        user.id = name
    LoginManager(app).user_loader(users.get)
    tabs = Tabs(store, app, _user_id="ada", _fresh=True, cart=["book"])

    def switch() -> None:
        load()
        if loaded == "before":
            tabs.rotate()
        logout_user()
        login_user(users[next_user])

    if loaded == "after":
        tabs.rotate()
    assert "Set-Cookie" in tabs.request(tabs.other, switch).headers
    assert tabs.seen_by(tabs.other)["_user_id"] == next_user
    assert tabs.seen_by(tabs.user) == {"cart": ["book"]}


def test_a_late_logout_that_rotates(tabs: Tabs) -> None:
    """What it removes is removed from the rotated session too, and what it adds is in its own."""
    tabs.request(tabs.user, lambda: session.update(user=1))

    def late() -> None:
        load()
        tabs.rotate(_flashes=["changed"])
        tabs.regenerate()
        del session["user"]
        session["_flashes"] = ["bye"]

    tabs.request(tabs.other, late)
    assert tabs.seen_by(tabs.other) == {"_flashes": ["bye"]}
    assert "user" not in tabs.seen_by(tabs.user)


@pytest.mark.parametrize("order", ["after", "during"])
def test_a_late_logout_that_reads_nothing(tabs: Tabs, order: str) -> None:
    """clear() as the first thing ends the session under its new id, although the request did not load it."""

    def during() -> None:
        session.clear()
        tabs.rotate(user=1)

    if order == "after":
        tabs.rotate(user=1)
    tabs.request(tabs.other, (lambda: session.clear()) if order == "after" else during)
    assert tabs.seen_by(tabs.user) == {}
    assert tabs.records() == []


def change_inside() -> None:
    session["cart"].append("pen")
    session["secret"] = "of the user"


@pytest.mark.parametrize("last", ["logout", "change"])
def test_a_logout_that_leaves_a_message(tabs: Tabs, last: str) -> None:
    """What is written after clear() is in a new session; what other requests change meanwhile is in the old one."""

    def logout() -> None:
        read_and_clear(message="bye")
        if last == "logout":
            tabs.request(tabs.other, change_inside)

    def change() -> None:
        change_inside()
        tabs.request(tabs.user, logout)

    if last == "logout":
        tabs.request(tabs.user, logout)
    else:
        assert "Set-Cookie" not in tabs.request(tabs.other, change).headers
    assert tabs.seen_by(tabs.user) == {"message": "bye"}
    assert tabs.seen_by(tabs.other) == {}
    assert tabs.records() == [{"_permanent": True, "message": "bye"}]


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_a_late_logout_that_leaves_a_message(tabs: Tabs, loaded: str) -> None:
    """A logout with the old id ends the rotated session, whatever it writes after that."""

    def late() -> None:
        session.get("user")
        if loaded == "before":
            tabs.rotate(user=1)
        read_and_clear(message="bye")

    if loaded == "after":
        tabs.rotate(user=1)
    tabs.request(tabs.other, late)
    assert tabs.seen_by(tabs.user) == {}
    assert tabs.seen_by(tabs.other) == {"message": "bye"}
