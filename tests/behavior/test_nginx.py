"""What a real nginx with ``proxy_cache`` shares between visitors, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.request import Request, urlopen

import pytest
from flask import Flask, make_response, session
from werkzeug.serving import make_server

from lazysession import LazySession
from tests.support.stores import FakeRedisStore
from tests.support.streaming import STREAMS, add_streams


class Page(NamedTuple):
    """A response that nginx passed on: its text, what its cache said, and its Set-Cookie."""

    text: str
    status: str
    cookie: str | None


Fetch = Callable[..., Page]


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """A shop with streamed pages, pages with and without a session, and a stylesheet."""
    (tmp_path / "site.css").write_text("body {}")
    app = Flask("shop", static_folder=str(tmp_path), static_url_path="/static")
    app.config.update(SECRET_KEY="key", SEND_FILE_MAX_AGE_DEFAULT=60, **FakeRedisStore().config())
    app.config["LAZYSESSION_REFRESH_THROTTLE"] = 0  # each use wants to send the cookie again
    app.config["LAZYSESSION_RULES"] = [("/skipped-stream", "skip")]
    LazySession(app)
    add_streams(app)
    app.add_url_rule("/login/<name>", "login", lambda name: str(session.update(name=name)))
    app.add_url_rule("/plain", "plain", lambda: "the same for all")
    app.add_url_rule("/me", "me", lambda: f"Hello {session.get('name')}")
    for name in ("unused-stream", "skipped-stream"):
        app.add_url_rule(f"/{name}", name, lambda: iter(["the same ", "for all"]))

    @app.get("/public/<what>")
    def public(what: str) -> object:
        if what == "write":
            session["seen"] = session.get("seen", 0) + 1
        response = make_response(f"Hello {session.get('name')}")
        response.cache_control.public, response.cache_control.max_age = True, 60
        return response

    return app


@pytest.fixture
def fetch(app: Flask, nginx: Callable[[str], str]) -> Generator[Fetch]:
    """A function that fetches a path through nginx, from the app on a threaded server."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = nginx(f"127.0.0.1:{server.server_port}")

        def fetch(path: str, cookie: str | None = None) -> Page:
            headers = {} if cookie is None else {"Cookie": cookie}
            with urlopen(Request(url + path, headers=headers), timeout=30) as response:
                said = response.headers
                return Page(response.read().decode(), said["X-Cache-Status"], said["Set-Cookie"])

        yield fetch
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def cookie_of(app: Flask, name: str) -> str:
    """Log a visitor in and return the Cookie header that the browser then sends."""
    client = app.test_client()
    client.get(f"/login/{name}")
    return f"session={client.get_cookie('session').value}"  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", STREAMS)
def test_a_streamed_page_is_not_shared(app: Flask, fetch: Fetch, stream: str) -> None:
    """Bob is not served the page that was streamed to Ada, by any kind of generator."""
    ada, bob = cookie_of(app, "Ada"), cookie_of(app, "Bob")
    assert "Hello Ada" in fetch(f"/{stream}", ada).text
    seen = fetch(f"/{stream}", bob)
    assert "Hello Bob" in seen.text
    assert seen.status == "MISS"
    assert "Hello None" in fetch(f"/{stream}").text


def test_a_page_that_used_the_session_is_not_shared(app: Flask, fetch: Fetch) -> None:
    """Each visitor gets their own page, and a cached one only where nothing was set."""
    ada, bob = cookie_of(app, "Ada"), cookie_of(app, "Bob")
    pages = [fetch("/me", cookie) for cookie in (ada, bob, ada, bob, None)]
    assert [page.text for page in pages] == ["Hello Ada", "Hello Bob", "Hello Ada", "Hello Bob", "Hello None"]
    assert [page.status for page in pages] == ["MISS"] * 5


@pytest.mark.parametrize("path", ["/plain", "/static/site.css"])
def test_what_does_not_use_the_session_is_cached(app: Flask, fetch: Fetch, path: str) -> None:
    """One copy serves all visitors, with a cookie and without."""
    cookies = [cookie_of(app, "Ada"), None, cookie_of(app, "Bob"), "session=unknown"]
    pages = [fetch(path, cookie) for cookie in cookies]
    assert [page.status for page in pages] == ["MISS", "HIT", "HIT", "HIT"]
    assert len({page.text for page in pages}) == 1
    assert not any(page.cookie for page in pages)


def test_a_stream_that_does_not_use_the_session(app: Flask, fetch: Fetch) -> None:
    """It is cached for each cookie: whether it would use the session was not known when its headers were sent."""
    ada, bob = cookie_of(app, "Ada"), cookie_of(app, "Bob")
    statuses = [fetch("/unused-stream", cookie).status for cookie in (ada, ada, bob, bob)]
    assert statuses == ["MISS", "HIT", "MISS", "HIT"]


def test_a_skipped_stream_is_cached_for_all(app: Flask, fetch: Fetch) -> None:
    """Mode ``skip`` promises that the page does not depend on the session."""
    statuses = [fetch("/skipped-stream", cookie_of(app, name)).status for name in ("Ada", "Bob")]
    assert statuses == ["MISS", "HIT"]


def test_a_cookie_never_comes_from_the_cache(app: Flask, fetch: Fetch) -> None:
    """Also not with pages that are public: a renewal is left off, and a new cookie makes them private."""
    ada = cookie_of(app, "Ada")
    assert fetch("/login/Eve").cookie != fetch("/login/Eve").cookie
    pages = [fetch(f"/public/{what}", cookie) for what in ("read", "write") for cookie in (ada, ada, None, None)]
    assert all(page.cookie is None for page in pages if page.status == "HIT")
    assert [page.status for page in pages[:4]] == ["MISS", "HIT", "MISS", "HIT"]
    assert [page.status for page in pages[4:]] == ["MISS"] * 4
    assert all("session=" in (page.cookie or "") for page in pages[4:])
