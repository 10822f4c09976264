"""What happens at the end of a request: conflicts, ends, rotation, cookies, failing stores, hostile input."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import fakeredis
import msgspec
import pytest
from flask import Flask, Response, get_flashed_messages, make_response, session
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from flask_session.redis import RedisSessionInterface

from lazysession import (
    SessionReadOnly,
    SessionUnavailable,
    session_conflict,
    session_mode,
    session_opened,
    session_write_dropped,
)
from lazysession.backend import Outcome, WriteResult
from lazysession.ids import SessionIds
from lazysession.records.rotation import forwarding_in
from tests.support.stores import LIVE

MakeApp = Callable[..., Flask]
KEY = f"session:{LIVE}"


def put(store: Any, app: Flask, **data: Any) -> FlaskClient:
    """Store a session, and answer a client that has its cookie."""
    store.put(app, KEY, msgspec.msgpack.encode({"_permanent": True, **data}), 31 * 86400)
    client = app.test_client()
    client.set_cookie("session", LIVE)
    return client


def stored(store: Any, app: Flask) -> dict[str, Any]:
    """Return the stored sessions, without the notes that rotations leave."""
    found = {key: msgspec.msgpack.decode(payload) for key, payload in store.payloads(app).items()}
    return {key: items for key, items in found.items() if forwarding_in(items) is None}


def overlapped(app: Flask, path: str, other: Callable[[], Any], change: Callable[[], Any]) -> None:
    """Add a view that loads its session, lets something else happen, and then changes it."""

    def view() -> str:
        assert session.sid  # type: ignore[attr-defined]  # reads no key
        other()
        change()
        return ""

    app.add_url_rule(path, path.strip("/"), view)


def set_mine() -> None:
    session["mine"] = 1


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

    def test_the_same_key_is_told(self, store: Any, make_app: MakeApp) -> None:
        """The later writer wins, and a signal names the key."""
        app = make_app()
        told: list[Any] = []

        def note(_app: Flask, keys: Any) -> None:
            told.append(keys)

        def other() -> None:
            store.remove(app, KEY)
            store.put(app, KEY, msgspec.msgpack.encode({"_permanent": True, "mine": 7}))

        overlapped(app, "/", other, set_mine)
        with session_conflict.connected_to(note, app):
            put(store, app, a=1).get("/")
        assert stored(store, app)[KEY]["mine"] == 1
        assert told == [("mine",)]

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


class TestIds:
    """New ids, and ids that somebody made up."""

    @pytest.mark.parametrize(("path", "retire"), [("/full", ["write"]), ("/empty", ["delete", "create"])])
    def test_regenerate(self, store: Any, make_app: MakeApp, path: str, retire: list[str]) -> None:
        """A new id on full and on cleared sessions; the new record is there before the old one goes."""
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
        """Flask-Session documents it with ``session``; extensions pass the object behind."""
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
        """A login by Flask-Login gives the session a new id; an id that was planted is worth nothing."""

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
        """So does one by the remember cookie: an id that was planted before the browser came back is worth nothing."""

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
        planted = app.test_client()
        planted.set_cookie("session", LIVE)
        assert planted.get("/me").text == "False"
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
        """What no session id looks like never reaches the store."""
        app = memory_app()
        app.add_url_rule("/", view_func=lambda: str(session.get("a")))
        client = app.session_interface.client  # type: ignore[attr-defined]
        before = len(client.names)
        response = app.test_client().get("/", headers={"Cookie": f'session="{value}"'})
        assert response.status_code == 200
        assert client.names[before:] == []

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_signed_ids_and_old_keys(self, memory_app: MakeApp) -> None:
        """A signature by a fallback key is good, one by any other key is none."""
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


class TestCookies:
    """Attributes and caches."""

    ATTRIBUTES = {
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_DOMAIN": "shop.test",
        "SESSION_COOKIE_PATH": "/app",
    }

    def test_the_same_attributes_on_set_and_delete(self, memory_app: MakeApp) -> None:
        """A browser deletes a cookie only by the attributes it was set with."""
        app = memory_app(**self.ATTRIBUTES)
        app.add_url_rule("/app/set", "set", lambda: set_mine() or "")
        app.add_url_rule("/app/clear", "clear", lambda: session.clear() or "")
        client = app.test_client()
        base = "https://shop.test"
        for path in ("/app/set", "/app/clear"):
            header = client.get(path, base_url=base).headers["Set-Cookie"]
            for attribute in ("Secure", "HttpOnly", "SameSite=Lax", "Domain=shop.test", "Path=/app"):
                assert attribute in header

    def test_partitioned(self, memory_app: MakeApp) -> None:
        """Flask 3.1 knows Partitioned, and so does this."""
        app = memory_app(SESSION_COOKIE_SECURE=True, SESSION_COOKIE_PARTITIONED=True)
        if not hasattr(app.session_interface, "get_cookie_partitioned"):
            pytest.skip("Flask before 3.1 has no Partitioned")
        app.add_url_rule("/", view_func=lambda: set_mine() or "")
        assert "Partitioned" in app.test_client().get("/").headers["Set-Cookie"]

    def test_a_host_cookie(self, memory_app: MakeApp) -> None:
        """Browsers take a ``__Host-`` cookie, and its deletion, only with Secure, Path=/ and no Domain."""
        app = memory_app(SESSION_COOKIE_NAME="__Host-session", SESSION_COOKIE_SECURE=True)
        app.add_url_rule("/set", "set", lambda: set_mine() or "")
        app.add_url_rule("/read", "read", lambda: str(session.get("mine")))
        app.add_url_rule("/clear", "clear", lambda: session.clear() or "")
        client = app.test_client()
        headers = [
            client.get(path, base_url="https://localhost").headers.get("Set-Cookie", "") for path in ("/set", "/clear")
        ]
        for header in headers:
            assert header.startswith("__Host-session=")
            assert {"Secure", "Path=/"} <= set(header.split("; "))
            assert "Domain" not in header
        client.get("/set", base_url="https://localhost")
        assert client.get("/read", base_url="https://localhost").text == "1"

    def test_a_session_that_is_not_permanent(self, memory_app: MakeApp) -> None:
        """Its cookie has no expiry and is not renewed; its record is."""
        app = memory_app(SESSION_PERMANENT=False, LAZYSESSION_REFRESH_THROTTLE=0)
        app.add_url_rule("/set", "set", lambda: set_mine() or "")
        app.add_url_rule("/read", "read", lambda: str(session.get("mine")))
        client = app.test_client()
        assert "Expires" not in client.get("/set").headers["Set-Cookie"]
        assert "Set-Cookie" not in client.get("/read").headers

    def test_public_responses(self, memory_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
        """A renewal is left off a public response; a cookie that has to be sent turns it private."""
        app = memory_app(LAZYSESSION_REFRESH_THROTTLE=0)

        def public(change: Callable[[], Any]) -> Callable[[], Any]:
            def view() -> Any:
                change()
                response = make_response("")
                response.cache_control.public = True
                return response

            return view

        app.add_url_rule("/read", "read", public(lambda: session.get("mine")))
        app.add_url_rule("/set", "set", public(set_mine))
        client = app.test_client()
        response = client.get("/set")
        assert "Set-Cookie" in response.headers
        assert response.headers["Cache-Control"] == "private"
        app.test_client().get("/set")
        assert caplog.text.count("may keep the response of set") == 1
        response = client.get("/read")
        assert "Set-Cookie" not in response.headers
        assert response.headers["Cache-Control"] == "public"

    def test_refreshing_can_be_turned_off(self, store: Any, make_app: MakeApp) -> None:
        """SESSION_REFRESH_EACH_REQUEST = False: no read moves the expiry."""
        app = make_app(SESSION_REFRESH_EACH_REQUEST=False, LAZYSESSION_REFRESH_THROTTLE=0)
        app.add_url_rule("/", view_func=lambda: str(session.get("a")))
        client = put(store, app, a=1)
        before = store.ttl(app, KEY)
        assert "Set-Cookie" not in client.get("/").headers
        assert store.ttl(app, KEY) <= before


class Down(Exception):
    """A client's own error."""


def break_verb(app: Flask, *verbs: str) -> list[str]:
    """Make verbs of the app's backend fail; answer the list of attempts."""
    attempts: list[str] = []
    backend = app.session_interface.handler.backend  # type: ignore[attr-defined]

    def fail(verb: str) -> Callable[..., Any]:
        def failing(*_: Any, **__: Any) -> Any:
            attempts.append(verb)
            raise Down(verb)

        return failing

    for verb in verbs:
        setattr(backend, verb, fail(verb))
    return attempts


class TestOutages:
    """The store fails."""

    @pytest.fixture
    def client(self, memory_app: MakeApp, request: pytest.FixtureRequest) -> FlaskClient:
        """A client with a live session, in an app of the ON_READ_ERROR of the test's marker."""
        app = memory_app(LAZYSESSION_ON_READ_ERROR=getattr(request, "param", "unavailable"))
        app.testing = False
        app.register_error_handler(Down, lambda error: (f"down: {error}", 418))
        app.add_url_rule("/read", "read", lambda: str(session.get("mine")) + str(session.get("other")))
        app.add_url_rule("/set", "set", lambda: session.update(mine=2) or "")
        app.add_url_rule("/untouched", "untouched", lambda: "")
        client = app.test_client()
        client.get("/set")
        return client

    def test_unused_requests_do_not_notice(self, client: FlaskClient) -> None:
        """A page that does not use the session works whatever the store does."""
        attempts = break_verb(client.application, "read", "replace", "create", "delete")
        assert client.get("/untouched").status_code == 200
        assert attempts == []

    def test_unavailable(self, client: FlaskClient) -> None:
        """503, which an error handler may dress; the store is asked once."""
        attempts = break_verb(client.application, "read")
        response = client.get("/read")
        assert response.status_code == 503
        assert "Set-Cookie" not in response.headers
        assert attempts == ["read"]

    def test_what_runs_after_the_failure(self, memory_app: MakeApp) -> None:
        """The first use raises. The error page and the hooks after it find an empty session, and nothing is saved."""
        app = memory_app()
        client = app.test_client()
        with client.session_transaction() as transaction:
            transaction["a"] = 1
        attempts = break_verb(app, "read", "create", "replace", "delete")
        app.add_url_rule("/", view_func=lambda: session["a"])

        @app.errorhandler(503)
        def page(error: SessionUnavailable) -> tuple[str, int]:
            session["csrf_token"] = "x"
            return f"{type(error.__cause__).__name__} {session.get('a')} {get_flashed_messages()}", 503

        @app.after_request
        def hook(response: Response) -> Response:
            response.headers["X-Cart"] = str(session.get("cart"))
            return response

        response = client.get("/")
        assert (response.status_code, response.text) == (503, "Down None []")
        assert response.headers["X-Cart"] == "None"
        assert "Set-Cookie" not in response.headers
        assert attempts == ["read"]

    def test_no_success_is_claimed_for_a_lost_change(self, memory_app: MakeApp) -> None:
        """A view that swallows the failure is not answered with 200, whether it then changes the session or not."""
        app = memory_app()
        app.testing = False
        client = app.test_client()
        with client.session_transaction() as transaction:
            transaction["a"] = 1
        attempts = break_verb(app, "read", "create", "replace", "delete")

        @app.route("/<task>")
        def view(task: str) -> str:
            with suppress(SessionUnavailable):
                session.get("a")
            if task == "write":
                with suppress(SessionUnavailable):
                    session["order"] = 1
            return "done"

        for path in ("/write", "/read"):
            response = client.get(path)
            assert (response.status_code, response.headers.get("Set-Cookie")) == (503, None)
        assert attempts == ["read", "read"]

    @pytest.mark.parametrize("policy", ["unavailable", "empty"])
    @pytest.mark.parametrize("leave", [lambda: session.pop("uid", None), lambda: logout_user()], ids=["pop", "login"])
    def test_no_logout_is_claimed(self, memory_app: MakeApp, policy: str, leave: Callable[[], Any]) -> None:
        """Removing a key that may be in the session is a change of it: what the store did not give is not empty."""
        app = memory_app(LAZYSESSION_ON_READ_ERROR=policy)
        app.testing = False
        LoginManager(app).user_loader(lambda _id: None)
        client = app.test_client()
        with client.session_transaction() as transaction:
            transaction["uid"] = 1

        @app.route("/<task>")
        def view(task: str) -> str:
            with suppress(SessionUnavailable):
                session.get("uid")
            return f"logged out: {leave()}" if task == "logout" else "page"

        break_verb(app, "read")
        assert client.get("/page").status_code == (200 if policy == "empty" else 503)
        assert client.get("/logout").status_code == (500 if policy == "empty" else 503)

    def test_a_remembered_permanent_is_no_lost_change(self, memory_app: MakeApp) -> None:
        """An error page that uses the session is shown, also where a hook sets ``session.permanent``."""
        app = memory_app(SESSION_PERMANENT=False)
        client = app.test_client()
        with client.session_transaction() as transaction:
            transaction["a"] = 1
        break_verb(app, "read")

        @app.before_request
        def set_permanent() -> None:
            session.permanent = True

        app.add_url_rule("/", view_func=lambda: str(session.get("a")))
        app.register_error_handler(SessionUnavailable, lambda _error: f"later, {session.get('a')}")
        assert client.get("/").text == "later, None"

    @pytest.mark.parametrize("client", ["raise"], indirect=True)
    def test_raise(self, client: FlaskClient) -> None:
        """The client's own error, for apps that handle it."""
        break_verb(client.application, "read")
        assert client.get("/read").text == "down: read"

    @pytest.mark.parametrize("client", ["empty"], indirect=True)
    def test_empty(self, client: FlaskClient) -> None:
        """An empty session that takes no writes, so that nothing is stored because a read failed."""
        attempts = break_verb(client.application, "read", "replace", "create", "delete")
        response = client.get("/read")
        assert response.text == "NoneNone"
        assert "Set-Cookie" not in response.headers
        client.application.testing = True
        with pytest.raises(SessionReadOnly, match="the session store is not available"):
            client.get("/set")
        assert attempts == ["read", "read"]

    def test_a_failed_write_is_an_error(self, memory_app: MakeApp) -> None:
        """An error response, no cookie, and one attempt."""
        app = memory_app()
        app.testing = False
        app.add_url_rule("/", view_func=lambda: set_mine() or "")
        attempts = break_verb(app, "create")
        response = app.test_client().get("/")
        assert response.status_code == 503
        assert "Set-Cookie" not in response.headers
        assert attempts == ["create"]

    def test_an_ended_id_is_not_used_again(self, memory_app: MakeApp) -> None:
        """An app that saves by itself, after it took the last key, and writes again, writes a new session."""
        app = memory_app()

        def view() -> str:
            session.pop("a")
            app.session_interface.save_session(app, session._get_current_object(), make_response(""))  # type: ignore[attr-defined]
            session["b"] = 1
            return ""

        app.add_url_rule("/", view_func=view)
        client = app.test_client()
        client.set_cookie("session", LIVE)
        app.session_interface.client.set(KEY, msgspec.msgpack.encode({"a": 1}))  # type: ignore[attr-defined]
        client.get("/")
        (key,) = app.session_interface.client.keys()  # type: ignore[attr-defined]
        assert key.decode() != KEY

    def test_ids_of_other_makes(self) -> None:
        """An app that makes ids of its own may make one that looks url-safe, and others that do not."""
        ids = iter(["abc", "a/c", "a+c="])

        class Sessions(RedisSessionInterface):
            def _generate_sid(self, session_id_length: int) -> str:
                return next(ids)

        sessions = SessionIds(Sessions(Flask("shop"), client=fakeredis.FakeRedis()))
        assert sessions.may_be("a/c")
        assert sessions.may_be("a+c=")
        assert not any(sessions.may_be(value) for value in ("a c", "../../etc/passwd", "a\\b", ""))
        usual = SessionIds(RedisSessionInterface(Flask("shop"), client=fakeredis.FakeRedis()))
        assert not usual.may_be("a/c")

    def test_every_id_is_taken(self, memory_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
        """An id that is taken is not overwritten; when all are, the write fails."""
        app = memory_app()
        app.add_url_rule("/", view_func=lambda: set_mine() or "")
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        keys: list[str] = []
        backend.create = lambda key, *_: keys.append(key)  # answers None: taken
        assert app.test_client().get("/").status_code == 409
        assert "every new id was taken" in caplog.text
        assert len(set(keys)) == 3


class Planted:
    """A pickle that leaves a trace when it is read."""

    ran: list[str] = []

    def __reduce__(self) -> Any:
        return Planted.ran.append, ("ran",)


class TestPayloads:
    """What lies in the store is not trusted."""

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
        store.put(app, KEY, pickle.dumps({"a": Planted()}))
        client = app.test_client()
        client.set_cookie("session", LIVE)
        assert client.get("/").text == "{'_permanent': True}"
        assert Planted.ran == []

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


class TestTrace:
    """It explains itself."""

    def test_who_opened_the_session(self, memory_app: MakeApp) -> None:
        """With TRACE, a header names the first use; without, nothing is recorded."""
        for trace in (True, False):
            app = memory_app(LAZYSESSION_TRACE=trace)
            app.add_url_rule("/", view_func=lambda: str(session.get("a")))
            timing = app.test_client().get("/").headers.get("Server-Timing", "")
            assert ("opened by tests.behavior.test_life_of_a_request:<lambda>:" in timing) is trace
            assert timing.endswith('normal"') is trace

    def test_the_signal(self, memory_app: MakeApp) -> None:
        """Whoever listens hears of each opened session, its mode and the rule that gave it."""
        app = memory_app(LAZYSESSION_RULES=[("/**", "no_refresh")])
        app.add_url_rule("/", view_func=lambda: str(session.get("a")))
        heard: list[Any] = []

        def note(sender: Flask, **details: Any) -> None:
            heard.append((sender, details["mode"], details["rule"]))

        with session_opened.connected_to(note, app):
            app.test_client().get("/")
        assert heard == [(app, "no_refresh", "/**")]


def test_nothing_secret_is_logged(store: Any, make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the id nor the data of a session comes up in any log line of its life."""
    caplog.set_level(logging.DEBUG, logger="lazysession")
    app = make_app()
    overlapped(app, "/", lambda: store.remove(app, KEY), set_mine)
    put(store, app, password="hunter2").get("/")
    assert LIVE not in caplog.text
    assert "hunter2" not in caplog.text


class TestRotationOverlaps:
    """A rotation beside other requests."""

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
        """A new id in mode no_refresh is no longer life."""
        app = make_app(PERMANENT_SESSION_LIFETIME=1000)
        self.rotating(app, lambda: None, "no_refresh")
        client = put(store, app, a=1)
        store.pass_time(app, 31 * 86400 - 400)
        client.get("/")
        (key,) = stored(store, app)
        assert key != KEY
        assert 395 < store.ttl(app, key) <= 400


def test_listeners_may_use_the_session(memory_app: MakeApp) -> None:
    """The signal comes when the session is open, so a listener may read it."""
    app = memory_app()
    app.add_url_rule("/", view_func=lambda: str(session.get("a")))
    heard: list[Any] = []

    def note(_app: Flask, **details: Any) -> None:
        heard.append(dict(details["session"]))

    with session_opened.connected_to(note, app):
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
    """A pickled session with a value that no format has can be read; changing it is the error that it always was."""
    app = memory_app(LAZYSESSION_ALLOW_PICKLE=True)
    app.testing = False
    app.add_url_rule("/read", "read", lambda: str(session["a"]))
    app.add_url_rule("/write", "write", lambda: session.update(b=1) or "")
    app.session_interface.client.set(KEY, pickle.dumps({"a": 1 + 2j}), ex=10**7)  # type: ignore[attr-defined]
    client = app.test_client()
    client.set_cookie("session", LIVE)
    assert client.get("/read").text == "(1+2j)"
    assert client.get("/write").status_code == 500


def test_the_trace_header_is_ascii(memory_app: MakeApp) -> None:
    """Views may have names in any script; headers may not."""
    app = memory_app(LAZYSESSION_TRACE=True)

    def 购物车() -> str:  # noqa: N802
        return str(session.get("a"))

    app.add_url_rule("/", view_func=购物车)
    header = app.test_client().get("/").headers["Server-Timing"]
    assert header.isascii()
    assert header.count('"') == 2


def test_the_trace_header_leaves_others(memory_app: MakeApp) -> None:
    """What the app measures itself is told beside it."""
    app = memory_app(LAZYSESSION_TRACE=True)
    app.add_url_rule("/", view_func=lambda: (str(session.get("a")), {"Server-Timing": "db;dur=53"}))
    told = app.test_client().get("/").headers.getlist("Server-Timing")
    assert told[0] == "db;dur=53"
    assert [each.partition(";")[0] for each in told] == ["db", "session"]


def test_a_lifetime_that_shrank_below_the_throttle(store: Any, make_app: MakeApp) -> None:
    """Sessions in use are refreshed all the same when the lifetime is changed after the settings were checked."""
    app = make_app(PERMANENT_SESSION_LIFETIME=10000, LAZYSESSION_REFRESH_THROTTLE=5000)
    app.config["PERMANENT_SESSION_LIFETIME"] = 1000
    app.add_url_rule("/", view_func=lambda: str(session.get("a")))
    client = put(store, app, a=1)
    store.pass_time(app, 31 * 86400 - 400)
    assert client.get("/").text == "1"
    assert 995 < store.ttl(app, KEY) <= 1000


def test_shared_caches_by_age_alone(memory_app: MakeApp) -> None:
    """s-maxage makes a response public without the word."""
    app = memory_app(LAZYSESSION_REFRESH_THROTTLE=0)

    @app.route("/")
    def view() -> Any:
        session.setdefault("a", 1)
        response = make_response("")
        response.cache_control.s_maxage = 60
        return response

    client = app.test_client()
    assert client.get("/").headers["Cache-Control"] == "private"
    response = client.get("/")
    assert "Set-Cookie" not in response.headers
    assert "s-maxage=60" in response.headers["Cache-Control"]


def client_of_cached_view(memory_app: MakeApp, headers: Any) -> Any:
    """Return a client of a view that sends these headers, writes the session once, and renews it from then on."""
    app = memory_app(LAZYSESSION_REFRESH_THROTTLE=0)
    app.add_url_rule("/", "view", lambda: (str(session.setdefault("a", 1)), headers))
    return app.test_client()


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (["public"], "private"),
        (["Public, max-age=60"], "max-age=60, private"),
        (["PUBLIC"], "private"),
        (["S-MaxAge=60"], "private"),
        (["s-maxage=abc, must-revalidate"], "must-revalidate, private"),
        (["max-age=60", "public"], "max-age=60, private"),
        (["max-age=60", "s-maxage=600"], "max-age=60, private"),
        (['public, no-cache="Set-Cookie, X"'], 'no-cache="Set-Cookie, X", private'),
        (['public, private="Set-Cookie, X"'], "private"),
        (['s-maxage="60", ext="a, \\"b, public"'], 'ext="a, \\"b, public", private'),
    ],
    ids=repr,
)
def test_whatever_makes_a_response_public(memory_app: MakeApp, said: list[str], left: str) -> None:
    """In any case and in several headers: a renewal is left off, and a cookie that has to be sent turns it private."""
    client = client_of_cached_view(memory_app, [("Cache-Control", each) for each in said])
    response = client.get("/")
    assert "Set-Cookie" in response.headers
    assert response.headers.getlist("Cache-Control") == [left]
    response = client.get("/")
    assert "Set-Cookie" not in response.headers
    assert response.headers.getlist("Cache-Control") == said


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ({"Cache-Control": "max-age=60"}, "max-age=60, private"),
        ({"Cache-Control": 'max-age=60, private="X-Foo"'}, "max-age=60, private"),
        ({"Cache-Control": 'max-age=60, no-cache="X-Foo"'}, 'max-age=60, no-cache="X-Foo", private'),
        ({"Cache-Control": "max-age=0, stale-while-revalidate=600"}, "max-age=0, stale-while-revalidate=600, private"),
        ({"Cache-Control": "max-age=0, Stale-If-Error=600"}, "max-age=0, Stale-If-Error=600, private"),
        ({"Cache-Control": "max-age=60, max-age=0"}, "max-age=60, max-age=0, private"),
        ({"Cache-Control": "max-age=0, max-age=60"}, "max-age=0, max-age=60, private"),
        ({"Expires": "Fri, 01 Jan 2100 00:00:00 GMT"}, "private"),
        ({"Expires": "Fri, 01 Jan 2100 00:00:00 GMT", "Cache-Control": "must-revalidate"}, "must-revalidate, private"),
    ],
    ids=repr,
)
def test_whatever_lets_a_response_be_shared(memory_app: MakeApp, said: dict[str, str], left: str) -> None:
    """An age alone lets shared caches keep a response: one with a cookie turns private, a renewal as well."""
    client = client_of_cached_view(memory_app, said)
    for _ in range(2):
        response = client.get("/")
        assert "Set-Cookie" in response.headers
        assert response.headers.getlist("Cache-Control") == [left]


@pytest.mark.parametrize("name", ["CDN-Cache-Control", "Surrogate-Control", "Cloudflare-CDN-Cache-Control"])
@pytest.mark.parametrize("said", ["max-age=60", "public", 'max-age=60, content="ESI/1.0"'])
@pytest.mark.parametrize("beside", ["", "private, max-age=0"])
def test_what_is_said_to_a_network_alone(memory_app: MakeApp, name: str, said: str, beside: str) -> None:
    """Networks of caches obey such headers before Cache-Control: a renewal is left off; beside a cookie they go."""
    client = client_of_cached_view(memory_app, {name: said, **({"Cache-Control": beside} if beside else {})})
    response = client.get("/")
    assert "Set-Cookie" in response.headers
    assert name not in response.headers
    assert "private" in response.headers["Cache-Control"]
    response = client.get("/")
    assert "Set-Cookie" not in response.headers
    assert (response.headers[name], response.headers.get("Cache-Control", "")) == (said, beside)


@pytest.mark.parametrize("header", ["Cache-Control", "CDN-Cache-Control"])
@pytest.mark.parametrize(
    "said", ["private", "no-store", "max-age=0", "no-cache", "private, max-age=60", "", 'ext="public, max-age=9"']
)
def test_whatever_keeps_a_response_private(memory_app: MakeApp, header: str, said: str) -> None:
    """A renewal goes out with it, and the header stays as the view wrote it."""
    client = client_of_cached_view(memory_app, {header: said})
    for _ in range(2):
        response = client.get("/")
        assert "Set-Cookie" in response.headers
        assert response.headers[header] == said
