"""The MongoDB adapter against the contract, on a fake and on real servers, and what only MongoDB has."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import mongomock
import msgspec
import pymongo
import pytest
from bson import Binary
from flask import Flask, session
from flask_session import Session
from flask_session.mongodb import MongoDBSession, MongoDBSessionInterface
from pymongo import MongoClient
from pymongo.errors import DocumentTooLarge, OperationFailure, ServerSelectionTimeoutError
from pymongo.monitoring import CommandListener

from lazysession import ConfigurationError, LazySession
from lazysession.backend import Outcome, Record, SupportsCheck, SupportsPurge, WriteResult
from lazysession.backends.common import utc_now
from lazysession.backends.mongodb import MongoDBBackend
from lazysession.records.expiry import Refresh
from lazysession.testing import KEY, ComparesAtomically, Contract, Held, KeepsTtl, TellsTtl, race
from tests.support.refreshing import load
from tests.support.servers import child, free_port, mongod_command, mongodb_set, wait_until
from tests.support.stores.documents import MongoDBStore

DB, COLLECT = "flask_session", "sessions"  # Flask-Session's defaults
LIVE = "a" * 43
ONE_DAY = 86400

#: A document is 16 MiB at most; around the payload it has _id, id, expiration and the names of the fields.
LARGEST = 16 * 2**20 - 61 - len(KEY)


class Commands(CommandListener):
    """Notes every command that a client sends."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def started(self, event: Any) -> None:
        self.sent.append(event)

    def succeeded(self, event: Any) -> None:
        """Not of interest."""

    def failed(self, event: Any) -> None:
        """Not of interest."""

    @contextmanager
    def counted(self) -> Generator[list[str]]:
        """Return the names of the commands that the block sends."""
        names: list[str] = []
        already = len(self.sent)
        yield names
        names += [event.command_name for event in self.sent[already:]]


CLIENTS: dict[str, tuple[MongoClient[Any], Commands]] = {}


def client_of(url: str) -> tuple[MongoClient[Any], Commands]:
    """One client for each server, open until this file has been run, and what it sends."""
    if url not in CLIENTS:
        commands = Commands()
        CLIENTS[url] = MongoClient(url, event_listeners=[commands], socketTimeoutMS=60_000), commands
    return CLIENTS[url]


@pytest.fixture(scope="module", autouse=True)
def clients_are_closed() -> Generator[None]:
    """Close what this file opened, while the servers still run."""
    yield
    while CLIENTS:
        CLIENTS.popitem()[1][0].close()


def sessions_of(url: str) -> Any:
    """The collection, emptied and without indexes, as it is before the first start of an app."""
    client, _ = client_of(url)
    client[DB].drop_collection(COLLECT)
    return client[DB][COLLECT]


def index_names(sessions: Any) -> set[str]:
    return set(sessions.index_information())


def hold(backend: MongoDBBackend | None, url: str | None = None) -> Held:
    """Hold a backend; time passes on its clock, so nothing has expired for MongoDB itself."""
    assert backend is not None
    now, passed = backend.clock, [0.0]
    backend.clock = lambda: now() + timedelta(seconds=passed[0])

    def pass_time(seconds: float) -> None:
        passed[0] += seconds

    return Held(backend, pass_time, partial(MongoDBBackend.from_setting, url) if url else None)


def used(backend: MongoDBBackend | None) -> MongoDBBackend:
    """Use a backend for the first time, which sees to its indexes."""
    assert backend is not None
    backend.read("nothing")
    return backend


def hold_server(url: str) -> Generator[Held]:
    """Hold an emptied server through a URL."""
    sessions_of(url)
    held = hold(MongoDBBackend.from_setting(url), url)
    yield held
    held.backend.client.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def set_of_one_url(mongodb_url: str) -> Generator[str]:
    """A replica set of one server, as small installations have it for transactions."""
    with mongodb_set(1) as url:
        yield url
        CLIENTS.pop(url)[0].close()


class TestMongomock(Contract, TellsTtl, KeepsTtl):
    """mongomock, recognized by its methods; it proves nothing about races, and has no limit."""

    @pytest.fixture
    def held(self) -> Held:
        return hold(MongoDBBackend.from_setting(mongomock.MongoClient()))


class TestMongoDB(Contract, TellsTtl, KeepsTtl, ComparesAtomically):
    """A real MongoDB, alone."""

    largest_payload = LARGEST

    @pytest.fixture
    def held(self, mongodb_url: str) -> Generator[Held]:
        yield from hold_server(mongodb_url)


class TestReplicaSetOfOne(TestMongoDB):
    """A replica set of one."""

    @pytest.fixture
    def held(self, set_of_one_url: str) -> Generator[Held]:
        yield from hold_server(set_of_one_url)


class TestReplicaSetOfThree(TestMongoDB):
    """A replica set of three."""

    @pytest.fixture
    def held(self, mongodb_set_url: str) -> Generator[Held]:
        yield from hold_server(mongodb_set_url)


class TestWithoutUniqueIndex(TestMongoDB):
    """A collection in which Flask-Session stored a session twice, so the index on id cannot be unique."""

    @pytest.fixture
    def held(self, mongodb_url: str) -> Generator[Held]:
        sessions_of(mongodb_url).insert_many([{"id": "double"}, {"id": "double"}])
        held = hold(MongoDBBackend.from_setting(mongodb_url), mongodb_url)
        yield held
        held.backend.client.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("values", [(b"1", b"1"), (b"1", b"2")], ids=["equal", "different"])
def test_no_double_outlives_its_session(mongodb_url: str, values: tuple[bytes, bytes]) -> None:
    """Where Flask-Session stored a session twice, the delete of what was seen ends both."""
    sessions = sessions_of(mongodb_url)
    soon = datetime.now(timezone.utc) + timedelta(seconds=1000)
    sessions.insert_many([{"id": KEY, "val": value, "expiration": soon} for value in values])
    backend = MongoDBBackend.from_setting(mongodb_url)
    assert backend is not None
    record = backend.read(KEY)
    assert record is not None
    assert backend.delete(KEY, record.payload).outcome is Outcome.STORED
    assert backend.read(KEY) is None
    backend.client.close()


def test_optional_verbs() -> None:
    """MongoDB removes what has expired; its set-up can be checked."""
    backend = MongoDBBackend.from_setting(mongomock.MongoClient())
    assert isinstance(backend, SupportsCheck)
    assert not isinstance(backend, SupportsPurge)


# Indexes


class TestIndexes:
    """The indexes are made at start-up, and what could not be made is reported."""

    def test_a_url_makes_both(self, mongodb_url: str) -> None:
        """A start by URL makes the TTL index that Flask-Session makes, and the one on id that it does not."""
        sessions = sessions_of(mongodb_url)
        backend = used(MongoDBBackend.from_setting(f"{mongodb_url}?socketTimeoutMS=60000"))
        present = sessions.index_information()
        assert present["id_1"] == {"v": 2, "key": [("id", 1)], "unique": True}
        assert present["expiration_1"] == {"v": 2, "key": [("expiration", 1)], "expireAfterSeconds": 0}
        assert list(backend.check()) == []
        backend.client.close()

    def test_flask_session_alone_makes_one(self, mongodb_url: str) -> None:
        """What is mended: Flask-Session looks sessions up without an index, LazySession around it with one."""
        sessions = sessions_of(mongodb_url)
        interface = MongoDBSessionInterface(Flask("shop"), client=client_of(mongodb_url)[0])
        assert index_names(sessions) == {"_id_", "expiration_1"}
        assert stage_of(sessions.find({"id": KEY})) == "COLLSCAN"
        used(MongoDBBackend.from_interface(interface))
        assert index_names(sessions) == {"_id_", "expiration_1", "id_1"}
        assert stage_of(sessions.find({"id": KEY})) == "IXSCAN"

    def test_what_is_there_stays(self, mongodb_url: str) -> None:
        """An index of the user's own, by another name or over more fields, will do."""
        sessions = sessions_of(mongodb_url)
        sessions.create_index([("id", 1), ("val", 1)], name="mine")
        sessions.create_index("expiration", expireAfterSeconds=60, name="later")
        used(MongoDBBackend.from_setting(client_of(mongodb_url)[0]))
        assert index_names(sessions) == {"_id_", "mine", "later"}

    def test_doubles_get_a_plain_index(self, mongodb_url: str) -> None:
        """A session that Flask-Session stored twice prevents a unique index, not an index; check() tells."""
        sessions = sessions_of(mongodb_url)
        sessions.insert_many([{"id": KEY}, {"id": KEY}])
        backend = used(MongoDBBackend.from_setting(client_of(mongodb_url)[0]))
        assert "unique" not in sessions.index_information()["id_1"]
        (problem,) = backend.check()
        assert problem.severity == "warning"
        assert "not unique" in problem.what

    def test_missing_indexes_are_reported(self, mongodb_url: str) -> None:
        """check() names each missing index and how to make it."""
        backend = MongoDBBackend(client_of(mongodb_url)[0], sessions_of(mongodb_url))
        problems = list(backend.check())
        assert [problem.severity for problem in problems] == ["error", "error"]
        assert "createIndex({id: 1}, {unique: true})" in problems[0].remedy
        assert "createIndex({expiration: 1}, {expireAfterSeconds: 0})" in problems[1].remedy

    def test_an_index_on_expiration_without_ttl_is_reported(
        self, mongodb_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An index in the way of the TTL index is left, logged and reported."""
        sessions = sessions_of(mongodb_url)
        sessions.create_index("expiration")
        backend = used(MongoDBBackend.from_setting(client_of(mongodb_url)[0]))
        assert "IndexOptionsConflict" in caplog.text
        (problem,) = backend.check()
        assert "no TTL index" in problem.what

    def test_mongodb_removes_what_has_expired(self, mongodb_url: str) -> None:
        """The TTL index of a start by URL works: nothing else removes expired sessions."""
        sessions = sessions_of(mongodb_url)
        backend = MongoDBBackend.from_setting(client_of(mongodb_url)[0])
        assert backend is not None
        backend.create(KEY, b"1", 0.001)
        backend.create(f"{KEY}2", b"1", 1000)
        wait_until(lambda: sessions.count_documents({}) == 1, "the removal")  # the server's own work, each second
        assert backend.read(f"{KEY}2") is not None


def stage_of(cursor: Any) -> str:
    """Return how MongoDB would find the documents: by an index (IXSCAN), or by reading all (COLLSCAN)."""
    plan = cursor.explain()["queryPlanner"]["winningPlan"]
    plan = plan.get("queryPlan", plan)
    return str(plan.get("inputStage", plan)["stage"])


# Defects of Flask-Session that are mended


def test_an_expired_session_is_not_served(mongodb_url: str) -> None:
    """What is mended: Flask-Session serves an expired session until MongoDB has removed it."""
    sessions = sessions_of(mongodb_url)
    app = Flask("shop")
    interface = MongoDBSessionInterface(app, client=client_of(mongodb_url)[0])
    backend = MongoDBBackend.from_interface(interface)
    sessions.drop_index("expiration_1")  # the server would remove it now or within the minute
    put(sessions, KEY, {"a": 1}, -10)
    assert interface._retrieve_session_data(KEY) == {"a": 1}
    assert load(backend) is None


def test_flask_session_no_longer_stores_twice(mongodb_url: str) -> None:
    """What is mended: upserts of Flask-Session that run at once store a session twice, unless id is unique."""
    sessions = sessions_of(mongodb_url)
    interface = MongoDBSessionInterface(Flask("shop"), client=client_of(mongodb_url)[0])
    used(MongoDBBackend.from_interface(interface))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it asks for utcnow()
        for turn in range(30):
            save = partial(interface._upsert_session, timedelta(1), MongoDBSession({"a": 1}), f"{KEY}{turn}")
            race(*[save] * 6)
    assert sessions.count_documents({}) == 30


def test_deleting_removes_doubles(mongodb_url: str) -> None:
    """What is mended: Flask-Session deletes one of two, and the other is the session again."""
    sessions = sessions_of(mongodb_url)
    interface = MongoDBSessionInterface(Flask("shop"), client=client_of(mongodb_url)[0])
    for number in range(2):
        put(sessions, KEY, {"a": number})
    backend = MongoDBBackend.from_interface(interface)
    interface._delete_session(KEY)
    assert interface._retrieve_session_data(KEY) == {"a": 1}
    put(sessions, KEY, {"a": 2})
    backend.delete(KEY)
    assert interface._retrieve_session_data(KEY) is None


def put(sessions: Any, key: str, data: dict[str, Any], lifetime: float = 1000) -> None:
    """Store a session as Flask-Session would."""
    expiration = utc_now() + timedelta(seconds=lifetime)
    sessions.insert_one({"id": key, "val": msgspec.msgpack.encode(data), "expiration": expiration})


# Documents, clients and limits


@pytest.mark.parametrize("val", ["text", Binary(b"text", 128)], ids=["text", "binary of a user's own"])
def test_older_documents(mongodb_url: str, val: Any) -> None:
    """Payloads that are no plain bytes are read as Flask-Session reads them, and can be changed and deleted."""
    sessions = sessions_of(mongodb_url)
    backend = MongoDBBackend(client_of(mongodb_url)[0], sessions)
    document = {"val": val, "expiration": utc_now() + timedelta(seconds=1000)}
    for key in ("changed", "deleted"):
        sessions.insert_one({**document, "id": key})
        assert backend.touch(key, 1000, b"text")
        assert load(backend, key=key) == Record(b"text", pytest.approx(1000, abs=5), touched=True)
    assert backend.replace("changed", b"new", None, b"other") == WriteResult(Outcome.CONFLICT, b"text")
    assert backend.replace("changed", b"new", None, b"text") == WriteResult(Outcome.STORED)
    assert sessions.find_one({"id": "changed"})["val"] == b"new"
    assert backend.delete("deleted", b"text") == WriteResult(Outcome.STORED)
    assert backend.read("deleted") is None


def test_documents_are_flask_sessions(mongodb_url: str) -> None:
    """The fields, their types and their order are those that Flask-Session writes."""
    sessions = sessions_of(mongodb_url)
    client, _ = client_of(mongodb_url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it asks for utcnow()
        MongoDBSessionInterface(Flask("shop"), client=client)._upsert_session(
            timedelta(seconds=1000), MongoDBSession({"a": 1}), "theirs"
        )
    MongoDBBackend(client, sessions).create("ours", msgspec.msgpack.encode({"a": 1}), 1000)
    theirs, ours = (sessions.find_one({"id": key}) for key in ("theirs", "ours"))
    assert [(name, type(value)) for name, value in ours.items()] == [
        (name, type(value)) for name, value in theirs.items()
    ]
    assert ours["val"] == theirs["val"]
    assert abs(ours["expiration"] - theirs["expiration"]) < timedelta(seconds=5)


def test_a_clash_of_document_ids_is_a_key_taken(mongodb_url: str) -> None:
    """Creates that run at once want the same _id: the one that comes second is told so by the server."""
    sessions = sessions_of(mongodb_url)
    backend = MongoDBBackend(client_of(mongodb_url)[0], sessions)
    assert backend.create(KEY, b"1", 1000)
    sessions.update_one({"id": KEY}, {"$set": {"id": "not found by the second"}})
    assert not backend.create(KEY, b"2", 1000)
    assert sessions.count_documents({}) == 1


def test_a_client_with_other_habits(mongodb_set_url: str) -> None:
    """Time zones, unacknowledged writes and reads from secondaries are the client's own affair, not the sessions'."""
    sessions_of(mongodb_set_url)
    commands = Commands()
    options: Any = {"w": 0, "tz_aware": True, "readPreference": "secondary", "event_listeners": [commands]}
    options["socketTimeoutMS"] = 60_000
    with MongoClient(mongodb_set_url, **options) as client:
        backend = MongoDBBackend.from_setting(client)
        assert backend is not None
        for turn in range(10):  # a secondary would lag behind
            key = f"{KEY}{turn}"
            assert backend.create(key, b"1", 1000)
            assert backend.replace(key, b"2", 1000, b"1") == WriteResult(Outcome.STORED)
            record = backend.read(key)
            assert record is not None
            assert record.payload == b"2"
        assert list(backend.check()) == []
    finds = [event for event in commands.sent if event.command_name == "find"]
    assert finds
    assert not any("$readPreference" in event.command for event in finds)
    assert client[DB][COLLECT].write_concern.document == {"w": 0}


def test_one_acknowledgement_is_reported(mongodb_set_url: str, mongodb_url: str) -> None:
    """A client that asks one server of many is one that a failover makes forget; alone there is nothing to report."""
    sessions_of(mongodb_set_url)
    with MongoClient(mongodb_set_url, w=1, socketTimeoutMS=60_000) as client:
        backend = MongoDBBackend.from_setting(client)
        assert backend is not None
        (problem,) = backend.check()
        assert problem.remedy == "Leave out w, or set w=majority."
    sessions_of(mongodb_url)
    with MongoClient(mongodb_url, w=1, socketTimeoutMS=60_000) as client:
        backend = MongoDBBackend.from_setting(client)
        assert backend is not None
        assert list(backend.check()) == []


def test_a_change_of_more_than_half_the_limit_is_refused(mongodb_url: str) -> None:
    """A command is as large as a document at most, and a replace has both payloads in it."""
    backend = MongoDBBackend(client_of(mongodb_url)[0], sessions_of(mongodb_url))
    half = b"a" * (8 * 2**20)
    assert backend.create(KEY, half, 1000)
    assert backend.replace(KEY, half[:-1] + b"b", 1000, half).outcome is Outcome.STORED
    backend.delete(KEY)
    assert backend.create(KEY, half + bytes(2**20), 1000)
    with pytest.raises(DocumentTooLarge):
        backend.replace(KEY, half + bytes(2**20 - 1) + b"b", 1000, half + bytes(2**20))


# A server with accounts, that fails when it is told to


@pytest.fixture(scope="module")
def guarded(mongodb_url: str) -> Generator[tuple[Any, Callable[[str, list[str]], str]]]:
    """The client of an administrator, and a function that makes an account: user name, rights -> URL."""
    port = free_port()
    options = ["--auth", "--setParameter", "enableTestCommands=1"]
    with tempfile.TemporaryDirectory() as folder, child(mongod_command(port, Path(folder), *options), port):
        with MongoClient("127.0.0.1", port) as first:
            first.admin.command("createUser", "root", pwd="root", roles=["root"])
        with MongoClient("127.0.0.1", port, username="root", password="root") as root:

            def make_account(name: str, rights: list[str]) -> str:
                privilege = {"resource": {"db": DB, "collection": COLLECT}, "actions": rights}
                root[DB].command("createRole", name, privileges=[privilege], roles=[])
                root[DB].command("createUser", name, pwd="hush", roles=[name])
                return f"mongodb://{name}:hush@127.0.0.1:{port}/{DB}"

            yield root, make_account


def test_an_account_without_rights_to_indexes(guarded: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An app starts and has its sessions; the log and check() tell what was not allowed."""
    _, make_account = guarded
    url = make_account("worker", ["find", "insert", "update", "remove"])
    backend = used(MongoDBBackend.from_setting(f"{url}?socketTimeoutMS=60000"))
    assert "could not be seen to (Unauthorized)" in caplog.text
    assert "hush" not in caplog.text
    assert backend.create(KEY, b"1", 1000)
    assert backend.replace(KEY, b"2", 1000, b"1").outcome is Outcome.STORED
    assert backend.touch(KEY, 1000, b"2")
    backend.delete(KEY)
    (problem,) = backend.check()
    assert "may not list the indexes" in problem.what
    backend.client.close()


def test_a_refused_refresh_is_logged(guarded: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An account that may only read reads all the same; its own error tells of a write."""
    root, make_account = guarded
    put(root[DB][COLLECT], KEY, {"a": 1})
    backend = used(MongoDBBackend.from_setting(make_account("reader", ["find", "listIndexes"])))
    caplog.clear()
    record = load(backend)
    assert record is not None
    assert (record.payload, record.touched) == (msgspec.msgpack.encode({"a": 1}), False)
    assert caplog.messages == [
        "The expiry of a session could not be refreshed (Unauthorized); the session itself was read."
    ]
    with pytest.raises(OperationFailure, match="not authorized"):
        backend.create(f"{KEY}2", b"1", 1000)
    backend.client.close()


def test_a_delete_of_many_is_repeated(guarded: Any) -> None:
    """PyMongo does not repeat a delete of many that a failover interrupts; the adapter does, once."""
    root, _ = guarded
    backend = MongoDBBackend(root, root[DB][COLLECT])
    put(root[DB][COLLECT], KEY, {"a": 1})
    failing = {"failCommands": ["delete"], "closeConnection": True}
    root.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=failing)
    backend.delete(KEY)
    assert backend.read(KEY) is None
    put(root[DB][COLLECT], KEY, {"a": 1})
    root.admin.command("configureFailPoint", "failCommand", mode={"times": 2}, data=failing)
    with pytest.raises(pymongo.errors.AutoReconnect):
        backend.delete(KEY)
    root.admin.command("configureFailPoint", "failCommand", mode="off")


# Settings


def test_a_server_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """The app starts, and each verb raises the client's own error."""
    backend = MongoDBBackend.from_setting(f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=50")
    assert backend is not None
    assert caplog.messages == []
    with backend.client:
        for verb in (
            partial(backend.read, KEY),
            partial(backend.touch, KEY, 1000),
            partial(backend.create, KEY, b"1", 1000),
            partial(backend.replace, KEY, b"1", 1000, b"0"),
            partial(backend.delete, KEY),
            partial(backend.delete, KEY, b"1"),
            lambda: list(backend.check()),
        ):
            with pytest.raises(ServerSelectionTimeoutError):
                verb()


def test_start_up_does_not_wait() -> None:
    """No server is asked when an app starts."""
    started = time.monotonic()
    backend = MongoDBBackend.from_setting(f"mongodb://127.0.0.1:{free_port()}/")
    assert backend is not None
    assert time.monotonic() - started < 3
    assert backend.client.options.server_selection_timeout == 5


def test_the_apps_own_client_is_not_opened_at_start_up(mongodb_url: str) -> None:
    """Workers are forked after start-up, and PyMongo's clients do not like to be forked once they are connected."""
    sessions_of(mongodb_url)
    backend = MongoDBBackend.from_setting(mongodb_url)
    assert backend is not None
    assert backend.client.nodes == frozenset()
    backend.read(KEY)
    assert len(backend.client.nodes) == 1
    backend.client.close()


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("", {}, "flask_session.sessions"),
        ("shop", {}, "shop.sessions"),
        ("shop", {"db": "other", "collect": "visits"}, "other.visits"),
        ("admin", {}, "flask_session.sessions"),
        ("shop", {"unknown": 1}, "shop.sessions"),
    ],
)
def test_names(path: str, options: dict[str, Any], expected: str) -> None:
    """SESSION_MONGODB_DB, then the URL's path (unless it is there to log in), then Flask-Session's default."""
    url = f"mongodb://127.0.0.1:{free_port()}/{path}?serverSelectionTimeoutMS=1"
    backend = MongoDBBackend.from_setting(url, **options)
    assert backend is not None
    assert backend.store.full_name == expected


def test_a_service_name() -> None:
    """``mongodb+srv://`` is taken, and looked up when it is needed."""
    backend = MongoDBBackend.from_setting("mongodb+srv://me:hush@db.shop.example/shop?retryWrites=true")
    assert backend is not None
    assert backend.store.full_name == "shop.sessions"
    assert backend.client.options.server_selection_timeout == 5


def test_nothing_is_left_to_flask_session() -> None:
    """Without a value it is the MongoDB on localhost, as with Flask-Session, whose interface asks it when built."""
    with pytest.warns(RuntimeWarning, match="SESSION_MONGODB is not set"):
        backend = MongoDBBackend.from_setting(None)
    assert backend is not None
    assert backend.store.full_name == "flask_session.sessions"


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (42, {}, "class int is neither"),
        ({}, {}, "class dict is neither"),
        (mongomock.MongoClient()["shop"], {}, "class Database is neither"),
        (MongoClient(connect=False)["shop"], {}, "class Database is neither"),
        (pymongo.AsyncMongoClient(connect=False), {}, "class AsyncMongoClient is neither"),
        ("localhost", {}, "starts with mongodb://"),
        ("", {}, "starts with mongodb://"),
        ("redis://me:hush@localhost/0", {}, "starts with mongodb://"),
        ("mongodb://me:hush@localhost:port/", {}, "does not take the URL"),
        ("mongodb://me:hu:sh@localhost/", {}, "does not take the URL"),
        ("mongodb://me:hush@localhost/a b", {}, "does not take the URL"),
        ("mongodb+srv://me:hush@db.shop.example:1/", {}, "does not take the URL"),
        (MongoClient(connect=False), {"db": "a.b"}, "'a.b' and 'sessions' cannot name"),
        (MongoClient(connect=False), {"collect": "$"}, "cannot name"),
        ("mongodb://localhost/", {"db": 42}, "neither"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_malformed_settings(value: Any, options: dict[str, Any], message: str) -> None:
    """What can be neither client nor URL is an error that says what is allowed, and never shows a password."""
    with pytest.raises(ValueError, match=r".") as error:
        MongoDBBackend.from_setting(value, **options)
    assert message in str(error.value)
    assert "hush" not in str(error.value)
    app = Flask("shop")
    names = {f"SESSION_MONGODB_{name.upper()}": option for name, option in options.items()}
    app.config.update(SESSION_TYPE="mongodb", SESSION_MONGODB=value, **names)
    with pytest.raises(ConfigurationError, match=r"SESSION_MONGODB cannot be used|SESSION_MONGODB_DB is 42"):
        LazySession(app)


# Through an app


def make_shop(extension: type, **settings: Any) -> Flask:
    """An app with a page of each kind."""
    app = Flask("shop", static_folder=os.path.dirname(__file__), static_url_path="/static")
    app.config.update(SECRET_KEY="key", SESSION_TYPE="mongodb", PERMANENT_SESSION_LIFETIME=ONE_DAY, **settings)
    extension(app)

    def set_key(key: str, value: str) -> str:
        session[key] = value
        return session.sid  # type: ignore[attr-defined, no-any-return]

    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    app.add_url_rule("/keys", view_func=lambda: ",".join(sorted(session)), endpoint="keys")
    app.add_url_rule("/set/<key>/<value>", view_func=set_key)
    app.add_url_rule("/clear", view_func=lambda: session.clear() or "", endpoint="clear")
    return app


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        (lambda backend: backend.read(KEY), ["find"]),
        (lambda backend: load(backend, Refresh(1000, 900)), ["find"]),
        (load, ["find", "update"]),
        (lambda backend: backend.create(f"{KEY}2", b"1", 1000), ["update"]),
        (lambda backend: backend.create(KEY, b"1", 1000), ["update"]),
        (lambda backend: backend.replace(KEY, b"2", 1000, b"1"), ["update"]),
        (lambda backend: backend.replace(KEY, b"2", 1000, b"0"), ["update", "find"]),
        (lambda backend: backend.replace(f"{KEY}2", b"2", 1000, b"0"), ["update", "find"]),
        (lambda backend: backend.delete(KEY), ["findAndModify"]),
        (lambda backend: backend.delete(KEY, b"1"), ["delete"]),
        (lambda backend: backend.touch(KEY, 1000), ["update"]),
        (lambda backend: backend.touch(KEY, 1000, b"1"), ["update"]),
    ],
    ids=[
        "read",
        "not due",
        "due",
        "create",
        "taken",
        "replace",
        "changed",
        "gone",
        "delete",
        "delete of what is expected",
        "touch",
        "touch of what is expected",
    ],
)
def test_round_trips_of_a_verb(mongodb_url: str, verb: Callable[[Any], Any], names: list[str]) -> None:
    """Each verb is one command; a refresh that is due is one more, and so is telling why nothing was replaced."""
    client, commands = client_of(mongodb_url)
    backend = MongoDBBackend(client, sessions_of(mongodb_url), unique=True)
    backend.create(KEY, b"1", 1000)
    with commands.counted() as sent:
        verb(backend)
    assert sent == names


@pytest.mark.parametrize(
    ("cookie", "passed", "path", "names"),
    [
        (LIVE, 0, "/untouched", []),
        (LIVE, ONE_DAY / 2, "/static/test_backend_mongodb.py", []),
        (LIVE, 0, "/nowhere", []),
        (LIVE, 0, "/keys", ["find"]),
        (LIVE, ONE_DAY / 2, "/keys", ["find", "update"]),
        (LIVE, 0, "/set/a/2", ["find", "update"]),
        (LIVE, 0, "/set/a/1", ["find"]),
        (None, 0, "/set/a/1", ["update"]),
        (LIVE, 0, "/clear", ["findAndModify"]),
        (None, 0, "/keys", []),
    ],
)
def test_round_trips_of_a_request(
    mongodb_url: str, cookie: str | None, passed: float, path: str, names: list[str]
) -> None:
    """What each kind of request costs at the store."""
    store = MongoDBStore(mongodb_url)
    app = make_shop(LazySession, SESSION_MONGODB=store.client)
    store.put(app, f"session:{LIVE}", msgspec.msgpack.encode({"_permanent": True, "a": "1"}), ONE_DAY)
    store.pass_time(app, passed)
    client = app.test_client()
    if cookie is not None:
        client.set_cookie("session", cookie)
    with store.counted() as sent:
        client.get(path, buffered=True)
    store.close()
    assert sent == names


@pytest.mark.parametrize("format", ["msgpack", "json"])
@pytest.mark.parametrize("by_url", [False, True], ids=["client", "url"])
@pytest.mark.parametrize("order", [(Session, LazySession), (LazySession, Session)], ids=["theirs first", "ours first"])
@pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")  # Flask-Session asks for it
def test_a_session_wanders_between_both(mongodb_url: str, format: str, by_url: bool, order: tuple[type, type]) -> None:
    """Written by one, read and changed by the other, read back and ended by the first."""
    sessions_of(mongodb_url)
    values = {Session: client_of(mongodb_url)[0], LazySession: mongodb_url if by_url else client_of(mongodb_url)[0]}
    apps = [
        make_shop(extension, SESSION_MONGODB=values[extension], SESSION_SERIALIZATION_FORMAT=format)
        for extension in order
    ]
    first, second = (app.test_client() for app in apps)
    sid = first.get("/set/a/1").text
    second.set_cookie("session", sid)
    assert second.get("/keys").text == "_permanent,a"
    assert second.get("/set/b/1").text == sid
    assert first.get("/keys").text == "_permanent,a,b"
    assert first.get("/set/c/1").text == sid
    assert second.get("/keys").text == "_permanent,a,b,c"
    second.get("/clear")
    assert first.get("/keys").text == "_permanent"
    assert client_of(mongodb_url)[0][DB][COLLECT].count_documents({}) == 0
    if by_url:
        apps[order.index(LazySession)].session_interface.client.close()  # type: ignore[attr-defined]


# Failover


class Load:
    """Visitors on threads of their own, who make steps until they are told to end.

    :param visitors: how many.
    """

    def __init__(self, visitors: int) -> None:
        self.done = [0] * visitors
        self.failed: Counter[int] = Counter()
        self.ending = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, step: Callable[[int, int], int]) -> None:
        """Let each visitor make steps; ``step(visitor, number)`` answers the status of the response."""
        for visitor in range(len(self.done)):
            self._threads.append(threading.Thread(target=self._run, args=(visitor, step)))
            self._threads[-1].start()

    def _run(self, visitor: int, step: Callable[[int, int], int]) -> None:
        for number in itertools.count(1):
            status = step(visitor, number)
            if status == 200:
                self.done[visitor] += 1
            else:
                self.failed[status] += 1
            if self.ending.is_set():
                return

    def wait(self, steps: int) -> None:
        """Wait until each visitor has made so many steps from now on."""
        goals = [done + steps for done in self.done]
        wait_until(lambda: all(done >= goal for done, goal in zip(self.done, goals, strict=True)), "the load", 60)

    def finish(self) -> None:
        """Let each visitor end with the present step."""
        self.ending.set()
        for thread in self._threads:
            thread.join()


def test_the_primary_is_killed_under_load(mongodb_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """After a failover the app goes on without a restart, and nothing that was acknowledged is lost or revived."""
    with mongodb_set() as url, MongoClient(url) as admin:
        app = make_shop(LazySession, SESSION_MONGODB=url)
        shared = app.test_client().get("/set/owner/all").text
        own = [app.test_client().get("/set/owner/one").text for _ in range(2)]
        kept: list[tuple[str, str]] = []
        ended: list[str] = []

        def change(visitor: int, number: int) -> int:
            """Add a key to the visitor's own session, and one to the session of all."""
            status = 0
            for sid in (own[visitor], shared):
                key = f"{visitor}.{number}"
                status = (response := request(app, sid, f"/set/{key}/1")).status_code
                if status == 200 and response.text == sid:
                    kept.append((sid, key))
            return status

        def log_out(_visitor: int, _number: int) -> int:
            """Log in, add a key, and log out."""
            client = app.test_client()
            statuses = [client.get(path).status_code for path in ("/set/a/1", "/set/b/1")]
            sid = client.get_cookie("session")
            status = client.get("/clear").status_code
            if statuses == [200, 200] and status == 200 and sid is not None:
                ended.append(sid.value)
            return status

        def look_on(_visitor: int, number: int) -> int:
            load["untouched"].ending.wait(0.005)  # not to take the processor from the others
            return request(app, own[0], "/untouched" if number % 2 else "/static/test_backend_mongodb.py").status_code

        load = {"changes": Load(2), "logouts": Load(4), "untouched": Load(1)}
        for part, step in zip(load.values(), (change, log_out, look_on), strict=True):
            part.start(step)
        try:
            for part in load.values():
                part.wait(20)
            before = {name: sum(part.done) for name, part in load.items()}
            primary = admin.admin.command("serverStatus")["pid"]  # one of our own three servers
            os.kill(primary, signal.SIGSTOP)
            load["untouched"].wait(40)  # meanwhile all others have come to wait for an answer
            os.kill(primary, signal.SIGKILL)
            killed = time.monotonic()
            load["changes"].wait(2)  # a step may have been under way
            seconds = time.monotonic() - killed
            for part in load.values():
                part.wait(20)
        finally:
            for part in load.values():
                part.finish()
        with capsys.disabled():
            sys.stdout.write(f"\nMongoDB takes changes again {seconds:.1f} s after SIGKILL of the primary.")
            for name, part in load.items():
                after = sum(part.done) - before[name]
                sys.stdout.write(f"\n{name}: {before[name]} before SIGKILL, {after} after, failed {dict(part.failed)}")
        assert load["untouched"].failed == Counter()
        stored = {each["id"]: msgspec.msgpack.decode(each["val"]) for each in admin[DB][COLLECT].find()}
        assert len(kept) >= 2 * 2 * 40
        assert [fact for fact in kept if fact[1] not in stored[f"session:{fact[0]}"]] == []
        assert len(ended) >= 4 * 40 - sum(load["logouts"].failed.values())
        assert [sid for sid in ended if f"session:{sid}" in stored] == []
        app.session_interface.client.close()  # type: ignore[attr-defined]


def request(app: Flask, sid: str, path: str) -> Any:
    """Get a page with a cookie."""
    client = app.test_client()
    client.set_cookie("session", sid)
    return client.get(path, buffered=True)
