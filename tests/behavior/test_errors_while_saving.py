"""A refused change is a 409, a store that fails at saving a 503, and the app's error handlers make the response."""

from __future__ import annotations

import copy
import gzip
import http.client
import io
import logging
import pickle
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    flash,
    redirect,
    request,
    send_file,
    session,
    stream_with_context,
)
from werkzeug.exceptions import HTTPException
from werkzeug.serving import make_server

from lazysession import (
    SessionConflict,
    SessionReadOnly,
    SessionUnavailable,
    session_conflict,
    session_mode,
    session_write_dropped,
)
from lazysession.rendering import render
from tests.support.breaking import StoreDown, another_request_changes, break_verbs, stored, visitor
from tests.support.stores.base import LIVE, backend_of

MakeApp = Callable[..., Flask]
View = Callable[[], Any]


@pytest.fixture
def app(memory_app: MakeApp) -> Flask:
    """An app that refuses every change of a session that another request has changed meanwhile."""
    app = memory_app(LAZYSESSION_CONFLICT="raise")
    app.testing = False
    return app


def add_refused(app: Flask, view: View = lambda: "done", path: str = "/", **options: Any) -> None:
    """Add a view whose change of the session is refused."""

    def refused() -> Any:
        session["mine"] = 1
        another_request_changes(app, theirs=session.get("theirs", 0) + 1)
        return view()

    app.add_url_rule(path, view_func=refused, endpoint=path, **options)


def add_failing(app: Flask, view: View = lambda: "done", path: str = "/") -> list[str]:
    """Add a view that changes the session, which the store then fails to save; return the attempts."""
    attempts = break_verbs(app, "replace", "create", "delete")

    def failing() -> Any:
        session["mine"] = 1
        return view()

    app.add_url_rule(path, view_func=failing, endpoint=path)
    return attempts


def assert_not_cached(response: Any) -> None:
    """Check that no cache keeps it."""
    assert response.headers["Cache-Control"] == "no-store"
    assert "Cookie" in response.vary


class TestTheErrors:
    """What the two errors are."""

    @pytest.mark.parametrize("testing", [False, True])
    def test_a_refused_change_is_a_409(self, app: Flask, testing: bool) -> None:
        """Nothing of it is stored, no cookie is sent, and the default page names neither keys nor settings."""
        app.testing = testing
        add_refused(app)
        response = visitor(app, theirs=0).get("/")
        assert response.status_code == 409
        assert "changed by another request at the same time" in response.text
        assert "LAZYSESSION" not in response.text
        assert "Set-Cookie" not in response.headers
        assert_not_cached(response)
        assert stored(app) == {"theirs": 1}

    @pytest.mark.parametrize("testing", [False, True])
    def test_a_failed_save_is_a_503(self, app: Flask, testing: bool, caplog: pytest.LogCaptureFixture) -> None:
        """The store is asked once, and the log names the error's type alone."""
        app.testing = testing
        attempts = add_failing(app)
        response = app.test_client().get("/")
        assert response.status_code == 503
        assert "The session store is not available" in response.text
        assert "Set-Cookie" not in response.headers
        assert_not_cached(response)
        assert attempts == ["create"]
        assert "failed while a session was saved: StoreDown" in caplog.text
        assert LIVE not in caplog.text

    def test_functions_for_after_request_run_once(self, app: Flask) -> None:
        """Flask does not run them again, as it does where saving raises."""
        runs: list[int] = []

        @app.after_request
        def count(response: Response) -> Response:
            runs.append(response.status_code)
            return response

        add_refused(app)
        visitor(app).get("/")
        assert runs == [200]

    def test_the_conflict_names_its_keys(self) -> None:
        """For developers, in ``str()`` and ``keys``, and not in what visitors see; copies and pickles keep them."""
        error = SessionConflict("the key 'otp' was changed", (key for key in ["otp"]))  # type: ignore[call-arg]
        for each in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert str(each) == "the key 'otp' was changed"
            assert each.keys == ("otp",)  # type: ignore[attr-defined]
            assert "otp" not in each.get_response().get_data(as_text=True)  # type: ignore[attr-defined]
        assert SessionConflict("text").keys == ()  # type: ignore[attr-defined]

    def test_the_cause(self, app: Flask) -> None:
        """The client's own error is the cause of the 503."""
        causes: list[Any] = []
        app.register_error_handler(SessionUnavailable, lambda error: (str(causes.append(error.__cause__)), 503))
        add_failing(app)
        app.test_client().get("/")
        assert [type(cause) for cause in causes] == [StoreDown]

    def test_only_what_the_store_raises(self, app: Flask) -> None:
        """A value that cannot be encoded and a forbidden change are errors of the app: 500."""
        app.add_url_rule("/value", view_func=lambda: str(session.update(a=object())), endpoint="value")

        def nested() -> str:
            session["list"].append(1)
            return ""

        app.add_url_rule("/nested", view_func=session_mode("readonly")(nested), endpoint="nested")
        raised: list[type] = []
        app.register_error_handler(500, lambda error: (str(raised.append(type(error.original_exception))), 500))
        client = visitor(app, list=[])
        assert [client.get(path).status_code for path in ("/value", "/nested")] == [500, 500]
        assert raised == [TypeError, SessionReadOnly]

    @pytest.mark.parametrize("changes", ["over a change", "after the end", "in a rotation"])
    def test_a_receiver_that_raises(self, memory_app: MakeApp, changes: str, caplog: pytest.LogCaptureFixture) -> None:
        """What it raises is logged, and the session is stored, or its end stands, as without it."""
        app = memory_app()
        heard: list[str] = []

        def receiver(_app: Flask, **_: Any) -> None:
            heard.append(changes)
            raise KeyError("a bug")

        def view() -> str:
            session["a"] = 2
            if changes == "after the end":
                backend_of(app).delete(f"session:{LIVE}")
                return ""
            app.test_client(use_cookies=False).get("/other", headers={"Cookie": f"session={LIVE}"})
            if changes == "in a rotation":
                app.session_interface.regenerate(session)  # type: ignore[attr-defined]
            return ""

        app.add_url_rule("/", view_func=view)
        app.add_url_rule("/other", view_func=lambda: str(session.update(a=1, b=1)), endpoint="other")
        client = visitor(app, a=0)
        with session_write_dropped.connected_to(receiver, app), session_conflict.connected_to(receiver, app):
            assert client.get("/").status_code == 200
        assert heard == [changes]
        assert "failed" in caplog.text
        assert client.get("/").status_code == 200


class TestErrorHandlers:
    """The app's own handlers make the response."""

    @pytest.mark.parametrize("handled", [409, SessionConflict, HTTPException, Exception])
    def test_every_kind(self, app: Flask, handled: Any) -> None:
        """By code, by class, by a base class: the handler that Flask would call in a view is called."""
        seen: list[Exception] = []

        def handle(error: Exception) -> tuple[dict[str, str], int]:
            seen.append(error)
            return {"error": "busy"}, 409

        app.register_error_handler(handled, handle)
        add_refused(app)
        response = visitor(app).get("/")
        assert (response.status_code, response.json) == (409, {"error": "busy"})
        assert response.content_type == "application/json"
        assert isinstance(seen[0], SessionConflict)
        assert_not_cached(response)

    def test_of_the_blueprint(self, app: Flask) -> None:
        """A blueprint's handler is called for its views alone."""
        shop = Blueprint("shop", __name__)
        shop.register_error_handler(409, lambda _error: ("the shop is busy", 409))

        @shop.get("/cart")
        def cart() -> str:
            session["mine"] = 1
            another_request_changes(app, theirs=1)
            return ""

        app.register_blueprint(shop)
        add_refused(app)
        client = visitor(app)
        assert client.get("/cart").text == "the shop is busy"
        assert "the shop is busy" not in client.get("/").text

    def test_a_handler_that_sends_the_visitor_back(self, app: Flask) -> None:
        """Its redirect is sent, with its own cookie and headers."""

        @app.errorhandler(SessionConflict)
        def back(error: SessionConflict) -> Any:
            if request.method != "GET":
                return error
            response = redirect(request.url)
            response.set_cookie("tried", "1")
            response.headers["Retry-After"] = "1"
            return response

        add_refused(app, methods=["GET", "POST"])
        client = visitor(app)
        response = client.get("/?page=2")
        assert (response.status_code, response.location) == (302, "http://localhost/?page=2")
        assert response.headers["Retry-After"] == "1"
        assert response.headers.getlist("Set-Cookie") == ["tried=1; Path=/"]
        assert_not_cached(response)
        assert client.post("/").status_code == 409

    def test_a_handler_that_uses_the_session(self, app: Flask, caplog: pytest.LogCaptureFixture) -> None:
        """It may read it; what it writes is lost, and the log says so."""

        @app.errorhandler(409)
        def busy(_error: Exception) -> tuple[str, int]:
            flash("Please try again.")
            return f"{'mine' in session}", 409

        add_refused(app)
        response = visitor(app).get("/")
        assert (response.status_code, response.text) == (409, "False")  # what was refused is not shown
        assert "the change is lost" in caplog.text
        assert stored(app) == {"theirs": 1}

    def test_a_handler_that_fails(self, app: Flask) -> None:
        """What it raises is a 500, as in a view; it propagates where errors propagate."""
        app.register_error_handler(SessionConflict, lambda _error: 1 / 0)
        add_refused(app)
        client = visitor(app)
        assert client.get("/").status_code == 500
        app.testing = True
        with pytest.raises(ZeroDivisionError):
            client.get("/")

    def test_trapped_errors(self, app: Flask) -> None:
        """With TRAP_HTTP_EXCEPTIONS an error without a handler is not rendered, as in a view."""
        app.config["TRAP_HTTP_EXCEPTIONS"] = True
        add_refused(app)
        client = visitor(app)
        assert client.get("/").status_code == 500
        app.testing = True
        with pytest.raises(SessionConflict):
            client.get("/")

    def test_a_method_with_the_context(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        """Flask's main branch passes a context, of which it takes the request."""
        from lazysession import rendering  # type: ignore[attr-defined]

        seen: list[Any] = []

        def handle(ctx: Any, error: Exception) -> Any:
            seen.append((ctx.request.path, type(error)))
            return "busy", 409

        monkeypatch.setattr(rendering, "_TAKES_CONTEXT", True)
        monkeypatch.setattr(rendering, "AppContext", lambda app, request: type("", (), {"request": request}))
        app.handle_user_exception = handle  # type: ignore[method-assign, assignment]
        add_refused(app, path="/page")
        assert visitor(app).get("/page").text == "busy"
        assert seen == [("/page", SessionConflict)]


class Body:
    """A body that knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def __iter__(self) -> Generator[bytes]:
        yield b"secret"

    def close(self) -> None:
        self.closed = True


def streamed_with_context() -> Response:
    def rows() -> Generator[str]:
        yield request.path
        yield str(session.get("mine"))

    return Response(stream_with_context(rows()), mimetype="text/csv")


def zipped() -> Response:
    return Response(gzip.compress(b"secret"), headers={"Content-Encoding": "gzip", "ETag": '"1"'})


BODIES: dict[str, View] = {
    "text": lambda: "secret",
    "generator": lambda: Response(row for row in ["sec", "ret"]),
    "stream_with_context": streamed_with_context,
    "send_file": lambda: send_file(io.BytesIO(b"secret"), "text/plain", download_name="a.txt", as_attachment=True),
    "a file": lambda: send_file(__file__, conditional=True, max_age=3600),
    "not modified": lambda: Response(status=304, headers={"ETag": '"1"'}),
    "no content": lambda: ("", 204),
    "gzip": zipped,
    "partial": lambda: Response(b"sec", 206, {"Content-Range": "bytes 0-2/6", "Accept-Ranges": "bytes"}),
    "redirect": lambda: redirect("/paid"),
}


class TestTheResponseAtHand:
    """What becomes of the response that the view had made."""

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("kind", BODIES)
    def test_every_body_is_replaced(self, app: Flask, kind: str, method: str) -> None:
        """Text, streams, files, 304, 206, gzip and redirects: status, body and length are those of the error."""
        app.register_error_handler(409, lambda _error: ("busy", 409))
        add_refused(app, BODIES[kind])
        response = visitor(app).open("/", method=method)
        assert response.status == "409 CONFLICT"
        assert response.data == (b"busy" if method == "GET" else b"")
        assert response.content_length == 4
        assert response.content_type == "text/html; charset=utf-8"
        assert set(response.headers.keys()) <= {"Content-Type", "Content-Length", "Vary", "Cache-Control", "Date"}

    @pytest.mark.parametrize("direct", [False, True])
    def test_the_old_body_is_closed(self, app: Flask, direct: bool) -> None:
        """Once its response is replaced, nothing else would close it; functions for its end run once."""
        body, ends = Body(), list[str]()

        def view() -> Response:
            response = Response(body, direct_passthrough=direct)  # type: ignore[arg-type]
            response.call_on_close(lambda: ends.append("end"))
            return response

        add_refused(app, view)
        assert b"secret" not in visitor(app).get("/", buffered=True).data
        assert body.closed
        assert ends == ["end"]

    def test_headers(self, app: Flask) -> None:
        """Headers about the old body, its success or its caching are removed; others stay, also a content policy."""
        gone = {
            "ETag": '"1"',
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
            "Content-Language": "en",
            "Content-Location": "/here",
            "Content-MD5": "x",
            "Content-Disposition": "attachment",
            "Expires": "Thu, 01 Jan 2099 00:00:00 GMT",
            "Age": "5",
            "CDN-Cache-Control": "max-age=60",
            "Surrogate-Control": "max-age=60",
            "X-Accel-Redirect": "/private/file",
            "X-Accel-Expires": "60",
            "X-Sendfile": "/private/file",
            "Set-Cookie": "logged_in=1",
        }
        kept = {
            "Content-Security-Policy": "default-src 'self'",
            "Access-Control-Allow-Origin": "*",
            "X-Request-Id": "7",
            "Strict-Transport-Security": "max-age=1",
        }
        add_refused(app, lambda: ("done", gone | {"Cache-Control": "public, max-age=60", "Vary": "Accept"}))

        @app.after_request
        def add(response: Response) -> Response:
            response.headers.update(kept)
            return response

        response = visitor(app).get("/")
        assert response.status_code == 409
        assert not [name for name in gone if name in response.headers]
        assert {name: response.headers[name] for name in kept} == kept
        assert set(response.vary) == {"Accept", "Cookie"}
        assert response.headers["Cache-Control"] == "no-store"

    def test_an_error_page_that_is_streamed(self, app: Flask) -> None:
        """The handler's body may be a stream; its functions for the end run."""
        ends: list[str] = []

        @app.errorhandler(409)
        def busy(_error: Exception) -> Response:
            response = Response((part for part in ["bu", "sy"]), 409)
            response.call_on_close(lambda: ends.append("end"))
            return response

        add_refused(app)
        assert visitor(app).get("/", buffered=True).text == "busy"
        assert ends == ["end"]

    def test_rendering_alone(self, app: Flask) -> None:
        """What it makes is for one visitor, also when called by hand."""
        response = Response("secret")
        with app.test_request_context():
            render(app, SessionConflict("refused"), response)
        assert response.status_code == 409
        assert_not_cached(response)

    def test_an_error_of_the_app_stays(self, app: Flask) -> None:
        """A 500 says already that the request failed, and is not hidden by a handler of the other error."""
        app.register_error_handler(SessionConflict, lambda _error: redirect("/"))
        add_refused(app, lambda: 1 / 0)
        assert visitor(app).get("/").status_code == 500

    def test_over_http(self, app: Flask, tmp_path: Path) -> None:
        """On a connection that is kept, the client finds the end of each response."""
        (tmp_path / "file").write_bytes(b"x" * 100_000)
        app.register_error_handler(409, lambda _error: ("busy", 409))
        add_refused(app, BODIES["generator"], "/stream")
        add_refused(app, lambda: send_file(tmp_path / "file"), "/file")
        app.add_url_rule("/unused", view_func=lambda: "unused", endpoint="unused")
        visitor(app)
        with serving(app) as port:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            for method, path, status, body in [
                ("GET", "/stream", 409, b"busy"),
                ("HEAD", "/file", 409, b""),
                ("GET", "/file", 409, b"busy"),
                ("GET", "/unused", 200, b"unused"),
            ]:
                connection.request(method, path, headers={"Cookie": f"session={LIVE}"})
                response = connection.getresponse()
                assert (response.status, response.read()) == (status, body)
            connection.close()


@contextmanager
def serving(app: Flask) -> Generator[int]:
    """Serve an app on a port."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


class TestSavedByHand:
    """Code of the app that calls ``save_session`` itself."""

    @pytest.mark.parametrize("as_proxy", [True, False])
    def test_the_error_is_raised(self, app: Flask, as_proxy: bool) -> None:
        """The caller gets the error, and its response stays as it is; a view that does not catch it gets the 503."""
        raised: list[str] = []

        def by_hand() -> str:
            response = Response("mine")
            try:
                save(app, response, as_proxy=as_proxy)
            finally:
                raised.append(response.get_data(as_text=True))
            return ""

        attempts = add_failing(app, by_hand)
        assert app.test_client().get("/").status_code == 503
        assert (raised, attempts) == (["mine"], ["create"])

    @pytest.mark.parametrize("times", [1, 2])
    def test_a_swallowed_error_is_no_success(self, app: Flask, times: int) -> None:
        """The error is raised again where the view saves again, and its response is sent; the write is tried once."""
        heard: list[type] = []

        def by_hand() -> str:
            for _ in range(times):
                try:
                    save(app, Response())
                except SessionUnavailable as error:
                    heard.append(type(error))
            return "all is well"

        attempts = add_failing(app, by_hand)
        response = app.test_client().get("/")
        assert response.status_code == 503
        assert_not_cached(response)
        assert heard == [SessionUnavailable] * times
        assert attempts == ["create"]

    def test_an_interrupted_save_is_no_success(self, app: Flask) -> None:
        """A timeout that is no Exception, such as gevent's, is a failure too."""

        class Timeout(BaseException):
            pass

        def by_hand() -> str:
            with suppress(Timeout):
                save(app, Response())
            return "all is well"

        add_failing(app, by_hand)
        break_verbs(app, "create", error=Timeout)
        assert app.test_client().get("/").status_code == 503

    def test_the_app_handles_what_is_raised_by_hand(self, app: Flask) -> None:
        """The response of its error handler is sent, whatever its status, and the handler is called once."""
        asked: list[str] = []

        @app.errorhandler(SessionUnavailable)
        def sorry(_error: Exception) -> Any:
            asked.append("asked")
            return redirect("/sorry")

        add_failing(app, lambda: save(app, Response()) or "")
        assert app.test_client().get("/").location == "/sorry"
        assert asked == ["asked"]

    def test_the_proxy_is_saved_once(self, app: Flask) -> None:
        """``flask.session`` is saved as the session behind it, also by ``is_null_session``."""
        nulls: list[bool] = []

        def view() -> str:
            interface = app.session_interface
            nulls.append(interface.is_null_session(session))  # type: ignore[arg-type]
            session["a"] = 1
            nulls.append(interface.is_null_session(session))  # type: ignore[arg-type]
            response = Response()
            save(app, response, as_proxy=True)
            assert "Set-Cookie" in response.headers
            return ""

        app.add_url_rule("/", view_func=view)
        calls: list[tuple[Any, ...]] = []
        create = backend_of(app).create
        backend_of(app).create = lambda *arguments: calls.append(arguments) or create(*arguments)
        wrapped: list[Any] = []
        app.session_interface.wrapped.save_session = lambda *arguments: wrapped.append(arguments)  # type: ignore[attr-defined]
        assert app.test_client().get("/").status_code == 200
        assert nulls == [False, False]  # Flask asks for every response
        assert len(calls) == 1
        assert wrapped == []

    def test_the_test_client(self, app: Flask) -> None:
        """``session_transaction`` raises to the test."""
        break_verbs(app, "create")
        with pytest.raises((SessionUnavailable, StoreDown)), app.test_client().session_transaction() as transaction:
            transaction["a"] = 1

    def test_the_test_client_within_a_request(self, app: Flask) -> None:
        """It raises there as well: its session is not that of the request."""
        break_verbs(app, "create")

        def view() -> str:
            with pytest.raises((SessionUnavailable, StoreDown)), app.test_client().session_transaction() as transaction:
                transaction["a"] = 1
            return "raised"

        app.add_url_rule("/", view_func=view)
        assert app.test_client().get("/").text == "raised"


def save(app: Flask, response: Response, *, as_proxy: bool = False) -> None:
    """Save the session of the request by hand."""
    current = session if as_proxy else session._get_current_object()  # type: ignore[attr-defined]
    app.session_interface.save_session(app, current, response)  # type: ignore[arg-type]


def test_what_is_logged(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """Once per endpoint: where, what, and the remedy."""
    add_refused(app, path="/page")
    add_refused(app, path="/other")
    client = visitor(app)
    with caplog.at_level(logging.WARNING, "lazysession"):
        for path in ("/page", "/page", "/other"):
            client.get(path)
    refused = [record.getMessage() for record in caplog.records if "was refused" in record.getMessage()]
    assert len(refused) == 2
    assert "/page was refused with a 409" in refused[0]
    assert "LAZYSESSION_CONFLICT" in refused[0]
    assert "Logged once per endpoint." in refused[0]
