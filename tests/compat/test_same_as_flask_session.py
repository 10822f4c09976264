"""A deferred session behaves as Flask-Session's own session does, and stores the same data."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import fakeredis
import msgspec
from flask import Flask, session
from flask_session import Session
from hypothesis import given, settings
from hypothesis import strategies as st

from lazysession import LazySession
from lazysession.records.rotation import forwarding_in
from tests.support.stores import LIVE

Operation = tuple[str, Callable[[Any], Any]]

KEYS = st.sampled_from(["a", "b", "list", "_permanent", "_remember", "missing"])
VALUES = st.one_of(
    st.integers(-3, 3), st.text(max_size=3), st.booleans(), st.none(), st.lists(st.integers(0, 9), max_size=2)
)
STORED = st.dictionaries(st.sampled_from(["a", "b", "list"]), st.one_of(st.integers(0, 2), st.just([1])), max_size=3)


def append(current: Any, key: str) -> Any:
    if isinstance(current.get(key), list):
        current[key].append(7)
    return current.get(key)


def set_key(current: Any, key: str, value: Any) -> None:
    current[key] = value


def delete_key(current: Any, key: str) -> None:
    del current[key]


def or_in_place(current: Any, value: dict[str, Any]) -> None:
    current |= value


def set_permanent(current: Any, value: bool) -> None:
    current.permanent = value


def set_modified(current: Any) -> None:
    current.modified = True


WITHOUT_ARGUMENTS: list[Operation] = [
    ("len", len),
    ("bool", bool),
    ("iter", list),
    ("reversed", lambda s: list(reversed(s))),
    ("keys", lambda s: list(s.keys())),
    ("values", lambda s: list(s.values())),
    ("items", lambda s: list(s.items())),
    ("copy", lambda s: dict(s.copy())),
    ("copy.copy", lambda s: dict(copy.copy(s))),
    ("copy.deepcopy", lambda s: dict(copy.deepcopy(s))),
    ("dict", dict),
    ("unpacked", lambda s: {**s}),
    ("or", lambda s: dict(s | {"z": 1})),
    ("ror", lambda s: dict({"z": 1} | s)),
    ("clear", lambda s: s.clear()),
    ("popitem", lambda s: s.popitem()),
    ("permanent", lambda s: s.permanent),
    ("new", lambda s: s.new),
    ("modified", set_modified),
    ("equals itself", lambda s: s == dict(s)),
    ("differs", lambda s: s != {"nothing": "like it"}),
    ("unhashable", hash),
]


def operations() -> st.SearchStrategy[Operation]:
    def with_key(name: str, use: Callable[[Any, str], Any]) -> st.SearchStrategy[Operation]:
        return KEYS.map(lambda key: (f"{name} {key}", lambda s: use(s, key)))

    def with_key_and_value(name: str, use: Callable[[Any, str, Any], Any]) -> st.SearchStrategy[Operation]:
        return st.tuples(KEYS, VALUES).map(lambda pair: (f"{name} {pair}", lambda s: use(s, *copy.deepcopy(pair))))

    return st.one_of(
        st.sampled_from(WITHOUT_ARGUMENTS),
        with_key("getitem", lambda s, key: s[key]),
        with_key("get", lambda s, key: s.get(key)),
        with_key("contains", lambda s, key: key in s),
        with_key("pop", lambda s, key: s.pop(key)),
        with_key("del", delete_key),
        with_key("append", append),
        with_key_and_value("get default", lambda s, key, value: s.get(key, value)),
        with_key_and_value("pop default", lambda s, key, value: s.pop(key, value)),
        with_key_and_value("set", set_key),
        with_key_and_value("setdefault", lambda s, key, value: s.setdefault(key, value)),
        with_key_and_value("update", lambda s, key, value: s.update({key: value}, z=value)),
        with_key_and_value("or in place", lambda s, key, value: or_in_place(s, {key: value})),
        st.booleans().map(lambda value: (f"permanent = {value}", lambda s: set_permanent(s, value))),
    )


def run(make_lazy: bool, stored: dict[str, Any] | None, sequence: list[Operation]) -> tuple[Any, ...]:
    """Run a sequence in one request; return every outcome, the data then stored, and whether there is a cookie."""
    client = fakeredis.FakeRedis()
    app = Flask("oracle")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client, TESTING=True)
    (LazySession if make_lazy else Session)(app)
    outcomes: list[Any] = []

    @app.route("/")
    def view() -> str:
        current = session._get_current_object()  # type: ignore[attr-defined]
        for name, operate in sequence:
            try:
                outcomes.append((name, copy.deepcopy(operate(current))))
            except (KeyError, TypeError) as error:
                outcomes.append((name, type(error)))
        return ""

    browser = app.test_client()
    if stored is not None:
        client.set(f"session:{LIVE}", msgspec.msgpack.encode({"_permanent": True, **stored}), ex=1000)
        browser.set_cookie("session", LIVE)
    response = browser.get("/")
    assert response.status_code == 200
    found = [msgspec.msgpack.decode(client.get(key)) for key in client.keys()]
    data = [items for items in found if forwarding_in(items) is None]  # what clear() and a write leave under the old id
    return outcomes, data, browser.get_cookie("session") is not None


@given(stored=st.one_of(st.none(), STORED), sequence=st.lists(operations(), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_sequence_of_operations(stored: dict[str, Any] | None, sequence: list[Operation]) -> None:
    """Each operation gives what it gives on Flask-Session's object, and the store then holds the same data."""
    if stored == {}:
        stored = None  # Flask-Session never stores an empty session
    sequence = [*sequence, ("use", bool)]  # setting `permanent` alone is no use, on purpose: it stores nothing
    assert run(True, stored, sequence) == run(False, stored, sequence)
