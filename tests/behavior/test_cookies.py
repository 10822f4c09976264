"""The session cookie: its attributes, its expiry, and responses that shared caches may keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import make_response, session

from tests.support.visiting import KEY, MakeApp, put, set_mine


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
            pytest.skip("needs Flask 3.1, which has Partitioned: pip install -U flask")
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
        assert caplog.text.count("may store the response of set") == 1
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
@pytest.mark.parametrize("cache_control", ["", "private, max-age=0"])
def test_what_is_said_to_a_network_alone(memory_app: MakeApp, name: str, said: str, cache_control: str) -> None:
    """Networks of caches obey such headers first: a renewal is left off; with a cookie they are removed."""
    headers = {name: said, "Cache-Control": cache_control} if cache_control else {name: said}
    client = client_of_cached_view(memory_app, headers)
    response = client.get("/")
    assert "Set-Cookie" in response.headers
    assert name not in response.headers
    assert "private" in response.headers["Cache-Control"]
    response = client.get("/")
    assert "Set-Cookie" not in response.headers
    assert (response.headers[name], response.headers.get("Cache-Control", "")) == (said, cache_control)


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


@pytest.mark.parametrize("expires", [1_900_000_000, 1_900_000_000.5, "Sun, 17 Mar 2030 17:46:40 GMT", None], ids=repr)
def test_an_expiry_that_is_no_datetime(memory_app: MakeApp, monkeypatch: pytest.MonkeyPatch, expires: Any) -> None:
    """An app's own ``get_expiration_time`` may return whatever Werkzeug takes for ``Expires``."""
    app = memory_app()
    monkeypatch.setattr(app.session_interface, "get_expiration_time", lambda *_: expires)
    app.add_url_rule("/", view_func=lambda: set_mine() or "")
    header = app.test_client().get("/").headers["Set-Cookie"]
    assert ("Expires=Sun, 17 Mar 2030 17:46:40 GMT" in header) is (expires is not None)
