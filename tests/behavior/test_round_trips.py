"""What each kind of request costs at every store, counted there; ``--write-tables`` writes the table that says so."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, login_user

from lazysession import LazySession
from tests.support import tables
from tests.support.stores import EVERY_STORE, LIVE, Store, prepare

ONE_DAY = 86400
COOKIES = {"no": None, "live": LIVE, "bogus": "b" * 43, "malformed": "../../etc/passwd\x7f"}
UNUSED = [
    ("GET", "/untouched"),
    ("HEAD", "/untouched"),
    ("OPTIONS", "/untouched"),
    ("GET", "/static/site.css"),
    ("GET", "/nowhere"),
]
#: The columns of the table: kinds of requests, and how the table names them.
KINDS = {
    "unused": "Not used",
    "read": "Read",
    "refresh": "Read, refresh due",
    "change": "Changed",
    "keep": "Changed in ``no_refresh``",
    "create": "First write",
    "delete": "Cleared",
}
WIDTHS = [14, 8, 11, 14, 13, 13, 11, 16]
GENERATED = tables.ROOT / "docs" / "_generated" / "round-trips.rst"

Trips = tuple[str, ...]
Count = Callable[[str], AbstractContextManager[list[str]]]


@pytest.fixture
def store(any_store: Store) -> Store:
    """The tests of this file run on every store."""
    return any_store


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Trips]]:
    """What was counted, by row and column of the table."""
    return {}


@pytest.fixture
def count(store: Store, rows: dict[str, dict[str, Trips]]) -> Count:
    """A function that counts a block as a request of some kind, for the table."""

    @contextmanager
    def counted(kind: str) -> Generator[list[str]]:
        with store.counted() as trips:
            yield trips
        if store.label is not None:
            found = rows.setdefault(store.label, {}).setdefault(kind, tuple(trips))
            assert found == tuple(trips), "one kind of request, two counts"

    return counted


@pytest.fixture(params=[False, True], ids=["plain", "flask-login"])
def app(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Flask:
    """An app with a page of each kind, and one live session."""
    (tmp_path / "site.css").write_text("body {}")
    app = Flask("shop", static_folder=str(tmp_path), static_url_path="/static")
    app.config.update(TESTING=True, SECRET_KEY="key", PERMANENT_SESSION_LIFETIME=ONE_DAY, **store.config())
    app.config["LAZYSESSION_RULES"] = [("/no_refresh", "no_refresh")]
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
    app.add_url_rule("/no_refresh", view_func=write(2), endpoint="no_refresh")
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


@pytest.mark.parametrize("any_store", ["fakeredis", "sqlite"], indirect=True)
@pytest.mark.parametrize("sid", COOKIES.values(), ids=COOKIES.keys())
@pytest.mark.parametrize(("method", "path"), UNUSED)
def test_unused_is_free(store: Store, app: Flask, sid: str | None, method: str, path: str) -> None:
    """A request that does not use its session makes no round trip, whatever its cookie."""
    with store.counted() as trips:
        response = client(app, sid).open(path, method=method, buffered=True)
    assert trips == []
    assert "Set-Cookie" not in response.headers
    assert "Cookie" not in response.headers.get("Vary", "")


def test_unused_is_free_everywhere(app: Flask, count: Count) -> None:
    """The same on every store, all of it in one count."""
    with count("unused") as trips:
        for sid in COOKIES.values():
            for method, path in UNUSED:
                assert "Set-Cookie" not in client(app, sid).open(path, method=method, buffered=True).headers
    assert trips == []


def test_the_count_can_fail(store: Store, app: Flask) -> None:
    """The counters do count: the same request with a use of the session is seen."""
    with store.counted() as trips:
        client(app, LIVE).get("/read")
    assert trips != []


def test_read(store: Store, app: Flask, count: Count) -> None:
    """Reading is one trip."""
    with count("read") as trips:
        response = client(app, LIVE).get("/read")
    assert tuple(trips) == store.read
    assert response.text == "1"
    assert response.headers["Vary"] == "Cookie"
    assert "Set-Cookie" not in response.headers


def test_read_that_refreshes(store: Store, app: Flask, count: Count) -> None:
    """Reading when a tenth of the lifetime is gone refreshes the expiry on the way, store and cookie alike."""
    store.pass_time(app, ONE_DAY / 10)
    with count("refresh") as trips:
        response = client(app, LIVE).get("/read")
    assert tuple(trips) == store.refresh
    assert ONE_DAY - 5 < store.ttl(app, f"session:{LIVE}") <= ONE_DAY
    assert response.headers["Set-Cookie"].startswith(f"session={LIVE}; Expires=")
    with store.counted() as trips:
        response = client(app, LIVE).get("/read")
    assert tuple(trips) == store.read
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("path", ["/read", "/clear"])
def test_malformed_cookie(store: Store, app: Flask, path: str) -> None:
    """An id of the wrong shape is not looked up."""
    with store.counted() as trips:
        client(app, COOKIES["malformed"]).get(path)
    assert trips == []


@pytest.mark.parametrize("path", ["/change", "/nested"])
def test_change(store: Store, app: Flask, count: Count, path: str) -> None:
    """A change is one trip to read and one to write, nested values included."""
    with count("change") as trips:
        response = client(app, LIVE).get(path)
    assert tuple(trips) == store.read + store.write
    assert LIVE in response.headers["Set-Cookie"]


def test_change_in_no_refresh(store: Store, app: Flask, count: Count) -> None:
    """A change that must not keep the session alive costs what any other does, where the store can keep an expiry."""
    store.pass_time(app, ONE_DAY / 2)
    with count("keep") as trips:
        response = client(app, LIVE).get("/no_refresh")
    assert tuple(trips) == store.peek + store.keep
    assert ONE_DAY / 2 - 5 < store.ttl(app, f"session:{LIVE}") <= ONE_DAY / 2
    assert "Set-Cookie" not in response.headers


def test_same_value(store: Store, app: Flask, count: Count) -> None:
    """Writing the value that is there is a use and no change."""
    with count("read") as trips:
        client(app, LIVE).get("/same")
    assert tuple(trips) == store.read


def test_first_write(store: Store, app: Flask, count: Count) -> None:
    """The first write of a visitor without a cookie is one trip."""
    with count("create") as trips:
        response = client(app, None).get("/change")
    assert tuple(trips) == store.create
    assert "session=" in response.headers["Set-Cookie"]


def test_clear_first_thing(store: Store, app: Flask, count: Count) -> None:
    """A logout that begins with clear() does not read what it deletes."""
    with count("delete") as trips:
        response = client(app, LIVE).get("/clear")
    assert tuple(trips) == store.delete
    assert response.headers["Set-Cookie"].startswith("session=; Expires=Thu, 01 Jan 1970")
    assert store.payloads(app) == {}


def test_clear_of_a_visitor_without_a_cookie(store: Store, app: Flask) -> None:
    """Without a session there is nothing to clear."""
    with store.counted() as trips:
        response = client(app, None).get("/clear")
    assert trips == []
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("app", [True], ids=["flask-login"], indirect=True)
def test_login_of_a_new_visitor(store: Store, app: Flask) -> None:
    """Logging in without a cookie is one trip; it stores the session under the id that the login made."""
    with store.counted() as trips:
        response = client(app, None).get("/login")
    assert tuple(trips) == store.create
    assert len(response.headers.getlist("Set-Cookie")) == 1


def cells_of(label: str, counts: Mapping[str, Trips]) -> list[str]:
    """Return a row of the table: how many round trips, and by what names."""
    cells = (" ".join([str(len(counts[kind])), *(f"``{name}``" for name in counts[kind])]) for kind in KINDS)
    return [label, *cells]


def test_the_table_is_what_was_counted(rows: Mapping[str, Mapping[str, Trips]], request: pytest.FixtureRequest) -> None:
    """The rows in the documentation are those of this run, for the stores of which it counted everything."""
    labels = [store.label for store, _ in EVERY_STORE.values() if store.label is not None]
    counted = [cells_of(label, rows[label]) for label in labels if rows.get(label, {}).keys() == KINDS.keys()]
    if not counted:
        pytest.skip("needs all tests of this file on a real store: run the whole file, without --fakes")
    head = ["Store", *KINDS.values()]
    whole = tables.list_table(head, counted, WIDTHS)
    if request.config.getoption("--write-tables"):
        assert len(counted) == len(labels), "the table is written where every server is installed"
        GENERATED.write_text(whole, encoding="utf-8")
    written = GENERATED.read_text(encoding="utf-8")
    remedy = "the table is old: run pytest tests/behavior/test_round_trips.py --write-tables"
    if len(counted) == len(labels):
        assert written == whole, remedy
    for row in (head, *counted):
        assert tables.list_table_row(row) in written, remedy
