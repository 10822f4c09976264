"""Interfaces with storage methods of their own, which the generic adapter calls."""

from __future__ import annotations

import hashlib
import pickle
import secrets
import zlib
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import fakeredis
import msgspec
import pytest
import redis
from flask import Flask, session
from flask_session.base import MsgSpecSerializer, ServerSideSession, ServerSideSessionInterface
from flask_session.redis import RedisSessionInterface
from redis.backoff import NoBackoff
from redis.retry import Retry

from lazysession import LazySession
from lazysession.backend import Outcome, SupportsPurge
from lazysession.backends.generic import GenericBackend
from lazysession.backends.objects import Items
from lazysession.records.expiry import Refresh
from lazysession.records.store import RecordStore
from lazysession.serverside import ServerSide
from lazysession.testing import KEY, ComparesAtomically, Contract, Held
from tests.support.boxed import Boxed
from tests.support.refreshing import load
from tests.support.stores.base import let_pass

ONE_DAY = 86400
LIVE = "a" * 43


class EncryptedRedis(RedisSessionInterface):
    """Stands for any subclass that encrypts: equal data make different bytes each time."""

    secret = b"secret"

    def encrypt(self, payload: bytes, nonce: bytes | None = None) -> bytes:
        nonce = nonce or secrets.token_bytes(16)
        stream = hashlib.shake_256(self.secret + nonce).digest(len(payload))
        return nonce + bytes(left ^ right for left, right in zip(payload, stream, strict=True))

    def decrypt(self, stored: bytes) -> bytes:
        return self.encrypt(stored[16:], stored[:16])[16:]

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        stored = self.client.get(store_id)
        return None if stored is None else self.serializer.decode(self.decrypt(stored))

    def _upsert_session(self, session_lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
        self.client.set(store_id, self.encrypt(self.serializer.encode(session)), px=session_lifetime)


class DictInterface(ServerSideSessionInterface):
    """The least interface: a dict of dicts, with the calls that were made; it hands out the dicts that it keeps."""

    def __init__(self, app: Flask | None = None) -> None:
        super().__init__(app)
        self.now = 0.0
        self.kept: dict[str, tuple[dict[str, Any], float]] = {}
        self.calls: list[str] = []
        self.upserted: list[ServerSideSession] = []

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        self.calls.append("retrieve")
        data, end = self.kept.get(store_id, ({}, 0.0))
        return data if end > self.now else None

    def _upsert_session(self, session_lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
        self.calls.append("upsert")
        self.upserted.append(session)
        self.kept[store_id] = (dict(session), self.now + session_lifetime.total_seconds())

    def _delete_session(self, store_id: str) -> None:
        self.calls.append("delete")
        self.kept.pop(store_id, None)


class CountingRedis(redis.Redis):
    """Counts its commands."""

    names: list[str]

    def execute_command(self, *command: Any, **options: Any) -> Any:
        self.__dict__.setdefault("names", []).append(command[0])
        return super().execute_command(*command, **options)


def hold_redis(client: Any) -> Held:
    client.flushall()
    backend = GenericBackend(EncryptedRedis(Flask("shop"), client=client))
    now, passed = backend.clock, [0.0]
    backend.clock = lambda: now() + passed[0]

    def pass_time(seconds: float) -> None:
        passed[0] += seconds
        for key in client.keys():
            client.pexpire(key, int(client.pttl(key) - seconds * 1000))

    return Held(Boxed(backend), pass_time)


class TestEncryptedRedis(Contract):
    """A subclass of Flask-Session's Redis interface that encrypts, on a real Redis."""

    @pytest.fixture
    def held(self, redis_url: str) -> Held:
        return hold_redis(redis.Redis.from_url(redis_url))


class TestEncryptedFakeRedis(Contract):
    """The same on fakeredis."""

    @pytest.fixture
    def held(self) -> Held:
        return hold_redis(fakeredis.FakeRedis())


def hold_dict() -> Held:
    interface = DictInterface()
    backend = GenericBackend(interface)
    backend.clock = lambda: interface.now

    def pass_time(seconds: float) -> None:
        interface.now += seconds

    return Held(Boxed(backend), pass_time)


class TestHomeMade(Contract):
    """An interface of the app's own, for another store."""

    @pytest.fixture
    def held(self) -> Held:
        return hold_dict()


class TestThreads(ComparesAtomically):
    """The threads of one process exclude each other; processes do not, so this is no mixin of the classes above."""

    @pytest.fixture
    def held(self, redis_url: str) -> Held:
        return hold_redis(redis.Redis.from_url(redis_url))


ONE, TWO = (Items({"_permanent": True, "a": number}) for number in (1, 2))


class TestVerbs:
    """What each verb calls on the interface."""

    def test_calls(self) -> None:
        """One call to read; to compare needs one more."""
        interface = DictInterface()
        backend = GenericBackend(interface)

        def calls(verb: Callable[..., Any], *arguments: Any) -> list[str]:
            interface.calls.clear()
            verb(*arguments)
            return list(interface.calls)

        assert calls(backend.create, KEY, ONE, 1000) == ["retrieve", "upsert"]
        assert calls(backend.create, KEY, ONE, 1000) == ["retrieve"]
        assert calls(backend.read, KEY) == ["retrieve"]
        assert calls(backend.touch, KEY, 1000, ONE) == ["retrieve", "upsert"]
        assert calls(backend.touch, KEY, 1000, TWO) == ["retrieve"]
        assert calls(backend.replace, KEY, TWO, 1000, ONE) == ["retrieve", "upsert"]
        assert calls(backend.replace, KEY, TWO, 1000, ONE) == ["retrieve"]
        assert calls(backend.delete, KEY, ONE) == ["retrieve"]
        assert calls(backend.delete, KEY) == ["retrieve", "delete"]

    def test_what_is_upserted(self) -> None:
        """A session of the interface's class, with its id, modified, and a lifetime as timedelta."""
        interface = DictInterface()
        GenericBackend(interface).create(f"session:{LIVE}", ONE, 1.5)
        (upserted,) = interface.upserted
        assert type(upserted) is ServerSideSession
        assert (upserted.sid, upserted.modified, upserted.permanent) == (LIVE, True, True)
        assert interface.kept == {f"session:{LIVE}": ({"_permanent": True, "a": 1}, 1.5)}

    def test_nothing_of_the_interface_is_changed_in_place(self) -> None:
        """A dict that the interface hands out stays as it is until it is upserted."""
        interface = DictInterface()
        backend = GenericBackend(interface)
        backend.create(KEY, ONE, 1000)
        kept = interface.kept[KEY][0]
        backend.replace(KEY, TWO, 1000, ONE)
        assert kept == {"_permanent": True, "a": 1}

    def test_less_than_a_second(self) -> None:
        """Some interfaces round down, and no store takes a lifetime of nothing."""
        interface = RedisSessionInterface(Flask("shop"), client=fakeredis.FakeRedis())
        backend = GenericBackend(interface)
        assert backend.create(KEY, ONE, 0.8)
        assert backend.replace(KEY, TWO, 0.2, ONE).outcome is Outcome.STORED
        assert interface.client.pttl(KEY) > 0

    def test_what_is_remembered_may_be_over(self) -> None:
        """Another process refreshed what this one holds for expired: a no_refresh write gives it a whole lifetime."""
        interface, now = DictInterface(), 0.0
        mine, other = (RecordStore(GenericBackend(interface), lambda: now) for _ in range(2))
        mine.create(KEY, ONE, 1000)
        interface.now = now = 900.0
        load(other, Refresh(1000, 100))
        interface.now = now = 1100.0
        assert mine.replace(KEY, TWO, None, ONE).outcome is Outcome.STORED
        assert interface.kept[KEY][1] == 2100.0

    def test_its_errors_are_its_own(self) -> None:
        """What the methods raise passes through, from each verb."""

        class Down(DictInterface):
            def fail(self, *arguments: Any) -> Any:
                raise ConnectionRefusedError

            _retrieve_session_data = _upsert_session = _delete_session = fail

        backend = GenericBackend(Down())
        for verb, arguments in {
            "read": (KEY,),
            "create": (KEY, ONE, 1000),
            "replace": (KEY, TWO, 1000, ONE),
            "delete": (KEY,),
            "touch": (KEY, 1000),
        }.items():
            with pytest.raises(ConnectionRefusedError):
                getattr(backend, verb)(*arguments)

    def test_a_refused_connection(self) -> None:
        """So does what the client under them raises."""
        interface = EncryptedRedis(Flask("shop"), client=redis.Redis("127.0.0.1", 1, retry=Retry(NoBackoff(), 0)))
        with pytest.raises(redis.ConnectionError):
            GenericBackend(interface).read(KEY)

    def test_two_processes_may_lose_a_change(self) -> None:
        """The limit: what another process stores between comparing and storing is overwritten."""
        interface = DictInterface()
        mine = GenericBackend(interface)
        mine.create(KEY, ONE, 1000)
        retrieve = interface._retrieve_session_data

        def and_another_stores(key: str) -> Any:
            found = retrieve(key)
            interface.kept[KEY] = ({"theirs": 1}, 1000.0)
            return found

        interface._retrieve_session_data = and_another_stores  # type: ignore[method-assign]
        assert mine.replace(KEY, TWO, 1000, ONE).outcome is Outcome.STORED
        assert interface.kept[KEY][0] == {"_permanent": True, "a": 2}

    def test_optional_verbs(self) -> None:
        """Purging is left to the interface: it does not return how many there were."""
        assert not isinstance(GenericBackend(DictInterface()), SupportsPurge)


class TestPayloads:
    """What the interface reads with Flask-Session's serializer, which unpickles what it cannot decode."""

    @pytest.mark.parametrize("allowed", [False, True])
    @pytest.mark.parametrize("format", ["msgpack", "json"])
    def test_a_pickle_runs_only_where_it_may(self, allowed: bool, format: str) -> None:
        """An attacker who can write to the store must not run code here, unless pickle was allowed."""

        class Traced(RedisSessionInterface):
            def _delete_session(self, store_id: str) -> None:
                self.client.delete(store_id)

        app = Flask("shop", static_folder=None)
        app.config.update(TESTING=True, LAZYSESSION_ALLOW_PICKLE=allowed, SESSION_SERIALIZATION_FORMAT=format)
        client = fakeredis.FakeRedis()
        app.session_interface = Traced(app, client=client, serialization_format=format)
        LazySession(app)
        assert isinstance(app.session_interface.handler.backend, GenericBackend)  # type: ignore[attr-defined]
        app.add_url_rule("/", view_func=lambda: str(session.get("a")))
        browser = app.test_client()
        browser.set_cookie("session", LIVE)
        client.set(f"session:{LIVE}", pickle.dumps({"a": 1}))
        assert browser.get("/").text == ("1" if allowed else "None")
        client.set(f"session:{LIVE}", b"\xc1 garbage")
        assert browser.get("/").text == "None"

    def test_what_cannot_be_decoded_raises(self) -> None:
        """As Flask-Session's serializer does: an interface may try again, with what it wrote in former times."""

        class Compressed(RedisSessionInterface):
            def _retrieve_session_data(self, store_id: str) -> Any:
                payload = self.client.get(store_id)
                try:
                    return self.serializer.decode(payload)
                except Exception:  # the idiom of a migration
                    return self.serializer.decode(zlib.decompress(payload))

        app = make_app(lambda app: Compressed(app, client=fakeredis.FakeRedis()), lazy=False)
        interface: Any = app.session_interface
        LazySession(app)
        interface.client.set(f"session:{LIVE}", zlib.compress(msgspec.msgpack.encode({"_permanent": True, "a": 1})))
        browser = app.test_client()
        browser.set_cookie("session", LIVE)
        assert "'a': 1" in browser.get("/read").text
        interface.client.set(f"session:{LIVE}", zlib.compress(b"\xc1 garbage"))
        assert browser.get("/read").text == "{'_permanent': True}"

    def test_values_that_the_format_changes(self) -> None:
        """A tuple that comes back as a list is no change; a value that the format lacks is an error with its key."""
        app = make_app(lambda app: DictInterface(app), lazy=False)

        class Jsonable(DictInterface):
            def _retrieve_session_data(self, store_id: str) -> Any:
                data = super()._retrieve_session_data(store_id)
                return data and {**data, "pair": list(data["pair"])}

        interface = Jsonable(app)
        backend = GenericBackend(interface)
        stored = Items({"pair": (1, 2)})
        backend.create(KEY, stored, 1000)
        assert backend.read(KEY).payload != stored  # type: ignore[union-attr]
        assert backend.replace(KEY, Items({"pair": (1, 3)}), 1000, stored).outcome is Outcome.STORED
        plain = Flask("shop")
        plain.session_interface = EncryptedRedis(plain, client=fakeredis.FakeRedis())
        LazySession(plain)
        with pytest.raises(TypeError, match=r"session\['number'\] cannot be stored"):
            plain.session_interface.handler.backend.create(KEY, Items({"number": 1j}), 1000)  # type: ignore[attr-defined]

    def test_a_serializer_that_unpickles_is_reported(self) -> None:
        """One that an app derived from Flask-Session's is its own, and is not replaced."""

        class Packed(MsgSpecSerializer):  # type: ignore[misc]
            pass

        app = Flask("shop")
        interface = RedisSessionInterface(app, client=fakeredis.FakeRedis())
        interface.serializer = Packed(app, "msgpack")
        assert [problem.name for problem in GenericBackend(interface).check()] == ["generic-compare", "generic-pickle"]
        app.session_interface = interface
        LazySession(app)
        assert type(interface.serializer) is Packed
        plain = Flask("shop")
        plain.session_interface = EncryptedRedis(plain, client=fakeredis.FakeRedis())
        LazySession(plain)
        names = [each.name for each in plain.session_interface.handler.backend.check()]  # type: ignore[attr-defined]
        assert names == ["generic-compare"]


def make_lazy(app: Flask, interface: Any) -> None:
    app.session_interface = interface
    LazySession(app)
    backend = GenericBackend.from_interface(interface)
    app.session_interface.handler = ServerSide(interface, backend, backend.codec)  # type: ignore[attr-defined]


def make_app(interface_of: Callable[[Flask], Any], *, lazy: bool = True, **config: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, PERMANENT_SESSION_LIFETIME=ONE_DAY, **config)
    interface = interface_of(app)
    if lazy:
        make_lazy(app, interface)
    else:
        app.session_interface = interface

    def write(value: int) -> str:
        session["a"] = value
        return session.sid  # type: ignore[attr-defined, no-any-return]

    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    app.add_url_rule("/read", view_func=lambda: repr(dict(session)), endpoint="read")
    app.add_url_rule("/write/<int:value>", view_func=write, endpoint="write")
    app.add_url_rule("/clear", view_func=lambda: session.clear() or "", endpoint="clear")
    return app


class TestThroughAnApp:
    """The table of round trips, on an encrypting subclass and a real Redis."""

    @pytest.fixture
    def client(self, redis_url: str) -> CountingRedis:
        client = CountingRedis.from_url(redis_url)
        client.flushall()
        client.names.clear()
        return client

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/untouched", []),
            ("/nowhere", []),
            ("/read", ["GET"]),
            ("/write/1", ["GET"]),
            ("/write/2", ["GET", "GET", "SET"]),
            ("/clear", ["GET", "DEL"]),
        ],
    )
    def test_commands(self, client: CountingRedis, path: str, expected: list[str]) -> None:
        """Equal data are not written; what is written costs one more reading, to compare."""
        app = make_app(partial(EncryptedRedis, client=client))
        browser = app.test_client()
        browser.get("/write/1")
        client.names.clear()
        browser.get(path)
        assert client.names == expected

    def test_first_write(self, client: CountingRedis) -> None:
        """A new session costs a read of whether its id is taken."""
        make_app(partial(EncryptedRedis, client=client)).test_client().get("/write/1")
        assert client.names == ["GET", "SET"]

    def test_a_refresh_when_due(self, client: CountingRedis) -> None:
        """The first use in a process refreshes, as does each when the throttle has passed; no other does."""
        app = make_app(partial(EncryptedRedis, client=client))
        browser = app.test_client()
        browser.get("/write/1")
        refresh, read = ["GET", "GET", "SET"], ["GET"]
        for passed, expected in ((0, read), (ONE_DAY / 10, refresh), (0, read)):
            let_pass(app, passed)
            client.names.clear()
            assert "'a': 1" in browser.get("/read").text
            assert client.names == expected
        again = make_app(partial(EncryptedRedis, client=client)).test_client()
        cookie = browser.get_cookie("session")
        assert cookie is not None
        again.set_cookie("session", cookie.value)
        for expected in (refresh, read):
            client.names.clear()
            again.get("/read")
            assert client.names == expected

    @pytest.mark.parametrize("format", ["msgpack", "json"])
    @pytest.mark.parametrize("order", [(False, True), (True, False)], ids=["theirs first", "ours first"])
    def test_encrypted_bytes_stay_encrypted(self, client: CountingRedis, format: str, order: tuple[bool, bool]) -> None:
        """Each reads, changes and ends what the other stored, and all of it is encrypted."""
        apps = [
            make_app(
                partial(EncryptedRedis, client=client, serialization_format=format),
                lazy=lazy,
                SESSION_SERIALIZATION_FORMAT=format,
            )
            for lazy in order
        ]
        first, second = (app.test_client() for app in apps)
        sid = first.get("/write/1").text
        second.set_cookie("session", sid)
        assert "'a': 1" in second.get("/read").text
        assert second.get("/write/2").text == sid
        stored: Any = client.get(f"session:{sid}")
        assert b"_permanent" not in stored
        plain = EncryptedRedis(apps[0], client=client).decrypt(stored)
        decode = msgspec.json.decode if format == "json" else msgspec.msgpack.decode
        assert decode(plain) == {"_permanent": True, "a": 2}
        assert "'a': 2" in first.get("/read").text
        second.get("/clear")
        assert client.keys() == []

    def test_a_change_over_a_change(self, client: CountingRedis) -> None:
        """What another request stored meanwhile is merged, although the bytes differ at each write."""
        key = f"session:{LIVE}"
        app = make_app(partial(EncryptedRedis, client=client))
        interface = EncryptedRedis(app, client=client)
        interface._upsert_session(timedelta(days=1), ServerSideSession({"a": 1}), key)

        def slow() -> str:
            session["mine"] = 1
            interface._upsert_session(timedelta(days=1), ServerSideSession({"a": 1, "theirs": 1}), key)
            return ""

        app.add_url_rule("/slow", view_func=slow)
        browser = app.test_client()
        browser.set_cookie("session", LIVE)
        browser.get("/slow")
        assert interface._retrieve_session_data(key) == {"a": 1, "theirs": 1, "mine": 1}
