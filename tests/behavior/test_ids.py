"""Session ids: which are looked up, which are replaced, and what is no session under them."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from flask import session
from flask_login import LoginManager, UserMixin, current_user, login_user

from tests.support.stores import LIVE
from tests.support.visiting import KEY, MakeApp, overlapped, put, set_mine, stored


class TestIds:
    """New ids, and ids that a client invented."""

    @pytest.mark.parametrize(("path", "retire"), [("/full", ["write"]), ("/empty", ["delete", "create"])])
    def test_regenerate(self, store: Any, make_app: MakeApp, path: str, retire: list[str]) -> None:
        """A new id on full and on cleared sessions; the new record is stored before the old one is removed."""
        app = make_app()
        regenerate = app.session_interface.regenerate  # type: ignore[attr-defined]

        def full() -> str:
            regenerate(session)
            session["user"] = 1
            return session.sid  # type: ignore[attr-defined, no-any-return]

        def empty() -> str:
            session.clear()
            regenerate(session)
            session["user"] = 1
            return session.sid  # type: ignore[attr-defined, no-any-return]

        app.add_url_rule("/full", view_func=full)
        app.add_url_rule("/empty", view_func=empty)
        client = put(store, app, user=1)
        with store.counted() as trips:
            sid = client.get(path).text
        expected = store.create + sum((getattr(store, verb) for verb in retire), ())
        assert tuple(trips)[-len(expected) :] == expected
        assert sid != LIVE
        assert stored(store, app) == {f"session:{sid}": {"_permanent": True, "user": 1}}
        cookie = client.get_cookie("session")
        assert cookie is not None
        assert cookie.value == sid

    def test_regenerate_takes_the_proxy_and_the_object(self, memory_app: MakeApp) -> None:
        """Flask-Session documents it with ``session``; extensions pass the object behind it."""
        app = memory_app()
        ids: list[str] = []

        @app.route("/")
        def view() -> str:
            for each in (session, session._get_current_object()):  # type: ignore[attr-defined]
                app.session_interface.regenerate(each)  # type: ignore[attr-defined]
                ids.append(session.sid)  # type: ignore[attr-defined]
            return ""

        app.test_client().get("/")
        assert len(set(ids)) == 2

    def test_login_rotates(self, store: Any, make_app: MakeApp) -> None:
        """A login by Flask-Login gives the session a new id, which prevents session fixation."""

        class User(UserMixin):
            id = "1"

        app = make_app()
        manager = LoginManager(app)
        manager.user_loader(lambda _id: User())
        app.add_url_rule("/login", view_func=lambda: str(login_user(User())))
        put(store, app, cart=[1]).get("/login")
        ((key, data),) = stored(store, app).items()
        assert key != KEY
        assert (data["cart"], data["_user_id"]) == ([1], "1")

    def test_a_remembered_login_rotates(self, store: Any, make_app: MakeApp) -> None:
        """So does one by the remember cookie, also where the id was fixated before the browser was opened again."""

        class User(UserMixin):
            id = "1"

        app = make_app()
        LoginManager(app).user_loader(lambda _id: User())
        app.add_url_rule("/login", "login", view_func=lambda: str(login_user(User(), remember=True)))
        app.add_url_rule("/me", "me", view_func=lambda: str(current_user.is_authenticated))
        client = put(store, app, cart=[1])
        client.delete_cookie("session")
        client.get("/login")
        client.set_cookie("session", LIVE)
        assert client.get("/me").text == "True"
        fixated = app.test_client()
        fixated.set_cookie("session", LIVE)
        assert fixated.get("/me").text == "False"
        assert not [items for key, items in stored(store, app).items() if key == KEY and "_user_id" in items]

    def test_login_may_keep_the_id(self, store: Any, make_app: MakeApp) -> None:
        """ROTATE_ON_LOGIN = False."""

        class User(UserMixin):
            id = "1"

        app = make_app(LAZYSESSION_ROTATE_ON_LOGIN=False)
        manager = LoginManager(app)
        manager.user_loader(lambda _id: User())
        app.add_url_rule("/login", view_func=lambda: str(login_user(User())))
        put(store, app, cart=[1]).get("/login")
        assert list(stored(store, app)) == [KEY]

    def test_unknown_ids_are_not_adopted(self, store: Any, make_app: MakeApp) -> None:
        """An id that the store does not know never becomes a session's id."""
        app = make_app()
        app.add_url_rule("/", view_func=lambda: set_mine() or session.sid)  # type: ignore[attr-defined]
        client = app.test_client()
        client.set_cookie("session", LIVE)
        assert client.get("/").text != LIVE
        assert KEY not in stored(store, app)

    @pytest.mark.parametrize("value", ["a" * 129, "a b", "a\x00", "ä" * 43, "../x", "", "a;b", "session:x"])
    def test_malformed_ids_are_not_looked_up(self, memory_app: MakeApp, value: str) -> None:
        """What has not the shape of a session id is not looked up in the store."""
        app = memory_app()
        app.add_url_rule("/", view_func=lambda: str(session.get("a")))
        client = app.session_interface.client  # type: ignore[attr-defined]
        before = len(client.names)
        response = app.test_client().get("/", headers={"Cookie": f'session="{value}"'})
        assert response.status_code == 200
        assert client.names[before:] == []

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_signed_ids_and_old_keys(self, memory_app: MakeApp) -> None:
        """A signature by a fallback key counts, one by any other key does not."""
        app = memory_app(SESSION_USE_SIGNER=True)
        app.add_url_rule("/", view_func=lambda: session.update(n=session.get("n", 0) + 1) or str(session["n"]))
        client = app.test_client()
        assert client.get("/").text == "1"
        app.secret_key, app.config["SECRET_KEY_FALLBACKS"] = "new", ["key"]
        assert client.get("/").text == "2"
        app.config["SECRET_KEY_FALLBACKS"] = []
        assert client.get("/").text == "3"  # the cookie was signed with the new key meanwhile
        app.config["SECRET_KEY_FALLBACKS"] = "new"  # one key, not three of a letter each
        app.secret_key = "newest"
        assert client.get("/").text == "4"
        app.secret_key = "other"
        assert client.get("/").text == "1"


class RunsCode:
    """A pickle that leaves a trace when it is read."""

    ran: list[str] = []

    def __reduce__(self) -> Any:
        return RunsCode.ran.append, ("ran",)


class TestPayloads:
    """Stored payloads are not trusted."""

    @pytest.mark.parametrize(
        "payload",
        [b"", b"\xc1", b"\x93\x01\x02\x03", b"7", b"null", b"[" * 5000, b"\x91" * 5000, b"\xff\xfe"],
    )
    def test_what_is_no_session(
        self, store: Any, make_app: MakeApp, payload: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A damaged, foreign or absurd payload is a new session and a line in the log without the payload."""
        app = make_app()
        app.add_url_rule("/", view_func=lambda: str(dict(session)))
        store.put(app, KEY, payload)
        client = app.test_client()
        client.set_cookie("session", LIVE)
        assert client.get("/").text == "{'_permanent': True}"
        assert f"{len(payload)} bytes cannot be decoded" in caplog.text
        assert LIVE not in caplog.text

    def test_pickles_do_not_run(self, store: Any, make_app: MakeApp) -> None:
        """Unless ALLOW_PICKLE says so, and then only those of dicts are sessions."""
        app = make_app()
        app.add_url_rule("/", view_func=lambda: str(dict(session)))
        store.put(app, KEY, pickle.dumps({"a": RunsCode()}))
        client = app.test_client()
        client.set_cookie("session", LIVE)
        assert client.get("/").text == "{'_permanent': True}"
        assert RunsCode.ran == []

    @pytest.mark.parametrize(
        ("payload", "text"),
        [
            (pickle.dumps({"a": 1}), "{'a': 1}"),
            (pickle.dumps([1]), "{'_permanent': True}"),
            (b"\x80\x04bad", "{'_perm"),
        ],
    )
    def test_pickles_on_request(self, memory_app: MakeApp, payload: bytes, text: str) -> None:
        """Sessions of Flask-Session before 0.7 can be read in a migration; they are rewritten when they change."""
        app = memory_app(LAZYSESSION_ALLOW_PICKLE=True)
        app.add_url_rule("/", view_func=lambda: str(dict(session)))
        app.session_interface.client.set(KEY, payload, ex=1000)  # type: ignore[attr-defined]
        client = app.test_client()
        client.set_cookie("session", LIVE)
        assert client.get("/").text.startswith(text)


def test_nothing_secret_is_logged(store: Any, make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the id nor the data of a session is in any log line."""
    caplog.set_level(logging.DEBUG, logger="lazysession")
    app = make_app()
    overlapped(app, "/", lambda: store.remove(app, KEY), set_mine)
    put(store, app, password="hunter2").get("/")
    assert LIVE not in caplog.text
    assert "hunter2" not in caplog.text
