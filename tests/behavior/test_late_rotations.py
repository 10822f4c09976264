"""Logins and other rotations by requests that come with an old id."""

from __future__ import annotations

from typing import Any

import pytest
from flask import session
from flask_login import LoginManager, UserMixin, login_user

from lazysession.backend import WriteResult
from lazysession.records.rotation import FORWARDING_LIFETIME
from tests.support.stores import EVERY_STORE, LIVE, Store
from tests.support.tabs import MakeApp, Tabs, load, log_in, read_and_clear

pytestmark = pytest.mark.parametrize("store", EVERY_STORE, indirect=True)


@pytest.fixture
def tabs(store: Store, make_app: MakeApp) -> Tabs:
    """A session with a cart, a token and a theme."""
    return Tabs(store, make_app(), cart=["book"], token="anonymous", theme="dark")


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_a_late_login_that_read_what_changed(tabs: Tabs, loaded: str) -> None:
    """It is refused: no new record is left, and no cookie sent."""

    def late() -> None:
        load()
        if loaded == "before":
            log_in(tabs)
        tabs.regenerate()
        session["admin"] = session.get("user") is None

    if loaded == "after":
        log_in(tabs)
    response = tabs.request(tabs.other, late)
    assert (response.status_code, response.headers.get("Set-Cookie")) == (409, None)
    assert len(tabs.records()) == 1


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_two_logins_at_once(tabs: Tabs, loaded: str) -> None:
    """A login button pressed twice, or pressed again as the response was lost: the cookie of each response works.

    The second session has its own change alone: the rest stays in the first.
    """

    def late() -> None:
        load()
        tabs.rotate(user=1, token="first")
        tabs.regenerate()
        session.update(user=2, token="second")

    if loaded == "before":
        response = tabs.request(tabs.other, late)
    else:
        tabs.rotate(user=1, token="first")
        response = tabs.rotate(tabs.other, user=2, token="second")
    assert LIVE not in response.headers["Set-Cookie"]
    assert tabs.seen_by(tabs.user) == {"user": 1, "token": "first", "cart": ["book"], "theme": "dark"}
    assert tabs.seen_by(tabs.other) == {"user": 2, "token": "second"}


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_two_logins_of_a_user_who_is_logged_in(store: Store, make_app: MakeApp, loaded: str) -> None:
    """Flask-Login logs in a user who is logged in, twice: the cookie of each response is a login."""
    app = make_app()
    login_manager = LoginManager(app)
    user = UserMixin()
    user.id = "ada"
    login_manager.user_loader(lambda user_id: user if user_id == "ada" else None)
    tabs = Tabs(store, app, _user_id="ada", _fresh=False, cart=["book"])

    def log_in() -> None:
        load()
        if loaded == "before":
            tabs.request(tabs.user, lambda: login_user(user))
        login_user(user)

    if loaded == "after":
        tabs.request(tabs.user, lambda: login_user(user))
    assert "Set-Cookie" in tabs.request(tabs.other, log_in).headers
    seen = tabs.seen_by(tabs.other)
    seen.pop("_id")
    assert seen == {"_user_id": "ada", "_fresh": True}
    assert tabs.seen_by(tabs.user)["cart"] == ["book"]


@pytest.mark.parametrize("loaded", ["before", "after"])
@pytest.mark.parametrize("given", [{}, {"org": 2}])
def test_equal_values_start_no_session(store: Store, make_app: MakeApp, given: Any, loaded: str) -> None:
    """A late rotation whose request only assigns equal values copies nothing to the new session."""
    tabs = Tabs(store, make_app(), user=1, lang="en", cart=["book"])

    def late() -> None:
        session["lang"] = "en"
        if loaded == "before":
            tabs.rotate(lang="en")
        session.update(user=session["user"], **given)
        tabs.regenerate()

    if loaded == "after":
        tabs.rotate(lang="en")
    assert ("Set-Cookie" in tabs.request(tabs.other, late).headers) is bool(given)
    if given:
        assert tabs.seen_by(tabs.other) == given
    assert tabs.seen_by(tabs.user) == {"user": 1, "lang": "en", "cart": ["book"]}


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_a_late_rotation_makes_no_second_session(tabs: Tabs, loaded: str) -> None:
    """A session is rotated to invalidate a stolen id: a thief who rotates as well gets none of it."""

    def late() -> None:
        load()
        tabs.rotate(user=1)
        tabs.regenerate()
        session["theme"] = "light"

    if loaded == "before":
        tabs.request(tabs.other, late)
    else:
        tabs.rotate(user=1)
        tabs.rotate(tabs.other, theme="light")
    assert tabs.seen_by(tabs.other) == {"theme": "light"}
    assert tabs.seen_by(tabs.user) == {"user": 1, "cart": ["book"], "token": "anonymous", "theme": "dark"}


@pytest.mark.parametrize("loaded", ["before", "after"])
@pytest.mark.parametrize("first", [{}, {"user": "attacker"}, {"theme": "light"}])
def test_an_attacker_who_fixated_the_id_rotates_first(tabs: Tabs, first: dict[str, Any], loaded: str) -> None:
    """A late login does not join the session that was rotated first: that request may be an attacker's."""

    def login() -> None:
        load()
        if loaded == "before":
            tabs.rotate(**first)
        tabs.regenerate()
        session["user"] = "victim"

    if loaded == "after":
        tabs.rotate(**first)
    response = tabs.request(tabs.other, login)
    assert LIVE not in response.headers["Set-Cookie"]
    assert tabs.seen_by(tabs.other) == {"user": "victim"}
    assert tabs.seen_by(tabs.user).get("user") == first.get("user")


def test_a_forwarding_record_is_not_prolonged(tabs: Tabs) -> None:
    """A client with an old id cannot keep its forwarding record alive by clearing again and again."""

    def login() -> None:
        session.clear()
        tabs.regenerate()
        session["a"] = 1

    for _ in range(4):
        tabs.request(tabs.browser(), login)
        tabs.time += 0.3 * FORWARDING_LIFETIME
    assert "Set-Cookie" in tabs.request(tabs.browser(), lambda: session.update(b=1)).headers


def test_a_login_where_the_session_was_cleared(tabs: Tabs) -> None:
    """It begins a session of its own, with nothing of the old one in it."""

    def login() -> None:
        session.clear()
        tabs.regenerate()
        session["user"] = 1

    def late() -> None:
        load()
        tabs.regenerate()
        session["user"] = 2

    tabs.request(tabs.user, login)
    assert "Set-Cookie" in tabs.request(tabs.other, late).headers
    assert tabs.seen_by(tabs.other) == {"user": 2}


def test_a_late_rotation_that_only_removes(tabs: Tabs) -> None:
    """It begins no session: the cookie of an empty one would replace the rotated session's."""

    def late() -> None:
        load()
        tabs.rotate(token="new")
        tabs.regenerate()
        del session["token"]

    assert "Set-Cookie" not in tabs.request(tabs.other, late).headers
    assert tabs.seen_by(tabs.user)["token"] == "new"
    assert len(tabs.records()) == 1


def test_two_logins_that_clear(tabs: Tabs) -> None:
    """After both a third late request still finds a forwarding record, not an unknown id."""

    def login() -> None:
        session.clear()
        tabs.regenerate()
        session["user"] = 1

    third = tabs.browser()
    tabs.request(tabs.user, login)
    tabs.request(tabs.other, login)
    assert "Set-Cookie" not in tabs.request(third, lambda: session.update(seen=1)).headers


def test_two_plain_rotations_at_once(tabs: Tabs) -> None:
    """The second rotates nothing and sends no cookie, and a logout ends the one session that there is."""

    def late() -> None:
        load()
        tabs.rotate()
        tabs.regenerate()

    assert "Set-Cookie" not in tabs.request(tabs.other, late).headers
    tabs.request(tabs.user, lambda: session.clear())
    assert tabs.records() == []


def test_a_second_login_after_the_end(tabs: Tabs) -> None:
    """A login that overlaps a rotation and a logout does not begin a session of its own."""

    def late() -> None:
        load()
        tabs.rotate(user=1)
        tabs.request(tabs.user, lambda: session.clear())
        tabs.regenerate()
        session["user"] = 2

    assert "Set-Cookie" not in tabs.request(tabs.other, late).headers
    assert tabs.records() == []


@pytest.mark.parametrize("loaded", ["never", "before"])
def test_requests_during_a_login_that_clears(tabs: Tabs, loaded: str) -> None:
    """After clear() and a new id late requests see nothing, and neither add to the login nor replace its cookie."""

    def login() -> None:
        if loaded == "before":
            load()
        session.clear()
        tabs.regenerate()
        session["user"] = 1

    def late() -> None:
        tabs.request(tabs.user, login)
        session["seen"] = True

    assert "Set-Cookie" not in tabs.request(tabs.other, late).headers
    assert tabs.seen_by(tabs.other) == {}
    assert tabs.seen_by(tabs.user) == {"user": 1}
    tabs.time += FORWARDING_LIFETIME
    assert "Set-Cookie" in tabs.request(tabs.other, lambda: session.update(a=1)).headers


def test_an_unknown_id_gets_no_forwarding_record(store: Store, make_app: MakeApp) -> None:
    """A client's invented id is stored nowhere, whatever the view does."""
    tabs = Tabs(store, make_app(), a=1)
    unknown = tabs.app.test_client()
    unknown.set_cookie("session", "x" * 43)

    def login() -> None:
        session.clear()
        tabs.regenerate()
        session["user"] = 1

    tabs.request(unknown, login)
    assert len(tabs.store.payloads(tabs.app)) == 2


def test_a_login_that_clears_after_a_read(tabs: Tabs) -> None:
    """A login that clears the session first, as in tutorials, does not log in an attacker who fixated the id."""
    tabs.request(tabs.user, lambda: read_and_clear(user=2))
    assert tabs.seen_by(tabs.user) == {"user": 2}
    assert tabs.seen_by(tabs.other) == {}


def test_several_rotations_in_a_row(tabs: Tabs) -> None:
    """Forwarding records lead from the first id to the third."""
    tabs.rotate(step=1)
    tabs.rotate(step=2)
    assert tabs.seen_by(tabs.other) == {"cart": ["book"], "token": "anonymous", "theme": "dark"}
    tabs.request(tabs.other, lambda: session.pop("cart"))
    assert tabs.seen_by(tabs.user) == {"token": "anonymous", "theme": "dark", "step": 2}


def test_many_rotations_in_a_row(tabs: Tabs) -> None:
    """A logout with the first id ends the session, however often it was rotated in these ten seconds."""
    for step in range(15):
        tabs.rotate(step=step)
    assert tabs.seen_by(tabs.other) == {"cart": ["book"], "token": "anonymous", "theme": "dark"}
    tabs.request(tabs.other, lambda: session.clear())
    assert tabs.seen_by(tabs.user) == {}
    assert tabs.records() == []


def test_a_command_that_is_repeated(tabs: Tabs) -> None:
    """A client that repeats a command whose response was lost finds its own forwarding record: the rotation stands."""
    backend = tabs.app.session_interface.handler.backend  # type: ignore[attr-defined]
    replace = backend.replace

    def replace_twice(*arguments: Any) -> WriteResult:
        replace(*arguments)
        answer: WriteResult = replace(*arguments)
        return answer

    backend.replace = replace_twice
    assert "Set-Cookie" in tabs.rotate(user=1).headers
    backend.replace = replace
    assert tabs.seen_by(tabs.user)["user"] == 1
