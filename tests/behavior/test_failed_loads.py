"""A session that could not be loaded: the error comes at every use, and no response reports success."""

from __future__ import annotations

import gc
import threading
import traceback
import weakref
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import pytest
import sentry_sdk
from flask import (
    Flask,
    Response,
    abort,
    after_this_request,
    copy_current_request_context,
    flash,
    get_flashed_messages,
    redirect,
    render_template_string,
    session,
    stream_with_context,
)
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from flask_babel import Babel, get_locale
from flask_login import LoginManager, UserMixin
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.transport import Transport

from lazysession import LazySession, SessionReadOnly, SessionUnavailable, session_mode
from tests.support.breaking import KEY, StoreDown, break_verbs, repair_verbs, visitor
from tests.support.stores.base import LIVE, backend_of

MakeApp = Callable[..., Flask]
ERRORS = {"unavailable": SessionUnavailable, "raise": StoreDown}


@pytest.fixture(params=ERRORS)
def setting(request: pytest.FixtureRequest) -> str:
    """The values of ON_READ_ERROR with which a failed load raises."""
    return str(request.param)


@pytest.fixture
def app(memory_app: MakeApp) -> Flask:
    """An app whose store can be made to fail."""
    app = memory_app()
    app.testing = False
    return app


def down(app: Flask, **data: Any) -> tuple[FlaskClient, list[str]]:
    """Return a client whose session cannot be loaded, and the list of attempts."""
    client = visitor(app, **data)
    return client, break_verbs(app, "read", "create", "replace", "delete")


def look() -> None:
    """Read the session, and swallow every error, as careless code does."""
    with suppress(Exception):
        session.get("user")


def assert_not_cached(response: Any) -> None:
    """Check that no cache keeps it."""
    assert response.headers["Cache-Control"] == "no-store"
    assert "Cookie" in response.vary
    assert "Set-Cookie" not in response.headers


class TestEveryUse:
    """The error in the view."""

    def test_it_is_raised_again(self, memory_app: MakeApp, setting: str) -> None:
        """At every use, of every kind, and the store is asked once."""
        app = memory_app(LAZYSESSION_ON_READ_ERROR=setting)
        raised: list[Exception] = []
        uses: list[Callable[[], Any]] = [
            lambda: session.get("a"),
            lambda: "a" in session,
            lambda: session.pop("a", None),
            lambda: session.update(a=1),
            lambda: session.clear(),
            lambda: session.permanent,
            lambda: setattr(session, "modified", True),
            lambda: session.sid,  # type: ignore[attr-defined]
            lambda: flash("hello"),
        ]

        @app.get("/")
        def view() -> str:
            for use in uses:
                try:
                    use()
                except Exception as error:
                    raised.append(error)
            return ""

        client, attempts = down(app)
        with suppress(StoreDown):
            client.get("/")
        assert [type(error) for error in raised] == [ERRORS[setting]] * len(uses)
        assert len(set(map(id, raised))) == 1
        assert attempts == ["read"]

    def test_its_traceback(self, app: Flask) -> None:
        """Each raise shows where the store failed, and not all the raises before it."""
        depths: list[int] = []

        @app.get("/")
        def view() -> str:
            for _ in range(3):
                try:
                    session.get("a")
                except SessionUnavailable as error:
                    depths.append(len(traceback.extract_tb(error.__traceback__)))
            return ""

        down(app)[0].get("/")
        assert depths[1] == depths[2]

    def test_threads_share_it(self, app: Flask) -> None:
        """Each thread that uses the session of the request gets the error; the store is asked once."""
        heard: list[type] = []

        @app.get("/")
        def view() -> str:
            def use() -> None:
                try:
                    session.get("a")
                except Exception as error:
                    heard.append(type(error))

            threads = [threading.Thread(target=copy_current_request_context(use)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            use()
            return "all is well"

        hooks: list[Any] = []
        app.after_request(lambda response: hooks.append(session.get("a")) or response)
        client, attempts = down(app)
        assert client.get("/").status_code == 503
        assert heard == [SessionUnavailable] * 5
        assert attempts == ["read"]
        assert hooks == [None]

    def test_a_forbidden_clear_is_no_failed_load(self, app: Flask) -> None:
        """Where the mode forbids ``clear()``, the session can be read afterwards."""

        def view() -> str:
            with pytest.raises(SessionReadOnly):
                session.clear()
            return str(session["a"])

        app.add_url_rule("/", view_func=session_mode("readonly")(view))
        assert visitor(app, a=1).get("/").text == "1"

    @pytest.mark.parametrize("mode", ["normal", "no_refresh", "readonly"])
    def test_an_error_handler_may_write_in_every_mode(self, app: Flask, mode: str) -> None:
        """The empty session of an error handler has no mode of its own: the handler's flash() is dropped, as always."""

        @app.errorhandler(503)
        def handle(_: Exception) -> tuple[str, int]:
            flash("Try again later")
            return ", ".join(get_flashed_messages()), 503

        app.add_url_rule("/", view_func=session_mode(mode)(lambda: str(session["a"])))
        response = down(app, a=1)[0].get("/")
        assert (response.status_code, response.text) == (503, "Try again later")

    def test_in_the_middle_of_a_stream(self, app: Flask) -> None:
        """The stream breaks, so that the client does not take it for complete."""

        @app.get("/")
        def view() -> Response:
            def rows() -> Generator[str]:
                yield "first"
                yield str(session.get("a"))

            return Response(stream_with_context(rows()))

        client, _ = down(app)
        with pytest.raises(SessionUnavailable):
            client.get("/", buffered=True)

    def test_other_interfaces(self) -> None:
        """The error of an interface of the app's own is remembered as well, and the interface asked once."""
        asked: list[int] = []

        class Failing(SecureCookieSessionInterface):
            def open_session(self, app: Flask, request: Any) -> Any:
                asked.append(1)
                raise StoreDown

        app = Flask("shop")
        app.secret_key = "key"
        app.session_interface = Failing()
        LazySession(app)
        app.register_error_handler(StoreDown, lambda _error: (f"down, {session.get('a')}", 503))

        @app.get("/")
        def view() -> str:
            look()
            look()
            return "all is well"

        response = app.test_client().get("/")
        assert (response.status_code, response.text) == (503, "down, None")
        assert_not_cached(response)
        assert asked == [1]


class KeptEvents(Transport):
    """Collects what Sentry's SDK would send."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)


class TestSwallowed:
    """A view, or what runs before it, catches the error and continues."""

    @pytest.mark.parametrize("answer", ["all is well", ("", 204), redirect("/paid"), ("saved", 201)])
    def test_no_response_under_400(self, app: Flask, answer: Any) -> None:
        """It becomes the 503, and functions for after_request run once."""
        runs: list[int] = []

        @app.after_request
        def count(response: Response) -> Response:
            runs.append(response.status_code)
            response.headers["X-Request-Id"] = "7"
            return response

        app.add_url_rule("/", view_func=lambda: look() or app.make_response(answer))
        client, attempts = down(app)
        response = client.get("/")
        assert response.status_code == 503
        assert "The session store is not available" in response.text
        assert response.headers["X-Request-Id"] == "7"
        assert "Location" not in response.headers
        assert_not_cached(response)
        assert (len(runs), attempts) == (1, ["read"])

    def test_before_the_view(self, app: Flask) -> None:
        """A hook reads and catches; the view gets the error itself."""
        app.before_request(look)
        app.add_url_rule("/", view_func=lambda: f"Hello {session.get('user', 'stranger')}")
        response = down(app, user="Ada")[0].get("/")
        assert response.status_code == 503
        assert "stranger" not in response.text

    def test_a_locale_selector(self, app: Flask) -> None:
        """One that falls back to a default language."""

        def locale() -> str:
            try:
                return str(session["language"])
            except Exception:
                return "en"

        Babel(app, locale_selector=locale)
        app.add_url_rule("/", view_func=lambda: f"{get_locale()}")
        assert down(app, language="de")[0].get("/").status_code == 503

    @pytest.mark.filterwarnings("ignore:The send_default_pii option:DeprecationWarning")
    @pytest.mark.parametrize("rate", [None, 1.0])
    def test_sentry(self, app: Flask, rate: float | None) -> None:
        """Its SDK with ``send_default_pii`` asks for the user of every event, and catches what that raises."""
        kept = KeptEvents()
        LoginManager(app).user_loader(lambda _id: UserMixin())
        with sentry_sdk.new_scope():
            sentry_sdk.init(
                send_default_pii=True,
                integrations=[FlaskIntegration()],
                default_integrations=False,
                transport=kept,
                traces_sample_rate=rate,
            )
            try:

                @app.get("/")
                def view() -> str:
                    sentry_sdk.capture_message("a page was asked for")
                    return f"Hello {session.get('user', 'stranger')}"

                response = down(app, user="Ada")[0].get("/")
            finally:
                sentry_sdk.get_global_scope().set_client(None)
        assert kept.envelopes
        assert response.status_code == 503
        assert "stranger" not in response.text

    @pytest.mark.parametrize("handled", [False, True])
    def test_the_handler_of_the_client_error(self, memory_app: MakeApp, handled: bool) -> None:
        """With ``raise``, the app's handler for the client's error makes the response; without one it is a 500."""
        app = memory_app(LAZYSESSION_ON_READ_ERROR="raise")
        app.testing = False
        if handled:
            app.register_error_handler(StoreDown, lambda _error: ("down", 418))
        app.add_url_rule("/", view_func=lambda: look() or "all is well")
        client, attempts = down(app)
        response = client.get("/")
        assert response.status_code == (418 if handled else 500)
        assert_not_cached(response)
        assert attempts == ["read"]

    def test_saving_by_hand(self, app: Flask) -> None:
        """Code that saves the session itself gets the error as well."""

        @app.get("/")
        def view() -> str:
            look()
            current = session._get_current_object()  # type: ignore[attr-defined]
            with pytest.raises(SessionUnavailable):
                app.session_interface.save_session(app, current, Response())
            return "all is well"

        assert down(app)[0].get("/").status_code == 503

    def test_it_is_logged(self, app: Flask, caplog: pytest.LogCaptureFixture) -> None:
        """Once per endpoint: where, what, and the remedy."""
        app.add_url_rule("/", view_func=lambda: look() or "all is well", endpoint="home")
        client, _ = down(app)
        client.get("/")
        client.get("/")
        replaced = [record.getMessage() for record in caplog.records if "was replaced" in record.getMessage()]
        assert len(replaced) == 1
        assert "response of home was replaced by a 503" in replaced[0]
        assert "StoreDown" in replaced[0]
        assert LIVE not in caplog.text

    def test_a_stream_that_has_not_begun(self, app: Flask) -> None:
        """A view that swallowed the error and returns a stream: the client gets the 503 and not the stream."""
        closed: list[str] = []

        @app.get("/")
        def view() -> Response:
            look()

            def rows() -> Generator[str]:
                try:
                    yield "Hello stranger"
                finally:
                    closed.append("closed")

            return Response(stream_with_context(rows()))

        response = down(app)[0].get("/", buffered=True)
        assert response.status_code == 503
        assert "stranger" not in response.text


class TestHandled:
    """After Flask has handled an exception, the session is an empty one."""

    def test_a_404_stays_a_404(self, app: Flask) -> None:
        """Its page asks for the current user while the store is down."""
        LoginManager(app).user_loader(lambda _id: UserMixin())
        page = "{{ current_user.is_anonymous }} {{ get_flashed_messages() }}"
        app.register_error_handler(404, lambda _error: (render_template_string(page), 404))
        client, attempts = down(app, _user_id="1")
        response = client.get("/nowhere")
        assert (response.status_code, response.text) == (404, "True []")
        assert_not_cached(response)
        assert attempts == ["read"]

    def test_a_404_that_is_a_200(self, app: Flask) -> None:
        """A handler that returns 200, as those of single-page apps do, reports success with an empty session."""
        app.register_error_handler(404, lambda _error: f"Hello {session.get('user', 'stranger')}")
        assert down(app, user="Ada")[0].get("/nowhere").status_code == 503

    def test_an_unhandled_exception(self, app: Flask) -> None:
        """The page for 500 may use the session."""
        app.register_error_handler(500, lambda _error: (f"sorry {session.get('user')}", 500))
        app.add_url_rule("/", view_func=lambda: 1 / 0)
        response = down(app, user="Ada")[0].get("/")
        assert (response.status_code, response.text) == (500, "sorry None")

    @pytest.mark.parametrize("status", [503, 200, 302])
    def test_the_handler_of_the_failure(self, app: Flask, status: int) -> None:
        """What the app's own handler returns is sent, whatever its status; it is called once."""
        asked: list[str] = []

        @app.errorhandler(SessionUnavailable)
        def sorry(_error: Exception) -> Any:
            asked.append(f"{session.get('user')} {get_flashed_messages()}")
            return f"sorry {session.get('user')}", status, {"Cache-Control": "public, max-age=9"}

        app.add_url_rule("/", view_func=lambda: session["user"])
        client, attempts = down(app, user="Ada")
        response = client.get("/")
        assert (response.status_code, response.text) == (status, "sorry None")
        assert_not_cached(response)
        assert asked == ["None []"]
        assert attempts == ["read"]

    def test_the_default_page(self, app: Flask) -> None:
        """The 503 that Flask makes by itself is kept by no cache, and it has a Vary header."""
        app.add_url_rule("/", view_func=lambda: session["user"])
        response = down(app)[0].get("/")
        assert response.status_code == 503
        assert_not_cached(response)

    def test_a_lost_change_is_logged(self, app: Flask, caplog: pytest.LogCaptureFixture) -> None:
        """What an error page writes to the empty session is not saved, and the log says so once per endpoint."""

        @app.errorhandler(503)
        def sorry(_error: Exception) -> tuple[str, int]:
            flash("Please come back.")
            return str(get_flashed_messages()), 503

        app.add_url_rule("/", view_func=lambda: session["user"], endpoint="home")
        client, attempts = down(app)
        assert client.get("/").text == "['Please come back.']"
        client.get("/")
        assert attempts == ["read", "read"]
        said = [record.getMessage() for record in caplog.records if "was not saved" in record.getMessage()]
        assert len(said) == 1
        assert "by home" in said[0]

    def test_error_pages_that_use_no_session(self, app: Flask) -> None:
        """A 404 loads nothing and has no Vary, whether the store is up or down."""
        client, attempts = down(app)
        response = client.get("/nowhere")
        assert response.status_code == 404
        assert not {"Vary", "Cache-Control"} & set(response.headers.keys())
        assert attempts == []

    def test_an_empty_session_by_setting(self, memory_app: MakeApp) -> None:
        """With ``empty`` the page is made without the session."""
        app = memory_app(LAZYSESSION_ON_READ_ERROR="empty")
        app.add_url_rule("/", view_func=lambda: str(session.get("user")))
        assert down(app, user="Ada")[0].get("/").text == "None"

    def test_an_empty_session_by_setting_is_not_kept(self, memory_app: MakeApp) -> None:
        """Caches do not keep a page that was made without its session."""
        app = memory_app(LAZYSESSION_ON_READ_ERROR="empty")
        app.add_url_rule("/", view_func=lambda: (str(session.get("user")), {"Cache-Control": "max-age=60"}))
        assert_not_cached(down(app, user="Ada")[0].get("/"))


class TestHooks:
    """Functions for after_request and teardown find an empty session."""

    @pytest.mark.parametrize("where", ["app", "this request", "before this request", "async"])
    def test_after_a_swallowed_failure(self, app: Flask, where: str) -> None:
        """They do not fail, however they were registered and whichever thread runs them."""
        seen: list[Any] = []

        def hook(response: Response) -> Response:
            seen.append(session.get("user", "nobody"))
            return response

        async def hook_in_another_thread(response: Response) -> Response:
            return hook(response)

        if where in ("app", "async"):
            app.after_request(hook if where == "app" else hook_in_another_thread)  # type: ignore[type-var]

        @app.get("/")
        def view() -> str:
            if where == "before this request":
                after_this_request(hook)
            look()
            if where == "this request":
                after_this_request(hook)
            return "all is well"

        client, attempts = down(app, user="Ada")
        assert client.get("/").status_code == 503
        assert seen == ["nobody"]
        assert attempts == ["read"]

    def test_the_first_load_in_after_request(self, app: Flask) -> None:
        """The hook gets the empty session at once, and the response is the 503: what it counts is lost."""
        seen: list[Any] = []

        @app.after_request
        def hook(response: Response) -> Response:
            seen.append(session.get("user", "nobody"))
            return response

        app.add_url_rule("/", view_func=lambda: "all is well")
        client, attempts = down(app, user="Ada")
        response = client.get("/")
        assert response.status_code == 503
        assert_not_cached(response)
        assert seen == ["nobody"]
        assert attempts == ["read"]

    @pytest.mark.parametrize("looks", [False, True])
    def test_in_teardown(self, app: Flask, looks: bool) -> None:
        """Whether the view has tried before or not, teardown gets an empty session."""
        seen: list[Any] = []
        app.teardown_request(lambda _error: seen.append(session.get("user", "nobody")))
        app.add_url_rule("/", view_func=lambda: (looks and look()) or "all is well")
        client, attempts = down(app, user="Ada")
        assert client.get("/").status_code == (503 if looks else 200)
        assert seen == ["nobody"]
        assert attempts == ["read"]

    def test_a_request_within_a_hook(self, app: Flask) -> None:
        """Its view is not in the hook: it gets the error."""
        heard: list[type] = []

        @app.get("/inner")
        def inner() -> str:
            try:
                session.get("user")
            except SessionUnavailable as error:
                heard.append(type(error))
            return "all is well"

        client, _ = down(app)

        @app.after_request
        def hook(response: Response) -> Response:
            if not heard:
                heard.append(str)
                response.headers["X-Inner"] = client.get("/inner").status
            return response

        app.add_url_rule("/", view_func=lambda: "outer")
        response = app.test_client().get("/")
        assert (response.text, response.headers["X-Inner"]) == ("outer", "503 SERVICE UNAVAILABLE")
        assert heard == [str, SessionUnavailable]


class TestTheApp:
    """What is wrapped on the app."""

    @pytest.mark.parametrize("name", ["handle_user_exception", "handle_exception"])
    def test_other_extensions(self, name: str) -> None:
        """What another extension has set on the app before is called, with what Flask passes."""
        app = Flask("shop")
        calls: list[Any] = []
        setattr(app, name, lambda error: calls.append(error) or app.make_response(("theirs", 500)))
        LazySession(app)
        app.add_url_rule("/", view_func=lambda: 1 / 0)
        assert app.test_client().get("/").text == "theirs"
        assert [type(error) for error in calls] == [ZeroDivisionError]

    def test_an_extension_that_replaces_it(self, app: Flask) -> None:
        """One that replaces it later and does not call it: its error page may use the session all the same."""
        app.handle_user_exception = lambda e: (f"theirs {session.get('user')}", 503)  # type: ignore[method-assign]
        app.add_url_rule("/", view_func=lambda: look() or "all is well")
        response = down(app, user="Ada")[0].get("/")
        assert (response.status_code, response.text) == (503, "theirs None")

    def test_a_class_of_the_app(self) -> None:
        """A method that a subclass overrides is called, also one that is changed later."""

        class Shop(Flask):
            def handle_user_exception(self, e: Exception) -> Any:
                return f"shop: {type(e).__name__}", 500

        app = Shop("shop")
        LazySession(app)
        app.add_url_rule("/", view_func=lambda: abort(404))
        assert app.test_client().get("/").text == "shop: NotFound"

    def test_an_app_is_collected(self) -> None:
        """No circle of references keeps an app that was dropped."""
        app = Flask("shop", static_folder=None)
        handlers = [app.handle_user_exception, app.handle_exception]
        del handlers
        LazySession(app)
        methods = [app.__dict__.get(name) for name in ("handle_user_exception", "handle_exception")]
        gc.collect()
        reachable = {id(each) for method in methods if method for each in _reached(method)}
        assert id(app) not in reachable

    def test_outside_of_a_request(self, app: Flask) -> None:
        """A method that is called by hand, without a request, does what it did before LazySession."""
        app.config["PROPAGATE_EXCEPTIONS"] = True
        with pytest.raises(ZeroDivisionError):
            app.handle_exception(ZeroDivisionError())


def _reached(start: Any) -> list[Any]:
    """Return what a function holds, without modules and classes."""
    found: dict[int, Any] = {}
    waiting = [start]
    while waiting:
        each = waiting.pop()
        if id(each) in found or isinstance(each, (type, weakref.ref, str)) or type(each).__name__ == "module":
            continue
        found[id(each)] = each
        if callable(each):
            waiting += [cell.cell_contents for cell in getattr(each, "__closure__", None) or ()]
            waiting += [getattr(each, "__self__", None), getattr(each, "__wrapped__", None)]
    return list(found.values())


def test_the_store_is_back(app: Flask) -> None:
    """The failure belongs to one request: the next one loads the session as it was."""
    app.add_url_rule("/", view_func=lambda: str(session.get("user")))
    backend = backend_of(app)
    client = visitor(app, user="Ada")
    break_verbs(app, "read")
    assert client.get("/").status_code == 503
    repair_verbs(app)
    assert client.get("/").text == "Ada"
    assert backend.read(KEY) is not None
