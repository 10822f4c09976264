"""What each kind of request costs at the store, counted there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, login_user
from stores import LIVE, prepare

from lazysession import LazySession

ONE_DAY = 86400
COOKIES = {"no": None, "live": LIVE, "bogus": "b" * 43, "malformed": "../../etc/passwd\x7f"}


@pytest.fixture(params=[False, True], ids=["plain", "flask-login"])
def app(request: pytest.FixtureRequest, store: Any, tmp_path: Path) -> Flask:
    """An app with a page of each kind, and one live session."""
    (tmp_path / "site.css").write_text("body {}")
    app = Flask("shop", static_folder=str(tmp_path), static_url_path="/static")
    app.config.update(TESTING=True, SECRET_KEY="key", PERMANENT_SESSION_LIFETIME=ONE_DAY, **store.config())
    prepare(app)
    LazySession(app)
    if request.param:
        add_flask_login(app)
    add_pages(app)
    store.put(app, f"session:{LIVE}", msgspec.msgpack.encode({"_permanent": True, "a": 1}), ONE_DAY)
    return app


def add_pages(app: Flask) -> None:
    def write(value: Any) -> Callable[[], str]:
        def view() -> str:
            session["a"] = value
            return ""

        return view

    def nested() -> str:
        session.setdefault("list", []).append(1)
        return ""

    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    app.add_url_rule("/read", view_func=lambda: str(session.get("a")), endpoint="read")
    app.add_url_rule("/change", view_func=write(2), endpoint="change")
    app.add_url_rule("/same", view_func=write(1), endpoint="same")
    app.add_url_rule("/nested", view_func=nested, endpoint="nested")
    app.add_url_rule("/clear", view_func=lambda: session.clear() or "", endpoint="clear")


def add_flask_login(app: Flask) -> None:
    class User(UserMixin):
        id = "1"

    manager = LoginManager(app)
    manager.user_loader(lambda _id: User())
    app.add_url_rule("/login", view_func=lambda: str(login_user(User())), endpoint="login")


def client(app: Flask, sid: str | None) -> FlaskClient:
    client = app.test_client()
    if sid is not None:
        client.set_cookie("session", sid)
    return client


@pytest.mark.parametrize("sid", COOKIES.values(), ids=COOKIES.keys())
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/untouched"),
        ("HEAD", "/untouched"),
        ("OPTIONS", "/untouched"),
        ("GET", "/static/site.css"),
        ("GET", "/nowhere"),
    ],
)
def test_unused_is_free(store: Any, app: Flask, sid: str | None, method: str, path: str) -> None:
    """A request that does not use its session makes no round trip, whatever its cookie."""
    with store.counted() as trips:
        response = client(app, sid).open(path, method=method, buffered=True)
    assert trips == []
    assert "Set-Cookie" not in response.headers
    assert "Cookie" not in response.headers.get("Vary", "")


def test_the_count_can_fail(store: Any, app: Flask) -> None:
    """The counters do count: the same request with a use of the session is seen."""
    with store.counted() as trips:
        client(app, LIVE).get("/read")
    assert trips != []


def test_read(store: Any, app: Flask) -> None:
    """Reading is one trip."""
    with store.counted() as trips:
        response = client(app, LIVE).get("/read")
    assert tuple(trips) == store.read
    assert response.text == "1"
    assert response.headers["Vary"] == "Cookie"
    assert "Set-Cookie" not in response.headers


def test_read_that_refreshes(store: Any, app: Flask) -> None:
    """Reading when a tenth of the lifetime is gone refreshes the expiry on the way, store and cookie alike."""
    store.pass_time(app, ONE_DAY / 10)
    with store.counted() as trips:
        response = client(app, LIVE).get("/read")
    assert tuple(trips) == store.refresh
    assert ONE_DAY - 5 < store.remaining(app, f"session:{LIVE}") <= ONE_DAY
    assert response.headers["Set-Cookie"].startswith(f"session={LIVE}; Expires=")
    with store.counted() as trips:
        response = client(app, LIVE).get("/read")
    assert tuple(trips) == store.read
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("path", ["/read", "/clear"])
def test_malformed_cookie(store: Any, app: Flask, path: str) -> None:
    """An id of the wrong shape is not looked up."""
    with store.counted() as trips:
        client(app, COOKIES["malformed"]).get(path)
    assert trips == []


@pytest.mark.parametrize("path", ["/change", "/nested"])
def test_change(store: Any, app: Flask, path: str) -> None:
    """A change is one trip to read and one to write, nested values included."""
    with store.counted() as trips:
        response = client(app, LIVE).get(path)
    assert tuple(trips) == store.read + store.write
    assert LIVE in response.headers["Set-Cookie"]


def test_same_value(store: Any, app: Flask) -> None:
    """Writing the value that is there is a use and no change."""
    with store.counted() as trips:
        client(app, LIVE).get("/same")
    assert tuple(trips) == store.read


def test_first_write(store: Any, app: Flask) -> None:
    """The first write of a visitor without a cookie is one trip."""
    with store.counted() as trips:
        response = client(app, None).get("/change")
    assert tuple(trips) == store.create
    assert "session=" in response.headers["Set-Cookie"]


def test_clear_first_thing(store: Any, app: Flask) -> None:
    """A logout that begins with clear() does not read what it deletes."""
    with store.counted() as trips:
        response = client(app, LIVE).get("/clear")
    assert tuple(trips) == store.delete
    assert response.headers["Set-Cookie"].startswith("session=; Expires=Thu, 01 Jan 1970")
    assert store.payloads(app) == {}


def test_clear_of_a_visitor_without_a_cookie(store: Any, app: Flask) -> None:
    """Nothing to clear is nothing to do."""
    with store.counted() as trips:
        response = client(app, None).get("/clear")
    assert trips == []
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("app", [True], ids=["flask-login"], indirect=True)
def test_login_of_a_new_visitor(store: Any, app: Flask) -> None:
    """Logging in without a cookie is one trip; it stores the session under the id that the login made."""
    with store.counted() as trips:
        response = client(app, None).get("/login")
    assert tuple(trips) == store.create
    assert len(response.headers.getlist("Set-Cookie")) == 1
