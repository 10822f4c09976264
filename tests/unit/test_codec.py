"""What becomes of each kind of value: a table, which the documentation shows; and what cannot be stored is named."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import inspect
import pickle
import sys
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from flask import Flask, flash, get_flashed_messages, render_template_string, session
from flask_babel.speaklater import LazyString
from markupsafe import Markup

from lazysession.codec import Codec
from tests.support import tables
from tests.support.stores import LIVE, Store

MakeApp = Callable[..., Flask]


class Colour(enum.Enum):
    """An enumeration of the app's."""

    RED = "red"


class Name(str):
    """A text with methods of the app's."""

    def __str__(self) -> str:
        return "overridden"


UTC = datetime.timezone.utc
ROWS: list[tuple[str, Any, Any, Any]] = [
    ("``str``, ``int``, ``float``, ``bool``, ``None``", ["a", 1, 1.5, True, None], ["a", 1, 1.5, True, None], "same"),
    ("``dict`` and what derives from it", {"a": 1}, {"a": 1}, "same"),
    ("``list``", [1, 2], [1, 2], "same"),
    ("``tuple``, a named one too", (1, 2), [1, 2], "same"),
    ("``set``, ``frozenset``", {1}, [1], "same"),
    ("``bytes``", b"ab", b"ab", "YWI="),
    ("``Markup``", Markup("<b>"), Markup("<b>"), "<b>"),
    ("a lazy text (Flask-Babel)", LazyString(lambda: "Willkommen"), "Willkommen", "same"),
    ("a class derived from ``str``, ``int``, ``float``", Name("x"), "x", "same"),
    ("``datetime`` with a zone",
     datetime.datetime(2026, 1, 2, tzinfo=UTC), datetime.datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
    ("``datetime`` without one", datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05", "same"),
    ("``date``", datetime.date(2026, 1, 2), "2026-01-02", "same"),
    ("``timedelta``", datetime.timedelta(seconds=90), "PT90S", "same"),
    ("``UUID``", uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005", "same"),
    ("``Decimal``", decimal.Decimal("1.50"), "1.50", "same"),
    ("an ``Enum``'s member", Colour.RED, "red", "same"),
    ("an integer beyond 64 bits", 2**64, TypeError, 2**64),
    ("``nan``, ``inf``", float("inf"), float("inf"), None),
    ("any other value: a file, an object of your own class", object(), TypeError, TypeError),
]  # fmt: skip


@pytest.mark.parametrize(("value", "msgpack", "json"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_each_row(value: Any, msgpack: Any, json: Any, format: str) -> None:
    """What is read back is what the table says, of the very type."""
    codec, expected = Codec(format), msgpack if format == "msgpack" or json == "same" else json
    if expected is TypeError:
        with pytest.raises(TypeError, match=r"^session\['thing'\] cannot be stored \((object|int): "):
            codec.encode({"fine": 1, "thing": value})
        return
    read = (codec.decode(codec.encode({"thing": value})) or {})["thing"]
    assert (read, type(read)) == (expected, type(expected))


def test_the_table_is_in_the_documentation(request: pytest.FixtureRequest) -> None:
    """Written by ``pytest tests/unit/test_codec.py --write-tables``."""

    def shown(value: Any) -> str:
        return "an error that names its key" if value is TypeError else f"``{value!r}``"

    rows = [(name, shown(msgpack), "the same" if json == "same" else shown(json)) for name, _, msgpack, json in ROWS]
    tables.keep("values", ("In the session", "Read back, msgpack", "Read back, JSON"), rows, (40, 30, 30), request)


def test_the_bytes_of_flask_session_are_kept() -> None:
    """What Flask-Session can encode is encoded as it does."""
    data = {"_permanent": True, "a": [1, {"b": (1, 2)}], "at": datetime.datetime(2026, 1, 1, tzinfo=UTC)}
    assert Codec("msgpack").encode(data) == msgspec.msgpack.encode(data)
    assert Codec("json").encode(data) == msgspec.json.encode(data)


@pytest.mark.parametrize("value", ["\ud800", (lambda: 0), 2**70, 1 + 2j])
def test_what_cannot_be_stored_is_named(memory_app: MakeApp, value: Any) -> None:
    """The error names the key and the type before anything is written; the value is not repeated."""
    app = memory_app()
    app.add_url_rule("/", view_func=lambda: session.update(fine=1, thing=[{"nested": value}]) or "")
    with pytest.raises(TypeError, match=r"session\['thing'\] cannot be stored \(list: ") as caught:
        app.test_client().get("/")
    assert repr(value) not in str(caught.value)
    assert app.session_interface.client.keys() == []  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Sku:
    """A value that can be a key in Python, and not in msgpack or JSON."""

    number: int


@pytest.mark.parametrize("format", ["msgpack", "json"])
@pytest.mark.parametrize("value", [{Sku(1): 2}, {(Sku(1), 2): 3}, msgspec.Raw(b"\xc1")], ids=["key", "in a key", "raw"])
def test_what_cannot_be_read_back_is_named(memory_app: MakeApp, format: str, value: Any) -> None:
    """What can be encoded and not decoded would lose the visitor's whole session."""
    app = memory_app(SESSION_SERIALIZATION_FORMAT=format)
    app.add_url_rule("/", view_func=lambda: session.update(fine=1, thing=value) or "")
    with pytest.raises(TypeError, match=r"session\['thing'\] cannot be stored \((dict|Raw): "):
        app.test_client().get("/")
    assert app.session_interface.client.keys() == []  # type: ignore[attr-defined]


class Ambiguous:
    """A value that refuses to be compared, as arrays do."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


def test_what_refuses_to_be_compared_is_named(memory_app: MakeApp) -> None:
    """Also in the place of what was stored under its key."""
    app = memory_app()

    def fail() -> str:
        raise LookupError("no catalogue")

    values = {"plain": 1, "ambiguous": Ambiguous(), "lazy": LazyString(fail)}
    app.add_url_rule("/<kind>", view_func=lambda kind: session.update(a=values[kind]) or "")
    client = app.test_client()
    client.get("/plain")
    with pytest.raises(TypeError, match=r"session\['a'\] cannot be stored \(Ambiguous: "):
        client.get("/ambiguous")
    with pytest.raises(TypeError, match=r"session\['a'\] cannot be stored \(LazyString: "):
        client.get("/lazy")


def test_a_change_next_to_what_an_old_pickle_held(memory_app: MakeApp) -> None:
    """1 and True are not the same: the change is not dropped, but an error, as the rest cannot be stored."""
    app = memory_app(LAZYSESSION_ALLOW_PICKLE=True)
    app.session_interface.client.set(f"session:{LIVE}", pickle.dumps({"c": 1j, "n": 1}))  # type: ignore[attr-defined]
    app.add_url_rule("/", "look", lambda: str(session["n"]))
    app.add_url_rule("/change", "change", lambda: session.update(n=True) or "")
    client = app.test_client()
    client.set_cookie("session", LIVE)
    assert client.get("/").text == "1"
    with pytest.raises(TypeError, match=r"session\['c'\] cannot be stored \(complex: "):
        client.get("/change")


def test_a_text_that_cannot_be_made() -> None:
    """A lazy text that fails names its key as well."""

    def fail() -> str:
        raise RuntimeError("no catalogue")

    with pytest.raises(TypeError, match=r"session\['a'\] cannot be stored \(LazyString: no catalogue\)"):
        Codec("msgpack").encode({"a": LazyString(fail)})


@pytest.mark.parametrize(
    ("format", "payload"),
    [
        ("msgpack", msgspec.json.encode({"a": 2**70})),
        ("json", msgspec.msgpack.encode({"a": {None: 1}})),
        ("json", msgspec.msgpack.encode({"a": msgspec.msgpack.Ext(5, b"x")})),
    ],
)
def test_what_the_other_format_alone_can_hold(format: str, payload: bytes) -> None:
    """It could be read and never be stored again: no session."""
    assert Codec(format).decode(payload) is None


def test_a_list_within_itself() -> None:
    """The recursion is an error as any other."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TypeError, match=r"session\['a'\] cannot be stored \(list: "):
        Codec("msgpack").encode({"a": endless})


def at_depth(frames: int, act: Callable[[], Any]) -> Any:
    """Do something that many frames deep."""
    return act() if frames == 0 else at_depth(frames - 1, act)


@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_a_session_that_is_read_deep_in_the_stack(memory_app: MakeApp, format: str) -> None:
    """msgspec counts the frames of its caller; a session that a flat view stored is read there too, not replaced."""
    app = memory_app(SESSION_SERIALIZATION_FORMAT=format)
    tree: list[Any] = []
    for _ in range(300):
        tree = [tree]
    app.add_url_rule("/put", "put", lambda: session.update(cart=[1], tree=tree) or "")
    free = sys.getrecursionlimit() - 250
    app.add_url_rule(
        "/add", "add", lambda: at_depth(free - len(inspect.stack(0)), lambda: session.update(last="add")) or ""
    )
    app.add_url_rule("/see", "see", lambda: " ".join(sorted(session)))
    client = app.test_client()
    client.get("/put")
    assert client.get("/add").status_code == 200
    assert client.get("/see").text == "_permanent cart last tree"


@pytest.mark.parametrize(
    "payload", [b"\x91" * 100_000, b"[" * 100_000, b'{"a":' * 100_000], ids=["msgpack", "json", "dict"]
)
def test_a_payload_without_an_end(payload: bytes) -> None:
    """What is nested too deeply to be decoded is no session."""
    assert [Codec(format).decode(payload) for format in ("msgpack", "json")] == [None, None]


def test_markup_of_hostile_bytes() -> None:
    """A damaged Markup is a damaged payload."""
    assert Codec("msgpack").decode(msgspec.msgpack.encode({"a": msgspec.msgpack.Ext(77, b"\xff")})) is None


def test_unknown_extensions_are_kept() -> None:
    """Reading a session with an unknown extension and storing it again changes no byte."""
    payload = msgspec.msgpack.encode({"a": msgspec.msgpack.Ext(5, b"x")})
    assert Codec("msgpack").encode(Codec("msgpack").decode(payload) or {}) == payload


@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_a_text_that_changes_the_session(format: str) -> None:
    """Making a lazy text may run code of the app that changes the session (a locale, say): that is too late."""
    data: dict[str, Any] = {"a": 1}

    class LazyString:
        def __str__(self) -> str:
            data.clear()
            data.update({f"more{number}": number for number in range(100)})
            return "text"

    data["text"] = LazyString()
    codec = Codec(format)
    assert codec.decode(codec.encode(data)) == {"a": 1, "text": "text"}


def test_flashing_markup(any_store: Store, make_app: MakeApp) -> None:
    """flash(Markup(...)) works, and the next page shows it as Markup."""
    app = make_app()
    app.add_url_rule("/", "flash", lambda: flash(Markup("<b>Saved</b>"), "info") or "")
    page = "{% for category, text in get_flashed_messages(with_categories=true) %}{{ category }} {{ text }}{% endfor %}"
    app.add_url_rule("/page", "page", lambda: render_template_string(page))
    app.add_url_rule("/text", "text", lambda: str(get_flashed_messages()))
    client = app.test_client()
    assert client.get("/").status_code == 200
    assert client.get("/page").text == "info <b>Saved</b>"
    assert client.get("/text").text == "[]"


@pytest.fixture
def store(any_store: Store) -> Store:
    """On every store."""
    return any_store
