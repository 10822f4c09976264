"""Requests that are on their way with an old id when a rotation gives the session a new one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, login_user, logout_user

from lazysession import session_conflict, session_write_dropped
from lazysession.backend import WriteResult
from lazysession.records.rotation import FORWARDING_LIFETIME, SPOILT, ForwardingRecord, forwarding_in, still_held
from tests.support.stores import LIVE, Store

MakeApp = Callable[..., Flask]
OLD = f"session:{LIVE}"


@pytest.fixture
def store(any_store: Store) -> Store:
    """The tests of this file run on every store."""
    return any_store


def load() -> None:
    """Load the session, and read none of its keys."""
    assert session.sid  # type: ignore[attr-defined]


class House:
    """A session whose id is rotated, its user's browser, and a second browser that still has the old id."""

    def __init__(self, store: Store, app: Flask, **data: Any) -> None:
        self.store, self.app = store, app
        self.time = app.session_interface.handler.clock()  # type: ignore[attr-defined]
        app.session_interface.handler.clock = lambda: self.time  # type: ignore[attr-defined]
        self.steps: dict[str, Callable[[], Any]] = {}
        app.add_url_rule("/<name>", "page", lambda name: str(self.steps[name]() or ""))
        store.put(app, OLD, msgspec.msgpack.encode({"_permanent": True, **data}), 31 * 86400)
        self.user, self.other = self.browser(), self.browser()

    def browser(self) -> FlaskClient:
        """Return a browser with the old id."""
        browser = self.app.test_client()
        browser.set_cookie("session", LIVE)
        return browser

    def request(self, browser: FlaskClient, step: Callable[[], Any]) -> Any:
        """Make a request that takes a step."""
        name = f"step{len(self.steps)}"
        self.steps[name] = step
        return browser.get(f"/{name}")

    def rotate(self, browser: FlaskClient | None = None, **changes: Any) -> Any:
        """Rotate the session's id, as the user's browser or another one asks."""

        def step() -> None:
            self.regenerate()
            session.update(changes)

        return self.request(browser or self.user, step)

    def regenerate(self) -> None:
        self.app.session_interface.regenerate(session)  # type: ignore[attr-defined]

    def seen_by(self, browser: FlaskClient) -> dict[str, Any]:
        """Return the session that a browser sees; that sets no cookie."""
        seen: dict[str, Any] = {}
        response = self.request(browser, lambda: seen.update(session))
        assert "Set-Cookie" not in response.headers
        seen.pop("_permanent", None)
        return seen

    def records(self) -> list[dict[str, Any]]:
        """Return the stored sessions, without notes."""
        found = [msgspec.msgpack.decode(payload) for payload in self.store.payloads(self.app).values()]
        return [items for items in found if forwarding_in(items) is None]


@pytest.fixture
def house(store: Store, make_app: MakeApp) -> House:
    """A session with a cart, a token and a theme."""
    return House(store, make_app(), cart=["book"], token="anonymous", theme="dark")


def test_opened_before_the_rotation(house: House) -> None:
    """A change by a request that read the old record reaches the rotated session, and the cookie is left alone."""

    def late() -> None:
        assert session["theme"] == "dark"
        house.rotate(user=1, token="authenticated")
        session["theme"] = "light"
        session.pop("cart")

    response = house.request(house.other, late)
    assert (response.status_code, response.headers.get("Set-Cookie")) == (200, None)
    assert house.seen_by(house.user) == {"user": 1, "token": "authenticated", "theme": "light"}


def test_opened_after_the_rotation(house: House) -> None:
    """A request that asks with the old id sees what was there and still is, and may change it."""
    house.rotate(user=1, token="authenticated")
    assert house.seen_by(house.other) == {"cart": ["book"], "theme": "dark"}
    response = house.request(house.other, lambda: session["cart"].append("pen"))
    assert (response.status_code, response.headers.get("Set-Cookie")) == (200, None)
    assert house.seen_by(house.user) == {"cart": ["book", "pen"], "user": 1, "token": "authenticated", "theme": "dark"}


def log_in(house: House) -> None:
    """Rotate as a login does that sets, changes and removes a key."""
    house.request(house.user, lambda: (house.regenerate(), session.update(user=1, token="new"), session.pop("theme")))


@pytest.mark.parametrize("opened", ["before", "after"])
def test_what_the_rotation_changed_stands(house: House, opened: str, caplog: pytest.LogCaptureFixture) -> None:
    """A request with the old id can neither read nor write what a login set, changed or removed; that is told."""
    received: list[Any] = []

    def note(_app: Flask, keys: Any) -> None:
        received.append(sorted(keys))

    def late() -> None:
        load()
        if opened == "before":
            log_in(house)
        session.update(user=2, token="x", theme="y")

    if opened == "after":
        log_in(house)
    with session_conflict.connected_to(note, house.app):
        response = house.request(house.other, late)
    assert (response.status_code, response.headers.get("Set-Cookie")) == (200, None)
    assert house.seen_by(house.other) == {"cart": ["book"]}
    assert house.seen_by(house.user) == {"cart": ["book"], "user": 1, "token": "new"}
    assert received == [["theme", "token", "user"]]
    assert "('theme', 'token', 'user')" in caplog.text


@pytest.mark.parametrize("opened", ["before", "after"])
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
def test_half_of_a_late_change_is_never_stored(house: House, opened: str, change: Callable[[], Any]) -> None:
    """What depends on a key that the rotated session holds otherwise, or shares one, is refused as a whole."""

    def late() -> None:
        load()
        if opened == "before":
            log_in(house)
        change()

    if opened == "after":
        log_in(house)
    response = house.request(house.other, late)
    assert (response.status_code, response.headers.get("Set-Cookie")) == (409, None)
    assert house.seen_by(house.user) == {"cart": ["book"], "user": 1, "token": "new"}
    assert len(house.records()) == 1


@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_late_login_that_read_what_changed(house: House, opened: str) -> None:
    """It is refused: no new record is left, and no cookie sent."""

    def late() -> None:
        load()
        if opened == "before":
            log_in(house)
        house.regenerate()
        session["admin"] = session.get("user") is None

    if opened == "after":
        log_in(house)
    response = house.request(house.other, late)
    assert (response.status_code, response.headers.get("Set-Cookie")) == (409, None)
    assert len(house.records()) == 1


@pytest.mark.parametrize("changes", [{}, {"token": "new"}])
def test_overwriting_with_an_old_id(store: Store, make_app: MakeApp, changes: dict[str, Any]) -> None:
    """CONFLICT = overwrite stores one session whole; an old id overwrites only what the rotated one left as it was."""
    house = House(store, make_app(LAZYSESSION_CONFLICT="overwrite"), token="old", cart=["book"])
    house.rotate(**changes)
    assert house.request(house.other, lambda: session.update(cart=[])).status_code == 200
    assert house.seen_by(house.user) == {"token": "old", "cart": [] if not changes else ["book"], **changes}


def test_nothing_is_left_to_see(house: House) -> None:
    """Where the rotated session holds nothing of the old one, late requests see nothing, end nothing and add theirs."""

    def replace_everything() -> None:
        for key in list(session):
            del session[key]
        house.regenerate()
        session["user"] = 1

    house.request(house.user, replace_everything)
    assert house.seen_by(house.other) == {}
    assert "Set-Cookie" not in house.request(house.other, lambda: session.pop("cart", None)).headers
    assert "Set-Cookie" not in house.request(house.other, lambda: session.update(extra=1)).headers
    assert house.seen_by(house.user) == {"user": 1, "extra": 1}
    assert len(house.records()) == 1


def test_the_new_id_is_told_to_nobody(house: House) -> None:
    """A late request sees its own id, and no header or body that it gets has the new one."""
    house.rotate(user=1)
    cookie = house.user.get_cookie("session")
    assert cookie is not None
    response = house.request(house.other, lambda: f"{session.sid} {session!r} {dict(session)}")  # type: ignore[attr-defined]
    assert response.text.startswith(LIVE)
    assert cookie.value not in response.text + str(response.headers)


def test_after_the_seconds(house: House) -> None:
    """When the note's time is over the old id is unknown, also where a read had given the note a longer life."""
    house.rotate(user=1)
    house.seen_by(house.other)
    assert house.store.ttl(house.app, OLD) <= FORWARDING_LIFETIME + 1 or not tells_remaining(house)
    house.time += FORWARDING_LIFETIME
    assert house.seen_by(house.other) == {}
    response = house.request(house.other, lambda: session.update(a=1))
    assert LIVE not in response.headers["Set-Cookie"]
    assert "a" not in house.seen_by(house.user)


def tells_remaining(house: House) -> bool:
    backend = house.app.session_interface.handler.backend  # type: ignore[attr-defined]
    record = backend.read(OLD, None)
    return record is not None and record.ttl is not None


@pytest.mark.parametrize("opened", ["before", "after"])
def test_after_the_end(house: House, opened: str) -> None:
    """A session that was rotated and then ended is not revived by a late request, whose change is dropped and told."""
    dropped: list[Any] = []

    def note(app: Flask) -> None:
        dropped.append(app)

    def end() -> None:
        house.rotate(user=1)
        house.request(house.user, lambda: session.clear())

    def late() -> None:
        assert session["theme"] == "dark"
        end()
        session["theme"] = "light"

    with session_write_dropped.connected_to(note, house.app):
        if opened == "before":
            response = house.request(house.other, late)
            assert len(dropped) == 1
            assert "Set-Cookie" not in response.headers
        else:
            end()
            assert house.seen_by(house.other) == {}
    assert house.records() == []


@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_late_logout(house: House, opened: str) -> None:
    """A logout on its way with the old id ends the session under its new one: nobody stays logged in."""

    def late() -> None:
        load()
        house.rotate(a=1)
        session.clear()

    if opened == "after":
        house.rotate(a=1)

    def logout() -> None:
        load()
        session.clear()

    house.request(house.other, late if opened == "before" else logout)
    assert house.seen_by(house.user) == {}
    assert house.records() == []


def test_a_late_logout_that_is_shown_nothing(house: House) -> None:
    """It ends the session as well: a moment earlier it would have."""

    def logout() -> None:
        assert set(session) <= {"_permanent"}
        session.clear()

    house.rotate(cart=[], token="x", theme="y")
    house.request(house.other, logout)
    assert house.seen_by(house.user) == {}


def test_a_logout_by_key(house: House) -> None:
    """A late request that removes a key, as Flask-Login's logout does, removes it from the rotated session."""

    def late() -> None:
        load()
        house.rotate(a=1)
        session.pop("theme")

    house.request(house.other, late)
    assert house.seen_by(house.user) == {"a": 1, "cart": ["book"], "token": "anonymous"}


@pytest.mark.parametrize("opened", ["before", "after"])
def test_two_logins_at_once(house: House, opened: str) -> None:
    """A login button pressed twice, or pressed again as the answer got lost: each answer's cookie works.

    The second takes along its own change alone: the rest is the other session's.
    """

    def late() -> None:
        load()
        house.rotate(user=1, token="first")
        house.regenerate()
        session.update(user=2, token="second")

    if opened == "before":
        response = house.request(house.other, late)
    else:
        house.rotate(user=1, token="first")
        response = house.rotate(house.other, user=2, token="second")
    assert LIVE not in response.headers["Set-Cookie"]
    assert house.seen_by(house.user) == {"user": 1, "token": "first", "cart": ["book"], "theme": "dark"}
    assert house.seen_by(house.other) == {"user": 2, "token": "second"}


@pytest.mark.parametrize("opened", ["before", "after"])
def test_two_logins_of_somebody_logged_in(store: Store, make_app: MakeApp, opened: str) -> None:
    """Flask-Login logs in whom it had logged in before, twice: each answer's cookie is a login."""
    app = make_app()
    login_manager = LoginManager(app)
    user = UserMixin()
    user.id = "ada"
    login_manager.user_loader(lambda user_id: user if user_id == "ada" else None)
    house = House(store, app, _user_id="ada", _fresh=False, cart=["book"])

    def log_in() -> None:
        load()
        if opened == "before":
            house.request(house.user, lambda: login_user(user))
        login_user(user)

    if opened == "after":
        house.request(house.user, lambda: login_user(user))
    assert "Set-Cookie" in house.request(house.other, log_in).headers
    seen = house.seen_by(house.other)
    seen.pop("_id")
    assert seen == {"_user_id": "ada", "_fresh": True}
    assert house.seen_by(house.user)["cart"] == ["book"]


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("next_user", ["ada", "bob"])
def test_a_late_logout_before_a_login(store: Store, make_app: MakeApp, next_user: str, opened: str) -> None:
    """Flask-Login's logout ends the login of the rotated session, also where a login puts the same keys back."""
    app = make_app()
    users = {name: UserMixin() for name in ("ada", "bob")}
    for name, user in users.items():
        user.id = name
    LoginManager(app).user_loader(users.get)
    house = House(store, app, _user_id="ada", _fresh=True, cart=["book"])

    def switch() -> None:
        load()
        if opened == "before":
            house.rotate()
        logout_user()
        login_user(users[next_user])

    if opened == "after":
        house.rotate()
    assert "Set-Cookie" in house.request(house.other, switch).headers
    assert house.seen_by(house.other)["_user_id"] == next_user
    assert house.seen_by(house.user) == {"cart": ["book"]}


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("given", [{}, {"org": 2}])
def test_what_is_assigned_again_brings_nothing(store: Store, make_app: MakeApp, given: Any, opened: str) -> None:
    """Neither a hook that assigns what is there, nor a thief whom a view lets do so, takes anything along."""
    house = House(store, make_app(), user=1, lang="en", cart=["book"])

    def late() -> None:
        session["lang"] = "en"
        if opened == "before":
            house.rotate(lang="en")
        session.update(user=session["user"], **given)
        house.regenerate()

    if opened == "after":
        house.rotate(lang="en")
    assert ("Set-Cookie" in house.request(house.other, late).headers) is bool(given)
    if given:
        assert house.seen_by(house.other) == given
    assert house.seen_by(house.user) == {"user": 1, "lang": "en", "cart": ["book"]}


@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_late_rotation_makes_no_second_session(house: House, opened: str) -> None:
    """A session is rotated to be rid of an id that was stolen: the thief gets none of it by rotating as well."""

    def late() -> None:
        load()
        house.rotate(user=1)
        house.regenerate()
        session["theme"] = "light"

    if opened == "before":
        house.request(house.other, late)
    else:
        house.rotate(user=1)
        house.rotate(house.other, theme="light")
    assert house.seen_by(house.other) == {"theme": "light"}
    assert house.seen_by(house.user) == {"user": 1, "cart": ["book"], "token": "anonymous", "theme": "dark"}


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("first", [{}, {"user": "attacker"}, {"theme": "light"}])
def test_whoever_planted_the_id_rotates_first(house: House, first: dict[str, Any], opened: str) -> None:
    """A login that comes late does not go to the session of the one who rotated: that may be who planted the id."""

    def login() -> None:
        load()
        if opened == "before":
            house.rotate(**first)
        house.regenerate()
        session["user"] = "victim"

    if opened == "after":
        house.rotate(**first)
    response = house.request(house.other, login)
    assert LIVE not in response.headers["Set-Cookie"]
    assert house.seen_by(house.other) == {"user": "victim"}
    assert house.seen_by(house.user).get("user") == first.get("user")


def test_a_late_logout_that_rotates(house: House) -> None:
    """What it takes away goes from the rotated session too, and what it brings is its own."""
    house.request(house.user, lambda: session.update(user=1))

    def late() -> None:
        load()
        house.rotate(_flashes=["changed"])
        house.regenerate()
        del session["user"]
        session["_flashes"] = ["bye"]

    house.request(house.other, late)
    assert house.seen_by(house.other) == {"_flashes": ["bye"]}
    assert "user" not in house.seen_by(house.user)


def test_a_note_is_not_prolonged(house: House) -> None:
    """Whoever holds an old id cannot keep it from its other holders by clearing over and over."""

    def login() -> None:
        session.clear()
        house.regenerate()
        session["a"] = 1

    for _ in range(4):
        house.request(house.browser(), login)
        house.time += 0.3 * FORWARDING_LIFETIME
    assert "Set-Cookie" in house.request(house.browser(), lambda: session.update(b=1)).headers


def test_a_login_where_the_session_was_cleared(house: House) -> None:
    """It begins a session of its own: there is nothing of the old one in it."""

    def login() -> None:
        session.clear()
        house.regenerate()
        session["user"] = 1

    def late() -> None:
        load()
        house.regenerate()
        session["user"] = 2

    house.request(house.user, login)
    assert "Set-Cookie" in house.request(house.other, late).headers
    assert house.seen_by(house.other) == {"user": 2}


def test_a_late_rotation_that_only_removes(house: House) -> None:
    """It would begin a session of nothing, whose cookie would take the place of the rotated one's."""

    def late() -> None:
        load()
        house.rotate(token="new")
        house.regenerate()
        del session["token"]

    assert "Set-Cookie" not in house.request(house.other, late).headers
    assert house.seen_by(house.user)["token"] == "new"
    assert len(house.records()) == 1


def test_two_logins_that_clear(house: House) -> None:
    """After both a third late request still finds a note, not an unknown id."""

    def login() -> None:
        session.clear()
        house.regenerate()
        session["user"] = 1

    third = house.browser()
    house.request(house.user, login)
    house.request(house.other, login)
    assert "Set-Cookie" not in house.request(third, lambda: session.update(seen=1)).headers


def test_two_plain_rotations_at_once(house: House) -> None:
    """The second finds its work done; its cookie is left alone, and a logout ends the one session that there is."""

    def late() -> None:
        load()
        house.rotate()
        house.regenerate()

    assert "Set-Cookie" not in house.request(house.other, late).headers
    house.request(house.user, lambda: session.clear())
    assert house.records() == []


def test_a_second_login_after_the_end(house: House) -> None:
    """A login on its way while the session is rotated and ended does not begin one of its own."""

    def late() -> None:
        load()
        house.rotate(user=1)
        house.request(house.user, lambda: session.clear())
        house.regenerate()
        session["user"] = 2

    assert "Set-Cookie" not in house.request(house.other, late).headers
    assert house.records() == []


@pytest.mark.parametrize("opened", ["never", "before"])
def test_requests_beside_a_login_that_clears(house: House, opened: str) -> None:
    """After clear() and a new id late requests see nothing, and neither add to the login nor replace its cookie."""

    def login() -> None:
        if opened == "before":
            load()
        session.clear()
        house.regenerate()
        session["user"] = 1

    def late() -> None:
        house.request(house.user, login)
        session["seen"] = True

    assert "Set-Cookie" not in house.request(house.other, late).headers
    assert house.seen_by(house.other) == {}
    assert house.seen_by(house.user) == {"user": 1}
    house.time += FORWARDING_LIFETIME
    assert "Set-Cookie" in house.request(house.other, lambda: session.update(a=1)).headers


def test_an_unknown_id_gets_no_note(store: Store, make_app: MakeApp) -> None:
    """A client's invented id is stored nowhere, whatever the view does."""
    house = House(store, make_app(), a=1)
    stranger = house.app.test_client()
    stranger.set_cookie("session", "x" * 43)

    def login() -> None:
        session.clear()
        house.regenerate()
        session["user"] = 1

    house.request(stranger, login)
    assert len(house.store.payloads(house.app)) == 2


@pytest.mark.parametrize("order", ["after", "during"])
def test_a_late_logout_that_reads_nothing(house: House, order: str) -> None:
    """clear() as the first thing ends the session under its new id, although nobody read which that is."""

    def during() -> None:
        session.clear()
        house.rotate(user=1)

    if order == "after":
        house.rotate(user=1)
    house.request(house.other, (lambda: session.clear()) if order == "after" else during)
    assert house.seen_by(house.user) == {}
    assert house.records() == []


def read_and_clear(**left: Any) -> None:
    """End the session as a view does after a hook has looked who is there; what it leaves is for the next one."""
    session.get("user")
    session.clear()
    session.update(left)


def change_inside() -> None:
    session["cart"].append("pen")
    session["secret"] = "of the user"


@pytest.mark.parametrize("last", ["logout", "change"])
def test_a_logout_that_leaves_a_message(house: House, last: str) -> None:
    """What is written after clear() belongs to a new session: what others change meanwhile stays with the old one."""

    def logout() -> None:
        read_and_clear(message="bye")
        if last == "logout":
            house.request(house.other, change_inside)

    def change() -> None:
        change_inside()
        house.request(house.user, logout)

    if last == "logout":
        house.request(house.user, logout)
    else:
        assert "Set-Cookie" not in house.request(house.other, change).headers
    assert house.seen_by(house.user) == {"message": "bye"}
    assert house.seen_by(house.other) == {}
    assert house.records() == [{"_permanent": True, "message": "bye"}]


def test_a_login_that_clears_after_a_read(house: House) -> None:
    """Whoever planted the id is not logged in with the one who clears the session first, as tutorials do."""
    house.request(house.user, lambda: read_and_clear(user=2))
    assert house.seen_by(house.user) == {"user": 2}
    assert house.seen_by(house.other) == {}


@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_late_logout_that_leaves_a_message(house: House, opened: str) -> None:
    """A logout with the old id ends the rotated session, whatever it writes after that."""

    def late() -> None:
        session.get("user")
        if opened == "before":
            house.rotate(user=1)
        read_and_clear(message="bye")

    if opened == "after":
        house.rotate(user=1)
    house.request(house.other, late)
    assert house.seen_by(house.user) == {}
    assert house.seen_by(house.other) == {"message": "bye"}


def test_a_session_that_somebody_stored_over_a_note(house: House) -> None:
    """Flask-Session stores what a view writes, and would keep a planted id alive: here it counts for nothing."""
    house.rotate(user=1)
    (note,) = (payload for payload in house.store.payloads(house.app).values() if b"moved_to" in payload)
    house.store.remove(house.app, OLD)
    house.store.put(house.app, OLD, msgspec.msgpack.encode(msgspec.msgpack.decode(note) | {"x": 1}), 31 * 86400)
    assert house.seen_by(house.other) == {}
    assert house.records() == [{"_permanent": True, "cart": ["book"], "token": "anonymous", "theme": "dark", "user": 1}]


def test_a_strict_app_takes_late_changes(store: Store, make_app: MakeApp) -> None:
    """CONFLICT = raise concerns what changed since the request read: a late request reads what is there now."""
    house = House(store, make_app(LAZYSESSION_CONFLICT="raise"), theme="dark")
    house.rotate(user=1)
    assert house.request(house.other, lambda: session.update(theme="light")).status_code == 200
    assert house.seen_by(house.user) == {"theme": "light", "user": 1}


def test_several_rotations_in_a_row(house: House) -> None:
    """Notes lead on: from the first id to the third."""
    house.rotate(step=1)
    house.rotate(step=2)
    assert house.seen_by(house.other) == {"cart": ["book"], "token": "anonymous", "theme": "dark"}
    house.request(house.other, lambda: session.pop("cart"))
    assert house.seen_by(house.user) == {"token": "anonymous", "theme": "dark", "step": 2}


def test_many_rotations_in_a_row(house: House) -> None:
    """A logout with the first id ends the session, however often it was rotated in these ten seconds."""
    for step in range(15):
        house.rotate(step=step)
    assert house.seen_by(house.other) == {"cart": ["book"], "token": "anonymous", "theme": "dark"}
    house.request(house.other, lambda: session.clear())
    assert house.seen_by(house.user) == {}
    assert house.records() == []


def test_an_answer_that_was_lost(house: House) -> None:
    """A client that repeats a command, as its answer was lost, finds its own note, and the rotation stands."""
    backend = house.app.session_interface.handler.backend  # type: ignore[attr-defined]
    replace = backend.replace

    def replace_twice(*arguments: Any) -> WriteResult:
        replace(*arguments)
        answer: WriteResult = replace(*arguments)
        return answer

    backend.replace = replace_twice
    assert "Set-Cookie" in house.rotate(user=1).headers
    backend.replace = replace
    assert house.seen_by(house.user)["user"] == 1


@pytest.mark.parametrize("stands", [True, False])
def test_a_slow_renewal_asks_first(store: Store, make_app: MakeApp, stands: bool) -> None:
    """A slow request renews the cookie's expiry only while its id stands: its answer may come after a login's."""
    house = House(store, make_app(LAZYSESSION_REFRESH_THROTTLE=0), cart=["book"])

    def late() -> None:
        load()
        if not stands:
            house.rotate(user=1)
        house.time += 1

    response = house.request(house.other, late)
    assert ("Set-Cookie" in response.headers) is stands


class TestNotes:
    """Notes and what is no note."""

    NOTE = ForwardingRecord("s" * 43, 1000.0, {"a": 1})

    def test_as_items(self) -> None:
        """A note comes back as it was, also through the formats of Flask-Session."""
        items = self.NOTE.to_items()
        assert forwarding_in(items) == self.NOTE
        for module in (msgspec.msgpack, msgspec.json):
            assert forwarding_in(module.decode(module.encode(items))) == self.NOTE

    @pytest.mark.parametrize(
        "inside",
        [{}, {"moved_to": "x"}, {"moved_to": 1, "until": 1, "before": {}}]
        + [{"moved_to": "x", "until": until, "before": {}} for until in ("1", None, float("nan"), float("inf"))]
        + [{"moved_to": "x", "until": 1, "before": before} for before in ([], None, "x")],
    )
    def test_unsound_notes(self, inside: Any) -> None:
        """What Flask never writes there is a note that leads nowhere."""
        assert forwarding_in({"_permanent": inside}) == SPOILT

    @pytest.mark.parametrize("inside", [True, False, None, "x", 1, []])
    def test_no_note(self, inside: Any) -> None:
        """Anything else is a session."""
        assert forwarding_in({"_permanent": inside}) is None
        assert forwarding_in({"a": self.NOTE.to_items()}) is None

    def test_a_note_that_was_written_over(self) -> None:
        """Beside other items it leads nowhere: Flask-Session has stored a session over it."""
        assert forwarding_in({**self.NOTE.to_items(), "a": 1}) == SPOILT

    def test_still_held(self) -> None:
        """Only what is there on both sides, the same."""
        assert still_held({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "d": 1}, lambda one, other: one == other) == {
            "a": 1
        }
