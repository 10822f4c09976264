"""A session that another request changed, ended or rotated before this one is saved."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from flask import Flask, session

from lazysession import (
    session_conflict,
    session_mode,
    session_opened,
    session_write_dropped,
)
from lazysession.backend import Outcome, WriteResult
from tests.support.stores import LIVE
from tests.support.visiting import KEY, MakeApp, overlapped, put, set_mine, stored


class TestOverlaps:
    """Two requests at the same session."""

    def test_different_keys_both_survive(self, store: Any, make_app: MakeApp) -> None:
        """The change of each is kept, deletions too."""
        app = make_app()
        payload = msgspec.msgpack.encode({"_permanent": True, "a": 1, "b": 1, "theirs": 2})

        def other() -> None:
            store.remove(app, KEY)
            store.put(app, KEY, payload)

        overlapped(app, "/", other, lambda: (set_mine(), session.pop("b")))
        assert put(store, app, a=1, b=1).get("/").status_code == 200
        assert stored(store, app) == {KEY: {"_permanent": True, "a": 1, "theirs": 2, "mine": 1}}

    def test_the_same_key_is_signalled(self, store: Any, make_app: MakeApp) -> None:
        """The later writer wins, and a signal names the key."""
        app = make_app()
        received: list[Any] = []

        def record(_app: Flask, keys: Any) -> None:
            received.append(keys)

        def other() -> None:
            store.remove(app, KEY)
            store.put(app, KEY, msgspec.msgpack.encode({"_permanent": True, "mine": 7}))

        overlapped(app, "/", other, set_mine)
        with session_conflict.connected_to(record, app):
            put(store, app, a=1).get("/")
        assert stored(store, app)[KEY]["mine"] == 1
        assert received == [("mine",)]

    @pytest.mark.parametrize("policy", ["overwrite", "raise"])
    def test_other_policies(self, store: Any, make_app: MakeApp, policy: str) -> None:
        """Overwrite stores mine alone; raise stores nothing and fails."""
        app = make_app(LAZYSESSION_CONFLICT=policy)

        def other() -> None:
            store.remove(app, KEY)
            store.put(app, KEY, msgspec.msgpack.encode({"_permanent": True, "theirs": 2}))

        overlapped(app, "/", other, set_mine)
        client = put(store, app, a=1)
        if policy == "raise":
            assert client.get("/").status_code == 409
            assert stored(store, app) == {KEY: {"_permanent": True, "theirs": 2}}
        else:
            client.get("/")
            assert stored(store, app) == {KEY: {"_permanent": True, "a": 1, "mine": 1}}

    def test_merging_is_bounded(self, memory_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
        """A session that changes at every attempt is a failed write after a hundred, not an endless loop."""
        app = memory_app()
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        attempts: list[bytes] = []

        def always_changed(_key: str, payload: bytes, *_: Any, **__: Any) -> WriteResult:
            attempts.append(payload)
            return WriteResult(Outcome.CONFLICT, b"\x80")

        with app.test_client() as client:
            with client.session_transaction() as transaction:
                transaction["a"] = 1
            backend.replace = always_changed
            app.add_url_rule("/", view_func=lambda: set_mine() or "")
            assert client.get("/").status_code == 409
        assert "500 attempts" in caplog.text
        assert len(attempts) == 500

    @pytest.mark.parametrize("change", [set_mine, lambda: None], ids=["changing", "reading"])
    def test_a_logout_is_final(
        self, store: Any, make_app: MakeApp, caplog: pytest.LogCaptureFixture, change: Callable[[], Any]
    ) -> None:
        """A request that overlaps a logout does not bring the session back, and leaves the cookie alone."""
        app = make_app()
        dropped: list[Flask] = []
        overlapped(app, "/", lambda: store.remove(app, KEY), change)
        with session_write_dropped.connected_to(dropped.append, app):
            response = put(store, app, a=1).get("/")
        assert response.status_code == 200
        assert "Set-Cookie" not in response.headers
        assert stored(store, app) == {}
        if change is set_mine:
            assert dropped == [app]
            assert "was dropped" in caplog.text


class TestRotationOverlaps:
    """A rotation while other requests run."""

    def rotating(self, app: Flask, other: Callable[[], Any], mode: str = "normal") -> None:
        def view() -> str:
            session.get("a")
            other()
            app.session_interface.regenerate(session)  # type: ignore[attr-defined]
            session["mine"] = 1
            return ""

        app.add_url_rule("/", view_func=session_mode(mode)(view))

    def test_a_rotation_revives_nothing(self, store: Any, make_app: MakeApp) -> None:
        """A session that ended while it was rotated stays ended, under either id."""
        app = make_app()
        self.rotating(app, lambda: store.remove(app, KEY))
        response = put(store, app, a=1).get("/")
        assert "Set-Cookie" not in response.headers
        assert stored(store, app) == {}

    @pytest.mark.parametrize("policy", ["merge", "raise"])
    def test_a_rotation_loses_nothing(self, store: Any, make_app: MakeApp, policy: str) -> None:
        """What another request stored meanwhile reaches the new id; or, with "raise", no new id is left behind."""
        app = make_app(LAZYSESSION_CONFLICT=policy)

        def other() -> None:
            store.remove(app, KEY)
            store.put(app, KEY, msgspec.msgpack.encode({"_permanent": True, "a": 1, "theirs": 2}))

        self.rotating(app, other)
        client = put(store, app, a=1)
        if policy == "raise":
            assert client.get("/").status_code == 409
            assert list(stored(store, app)) == [KEY]
        else:
            client.get("/")
            ((key, data),) = stored(store, app).items()
            assert key != KEY
            assert data == {"_permanent": True, "a": 1, "theirs": 2, "mine": 1}

    def test_a_no_refresh_rotation_keeps_the_remaining_life(self, store: Any, make_app: MakeApp) -> None:
        """A new id in mode no_refresh does not prolong the session."""
        app = make_app(PERMANENT_SESSION_LIFETIME=1000)
        self.rotating(app, lambda: None, "no_refresh")
        client = put(store, app, a=1)
        store.pass_time(app, 31 * 86400 - 400)
        client.get("/")
        (key,) = stored(store, app)
        assert key != KEY
        assert 395 < store.ttl(app, key) <= 400


def test_listeners_may_use_the_session(memory_app: MakeApp) -> None:
    """The signal is sent when the session is loaded, so a listener may read it."""
    app = memory_app()
    app.add_url_rule("/", view_func=lambda: str(session.get("a")))
    heard: list[Any] = []

    def record(_app: Flask, **details: Any) -> None:
        heard.append(dict(details["session"]))

    with session_opened.connected_to(record, app):
        app.test_client().get("/")
    assert heard == [{"_permanent": True}]


def test_creation_times_are_no_change(memory_app: MakeApp) -> None:
    """Where the time of creation stands in the stored bytes does not matter: a read is a read."""
    app = memory_app(LAZYSESSION_ABSOLUTE_LIFETIME=3600)
    app.add_url_rule("/", view_func=session_mode("readonly")(lambda: str(session.get("a"))))
    handler = app.session_interface.handler  # type: ignore[attr-defined]
    created = handler.clock()
    payload = msgspec.msgpack.encode({"_permanent": True, "_lazysession_created": created, "a": 1})
    app.session_interface.client.set(KEY, payload, ex=1000)  # type: ignore[attr-defined]
    client = app.test_client()
    client.set_cookie("session", LIVE)
    assert client.get("/").text == "1"


def test_unencodable_but_unchanged(memory_app: MakeApp) -> None:
    """A pickled session with a value that no format has can be read; changing it is an error, as with Flask-Session."""
    app = memory_app(LAZYSESSION_ALLOW_PICKLE=True)
    app.testing = False
    app.add_url_rule("/read", "read", lambda: str(session["a"]))
    app.add_url_rule("/write", "write", lambda: session.update(b=1) or "")
    app.session_interface.client.set(KEY, pickle.dumps({"a": 1 + 2j}), ex=10**7)  # type: ignore[attr-defined]
    client = app.test_client()
    client.set_cookie("session", LIVE)
    assert client.get("/read").text == "(1+2j)"
    assert client.get("/write").status_code == 500
