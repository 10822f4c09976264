"""Requests that overlap on one session, interleaved on purpose, and on threads against the real stores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from flask import Flask, get_flashed_messages, session
from flask.testing import FlaskClient

from lazysession import session_conflict
from tests.support.stores import EVERY_STORE, Store

MakeApp = Callable[..., Flask]


@pytest.fixture
def store(any_store: Store) -> Store:
    """The tests of this file run on every store."""
    return any_store


def load() -> None:
    """Load the session, and read none of its keys."""
    assert session.sid  # type: ignore[attr-defined]


class Visitor:
    """One session in two browsers: what the second does in the middle of the first one's request."""

    def __init__(self, app: Flask, **data: Any) -> None:
        self.app = app
        self.pages: dict[str, Callable[[], Any]] = {}
        app.add_url_rule("/<name>", "page", lambda name: str(self.pages[name]() or ""))
        self.first, self.second = app.test_client(), app.test_client()
        self.pages["start"] = lambda: session.update(data)
        self.first.get("/start")
        cookie = self.first.get_cookie("session")
        assert cookie is not None
        self.sid = cookie.value
        self.second.set_cookie("session", self.sid)

    def overlap(self, change: Callable[[], Any], other: Callable[[], Any]) -> Any:
        """Open the session in one request, do ``other`` in another, then continue with ``change``."""
        self.pages["other"] = other

        def view() -> None:
            load()
            self.second.get("/other")
            change()

        self.pages["view"] = view
        return self.first.get("/view")

    def data(self) -> dict[str, Any]:
        """Return what is stored, as the second browser sees it."""
        found: dict[str, Any] = {}
        self.pages["look"] = lambda: found.update(session)
        self.second.get("/look")
        found.pop("_permanent", None)
        return found

    def raise_before_replaces(self, key: str, times: int) -> None:
        """Make the second browser count a key up just before each of the next replaces."""
        self.pages["raise"] = lambda: session.update({key: session[key] + 1})
        backend = self.app.session_interface.handler.backend  # type: ignore[attr-defined]
        replace, left = backend.replace, [times]

        def replace_late(*arguments: Any) -> Any:
            if left[0]:
                left[0] -= 1
                backend.replace = replace
                self.second.get("/raise")
                backend.replace = replace_late
            return replace(*arguments)

        backend.replace = replace_late


def put(**values: Any) -> Callable[[], None]:
    return lambda: session.update(values)


def test_a_second_merge_keeps_what_the_first_took(store: Store, make_app: MakeApp) -> None:
    """Changes of other requests between two attempts are not mine: each attempt merges my own change alone."""
    app = make_app()
    visitor = Visitor(app, k=0)
    visitor.raise_before_replaces("k", 3)
    visitor.pages["mine"] = put(x=1)
    visitor.first.get("/mine")
    assert visitor.data() == {"k": 3, "x": 1}


def test_popping_the_last_key_loses_nothing(store: Store, make_app: MakeApp) -> None:
    """A page that shows the last flash empties its session and keeps what another request has just stored."""
    visitor = Visitor(make_app(), _flashes=[("message", "hello")])
    response = visitor.overlap(get_flashed_messages, put(cart=["book"]))
    assert "Set-Cookie" not in response.headers
    assert visitor.data() == {"cart": ["book"]}


@pytest.mark.parametrize("permanent", [True, False])
def test_popping_the_last_key_leaves_permanent_alone(store: Store, make_app: MakeApp, permanent: bool) -> None:
    """A session that is emptied key by key says nothing about permanent: what the other request says of it stands."""
    app = make_app()
    visitor = Visitor(app, a=1)

    def other() -> None:
        session["cart"] = ["book"]
        session.permanent = permanent

    visitor.overlap(lambda: session.pop("a"), other)
    (payload,) = store.payloads(app).values()
    assert msgspec.msgpack.decode(payload) == {"_permanent": permanent, "cart": ["book"]}


def test_clearing_ends_the_session_whatever_is_stored(store: Store, make_app: MakeApp) -> None:
    """clear() is a logout: it deletes, also after a read, and also what another request stored meanwhile."""
    visitor = Visitor(make_app(), user=1)
    response = visitor.overlap(lambda: session.clear(), put(cart=["book"]))
    assert "session=;" in response.headers["Set-Cookie"]
    assert store.payloads(visitor.app) == {}


def test_both_sides_empty_it(store: Store, make_app: MakeApp) -> None:
    """When each side removes its key and nothing is left, the record is deleted, and the cookie with it."""
    visitor = Visitor(make_app(), a=1, b=1)
    response = visitor.overlap(lambda: session.pop("a"), lambda: session.pop("b") and "")
    assert "session=;" in response.headers["Set-Cookie"]
    assert store.payloads(visitor.app) == {}


def test_saved_twice_in_one_request(store: Store, make_app: MakeApp) -> None:
    """An app that saves in the middle of a request (before a long task) may continue to change its session."""
    app = make_app()
    visitor = Visitor(app, a=1)

    def save_twice() -> None:
        response = app.response_class()
        for progress in (1, 2):
            session["progress"] = progress
            app.session_interface.save_session(app, session._get_current_object(), response)  # type: ignore[attr-defined]
        session["progress"] = 3

    visitor.overlap(save_twice, put(theirs=1))
    assert visitor.data() == {"a": 1, "theirs": 1, "progress": 3}


def test_a_contested_key_is_signalled_once(store: Store, make_app: MakeApp) -> None:
    """However many attempts the merge takes."""
    app = make_app()
    visitor = Visitor(app, k=0)
    received: list[Any] = []

    def record(_app: Flask, keys: Any) -> None:
        received.append(keys)

    def change() -> None:
        visitor.raise_before_replaces("k", 3)
        session["k"] = "mine"

    with session_conflict.connected_to(record, app):
        visitor.overlap(change, lambda: None)
    assert visitor.data() == {"k": "mine"}
    assert received == [("k",)]


def test_the_time_of_creation_is_no_conflict(store: Store, make_app: MakeApp) -> None:
    """Two requests that both begin to count the absolute lifetime changed nothing of the app's at once."""
    visitor = Visitor(make_app(), a=1)
    visitor.app.session_interface.handler.lifetimes.absolute = 10**6  # type: ignore[attr-defined]
    received: list[Any] = []

    def record(_app: Flask, keys: Any) -> None:
        received.append(keys)

    with session_conflict.connected_to(record, visitor.app):
        visitor.overlap(put(x=1), put(y=1))
    assert received == []
    assert visitor.data() == {"a": 1, "x": 1, "y": 1}


WRITES, THREADS = 40, 4


@pytest.mark.parametrize("any_store", [name for name in EVERY_STORE if not name.startswith("fake")], indirect=True)
def test_every_thread_keeps_its_key(store: Store, make_app: MakeApp) -> None:
    """Threads that each count their own key in one shared session lose no count; a conflict that fails is an error."""
    visitor = Visitor(make_app(), a=1)
    visitor.app.testing = False

    def count() -> None:
        name = f"k{threading.current_thread().name}"
        session[name] = session.get(name, 0) + 1

    visitor.pages["count"] = count
    failed: list[int] = []

    def work(client: FlaskClient) -> None:
        failed.append(sum(client.get("/count").status_code != 200 for _ in range(WRITES)))

    threads = []
    for number in range(THREADS):
        client = visitor.app.test_client()
        client.set_cookie("session", visitor.sid)
        threads.append(threading.Thread(target=work, args=(client,), name=str(number)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = visitor.data()
    assert sum(data[f"k{number}"] for number in range(THREADS)) + sum(failed) == WRITES * THREADS
    assert sum(failed) < WRITES
