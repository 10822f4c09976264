"""Streamed responses: their Vary header, a first use after the headers, and what it refreshes, costs and logs."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import msgspec
import pytest
from flask import Flask, Response, abort, copy_current_request_context, has_app_context, session, stream_with_context
from flask.testing import FlaskClient

from lazysession import session_mode, session_opened
from tests.support.stores import LIVE
from tests.support.streaming import STREAMS, add_streams, greeting

MakeApp = Callable[..., Flask]
KEY = f"session:{LIVE}"


def put(store: Any, app: Flask, lifetime: float = 1000) -> FlaskClient:
    """Store Ada's session, and return a client that has its cookie."""
    store.put(app, KEY, msgspec.msgpack.encode({"_permanent": True, "name": "Ada"}), lifetime)
    client = app.test_client()
    client.set_cookie("session", LIVE)
    return client


def logged_in(app: Flask) -> FlaskClient:
    """Return a client with Ada's session."""
    client = app.test_client()
    with client.session_transaction() as transaction:
        transaction["name"] = "Ada"
    return client


class TestVary:
    """Which responses have a Vary header."""

    @pytest.mark.parametrize("stream", STREAMS)
    def test_every_stream_varies(self, memory_app: MakeApp, stream: str) -> None:
        """With each kind of generator, which uses the session after the headers were sent."""
        app = memory_app()
        add_streams(app)
        response = logged_in(app).get(f"/{stream}")
        assert "Hello Ada" in response.text
        assert response.headers.getlist("Vary") == ["Cookie"]
        assert "Set-Cookie" not in response.headers

    def test_a_stream_that_does_not_use_the_session(self, store: Any, make_app: MakeApp) -> None:
        """It varies all the same, and makes no round trip."""
        app = make_app()
        app.add_url_rule("/", view_func=lambda: iter(["a", "b"]))
        client = put(store, app)
        with store.counted() as trips:
            response = client.get("/", buffered=True)
        assert (response.text, trips) == ("ab", [])
        assert response.headers["Vary"] == "Cookie"
        assert "Set-Cookie" not in response.headers

    @pytest.mark.parametrize("how", ["rule", "view"])
    def test_a_skipped_stream_does_not_vary(self, memory_app: MakeApp, how: str) -> None:
        """Mode ``skip`` removes the header: what such a page shows does not depend on the session."""
        app = memory_app(LAZYSESSION_RULES=[("/page", "skip")] if how == "rule" else ())
        view: Any = stream_with_context(greeting)
        app.add_url_rule("/page", view_func=view if how == "rule" else session_mode("skip")(view))
        response = logged_in(app).get("/page")
        assert response.text == "Hello None"
        assert "Vary" not in response.headers

    def test_a_file_does_not_vary(self, memory_app: MakeApp) -> None:
        """A response that Flask passes through (``direct_passthrough``) is a file; no rule is evaluated for it."""
        app = memory_app(LAZYSESSION_RULES=[(lambda request: 1 / 0, "skip")])
        app.add_url_rule("/", view_func=lambda: Response(iter([b"file"]), direct_passthrough=True))
        response = logged_in(app).get("/")
        assert (response.text, response.status_code) == ("file", 200)
        assert "Vary" not in response.headers

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("path", ["/nowhere", "/abort", "/folder"])
    def test_an_error_does_not_vary(self, memory_app: MakeApp, path: str, method: str) -> None:
        """Werkzeug makes iterators of errors and of its redirects, and they are no streams."""
        app = memory_app(LAZYSESSION_RULES=[(lambda request: 1 / 0, "skip")])
        app.add_url_rule("/abort", "abort", lambda: abort(410))
        app.add_url_rule("/folder/", "folder", lambda: "")
        response = logged_in(app).open(path, method=method)
        assert response.status_code in {404, 410, 308}
        assert "Vary" not in response.headers

    def test_a_wsgi_app_in_a_view_varies(self, memory_app: MakeApp) -> None:
        """What it returns is a stream, unless its length is known."""
        app = memory_app()

        def view() -> Any:
            return lambda environ, start: Response(stream_with_context(greeting()))(environ, start)

        app.add_url_rule("/wsgi", view_func=view)
        response = logged_in(app).get("/wsgi")
        assert response.text == "Hello Ada"
        assert response.headers["Vary"] == "Cookie"

    def test_the_mode_is_decided_once(self, memory_app: MakeApp) -> None:
        """A rule is evaluated when a streamed response is made, and not again when its generator uses the session."""
        asked: list[str] = []

        def rule(request: Any) -> bool:
            asked.append(request.path)
            return False

        app = memory_app(LAZYSESSION_RULES=[(rule, "skip")])
        add_streams(app)
        app.add_url_rule("/plain", view_func=lambda: "")
        client = logged_in(app)
        for path in ("/plain", "/generated", "/captured"):
            client.get(path).get_data()
        assert asked == ["/generated", "/captured"]


class TestRefresh:
    """A use in the middle of a stream is a use, and keeps the session alive."""

    @pytest.mark.parametrize("path", ["generated", "captured", "passthrough"])
    def test_a_use_in_mid_stream_refreshes(self, store: Any, make_app: MakeApp, path: str) -> None:
        """The expiry in the store moves, by the same round trips as in a view; the cookie keeps its date."""
        app = make_app(PERMANENT_SESSION_LIFETIME=1000)
        add_streams(app)
        app.add_url_rule("/passthrough", view_func=use_by_passthrough)
        client = put(store, app)
        store.pass_time(app, 600)
        with store.counted() as trips:
            response = client.get(f"/{path}", buffered=True)
        assert response.text == "Hello Ada"
        assert tuple(trips) == store.refresh
        assert "Set-Cookie" not in response.headers
        assert 995 < store.ttl(app, KEY) <= 1000

    def test_a_visitor_of_streams_alone_stays_logged_in(self, store: Any, make_app: MakeApp) -> None:
        """A visitor who gets a streamed page every three seconds is not logged out after a hundred."""
        app = make_app(PERMANENT_SESSION_LIFETIME=100, LAZYSESSION_REFRESH_THROTTLE=0)
        add_streams(app)
        client = put(store, app, lifetime=100)
        for _ in range(40):
            store.pass_time(app, 3)
            assert client.get("/generated").text == "Hello Ada"
            assert 99 < store.ttl(app, KEY) <= 100

    @pytest.mark.parametrize("stream", ["generated", "captured"])
    def test_a_poll_that_streams_does_not_refresh(self, store: Any, make_app: MakeApp, stream: str) -> None:
        """Its mode holds in mid-stream, also where the generator runs without a request context."""
        app = make_app(PERMANENT_SESSION_LIFETIME=1000, LAZYSESSION_RULES=[("/**", "no_refresh")])
        add_streams(app)
        client = put(store, app)
        store.pass_time(app, 600)
        assert client.get(f"/{stream}").text == "Hello Ada"
        assert 395 < store.ttl(app, KEY) <= 400

    def test_a_generator_without_a_context(self, memory_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
        """The store is read inside an app context all the same, as some interfaces need one."""
        app = memory_app()
        add_streams(app)
        client = logged_in(app)
        handler: Any = app.session_interface.handler  # type: ignore[attr-defined]
        load, inside = handler.load, []

        def note(*arguments: Any) -> Any:
            inside.append(has_app_context())
            return load(*arguments)

        monkeypatch.setattr(handler, "load", note)
        client.get("/captured").get_data()
        assert inside == [True]

    def test_the_signal_names_the_mode_of_the_page(self, memory_app: MakeApp) -> None:
        """The signal names the mode and the rule that hold for the page."""
        app = memory_app()
        add_streams(app)
        client, received = logged_in(app), []

        def note(_app: Any, mode: Any, rule: str, **_more: Any) -> None:
            received.append((str(mode), rule))

        with session_opened.connected_to(note, sender=app):
            client.get("/generated").get_data()
        assert received == [("normal", "default")]

    def test_a_write_in_mid_stream_is_lost(
        self, store: Any, make_app: MakeApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As in Flask, and as before; the log says so."""
        app = make_app()

        @app.get("/")
        @stream_with_context
        def stream() -> Iterator[str]:
            session["name"] = "Eve"
            yield session["name"]

        response = put(store, app).get("/")
        assert response.text == "Eve"
        assert "Set-Cookie" not in response.headers
        assert msgspec.msgpack.decode(store.payloads(app)[KEY])["name"] == "Ada"
        assert "after the response of stream was made; the change is lost" in caplog.text


def use_by_passthrough() -> Response:
    """Use the session in a stream that Flask passes through."""
    return Response(map(str.encode, stream_with_context(greeting())), direct_passthrough=True)


def use_on_close() -> Response:
    """Use the session when the response is closed."""
    response = Response("page")
    response.call_on_close(copy_current_request_context(lambda: session.get("name")))
    return response


def use_by_own_length() -> Response:
    """Use the session in a body that has a length, and so is no stream."""

    class Body:
        def __init__(self) -> None:
            self._lines = stream_with_context(greeting())

        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[str]:
            return self._lines

    return Response(Body())  # type: ignore[arg-type]


def late_uses(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of first uses that came too late for a Vary header."""
    return [record.getMessage() for record in caplog.records if "Vary" in record.getMessage()]


class TestUsesWithoutVary:
    """A first use after a response that does not vary is logged: caches may share what it shows."""

    @pytest.mark.parametrize("view", [use_by_passthrough, use_on_close, use_by_own_length])
    def test_logged_once_per_endpoint(
        self, memory_app: MakeApp, caplog: pytest.LogCaptureFixture, view: Callable[[], Response]
    ) -> None:
        """With the endpoint and the remedy, and without the path, which may hold a secret."""
        app = memory_app()
        app.add_url_rule("/<secret>", "export", lambda secret: view())
        app.add_url_rule("/other/<secret>", "other", lambda secret: view())
        client = logged_in(app)
        for path in ("/token", "/token", "/other/token"):
            with client.get(path) as response:
                response.get_data()
        received = late_uses(caplog)
        assert [("export" in each, "other" in each) for each in received] == [(True, False), (False, True)]
        assert "Use the session in the view" in received[0]
        assert "token" not in caplog.text
        assert len(received[0]) < 200

    def test_a_thread_that_outlives_the_response(self, memory_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
        """It may feed a page that was sent already."""
        app, started = memory_app(), []

        @app.get("/")
        def export() -> str:
            started.append(Thread(target=copy_current_request_context(lambda: session.get("name"))))
            return ""

        logged_in(app).get("/")
        started[0].start()
        started[0].join()
        assert len(late_uses(caplog)) == 1

    @pytest.mark.parametrize("vary", ["Cookie", "Accept-Encoding, cookie", "*"])
    def test_a_view_that_says_so_itself(self, memory_app: MakeApp, caplog: pytest.LogCaptureFixture, vary: str) -> None:
        """This is the remedy for a stream that Flask passes through."""
        app = memory_app()

        @app.get("/")
        def export() -> Response:
            response = use_by_passthrough()
            response.headers["Vary"] = vary
            return response

        response = logged_in(app).get("/")
        assert response.text == "Hello Ada"
        assert response.headers.getlist("Vary") == [vary]
        assert not late_uses(caplog)

    @pytest.mark.parametrize("where", ["teardown", "stream's teardown", "view", "stream", "skipped"])
    def test_what_no_cache_can_share(self, memory_app: MakeApp, caplog: pytest.LogCaptureFixture, where: str) -> None:
        """A teardown hook changes no page; the others vary, or show an empty session."""
        app = memory_app(LAZYSESSION_RULES=[("/skipped", "skip")])
        seen: list[Any] = []
        if "teardown" in where:
            app.teardown_request(lambda error: seen.append(session.get("name")))
        app.add_url_rule("/teardown", view_func=lambda: "page", endpoint="teardown")
        app.add_url_rule("/stream's teardown", view_func=lambda: Response(iter("ab")), endpoint="teardown_of_stream")
        app.add_url_rule("/view", view_func=lambda: f"Hello {session.get('name')}", endpoint="view")
        app.add_url_rule("/stream", view_func=stream_with_context(greeting), endpoint="stream")
        app.add_url_rule("/skipped", view_func=use_by_passthrough, endpoint="skipped")
        client = logged_in(app)
        seen.clear()
        with client.get(f"/{where}") as response:
            response.get_data()
        assert not late_uses(caplog)
        assert seen == (["Ada"] if "teardown" in where else [])


class TestFlasksOwnCalls:
    """Flask calls ``save_session`` for every session of ours, and an unused one costs nothing there."""

    def test_no_session_is_null(self, memory_app: MakeApp) -> None:
        """A null session is one that cannot be written to."""
        app = memory_app()
        with app.test_request_context():
            assert not app.session_interface.is_null_session(session._get_current_object())

    def test_a_session_transaction_that_uses_nothing(self, store: Any, make_app: MakeApp) -> None:
        """The test client saves it: no round trip, no cookie."""
        app = make_app()
        client = app.test_client()
        with store.counted() as trips, client.session_transaction():
            pass
        assert trips == []
        assert client.get_cookie("session") is None

    def test_an_event_without_a_response(self, store: Any, make_app: MakeApp) -> None:
        """Flask-SocketIO saves by itself, where a session says that it was modified."""
        app = make_app()
        with app.test_request_context():
            current: Any = session._get_current_object()
            assert not current.modified
            with store.counted() as trips:
                app.session_interface.save_session(app, current, app.response_class())
            assert trips == []
            current = app.session_interface.open_session(app, current.lazy_request)
            current["name"] = "Ada"
            assert current.modified
            app.session_interface.save_session(app, current, app.response_class())
        assert len(store.payloads(app)) == 1

    @pytest.mark.parametrize("view", [use_on_close, use_by_passthrough, stream_with_context(greeting)])
    def test_a_request_is_freed_when_it_ends(self, memory_app: MakeApp, view: Any) -> None:
        """The reference to the response is not circular, so that memory does not wait for the garbage collector."""
        app, ended = memory_app(), []
        app.add_url_rule("/", view_func=view, endpoint="view")

        @app.before_request
        def note() -> None:
            ended.append(weakref.ref(session._get_current_object()))

        client = logged_in(app)
        gc.collect()
        gc.disable()
        try:
            with client.get("/") as response:
                response.get_data()
            del response
            assert ended[0]() is None
        finally:
            gc.enable()


def test_nothing_is_logged_of_a_page(memory_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Streams and plain pages are the ordinary case."""
    app = memory_app()
    add_streams(app)
    client = logged_in(app)
    with caplog.at_level(logging.DEBUG, "lazysession"):
        for stream in STREAMS:
            client.get(f"/{stream}").get_data()
    assert not [record for record in caplog.records if record.name == "lazysession"]
