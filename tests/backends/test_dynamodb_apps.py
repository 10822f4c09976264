"""Sessions in DynamoDB through an app: requests, and a fleet with Flask-Session."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from flask_session import Session

from lazysession import LazySession
from tests.support.on_dynamodb import (
    LIVE,
    ONE_DAY,
    client,
    counted,
    make_app,
    new_table,
    resource,
    stored,
    url_of,
    visitor,
)
from tests.support.stores.documents import create_plain

pytestmark = pytest.mark.usefixtures("aws_account")


class TestInterop:
    """Half of a fleet on Flask-Session, half on LazySession, on one table."""

    @pytest.mark.parametrize("format", ["msgpack", "json"])
    @pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
    @pytest.mark.parametrize("by_url", [False, True], ids=["resource", "url"])
    @pytest.mark.parametrize("order", [(Session, LazySession), (LazySession, Session)], ids=["theirs", "ours"])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # utcnow(), SESSION_USE_SIGNER
    def test_a_session_is_used_by_both(
        self, dynalite_url: str, format: str, signed: bool, by_url: bool, order: tuple[type, type]
    ) -> None:
        """One writes it, the other reads and changes it, the first reads it again and ends it."""
        table = new_table()
        create_plain(client(dynalite_url), table)  # Flask-Session would wait 20 s for a table that it makes itself
        settings = {"SESSION_SERIALIZATION_FORMAT": format, "SESSION_USE_SIGNER": signed}
        first, second = (
            visitor(
                make_app(
                    extension,
                    url_of(dynalite_url) if by_url and extension is LazySession else resource(dynalite_url),
                    table,
                    **settings,
                )
            )
            for extension in order
        )
        sid = first.get("/set/a").text
        second.set_cookie("session", first.get_cookie("session").value)
        assert second.get("/keys").text == "_permanent,a"
        assert second.get("/set/b").text == sid
        assert first.get("/keys").text == "_permanent,a,b"
        assert first.get("/set/c").text == sid
        assert second.get("/keys").text == "_permanent,a,b,c"
        second.get("/clear")
        assert first.get("/keys").text == "_permanent"

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_the_same_items(self, dynalite_url: str) -> None:
        """Both store the same attributes of the same types, the same bytes and the same expiration."""
        items = []
        for extension in (Session, LazySession):
            table = new_table()
            sid = visitor(make_app(extension, resource(dynalite_url), table)).get("/set/a").text
            key = {"id": {"S": f"session:{sid}"}}
            item = client(dynalite_url).get_item(TableName=table, Key=key)["Item"]
            left = float(item.pop("expiration")["N"]) - time.time()
            assert ONE_DAY - 5 < left <= ONE_DAY
            assert item.pop("id") == key["id"]
            items.append(item)
        assert items[0] == items[1]

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_after_session(self, dynalite_url: str) -> None:
        """Called after ``Session(app)``, LazySession takes over its client and its table."""
        table, given = new_table(), resource(dynalite_url)
        theirs = visitor(make_app(Session, given, table))
        app = make_app(Session, given, table)
        LazySession(app)
        sid = theirs.get("/set/a").text
        with counted(given.meta.client) as trips:
            assert visitor(app, sid).get("/untouched").status_code == 200
            assert visitor(app, sid).get("/keys").text == "_permanent,a"
        assert trips == ["GetItem"]

    @pytest.mark.parametrize("by_url", [False, True], ids=["resource", "url"])
    def test_the_class_of_the_session(self, dynalite_url: str, by_url: bool) -> None:
        """A session is one of Flask-Session's own class."""
        value = url_of(dynalite_url) if by_url else resource(dynalite_url)
        assert visitor(make_app(LazySession, value, new_table())).get("/class").text == "True"


class TestRequests:
    """What each kind of request costs at the table."""

    @pytest.mark.parametrize(
        ("path", "sid", "trips"),
        [
            ("/untouched", LIVE, []),
            ("/untouched", None, []),
            ("/keys", LIVE, ["GetItem"]),
            ("/keys", None, []),
            ("/set/a", LIVE, ["GetItem", "UpdateItem"]),
            ("/set/a", None, ["PutItem"]),
            ("/clear", LIVE, ["DeleteItem"]),
            ("/clear", None, []),
        ],
    )
    @pytest.mark.parametrize("connect", [resource, client])
    def test_trips(self, dynalite_url: str, connect: Any, path: str, sid: str | None, trips: list[str]) -> None:
        """Unused is free, reading is one trip, a change one more, a first write one, a logout one."""
        given, table = connect(dynalite_url), new_table()
        app = make_app(LazySession, given, table)
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        backend.create(f"session:{LIVE}", msgspec.msgpack.encode({"_permanent": True, "b": 1}), ONE_DAY)
        with counted(backend.client) as sent:
            visitor(app, sid).get(path)
        assert sent == trips

    def test_a_refresh_when_due(self, dynalite_url: str) -> None:
        """A refresh is one more trip, once in a tenth of the lifetime."""
        app = make_app(LazySession, resource(dynalite_url), new_table())
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        backend.create(f"session:{LIVE}", msgspec.msgpack.encode({"_permanent": True, "b": 1}), ONE_DAY)
        backend.clock = lambda: time.time() + ONE_DAY / 10
        for expected in (["GetItem", "UpdateItem"], ["GetItem"]):
            with counted(backend.client) as sent:
                assert visitor(app, LIVE).get("/keys").text == "_permanent,b"
            assert sent == expected
        assert b"b" in stored(backend, f"session:{LIVE}")["val"]["B"]
