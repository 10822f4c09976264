"""Sessions in cachelib's caches that Flask-Session has stored, or reads."""

from __future__ import annotations

import itertools
import pickle
import stat
import threading
import time
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from cachelib import FileSystemCache, RedisCache, SimpleCache
from flask import Flask, flash, render_template_string, session
from flask_session import Session
from flask_session.filesystem import FileSystemSessionInterface
from markupsafe import Markup

from lazysession import LazySession
from lazysession.backends.cachelib import CacheLibBackend, FileCacheBackend
from lazysession.backends.objects import Items, same
from lazysession.records.rotation import forwarding_in
from lazysession.testing import (
    KEY,
)
from tests.support.on_cachelib import LIVE, ONE_DAY, expiry_of, findings, make_app, sessions_in


class Cart:
    """An object of the app's own."""

    def __init__(self, items: int) -> None:
        self.items = items

    def add(self) -> None:
        self.items += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cart) and other.items == self.items

    __hash__ = None  # type: ignore[assignment]


class Plain:
    """An object that does not say when it equals another one, but for the assertions of the tests."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and vars(other) == vars(self)

    __hash__ = object.__hash__


class Unlike:
    """An object whose copies differ."""

    def __reduce_ex__(self, protocol: object) -> Any:
        return Unlike, (), {"at": next(COUNTER)}


COUNTER = itertools.count()


FORMATS = pytest.mark.parametrize("format", ["msgpack", "json"])
DEPRECATED = pytest.mark.filterwarnings(
    "ignore:FileSystemSessionInterface is deprecated:DeprecationWarning",
    "ignore:'SESSION_FILE_:DeprecationWarning",
)


@DEPRECATED
class TestNextToFlaskSession:
    """Half of a fleet may run on Flask-Session alone."""

    @pytest.fixture(params=["cachelib", "filesystem", "redis", "memory"])
    def config(self, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
        """The config of one store that both share."""
        if request.param == "filesystem":
            return {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": str(tmp_path), "SESSION_FILE_THRESHOLD": 0}
        if request.param == "redis":
            client: Any = redis.Redis.from_url(request.getfixturevalue("redis_url"))
            client.flushall()
            return {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": RedisCache(client)}
        if request.param == "memory":
            return {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": SimpleCache()}
        return {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": FileSystemCache(str(tmp_path), threshold=0)}

    @FORMATS
    @pytest.mark.parametrize("order", [(Session, LazySession), (LazySession, Session)], ids=["theirs", "ours"])
    def test_a_session_is_used_by_both(self, config: dict[str, Any], format: str, order: tuple[type, type]) -> None:
        """One writes it, the other reads and changes it, the first reads it again and ends it."""
        config["SESSION_SERIALIZATION_FORMAT"] = format
        first, second = (make_app(extension, **config).test_client() for extension in order)
        first.get("/same")
        cookie = first.get_cookie("session")
        assert cookie is not None
        second.set_cookie("session", cookie.value)
        assert second.get("/read").text == "{'_permanent': True, 'a': 1}"
        assert second.get("/change").text == cookie.value
        assert first.get("/read").text == "{'_permanent': True, 'a': 2}"
        second.get("/clear")
        assert first.get("/read").text == "{'_permanent': True}"

    def test_the_same_bytes(self, tmp_path: Path) -> None:
        """A file has the name and the bytes that Flask-Session would give it."""
        contents = []
        for extension in (Session, LazySession):
            folder = tmp_path / extension.__name__
            cache = FileSystemCache(str(folder), threshold=0)
            app = make_app(extension, SESSION_TYPE="cachelib", SESSION_CACHELIB=cache)
            sid = app.test_client().get("/change").text
            assert Path(cache._get_filename(f"session:{sid}")).exists()
            assert ONE_DAY - 5 < expiry_of(folder) - time.time() <= ONE_DAY
            (path,) = sessions_in(folder)
            contents.append((path.read_bytes()[4:], stat.S_IMODE(path.stat().st_mode)))
        assert contents[0] == contents[1]

    @pytest.mark.parametrize("extensions", [(LazySession,), (Session, LazySession)], ids=["alone", "after Session"])
    def test_the_deprecated_type(self, tmp_path: Path, extensions: tuple[type, ...]) -> None:
        """SESSION_TYPE = 'filesystem' has its adapter, with the settings that Flask-Session reads."""
        app = Flask("shop")
        app.config.update(SESSION_TYPE="filesystem", SESSION_FILE_DIR=str(tmp_path), SESSION_FILE_MODE=0o640)
        for extension in extensions:
            extension(app)
        handler = app.session_interface.handler  # type: ignore[attr-defined]
        assert isinstance(handler.wrapped, FileSystemSessionInterface)
        assert isinstance(handler.backend, FileCacheBackend)
        assert handler.backend.cache is handler.wrapped.cache
        assert handler.backend.cache._mode == 0o640

    def test_no_value(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without SESSION_CACHELIB it is Flask-Session's directory, and check() says that it prunes."""
        monkeypatch.chdir(tmp_path)
        with pytest.warns(RuntimeWarning, match="No valid cachelib instance"):
            app = make_app(LazySession, SESSION_TYPE="cachelib")
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        assert backend.cache._path == "flask_session"
        assert "Beyond 500 sessions" in findings(backend)


class TestValues:
    """What Flask-Session keeps in a cache: whatever pickle takes."""

    VALUES = {
        "tuple": (1, ("nested", 2)),
        "set": {"only one"},
        "date": date(2024, 2, 29),
        "naive": datetime(2024, 2, 29, 12),
        "aware": datetime(2024, 2, 29, 12, tzinfo=timezone.utc),
        "decimal": Decimal("1.50"),
        "bytes": b"\x00\xff",
        "keys": {1: "one"},
        "markup": Markup("<b>"),
        "large": 2**70,
        "surrogate": "\ud800",
        "cart": Cart(3),
        "plain": Plain(3),
        "nested": [{"cart": Cart(4)}],
    }

    def serve(self, folder: Path, extension: type = LazySession, **config: Any) -> tuple[Any, Callable[[], Any]]:
        """Return a client of a session with all these values, and a function that returns what is stored."""
        cache = FileSystemCache(str(folder), threshold=0)
        app = make_app(extension, SESSION_TYPE="cachelib", SESSION_CACHELIB=cache, **config)
        app.add_url_rule("/end", view_func=lambda: session.pop("cart"), endpoint="end")
        app.add_url_rule("/cart", view_func=lambda: session.update(cart=[1]) or "", endpoint="cart")
        app.add_url_rule("/put", view_func=lambda: session.update(self.VALUES) or "", endpoint="put")
        app.add_url_rule("/inside", view_func=lambda: session["nested"][0]["cart"].add() or "", endpoint="inside")
        cache.set(f"session:{LIVE}", {**self.VALUES, "a": 1}, timeout=ONE_DAY)
        client = app.test_client()
        client.set_cookie("session", LIVE)
        return client, lambda: cache.get(f"session:{LIVE}")

    @pytest.mark.parametrize("config", [{}, {"LAZYSESSION_ABSOLUTE_LIFETIME": 1000}], ids=["", "absolute lifetime"])
    def test_they_are_stored_and_come_back(self, tmp_path: Path, config: dict[str, Any]) -> None:
        """Each value has its own type in the next request, and reading writes nothing."""
        client, _ = self.serve(tmp_path, **config)
        seen: list[dict[str, Any]] = []
        client.application.add_url_rule("/see", view_func=lambda: str(seen.append(dict(session))))
        client.delete_cookie("session")
        client.get("/put")
        files = {path: path.read_bytes() for path in sessions_in(tmp_path)}
        client.get("/see")
        assert {key: seen[0][key] for key in self.VALUES} == self.VALUES
        assert [type(seen[0][key]) for key in self.VALUES] == [type(value) for value in self.VALUES.values()]
        assert {path: path.read_bytes() for path in sessions_in(tmp_path)} == files

    @pytest.mark.parametrize("order", [(Session, LazySession), (LazySession, Session)], ids=["theirs", "ours"])
    def test_both_read_the_same(self, tmp_path: Path, order: tuple[type, type]) -> None:
        """An app that begins or ends to use LazySession finds each value as it was."""
        (first, _), (second, _) = (self.serve(tmp_path, extension) for extension in order)
        first.delete_cookie("session")
        first.get("/put")
        second.set_cookie("session", first.get_cookie("session").value)
        seen: list[dict[str, Any]] = []
        second.application.add_url_rule("/see", view_func=lambda: str(seen.append(dict(session))))
        second.get("/see")
        assert {key: seen[0][key] for key in self.VALUES} == self.VALUES

    def test_a_change_inside_an_object(self, tmp_path: Path) -> None:
        """It is stored, though no key of the session was assigned."""
        client, stored = self.serve(tmp_path)
        client.get("/inside")
        assert stored()["nested"] == [{"cart": Cart(5)}]

    def test_a_change_keeps_what_it_does_not_change(self, tmp_path: Path) -> None:
        """All other values stay as they are."""
        client, stored = self.serve(tmp_path)
        assert client.get("/change").status_code == 200
        assert stored() == {**self.VALUES, "a": 2}

    def test_what_is_changed_or_popped_is_gone(self, tmp_path: Path) -> None:
        """An object can be popped and replaced as any other value."""
        client, stored = self.serve(tmp_path)
        client.get("/cart")
        assert stored() == {**self.VALUES, "a": 1, "cart": [1]}
        client.get("/end")
        assert "cart" not in stored()

    def test_changes_of_two_requests(self, tmp_path: Path) -> None:
        """They are merged: each changed another key, and the objects are compared by what is in them."""
        client, stored = self.serve(tmp_path)

        @client.application.route("/slow")
        def slow() -> str:
            other = client.application.test_client()
            other.set_cookie("session", LIVE)
            other.get("/cart")
            session["mine"] = Plain(1)
            return ""

        client.get("/slow")
        assert stored() == {**self.VALUES, "a": 1, "cart": [1], "mine": Plain(1)}

    def test_a_late_request(self, tmp_path: Path) -> None:
        """It is shown the objects that the rotated session still holds."""
        client, _ = self.serve(tmp_path)
        app = client.application
        app.add_url_rule("/rotate", view_func=lambda: app.session_interface.regenerate(session) or "")
        client.get("/rotate")
        late = app.test_client()
        late.set_cookie("session", LIVE)
        assert "'date': datetime.date(2024, 2, 29)" in late.get("/read").text

    @pytest.mark.parametrize(("before", "after"), [(1, True), (1, 1.0), ("1", 1), ([1], [True])])
    def test_values_that_are_equal_in_python(self, before: Any, after: Any) -> None:
        """1 becomes True, although they are equal in Python."""
        backend = CacheLibBackend(SimpleCache())
        seen, new = (Items({"a": value}) for value in (before, after))
        backend.create(KEY, seen, 1000)
        backend.replace(KEY, new, 1000, seen)
        record = backend.read(KEY)
        assert record is not None
        assert record.payload == new

    def test_a_session_of_one_user_shows_no_object_of_another(self, tmp_path: Path) -> None:
        """What follows a clear() in the same request has nothing of what was there."""
        client, stored = self.serve(tmp_path)

        @client.application.route("/over")
        def over() -> str:
            assert "cart" in session
            session.clear()
            session["b"] = 1
            return ""

        client.get("/over")
        assert forwarding_in(stored()) is not None
        new = FileSystemCache(str(tmp_path), threshold=0).get(f"session:{client.get_cookie('session').value}")
        assert new.keys() == {"_permanent", "b"}

    @pytest.mark.parametrize(
        ("make", "why"),
        [
            (threading.Lock, "_thread.lock"),
            (lambda: Unlike(), "differs from its copy"),
            (lambda: lambda: 1, "lambda"),
        ],
        ids=["cannot be copied", "cannot be compared", "cannot be stored"],
    )
    def test_what_cannot_be_kept(self, tmp_path: Path, make: Callable[[], Any], why: str) -> None:
        """The write fails with the name of the key, and what was stored stays."""
        client, stored = self.serve(tmp_path)
        client.application.add_url_rule("/bad", view_func=lambda: session.update(cart=[make()]) or "", endpoint="bad")
        with pytest.raises(TypeError, match=r"session\['cart'\] cannot be stored") as error:
            client.get("/bad")
        assert why in str(error.value)
        assert stored()["cart"] == Cart(3)

    def test_flashes(self, tmp_path: Path) -> None:
        """Messages that Flask-Session stored as tuples are shown."""
        cache = FileSystemCache(str(tmp_path), threshold=0)
        apps = [make_app(kind, SESSION_TYPE="cachelib", SESSION_CACHELIB=cache) for kind in (Session, LazySession)]
        for app in apps:
            app.add_url_rule("/flash", view_func=lambda: flash("Saved", "info") or "", endpoint="flash")
            show = "{% for kind, text in get_flashed_messages(true) %}{{ kind }}: {{ text }}{% endfor %}"
            app.add_url_rule("/show", view_func=partial(render_template_string, show), endpoint="show")
        theirs, ours = (app.test_client() for app in apps)
        theirs.get("/flash")
        cookie = theirs.get_cookie("session")
        assert cookie is not None
        ours.set_cookie("session", cookie.value)
        assert ours.get("/show").text == "info: Saved"
        assert ours.get("/show").text == ""

    def test_no_payload_shows_what_it_holds(self) -> None:
        """Nor does it change with what the app does to the session afterwards."""
        items = {"cart": ["the secret"]}
        payload = CacheLibBackend.codec.encode(items)
        assert "secret" not in repr(payload)
        items["cart"].append("more")
        assert CacheLibBackend.codec.decode(payload) == {"cart": ["the secret"]}
        CacheLibBackend.codec.decode(payload)["cart"].clear()
        assert payload == Items({"cart": ["the secret"]})

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            *((1, True), (1, 1.0), ("1", 1), ([1], [True]), ([1], (1,)), ({1}, {True}), ({1}, frozenset({1}))),
            *(({"a": 1, "b": 2}, {"b": 2, "a": 1}), (Plain(1), Plain(2)), (Plain(1), Cart(1)), (0.0, -0.0)),
            *((Markup("a"), "a"), ([[]], [[[]]]), (Plain([1]), Plain([True])), ({1, 2}, {1, 3}), ([1], [1, 2])),
            (Unlike(), Unlike()),
        ],
    )
    def test_what_differs(self, one: Any, other: Any) -> None:
        """Types count, and so does the order of a dict."""
        assert not same(one, other)
        assert not same({"a": [one]}, {"a": [other]})

    @pytest.mark.parametrize("value", [*VALUES.values(), float("nan"), None, [None], Decimal("nan"), Plain(Plain(1))])
    def test_what_is_the_same(self, value: Any) -> None:
        """A value, and what comes back of it from a store."""
        assert same(value, pickle.loads(pickle.dumps(value)))

    def test_values_that_hold_themselves(self) -> None:
        """They are compared, too."""
        one: list[Any] = [1]
        one.append(one)
        other = pickle.loads(pickle.dumps(one))
        assert same(one, other)
        other[0] = 2
        assert not same(one, other)
