"""An app, a real server and a fault proxy between them: what the tests of outages are made on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest
from flask import Flask, Response, got_request_exception, session
from flask.testing import FlaskClient
from flask_login import LoginManager
from werkzeug.test import TestResponse

from lazysession import LazySession
from tests.support.faults import FaultProxy
from tests.support.stores.base import backend_of

ONE_DAY = timedelta(days=1)
#: Whether the connections of psycopg that a URL asks for end their wait for an answer; psycopg's own never do.
#: Seconds after which a request counts as hung; many times what any client's timeouts and tries add up to.
HUNG = 30


class Server(NamedTuple):
    """A store that is a server.

    :param session_type: the value of SESSION_TYPE, which also names the setting for the URL.
    :param fixture: the server's name in :mod:`servers`.
    :param url: the URL with short timeouts, the shortest that the client takes; ``{port}`` is the proxy's.
    :param refresh_words: what a refresh of its own sends; None where reading and refreshing are one command.
    :param monitored: the client asks the server for its state by itself, with no request.
    """

    session_type: str
    fixture: str
    url: str
    refresh_words: bytes | None = None
    monitored: bool = False


EVERY_SERVER = {
    "redis": Server("redis", "redis", "redis://127.0.0.1:{port}/0?socket_timeout=0.4"),
    "memcached": Server("memcached", "memcached", "memcached://127.0.0.1:{port}?timeout=0.4&connect_timeout=0.4"),
    "mongodb": Server(
        "mongodb",
        "mongodb",
        "mongodb://127.0.0.1:{port}/?connectTimeoutMS=400&socketTimeoutMS=400"
        "&serverSelectionTimeoutMS=1000&heartbeatFrequencyMS=500",
        monitored=True,
    ),
    "dynamodb": Server(
        "dynamodb",
        "dynalite",
        "dynamodb://us-west-2/Sessions?endpoint_url=http://127.0.0.1:{port}"
        "&connect_timeout=0.8&read_timeout=0.8&max_attempts=1",
        b"UpdateItem",
    ),
    "postgresql": Server(
        "sqlalchemy",
        "postgresql",
        "postgresql+psycopg://postgres@127.0.0.1:{port}/postgres?connect_timeout=2&read_timeout=1",
        b"UPDATE",
    ),
    "mariadb": Server(
        "sqlalchemy",
        "mariadb",
        "mysql+pymysql://root@127.0.0.1:{port}/mysql?connect_timeout=1&read_timeout=1&write_timeout=1",
        b"UPDATE",
    ),
}


class Outage:
    """Apps on one server, through one proxy."""

    def __init__(self, server: Server, proxy: FaultProxy, folder: Path) -> None:
        self.proxy = proxy
        self.failures: list[Exception] = []
        self.refresh_words, self.monitored = server.refresh_words, server.monitored
        self._server, self._folder = server, folder
        self._apps: list[Flask] = []
        self._by_setting: dict[str, Flask] = {}
        self._numbers = itertools.count()
        self._first_ids: dict[FlaskClient, str] = {}
        self._fault = "pass"
        self._threads = ThreadPoolExecutor(max_workers=4)

    def app(self, setting: str = "unavailable") -> Flask:
        """Return the app with this value of LAZYSESSION_ON_READ_ERROR."""
        if setting not in self._by_setting:
            self._by_setting[setting] = self.make_app(LAZYSESSION_ON_READ_ERROR=setting)
        return self._by_setting[setting]

    def make_app(self, **settings: Any) -> Flask:
        """Make an app of its own, with a page of each kind."""
        app = Flask("shop", static_folder=str(self._folder), static_url_path="/static")
        url = self._server.url.format(port=self.proxy.port)
        kind = self._server.session_type
        app.config.update(SECRET_KEY="key", SESSION_TYPE=kind, PERMANENT_SESSION_LIFETIME=ONE_DAY)
        app.config.update({f"SESSION_{kind.upper()}": url, **settings})
        LazySession(app)
        self._add_pages(app)
        got_request_exception.connect(self._note_failure, app)
        self._apps.append(app)
        return app

    def _note_failure(self, _app: Flask, exception: Exception) -> None:
        self.failures.append(exception)

    def _add_pages(self, app: Flask) -> None:
        pages: dict[str, Callable[[], object]] = {
            "untouched": lambda: "nothing",
            "read": lambda: f"a is {session.get('a')}",
            "change": lambda: session.update(a=2),
            "nest": lambda: session["list"].append(1),
            "rotate": lambda: app.session_interface.regenerate(session),  # type: ignore[attr-defined]
            "clear": lambda: session.clear(),
        }

        def page(page: str) -> str:
            return str(pages[page]())

        def then(page: str) -> str:
            len(session)
            self.proxy.mode = self._fault
            return str(pages[page]())

        app.add_url_rule("/<page>", view_func=page, endpoint="page")
        app.add_url_rule("/then/<page>", view_func=then, endpoint="then")

    def visitor(self, data: dict[str, Any], setting: str = "unavailable", app: Flask | None = None) -> FlaskClient:
        """Return a browser that has a stored session, and connections that wait in the pool."""
        app = app or self.app(setting)
        app.permanent_session_lifetime = ONE_DAY
        browser = app.test_client()
        sid = str(next(self._numbers)).rjust(43, "a")
        assert backend_of(app).create(f"session:{sid}", payload(data), ONE_DAY.total_seconds())
        browser.set_cookie("session", sid)
        self._first_ids[browser] = sid
        assert self.look(browser) == data
        return browser

    def make_refresh_due(self) -> None:
        """Double the lifetime, so that half of it is over for every session."""
        self.app().permanent_session_lifetime = 2 * ONE_DAY

    @contextmanager
    def fault(self, fault: str, *, path: str, at: bytes | None = None) -> Generator[None]:
        """Begin the fault now; with ``/then/`` in the path, when the view says so; or at words that are sent."""
        self._fault = fault
        if at is not None:
            self.proxy.fail_at(at, fault)
        elif not path.startswith("/then/"):
            self.proxy.mode = fault
        yield

    def get(self, browser: FlaskClient, path: str) -> TestResponse:
        """Make a request; one that hangs fails the test."""
        return self.get_at_once(browser, path, 1)[0]

    def get_at_once(self, browser: FlaskClient, path: str, times: int) -> list[TestResponse]:
        """Make requests side by side, with the cookies that the browser has now."""

        def work(browser: FlaskClient) -> TestResponse:
            return browser.get(path, buffered=True)

        browsers = [browser]
        cookie = browser.get_cookie("session")
        for _ in range(times - 1):
            browsers.append(browser.application.test_client())
            if cookie is not None:
                browsers[-1].set_cookie("session", cookie.value)
        waiting = [self._threads.submit(work, each) for each in browsers]
        try:
            return [each.result(HUNG) for each in waiting]
        except NotDone:
            self.proxy.mode = "refuse"  # which ends the waiting
            pytest.fail(f"a request hung for {HUNG} s")

    def look(self, browser: FlaskClient) -> dict[str, Any] | None:
        """Return what is stored for the browser: under its cookie, or under the one that it had first."""
        cookie = browser.get_cookie("session")
        sid = cookie.value if cookie is not None else self._first_ids[browser]
        found = backend_of(browser.application).read(f"session:{sid}")
        if found is None:
            return None
        data = msgspec.msgpack.decode(found.payload)
        assert data.pop("_permanent") is True
        return dict(data)

    @contextmanager
    def verbs(self, setting: str = "unavailable", app: Flask | None = None) -> Generator[list[str]]:
        """Record what the core asks of the backend."""
        backend = backend_of(app or self.app(setting))
        names: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            for name in ("read", "read_and_touch", "create", "replace", "delete", "touch"):
                if hasattr(backend, name):
                    noted = "read" if name == "read_and_touch" else name
                    patch.setattr(backend, name, _noting(names, noted, getattr(backend, name)))
            yield names

    def close(self) -> None:
        """Close what the apps have opened."""
        self._threads.shutdown()
        for app in self._apps:
            backend = backend_of(app)
            engine = getattr(backend, "_engine", None)
            if engine is not None:
                engine.dispose()
            else:
                backend.client.close()


def _noting(names: list[str], name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
    def noting(*arguments: Any) -> Any:
        names.append(name)
        return verb(*arguments)

    return noting


def payload(data: dict[str, Any]) -> bytes:
    """Return a stored session."""
    return msgspec.msgpack.encode({"_permanent": True, **data})


def _no_user(_user_id: str) -> None:
    return None


def count_the_items(response: Response) -> Response:
    """Change the session after a request, as hooks of extensions do."""
    session["items"] = len(session)
    return response


def add_flask_login(app: Flask) -> None:
    """Give an app Flask-Login, which looks at the session after every request."""
    LoginManager(app).user_loader(_no_user)


@contextmanager
def opened(request: pytest.FixtureRequest, folder: Path) -> Generator[Outage]:
    """Open the server that a fixture names by its parameter."""
    server = EVERY_SERVER[request.param]
    (folder / "site.css").write_text("body {}")
    port = urlsplit(request.getfixturevalue(f"{server.fixture}_url")).port
    assert port is not None
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("AWS_ACCESS_KEY_ID", "dummy")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "dummy")
        # PyMongo looks again for a server that it has lost after half a second, and a request waits for that.
        patch.setattr("pymongo.common.MIN_HEARTBEAT_INTERVAL", 0.02)
        proxy = stack.enter_context(FaultProxy(port))
        outage = Outage(server, proxy, folder)
        stack.callback(outage.close)
        yield outage
