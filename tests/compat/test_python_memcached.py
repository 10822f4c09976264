"""python-memcached, which is unmaintained: Flask-Session's own methods drive it, through the generic adapter."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

import memcache
import pytest
from flask import Flask, session
from flask_session import Session

from lazysession import LazySession
from lazysession.backends.generic import GenericBackend
from lazysession.backends.memcached import MemcachedBackend
from tests.support.optional import import_or_skip
from tests.support.servers import free_port
from tests.support.stores.base import backend_of

pytestmark = pytest.mark.usefixtures("close_memcached")

LIVE = "a" * 43


class Derived(memcache.Client):  # type: ignore[misc]
    """A client of the app's own."""


def make(client: object, *extensions: type, **config: object) -> Flask:
    """Make an app on a client, with a page that shows the session and one that changes it."""
    app = Flask("shop", static_folder=None)
    app.config.update(SECRET_KEY="key", SESSION_TYPE="memcached", SESSION_MEMCACHED=client, **config)
    for extension in extensions or (LazySession,):
        extension(app)

    def write() -> str:
        session["a"] = 1
        return ""

    app.add_url_rule("/untouched", "untouched", lambda: "")
    app.add_url_rule("/read", "read", lambda: repr(dict(session)))
    app.add_url_rule("/write", "write", write)
    return app


@pytest.fixture
def server(memcached_url: str) -> str:
    """The address of the server, as the client wants it."""
    return memcached_url.removeprefix("memcached://")


@pytest.mark.parametrize("extensions", [(LazySession,), (Session, LazySession)], ids=["alone", "after Session"])
@pytest.mark.parametrize("client_class", [memcache.Client, Derived])
def test_flask_sessions_methods_drive_it(server: str, client_class: Any, extensions: tuple[type, ...]) -> None:
    """The generic adapter stores and reads through its client."""
    app = make(client_class([server]), *extensions)
    assert type(backend_of(app)) is GenericBackend
    browser = app.test_client()
    browser.get("/write")
    assert browser.get("/read").text == "{'_permanent': True, 'a': 1}"


@pytest.mark.parametrize(
    ("installed", "adapter"),
    [
        (("pylibmc", "memcache", "pymemcache"), MemcachedBackend),
        (("memcache", "pymemcache"), GenericBackend),
        (("pymemcache",), MemcachedBackend),
    ],
)
@pytest.mark.filterwarnings("ignore:No valid memcache.Client:RuntimeWarning")
def test_without_a_client_flask_session_picks(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], adapter: type
) -> None:
    """Of the libraries that are installed it takes the first of its list; LazySession drives what it took."""
    if "pylibmc" in installed:
        import_or_skip("pylibmc")
    for name in {"pylibmc", "memcache", "pymemcache"} - {*installed}:
        monkeypatch.setitem(sys.modules, name, None)
    app = make(None)
    client: Any = app.session_interface.client  # type: ignore[attr-defined]
    assert type(client).__module__.partition(".")[0] == installed[0]
    assert type(backend_of(app)) is adapter


@pytest.mark.parametrize("allowed", [False, True])
def test_a_pickle_runs_only_where_it_may(server: str, allowed: bool) -> None:
    """A payload that only pickle understands is no session, unless pickle was allowed."""
    client = memcache.Client([server])
    app = make(client, LAZYSESSION_ALLOW_PICKLE=allowed)
    client.set(f"session:{LIVE}", pickle.dumps({"a": 1}), 100)
    browser = app.test_client()
    browser.set_cookie("session", LIVE)
    assert browser.get("/read").text == ("{'a': 1}" if allowed else "{'_permanent': True}")


@pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")
def test_an_outage_is_an_error(server: str) -> None:
    """Reading and writing are a 503 while no server is left; the visitor keeps the session."""
    app = make(memcache.Client([f"127.0.0.1:{free_port()}"]))
    browser = app.test_client()
    browser.set_cookie("session", LIVE)
    for path, status in {"/untouched": 200, "/read": 503, "/write": 503}.items():
        response = browser.get(path)
        assert (response.status_code, "Set-Cookie" in response.headers) == (status, False)
    anonymous = app.test_client().get("/write")
    assert (anonymous.status_code, "Set-Cookie" in anonymous.headers) == (503, False)


def test_the_check_names_what_to_use_instead(server: str) -> None:
    """Its finding says what the client lacks, and names another; a client that waits indefinitely is found as well."""
    backend: Any = backend_of(make(memcache.Client([server])))
    (problem,) = backend.check()
    assert (problem.severity, problem.name) == ("warning", "memcached-client")
    assert "compare-and-swap" in problem.what
    assert "pymemcache" in problem.remedy
    waiting: dict[str, Any] = {"socket_timeout": None}
    backend = backend_of(make(memcache.Client([server], **waiting)))
    assert [each.name for each in backend.check()] == ["memcached-client", "memcached-timeout"]


def test_what_is_too_large_is_lost(server: str) -> None:
    """It is not stored, without an error, as with Flask-Session."""
    app = make(memcache.Client([server]))

    @app.get("/large")
    def large() -> str:
        session["large"] = os.urandom(2**21)
        return ""

    browser = app.test_client()
    assert browser.get("/large").status_code == 200
    assert browser.get("/read").text == "{'_permanent': True}"


def test_another_client_finds_the_sessions(server: str) -> None:
    """An app that switches to pymemcache, with one server, logs no visitor out."""
    first = make(memcache.Client([server])).test_client()
    first.get("/write")
    cookie = first.get_cookie("session")
    assert cookie is not None
    second = make(f"memcached://{server}").test_client()
    second.set_cookie("session", cookie.value)
    assert second.get("/read").text == "{'_permanent': True, 'a': 1}"
