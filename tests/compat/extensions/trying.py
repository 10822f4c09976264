"""What is common to the extensions: the small app that each is added to, and a visitor that records what it sees."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from flask import Flask, render_template, session
from flask_session import Session
from werkzeug.test import TestResponse

from lazysession import LazySession
from tests.support.stores import RedisStore

SignIn = Callable[[str], object]
#: Adds an extension to an app; what it leaves open is closed with the stack. Returns what logs a user in by name.
Add = Callable[[Flask, ExitStack], SignIn]

#: How the sessions of an app are made: by Flask-Session, or lazily, before or after the extension is set up.
LAYERS = ("Flask-Session", "LazySession", "LazySession last")


class Extension(NamedTuple):
    """An extension, and how a visitor uses it.

    :param name: as its docs write it.
    :param package: the name of its distribution.
    :param add: adds it to an app.
    :param flow: what a visitor does with it; it asserts what that leads to.
    :param base_url: where the visitor finds the app.
    :param logged: how the messages begin that are ours, one for each endpoint: what it does to static files is dropped.
    """

    name: str
    package: str
    add: Add
    flow: Callable[[Visitor], None]
    base_url: str = "http://localhost"
    logged: tuple[str, ...] = ()


def sign_in_by_hand(name: str) -> None:
    """Log a user in as an app does that has no extension for it."""
    session["user"] = name


@contextmanager
def app_with(extension: Extension, layer: str, store: RedisStore) -> Generator[Flask]:
    """Make an app with an extension and a page of each kind, until the block ends.

    It is not in testing mode, in which some extensions leave out what they are for.

    :param layer: one of ``LAYERS``.
    """
    app = Flask("shop", root_path=str(Path(__file__).parent))
    app.config.update(SECRET_KEY="key", **store.config())
    add_sessions = Session if layer == "Flask-Session" else LazySession
    with ExitStack() as closing:
        if layer != "LazySession last":
            add_sessions(app)
        sign_in = extension.add(app, closing)
        if layer == "LazySession last":
            add_sessions(app)
        _add_pages(app, sign_in)
        yield app


def _add_pages(app: Flask, sign_in: SignIn) -> None:
    def note(word: str) -> str:
        session["note"] = word
        return ""

    def signed_in(name: str) -> str:
        sign_in(name)
        return ""

    app.add_url_rule("/plain", "plain", lambda: "Welcome")
    app.add_url_rule("/rendered", "rendered", lambda: render_template("page.html"))
    app.add_url_rule("/note/<word>", "note", note)
    app.add_url_rule("/noted", "noted", lambda: session.get("note", "nothing"))
    app.add_url_rule("/sign-in/<name>", "sign_in", signed_in)


class Cost(NamedTuple):
    """What one request costs.

    :param trips: round trips to the store.
    :param varies: the response has ``Vary: Cookie``.
    :param sets_cookie: it sets the session cookie.
    """

    trips: int
    varies: bool
    sets_cookie: bool

    def __str__(self) -> str:
        marks = "V" * self.varies + "C" * self.sets_cookie
        return f"{self.trips} {marks}".strip()

    def is_more_than(self, other: Cost) -> bool:
        """Return whether this is more in anything."""
        return any(own > their for own, their in zip(self, other, strict=True))


def cost_of(response: TestResponse, trips: int) -> Cost:
    """Return what a request has cost."""
    cookies = response.headers.getlist("Set-Cookie")
    return Cost(trips, "cookie" in response.vary.as_set(), any(cookie.startswith("session=") for cookie in cookies))


class Step(NamedTuple):
    """A request of a visitor.

    :param name: its method and path.
    :param rotated: the session got a new id, which takes a trip more than to store it under its old one.
    """

    name: str
    cost: Cost
    rotated: bool


class Visitor:
    """A browser that records what it is shown, to compare what two apps show, and what each request costs.

    :param base_url: where it finds the app.
    """

    def __init__(self, app: Flask, store: RedisStore, base_url: str = "http://localhost") -> None:
        self.app = app
        self.browser = app.test_client()
        self.seen: list[object] = []
        self.costs: list[Step] = []
        self._store = store
        self._base_url = base_url

    def another(self) -> Visitor:
        """Return another visitor of the same app."""
        return Visitor(self.app, self._store, self._base_url)

    def get(self, path: str, status: int = 200, **options: Any) -> TestResponse:
        """Get a page."""
        return self._open("GET", path, status, options)

    def sees(self, path: str, text: str, status: int = 200, **options: Any) -> None:
        """Get a page that shows a text."""
        shown = self._open("GET", path, status, options).text
        assert text in shown, f"{path} does not show {text!r}:\n{shown[:2000]}"

    def post(self, path: str, form: dict[str, Any] | None = None, status: int = 302, **options: Any) -> TestResponse:
        """Send a form; a redirect is not followed."""
        return self._open("POST", path, status, {"data": form, **options})

    def options(self, path: str, **options: Any) -> TestResponse:
        """Ask what may be sent from another site."""
        return self._open("OPTIONS", path, 200, options)

    def _open(self, method: str, path: str, status: int, options: dict[str, Any]) -> TestResponse:
        before = self.session_id()
        with self._store.counted() as trips:
            response = self.browser.open(path, method=method, **{"base_url": self._base_url, **options})
            text = response.get_data(as_text=True)
            response.close()
        rotated = before is not None and self.session_id() not in (before, None)
        self.costs.append(Step(steady(f"{method} {path}"), cost_of(response, len(trips)), rotated))
        self.record(method, path, response.status, response.headers.get("Location"), text)
        assert response.status_code == status, f"{method} {path}: {response.status}\n{text[:2000]}"
        return response

    def record(self, *seen: object) -> None:
        """Record what was shown, without what is random or a time."""
        self.seen.append(steady(seen))

    def csrf_token(self, path: str, name: str = "csrf_token") -> str:
        """Return the token of the form of a page."""
        text = self.get(path).text
        for field in re.findall(r"<input[^>]*>", text):
            if re.search(rf'name="{name}"', field):
                value = re.search(r'value="([^"]+)"', field)
                assert value, field
                return value[1]
        raise AssertionError(f"no field {name}: {text[:2000]}")

    def close_browser(self) -> None:
        """Lose the session cookie, as when a browser is closed; cookies with a date stay."""
        self.browser.delete_cookie("session")

    def session_id(self) -> str | None:
        """Return the value of the session cookie."""
        cookie = self.browser.get_cookie("session")
        return None if cookie is None else cookie.value

    def stored(self) -> Any:
        """Return what is stored for this visitor, without what is random or a time."""
        payload = self._store.payloads(self.app).get(f"session:{self.session_id()}")
        return None if payload is None else steady(msgspec.msgpack.decode(payload))


_PORT = re.compile(r"127\.0\.0\.1(:|%3A)\d+")
#: An id, a token or a hash; one with a dot is signed and has a time in it.
_TOKEN = re.compile(r"[\w\-]{20,}(?:\.[\w\-]+)*|[\w\-]{8,}\.[\w\-]{6,}\.[\w\-]{20,}")
_TIME = re.compile(r"\b\d{1,2}:\d\d(:\d\d(\.\d+)?)?\b|\b1[5-9]\d{8}(\.\d+)?\b|\b20\d{12}\b")


def steady(value: Any) -> Any:
    """Return a value without what differs from run to run."""
    if isinstance(value, str):
        return _TIME.sub("TIME", _TOKEN.sub("TOKEN", _PORT.sub("HOST", value)))
    if isinstance(value, dict):
        return {steady(key): steady(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [steady(each) for each in value]
    if isinstance(value, (int, float)) and value > 1e9:
        return "TIME"
    return value
