"""The cachelib adapter against the contract: on files, in memory, on Redis, and what only cachelib has."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import pickle
import stat
import struct
import threading
import time
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import redis
from cachelib import BaseCache, FileSystemCache, RedisCache, SimpleCache
from flask import Flask, flash, render_template_string, session
from flask_session import Session
from flask_session.filesystem import FileSystemSessionInterface
from markupsafe import Markup
from redis.backoff import NoBackoff
from redis.retry import Retry

from lazysession import LazySession
from lazysession.backend import Outcome, SupportsCheck, SupportsPurge
from lazysession.backends.cachelib import CacheLibBackend, FileCacheBackend, FileSystemBackend
from lazysession.backends.cachelib.store import backend_of
from lazysession.backends.objects import Items, same
from lazysession.errors import ConfigurationError
from lazysession.processes import Recent
from lazysession.records.expiry import Refresh
from lazysession.records.rotation import forwarding_in
from lazysession.records.store import RecordStore
from lazysession.testing import (
    KEY,
    ComparesAtomically,
    Contract,
    Held,
    KeepsTtl,
    PurgesExpired,
    TellsTtl,
)
from tests.support.boxed import Boxed
from tests.support.connecting import boxed_on_files, on_files
from tests.support.refreshing import load

ONE_DAY = 86400
LIVE = "a" * 43
FUTURE = b"\xff\xff\xff\xff"  # how a file begins that expires in 2106
NOBODY = 1  # a port where nobody listens


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


class CountingFiles(FileSystemCache):
    """Counts what is unpickled and pickled."""

    def __init__(self, path: Path | str, **options: Any) -> None:
        super().__init__(str(path), **{"threshold": 0, "mode": 0o600, **options})
        self.trips: list[str] = []
        cache = self

        class Counting(type(FileSystemCache.serializer)):  # type: ignore[misc]
            def load(self, *arguments: Any) -> Any:
                cache.trips.append("load")
                return super().load(*arguments)

            def dump(self, *arguments: Any) -> None:
                cache.trips.append("dump")
                super().dump(*arguments)

        self.serializer = Counting()


class CountingMemory(SimpleCache):
    """A cache that counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.trips: list[str] = []

    def get(self, key: str) -> Any:
        self.trips.append("get")
        return super().get(key)

    def set(self, key: str, value: Any, timeout: Any = None) -> bool | None:
        self.trips.append("set")
        return super().set(key, value, timeout)

    def add(self, key: str, value: Any, timeout: Any = None) -> bool:
        self.trips.append("add")
        return super().add(key, value, timeout)

    def delete(self, key: str) -> bool:
        self.trips.append("delete")
        return super().delete(key)


class LeastCache(BaseCache):
    """A cache of one's own with the three methods that Flask-Session needs; it hands out the very dict that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Any] = {}
        self.timeouts: list[int] = []

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any, timeout: Any = None) -> bool:
        self.values[key] = value
        self.timeouts.append(timeout)
        return True

    def delete(self, key: str) -> bool:
        return self.values.pop(key, None) is not None


def age_files(folder: Path | str, seconds: float) -> None:
    """Let time pass for every session in a folder, whichever process looks at it."""
    for path in Path(folder).iterdir():
        if not path.name.endswith(".__wz_cache"):
            (expiry,) = struct.unpack("I", path.read_bytes()[:4])
            with path.open("r+b") as file:
                file.write(struct.pack("I", expiry - int(seconds)))


def expiry_of(folder: Path | str) -> int:
    (path,) = sessions_in(folder)
    return int(struct.unpack("I", path.read_bytes()[:4])[0])


def sessions_in(folder: Path | str) -> list[Path]:
    return [path for path in Path(folder).iterdir() if not path.name.endswith(".__wz_cache")]


def let_pass(backend: Any, seconds: float) -> None:
    now = backend.clock
    backend.clock = lambda: now() + seconds


class TestFiles(Contract, TellsTtl, KeepsTtl, ComparesAtomically, PurgesExpired):
    """Files, from many threads and processes of one machine."""

    @pytest.fixture
    def held(self, tmp_path: Path) -> Held:
        return Held(boxed_on_files(tmp_path), partial(age_files, tmp_path), partial(boxed_on_files, tmp_path))


class TestMemory(Contract, TellsTtl, KeepsTtl, ComparesAtomically):
    """The memory of one process."""

    @pytest.fixture
    def held(self) -> Held:
        cache = SimpleCache()
        backend = CacheLibBackend(cache)

        def pass_time(seconds: float) -> None:
            for key, (expiry, value) in list(cache._cache.items()):
                cache._cache[key] = (expiry - seconds, value)

        return Held(Boxed(backend), pass_time)


class TestRedisCache(Contract):
    """A cache that cannot return the ttl, on a real Redis; use SESSION_TYPE = 'redis' instead."""

    @pytest.fixture
    def held(self, redis_url: str) -> Held:
        client: Any = redis.Redis.from_url(redis_url)
        client.flushall()
        backend = CacheLibBackend(RedisCache(client))

        def pass_time(seconds: float) -> None:
            let_pass(backend, seconds)
            for key in client.keys():
                client.pexpire(key, int(client.pttl(key) - seconds * 1000))

        return Held(Boxed(backend), pass_time)

    def test_what_is_left_is_known_where_it_was_set(self, held: Held) -> None:
        """A no_refresh change keeps the life that this process gave; another process gives a whole one."""
        passed = 0.0
        records = RecordStore(held.backend, lambda: time.time() + passed)
        records.create(KEY, b"1", 1000)
        held.pass_time(600)
        passed = 600.0
        assert records.replace(KEY, b"2", None, b"1").outcome is Outcome.STORED
        held.pass_time(402)
        assert held.backend.read(KEY) is None


def test_optional_verbs() -> None:
    """Only files need purging, and every cache has something to say."""
    assert not isinstance(CacheLibBackend(SimpleCache()), SupportsPurge)
    assert isinstance(CacheLibBackend(SimpleCache()), SupportsCheck)


class TestRoundTrips:
    """What each verb costs."""

    @pytest.mark.parametrize("kind", [CountingMemory, CountingFiles])
    def test_by_verb(self, kind: Any, tmp_path: Path) -> None:
        """Memory: one call, two to compare and replace. Files: as many readings and writings, and none to refresh."""
        files = kind is CountingFiles
        cache = kind(tmp_path) if files else kind()
        backend = FileCacheBackend(cache) if files else CacheLibBackend(cache)

        def trips(verb: Callable[..., Any], *arguments: Any) -> list[str]:
            cache.trips.clear()
            verb(*arguments)
            return list(cache.trips)

        one, two = (Items({"a": number}) for number in (1, 2))
        get, put = ("load", "dump") if files else ("get", "set")
        assert trips(backend.create, KEY, one, 1000) == ([put] if files else ["add"])
        assert trips(backend.read, KEY) == [get]
        assert trips(load, backend, Refresh(1000, 100)) == [get]
        assert trips(load, backend) == ([get] if files else [get, get, put])
        assert trips(backend.replace, KEY, two, 1000, one) == [get, put]
        assert trips(backend.replace, KEY, two, 1000, one) == [get]
        assert trips(backend.delete, KEY, one) == [get]
        assert trips(backend.delete, KEY) == ([get] if files else [get, "delete"])

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/untouched", []),
            ("/read", ["load"]),
            ("/same", ["load"]),
            ("/change", ["load", "load", "dump"]),
            ("/clear", ["load"]),
        ],
    )
    def test_through_an_app(self, tmp_path: Path, path: str, expected: list[str]) -> None:
        """A file is read once for a request that uses its session, and written for one that changes it."""
        app, cache = counted_app(tmp_path)
        cache.set(f"session:{LIVE}", {"_permanent": True, "a": 1}, timeout=ONE_DAY)
        cache.trips.clear()
        client = app.test_client()
        client.set_cookie("session", LIVE)
        client.get(path)
        assert cache.trips == expected
        assert len(sessions_in(tmp_path)) == (0 if path == "/clear" else 1)

    def test_a_due_refresh_through_an_app(self, tmp_path: Path) -> None:
        """The expiry moves, the data are not written: not one byte of the file is another."""
        app, cache = counted_app(tmp_path)
        cache.set(f"session:{LIVE}", {"_permanent": True, "a": 1}, timeout=ONE_DAY)
        age_files(tmp_path, ONE_DAY / 10)
        (path,) = sessions_in(tmp_path)
        before, inode = path.read_bytes(), path.stat().st_ino
        cache.trips.clear()
        client = app.test_client()
        client.set_cookie("session", LIVE)
        assert "Set-Cookie" in client.get("/read").headers
        assert cache.trips == ["load"]
        assert ONE_DAY - 5 < expiry_of(tmp_path) - time.time() <= ONE_DAY
        assert (path.read_bytes()[4:], path.stat().st_ino) == (before[4:], inode)

    def test_a_first_write_through_an_app(self, tmp_path: Path) -> None:
        """A visitor without a cookie costs one write."""
        app, cache = counted_app(tmp_path)
        app.test_client().get("/change")
        assert cache.trips == ["dump"]


def counted_app(folder: Path) -> tuple[Flask, CountingFiles]:
    cache = CountingFiles(folder)
    app = make_app(LazySession, SESSION_TYPE="cachelib", SESSION_CACHELIB=cache)
    assert isinstance(app.session_interface.handler.backend, FileCacheBackend)  # type: ignore[attr-defined]
    return app, cache


def make_app(extension: type, **config: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", PERMANENT_SESSION_LIFETIME=ONE_DAY, **config)
    extension(app)

    def change() -> str:
        session["a"] = 2
        return session.sid  # type: ignore[attr-defined, no-any-return]

    def same() -> str:
        session["a"] = 1
        return ""

    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    app.add_url_rule("/read", view_func=lambda: repr(dict(session)), endpoint="read")
    app.add_url_rule("/change", view_func=change, endpoint="change")
    app.add_url_rule("/same", view_func=same, endpoint="same")
    app.add_url_rule("/clear", view_func=lambda: session.clear() or "", endpoint="clear")
    return app


FORMATS = pytest.mark.parametrize("format", ["msgpack", "json"])
DEPRECATED = pytest.mark.filterwarnings(
    "ignore:FileSystemSessionInterface is deprecated:DeprecationWarning",
    "ignore:'SESSION_FILE_:DeprecationWarning",
)


@DEPRECATED
class TestBesideFlaskSession:
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
    def test_a_session_wanders(self, config: dict[str, Any], format: str, order: tuple[type, type]) -> None:
        """Written by one, read and changed by the other, read back and ended by the first."""
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
        """A file is named and filled as Flask-Session would."""
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
        """1 becomes True, though Python holds them equal."""
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


class TestOnlyFiles:
    """What FileSystemCache gets wrong, mended."""

    SESSION = Items({"a": 1})

    def test_a_refresh_never_revives(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A logout by Flask-Session, which takes no lock, comes between the reading and the refresh."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        files, extend = backend._files, backend._files.extend

        def logged_out_before(*arguments: Any) -> bool:
            FileSystemCache(str(tmp_path), threshold=0).delete(KEY)
            return extend(*arguments)

        monkeypatch.setattr(files, "extend", logged_out_before)
        record = load(backend)
        assert record is not None
        assert not record.touched
        assert sessions_in(tmp_path) == []

    def test_faults_of_the_disk_are_raised(self, tmp_path: Path) -> None:
        """What cannot be read is not absent, or its user would be logged out; each verb raises where cachelib logs."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        (path,) = sessions_in(tmp_path)
        path.unlink()
        path.mkdir()
        for fails in (
            partial(backend.read, KEY),
            partial(backend.touch, KEY, 1000),
            partial(backend.create, KEY, self.SESSION, 1000),
            partial(backend.replace, KEY, self.SESSION, 1000, self.SESSION),
            partial(backend.delete, KEY),
        ):
            with pytest.raises(OSError, match=r"directory|could not be deleted"):
                fails()

    def test_a_write_that_fails_is_raised(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A full disk is an error, not a session that seems saved."""
        backend = on_files(tmp_path)

        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(backend.cache.serializer, "dump", full, raising=False)
        with pytest.raises(OSError, match="could not store"):
            backend.create(KEY, self.SESSION, 1000)
        assert backend.read(KEY) is None

    def test_a_refresh_does_not_wake_what_expired(self, tmp_path: Path) -> None:
        """A session that ends between the reading and its refresh has ended."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        age_files(tmp_path, 1002)
        assert not backend.touch(KEY, 1000)
        assert backend.read(KEY) is None

    @pytest.mark.parametrize(
        "content",
        [b"", b"\x01", b"junk", b"\xff\xff\xff\xff", b"\xff\xff\xff\xffjunk", b"\xff\xff\xff\xff\x80\x04K\x01."],
    )
    def test_a_damaged_file_is_absent(self, tmp_path: Path, content: bytes) -> None:
        """Empty, cut off, not a pickle, or a pickle of no dict: a new session begins, whatever is asked."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        (path,) = sessions_in(tmp_path)
        path.write_bytes(content)
        assert backend.read(KEY) is None
        assert backend.replace(KEY, self.SESSION, 1000, self.SESSION).outcome is Outcome.MISSING

    def test_a_class_that_is_no_more(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """An object of a class that the app has lost does not fail every request."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        (path,) = sessions_in(tmp_path)
        path.write_bytes(FUTURE + b"cno_such_module\nCart\n.")
        assert backend.read(KEY) is None
        assert "cannot be decoded (ModuleNotFoundError)" in caplog.text

    def test_an_expired_file_does_not_take_the_key(self, tmp_path: Path) -> None:
        """cachelib's own add says that it does, until someone prunes."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        age_files(tmp_path, 1002)
        assert not backend.cache.add(KEY, {})
        assert backend.create(KEY, self.SESSION, 1000)

    def test_a_life_below_a_second_is_not_for_ever(self, tmp_path: Path) -> None:
        """A timeout of 0 would be: what is left of a life, say, is rounded up."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 0.2)
        assert 0 < expiry_of(tmp_path) - time.time() <= 1

    def test_a_file_without_an_expiry_gets_one(self, tmp_path: Path) -> None:
        """A session that something made immortal is mortal again at its next use."""
        backend = on_files(tmp_path)
        backend.cache.set(KEY, {"a": 1}, timeout=0)
        record = load(backend, Refresh(1000, 999))
        assert record is not None
        assert (record.ttl, record.touched) == (None, True)
        assert 990 < expiry_of(tmp_path) - time.time() <= 1000

    def test_purge_leaves_what_is_not_a_session(self, tmp_path: Path) -> None:
        """Other people's files, temporary files and cachelib's count stay, whatever their first bytes."""
        cache = FileSystemCache(str(tmp_path), threshold=500)
        backend = FileCacheBackend(cache)
        backend.create(KEY, self.SESSION, 1000)
        backend.create(KEY + "2", self.SESSION, 5000)
        assert cache._file_count == 2
        others = [tmp_path / name for name in ("README.txt", "cafe", "z" * 64, f"{'a' * 64}.__wz_cache")]
        for path in others:
            path.write_bytes(b"\x01\x00\x00\x00")
        let_pass(backend, 2000)
        assert backend.purge() == 1
        assert cache._file_count == 1
        assert backend.read(KEY + "2") is not None
        assert all(path.exists() for path in others)

    def test_purge_takes_what_was_cut_off(self, tmp_path: Path) -> None:
        """A file without even an expiry, as a machine that lost its power leaves it, is nobody's session."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        sessions_in(tmp_path)[0].write_bytes(b"\x01")
        assert backend.purge() == 1
        assert sessions_in(tmp_path) == []

    def test_purge_looks_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A session that came to new life while the purge waited for the lock stays."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        age_files(tmp_path, 2000)
        locked = backend._files.locked

        def revived_before(path: str) -> Any:
            age_files(tmp_path, -2000)
            return locked(path)

        monkeypatch.setattr(backend._files, "locked", revived_before)
        assert backend.purge() == 0
        assert len(sessions_in(tmp_path)) == 1

    def test_locks_are_not_sessions(self, tmp_path: Path) -> None:
        """cachelib neither counts nor prunes the lock files."""
        cache = FileSystemCache(str(tmp_path), threshold=500)
        backend = FileCacheBackend(cache)
        backend.create(KEY, self.SESSION, 1000)
        assert len(list(tmp_path.glob("lazysession-*"))) == 1
        assert len(list(cache._list_dir())) == 1
        cache.clear()
        assert len(list(tmp_path.glob("lazysession-*"))) == 1

    def test_changes_of_another_process_are_waited_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """While another process changes the session all that changes it waits; here, where it waits, it fails."""
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        (path,) = tmp_path.glob("lazysession-*")
        flock = fcntl.flock
        with path.open("rb") as other:
            flock(other, fcntl.LOCK_EX)
            monkeypatch.setattr(fcntl, "flock", lambda lock, operation: flock(lock, operation | fcntl.LOCK_NB))
            for waits in (
                partial(backend.create, KEY, self.SESSION, 1000),
                partial(backend.replace, KEY, self.SESSION, 1000, self.SESSION),
                partial(backend.delete, KEY),
                partial(backend.delete, KEY, self.SESSION),
                partial(backend.touch, KEY, 1000),
            ):
                with pytest.raises(BlockingIOError):
                    waits()
            assert backend.read(KEY) is not None
        assert backend.delete(KEY, self.SESSION).outcome is Outcome.STORED

    def test_a_process_forked_meanwhile_does_not_keep_the_lock(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A descriptor that a child inherited stays open, and the lock is free all the same."""
        backend = on_files(tmp_path)
        inherited: list[int] = []
        flock = fcntl.flock

        def flock_and_fork(descriptor: int, operation: int) -> None:
            flock(descriptor, operation | fcntl.LOCK_NB)
            inherited.append(os.dup(descriptor))

        monkeypatch.setattr(fcntl, "flock", flock_and_fork)
        try:
            assert backend.create(KEY, self.SESSION, 1000)
            assert backend.replace(KEY, self.SESSION, 1000, self.SESSION).outcome is Outcome.STORED
        finally:
            for descriptor in inherited:
                os.close(descriptor)

    def test_modes(self, tmp_path: Path) -> None:
        """A directory that the adapter makes, and all in it, is for its owner alone."""
        backend = on_files(tmp_path / "new" / "sessions")
        backend.create(KEY, self.SESSION, 1000)
        folder = tmp_path / "new" / "sessions"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}

    def test_files_in_a_way_of_their_own(self, tmp_path: Path) -> None:
        """A subclass that reads its files differently is asked, not bypassed."""

        class Backwards(FileSystemCache):
            def get(self, key: str) -> Any:
                found = super().get(key)
                return {name[::-1]: value for name, value in found.items()} if isinstance(found, dict) else found

        cache = Backwards(str(tmp_path))
        backend = backend_of(cache)
        assert type(backend) is CacheLibBackend
        cache.set(KEY, {"abc": 1})
        record = backend.read(KEY)
        assert record is not None
        assert record.payload == Items({"cba": 1})

    def test_without_file_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is no fcntl all works in one process, and check() says what does not."""
        monkeypatch.setattr("lazysession.backends.cachelib.files.fcntl", None)
        backend = on_files(tmp_path)
        backend.create(KEY, self.SESSION, 1000)
        assert backend.replace(KEY, self.SESSION, None, self.SESSION).outcome is Outcome.STORED
        assert list(tmp_path.glob("lazysession-*")) == []
        assert "no file locks" in findings(backend)


class TestAnyCache:
    """Caches that know little."""

    def test_the_least(self) -> None:
        """A cache without an add of its own: cachelib's base says yes and stores nothing."""
        cache = LeastCache()
        backend = CacheLibBackend(cache)
        one, two = (Items({"a": number}) for number in (1, 2))
        assert backend.create(KEY, one, 1000)
        assert not backend.create(KEY, two, 1000)
        assert cache.values == {KEY: {"a": 1}}
        assert backend.replace(KEY, two, 1000, one).outcome is Outcome.STORED
        assert cache.values == {KEY: {"a": 2}}

    def test_what_is_no_session(self) -> None:
        """A value of another kind under the key counts as absent."""
        cache = LeastCache()
        cache.set(KEY, [1, 2])
        backend = CacheLibBackend(cache)
        session = Items({"a": 1})
        assert load(backend) is None
        assert backend.replace(KEY, session, 1000, session).outcome is Outcome.MISSING

    def test_what_a_process_remembers_throttles(self) -> None:
        """Refreshes of one process come when due; a process that remembers nothing refreshes once."""
        cache = LeastCache()
        for passed in ([0.0], [0.0]):
            records = RecordStore(CacheLibBackend(cache), lambda passed=passed: passed[0])
            cache.set(KEY, {"a": 1})
            cache.timeouts.clear()
            touched = []
            for _ in range(3):
                touched += [load(records, Refresh(1000, 100)).touched for _ in range(2)]  # type: ignore[union-attr]
                passed[0] += 102
            assert touched == [True, False] * 3
            assert cache.timeouts == [1000] * 3

    def test_what_a_process_remembers(self) -> None:
        """A change with a ttl counts as a refresh; a session that was deleted is unknown when it comes again."""
        cache = LeastCache()
        records = RecordStore(CacheLibBackend(cache))
        session = Items({"a": 1})

        def touched() -> bool:
            record = load(records, Refresh(1000, 100))
            assert record is not None
            return record.touched

        cache.set(KEY, {"a": 1})
        records.replace(KEY, session, 1000, session)
        assert not touched()
        records.delete(KEY)
        cache.set(KEY, {"a": 1})
        assert touched()

    def test_a_no_refresh_change_of_an_unknown_session(self) -> None:
        """Where nobody knows what is left it is the longest lifetime so far, and before any, Flask's default."""
        cache = LeastCache()
        records = RecordStore(CacheLibBackend(cache))
        session = Items({"a": 1})
        for key in "xyz":
            cache.set(key, {"a": 1})
        records.replace("x", session, None, session)
        load(records, Refresh(500, 100), "y")
        records.replace("z", session, None, session)
        assert cache.timeouts[3:] == [31 * ONE_DAY, 500, 500]

    def test_a_refresh_that_fails_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """The session was read; the log names neither it nor what it holds."""

        class Full(LeastCache):
            def set(self, key: str, value: Any, timeout: Any = None) -> bool:
                return timeout is None and super().set(key, value, timeout)

        cache = Full()
        cache.set(KEY, {"a": 1})
        record = load(CacheLibBackend(cache))
        assert record is not None
        assert not record.touched
        assert "could not be refreshed (OSError)" in caplog.text
        assert KEY not in caplog.text

    def test_a_logout_between_reading_and_refreshing(self) -> None:
        """A refresh stores what is there then, and nothing where nothing is."""

        class LoggingOut(LeastCache):
            def get(self, key: str) -> Any:
                found = super().get(key)
                self.values.clear()
                return found

        cache = LoggingOut()
        cache.set(KEY, {"a": 1})
        record = load(CacheLibBackend(cache))
        assert record is not None
        assert not record.touched
        assert cache.values == {}

    def test_what_is_remembered_is_bounded(self) -> None:
        """The value that was put longest ago is forgotten."""
        recent = Recent[int](most=2)
        recent.put("a", 0)
        recent.put("b", 2)
        recent.put("a", 1)
        recent.put("c", 3)
        assert [recent.get(key) for key in "abc"] == [1, None, 3]

    @pytest.mark.parametrize("verb", ["read", "create", "replace", "delete", "touch"])
    def test_a_refused_connection(self, verb: str) -> None:
        """A fault of the system raises what the client raises."""
        client = redis.Redis("127.0.0.1", NOBODY, retry=Retry(NoBackoff(), 0))
        backend = CacheLibBackend(RedisCache(client))
        session = Items({"a": 1})
        arguments = {
            "read": (KEY,),
            "create": (KEY, session, 1000),
            "replace": (KEY, session, 1000, session),
            "delete": (KEY,),
            "touch": (KEY, 1000),
        }
        with pytest.raises(redis.ConnectionError):
            getattr(backend, verb)(*arguments[verb])


class TestSettings:
    """SESSION_CACHELIB and its URLs."""

    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("file:///{}/sessions", "{}/sessions"),
            ("file://localhost/{}/sessions", "{}/sessions"),
            ("file:///{}/my%20sessions", "{}/my sessions"),
            ("file:sessions", "sessions"),
            ("file:deep/sessions", "deep/sessions"),
            ("FILE:sessions", "sessions"),
        ],
    )
    def test_urls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, path: str) -> None:
        """A URL makes the directory, in which nothing is pruned."""
        monkeypatch.chdir(tmp_path)
        root = str(tmp_path).lstrip("/")
        app = make_app(LazySession, SESSION_TYPE="cachelib", SESSION_CACHELIB=url.format(root))
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        assert backend.cache._path == path.format("/" + root)
        assert Path(path.format(tmp_path)).is_dir()
        assert backend.cache._threshold == 0
        assert app.test_client().get("/change").status_code == 200
        assert len(sessions_in(backend.cache._path)) == 1

    @pytest.mark.parametrize(
        "value",
        [
            *("", "sessions", "/var/lib/sessions", "file:", "file://", "file:///", "file://var/lib", "file:a?b=c"),
            *("file:a#b", "redis://:hunter2@localhost", 42, b"file:a", object(), FileSystemCache),
        ],
    )
    def test_what_is_neither(self, value: Any) -> None:
        """An error at start-up names the setting, and repeats no password."""
        with pytest.raises(ConfigurationError, match="SESSION_CACHELIB cannot be used") as caught:
            make_app(LazySession, SESSION_TYPE="cachelib", SESSION_CACHELIB=value)
        assert "hunter2" not in str(caught.value)

    def test_a_directory_that_cannot_be(self, tmp_path: Path) -> None:
        """A file in the way is an error at start-up."""
        (tmp_path / "file").touch()
        with pytest.raises(ConfigurationError, match="its directory cannot be made"):
            make_app(LazySession, SESSION_TYPE="cachelib", SESSION_CACHELIB=f"file:{tmp_path}/file")

    def test_filesystem_has_no_value(self) -> None:
        """SESSION_FILESYSTEM is nobody's setting."""
        with pytest.raises(ConfigurationError, match="SESSION_FILE_DIR"):
            make_app(LazySession, SESSION_TYPE="filesystem", SESSION_FILESYSTEM="file:sessions")

    def test_who_builds(self) -> None:
        """Flask-Session takes every cache, and no URL."""
        assert CacheLibBackend.from_setting(SimpleCache()) is None
        assert CacheLibBackend.from_setting("file:sessions") is not None
        assert FileSystemBackend.from_setting(None) is None


def findings(backend: Any) -> str:
    return "\n".join(f"{problem.severity}: {problem.what} {problem.remedy}" for problem in backend.check())


class TestCheck:
    """What check() finds, and that it finds nothing else."""

    def test_files(self, tmp_path: Path) -> None:
        """Files as the URL makes them are pickles, and that is all."""
        (problem,) = on_files(tmp_path / "sessions").check()
        assert problem.severity == "warning"
        assert "stores pickles" in problem.what

    @pytest.mark.parametrize(
        ("threshold", "mode", "folder_mode", "expected"),
        [
            (500, 0o600, 0o700, "error: Beyond 500 sessions"),
            (0, 0o644, 0o700, "warning: The files of sessions have mode 0644"),
            (0, 0o600, 0o770, "error: Other accounts can write"),
        ],
    )
    def test_a_directory(
        self, tmp_path: Path, threshold: int, mode: int, folder_mode: Literal[0o700], expected: str
    ) -> None:
        """Each thing that can be wrong is said, with the remedy."""
        tmp_path.chmod(folder_mode)
        backend = FileCacheBackend(FileSystemCache(str(tmp_path), threshold=threshold, mode=mode))
        assert expected in findings(backend)
        assert len(list(backend.check())) == 2

    def test_memory(self) -> None:
        """The memory of one process is for tests."""
        (problem,) = CacheLibBackend(SimpleCache()).check()
        assert "memory of one process" in problem.what

    def test_servers(self) -> None:
        """A server that has an adapter of its own is better reached through that."""
        problems = findings(CacheLibBackend(RedisCache("127.0.0.1", NOBODY)))
        assert "Set SESSION_TYPE = 'redis'" in problems
        assert "stores pickles" in problems

    def test_another_serializer(self, tmp_path: Path) -> None:
        """A cache that was given a serializer without pickle is no danger."""
        from cachelib.serializers import JSONSerializer

        cache = FileSystemCache(str(tmp_path / "sessions"), threshold=0)
        cache.serializer = JSONSerializer()  # type: ignore[assignment]
        (tmp_path / "sessions").chmod(0o700)
        assert findings(FileCacheBackend(cache)) == ""

    def test_the_level_of_what_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """Checking logs nothing."""
        with caplog.at_level(logging.DEBUG):
            list(CacheLibBackend(SimpleCache()).check())
        assert caplog.text == ""
