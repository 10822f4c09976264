"""The MongoDB adapter against the contract, on a fake and on real servers, and what only MongoDB has."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import mongomock
import msgspec
import pymongo
import pytest
from bson import Binary
from flask import Flask
from flask_session.mongodb import MongoDBSession, MongoDBSessionInterface
from pymongo import MongoClient
from pymongo.errors import DocumentTooLarge, OperationFailure

from lazysession.backend import Outcome, Record, SupportsCheck, SupportsPurge, TouchFailed, WriteResult
from lazysession.backends.common import utc_now
from lazysession.backends.mongodb import MongoDBBackend
from lazysession.testing import KEY, ComparesAtomically, Contract, Held, KeepsTtl, TellsTtl, race
from tests.support.on_mongodb import CLIENTS, COLLECT, DB, Commands, client_of, sessions_of
from tests.support.refreshing import load
from tests.support.servers import child, free_port, mongod_command, mongodb_set, wait_until

pytestmark = pytest.mark.usefixtures("close_mongodb")

#: A document is 16 MiB at most; around the payload it has _id, id, expiration and the names of the fields.
LARGEST = 16 * 2**20 - 61 - len(KEY)


def index_names(sessions: Any) -> set[str]:
    return set(sessions.index_information())


def hold(backend: MongoDBBackend | None, url: str | None = None) -> Held:
    """Return a backend as Held; time passes on its clock, so nothing has expired for MongoDB itself."""
    assert backend is not None
    now, passed = backend.clock, [0.0]
    backend.clock = lambda: now() + timedelta(seconds=passed[0])

    def pass_time(seconds: float) -> None:
        passed[0] += seconds

    return Held(backend, pass_time, partial(MongoDBBackend.from_setting, url) if url else None)


def used(backend: MongoDBBackend | None) -> MongoDBBackend:
    """Use a backend for the first time, which makes its indexes."""
    assert backend is not None
    backend.read("nothing")
    return backend


def hold_server(url: str) -> Generator[Held]:
    """Return an emptied server as Held, through a URL."""
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
def test_no_duplicate_outlives_its_session(mongodb_url: str, values: tuple[bytes, bytes]) -> None:
    """Where Flask-Session stored a session twice, the delete with an expected payload ends both."""
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
    """MongoDB removes what has expired; its setup can be checked."""
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
        """What is fixed: Flask-Session looks sessions up without an index, LazySession around it with one."""
        sessions = sessions_of(mongodb_url)
        interface = MongoDBSessionInterface(Flask("shop"), client=client_of(mongodb_url)[0])
        assert index_names(sessions) == {"_id_", "expiration_1"}
        assert stage_of(sessions.find({"id": KEY})) == "COLLSCAN"
        used(MongoDBBackend.from_interface(interface))
        assert index_names(sessions) == {"_id_", "expiration_1", "id_1"}
        assert stage_of(sessions.find({"id": KEY})) == "IXSCAN"

    def test_what_is_there_stays(self, mongodb_url: str) -> None:
        """An index of the user's own, by another name or over more fields, is used."""
        sessions = sessions_of(mongodb_url)
        sessions.create_index([("id", 1), ("val", 1)], name="mine")
        sessions.create_index("expiration", expireAfterSeconds=60, name="later")
        used(MongoDBBackend.from_setting(client_of(mongodb_url)[0]))
        assert index_names(sessions) == {"_id_", "mine", "later"}

    def test_duplicates_get_a_plain_index(self, mongodb_url: str) -> None:
        """A session that Flask-Session stored twice prevents a unique index, not an index; check() says so."""
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


# Defects of Flask-Session that are fixed


def test_an_expired_session_is_not_served(mongodb_url: str) -> None:
    """What is fixed: Flask-Session serves an expired session until MongoDB has removed it."""
    sessions = sessions_of(mongodb_url)
    app = Flask("shop")
    interface = MongoDBSessionInterface(app, client=client_of(mongodb_url)[0])
    backend = MongoDBBackend.from_interface(interface)
    sessions.drop_index("expiration_1")  # the server would remove it now or within the minute
    put(sessions, KEY, {"a": 1}, -10)
    assert interface._retrieve_session_data(KEY) == {"a": 1}
    assert load(backend) is None


def test_flask_session_no_longer_stores_twice(mongodb_url: str) -> None:
    """What is fixed: upserts of Flask-Session that run at once store a session twice, unless id is unique."""
    sessions = sessions_of(mongodb_url)
    interface = MongoDBSessionInterface(Flask("shop"), client=client_of(mongodb_url)[0])
    used(MongoDBBackend.from_interface(interface))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it asks for utcnow()
        for turn in range(30):
            save = partial(interface._upsert_session, timedelta(1), MongoDBSession({"a": 1}), f"{KEY}{turn}")
            race(*[save] * 6)
    assert sessions.count_documents({}) == 30


def test_deleting_removes_duplicates(mongodb_url: str) -> None:
    """What is fixed: Flask-Session deletes one of two, and the other is the session again."""
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
    """Creates that run at once want the same _id: for the second one, the key is taken."""
    sessions = sessions_of(mongodb_url)
    backend = MongoDBBackend(client_of(mongodb_url)[0], sessions)
    assert backend.create(KEY, b"1", 1000)
    sessions.update_one({"id": KEY}, {"$set": {"id": "not found by the second"}})
    assert not backend.create(KEY, b"2", 1000)
    assert sessions.count_documents({}) == 1


def test_a_client_with_other_habits(mongodb_set_url: str) -> None:
    """Time zones, unacknowledged writes and reads from secondaries are kept for the client, but not for sessions."""
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
    """A client that waits for one server of several is reported, as a failover loses writes; of one it is not."""
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


def test_a_refresh_waits_for_no_other_server(mongodb_set_url: str) -> None:
    """Read and refresh are one command that PyMongo does not repeat, so that the server keeps no copy for that."""
    sessions = sessions_of(mongodb_set_url)
    client, commands = client_of(mongodb_set_url)
    backend = MongoDBBackend(client, sessions)
    put(sessions, KEY, {"a": 1})
    with commands.counted() as names:
        for unless_more_than, touched in ((1000, True), (0, False)):
            record = backend.read_and_touch(KEY, 1000, unless_more_than)
            assert record is not None
            assert record.touched is touched
    assert names == ["findAndModify", "findAndModify"]
    command = commands.sent[-1].command
    assert command["writeConcern"] == {"w": 1}
    assert "txnNumber" not in command


# A server with accounts, that fails on request


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
    """An app starts and has its sessions; the log and check() say what was not allowed."""
    _, make_account = guarded
    url = make_account("worker", ["find", "insert", "update", "remove"])
    backend = used(MongoDBBackend.from_setting(f"{url}?socketTimeoutMS=60000"))
    assert "could not be checked or created (Unauthorized)" in caplog.text
    assert "hush" not in caplog.text
    assert backend.create(KEY, b"1", 1000)
    assert backend.replace(KEY, b"2", 1000, b"1").outcome is Outcome.STORED
    assert backend.touch(KEY, 1000, b"2")
    backend.delete(KEY)
    (problem,) = backend.check()
    assert "may not list the indexes" in problem.what
    backend.client.close()


def test_a_refused_refresh_is_logged(guarded: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An account that may only read reads all the same; a write raises the client's own error."""
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


@contextmanager
def failing(root: Any, *commands: str, times: int = 1000, **how: Any) -> Generator[None]:
    """Let the server fail at commands, so many times."""
    data = {"failCommands": commands, **how}
    root.admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)
    yield
    root.admin.command("configureFailPoint", "failCommand", mode="off")


def test_a_delete_of_many_is_repeated(guarded: Any) -> None:
    """PyMongo does not repeat a delete of many that a failover interrupts; the adapter does, once."""
    root, _ = guarded
    backend = MongoDBBackend(root, root[DB][COLLECT])
    put(root[DB][COLLECT], KEY, {"a": 1})
    with failing(root, "delete", times=1, closeConnection=True):
        backend.delete(KEY)
    assert backend.read(KEY) is None
    put(root[DB][COLLECT], KEY, {"a": 1})
    with failing(root, "delete", times=2, closeConnection=True), pytest.raises(pymongo.errors.AutoReconnect):
        backend.delete(KEY)


def test_a_read_that_refreshes_is_repeated(guarded: Any) -> None:
    """A connection that is lost while a session is read and refreshed costs no request, as with a read alone."""
    root, _ = guarded
    backend = MongoDBBackend(root, root[DB][COLLECT])
    backend.delete(KEY)
    put(root[DB][COLLECT], KEY, {"a": 1})
    with failing(root, "findAndModify", times=1, closeConnection=True):
        assert backend.read_and_touch(KEY, 1000, 1000) == Record(ANY, ANY, touched=True)
    with (
        failing(root, "findAndModify", times=2, closeConnection=True),
        pytest.raises(pymongo.errors.AutoReconnect),
    ):
        backend.read_and_touch(KEY, 1000, 1000)


def test_a_server_without_pipelines_in_updates(guarded: Any) -> None:
    """Where one command cannot read and refresh, two do so, and the one is not tried again."""
    root, _ = guarded
    commands = Commands()
    with MongoClient(*root.address, username="root", password="root", event_listeners=[commands]) as client:
        backend = MongoDBBackend(client, client[DB][COLLECT])
        backend.delete(KEY)
        put(root[DB][COLLECT], KEY, {"a": 1})
        with failing(root, "findAndModify", errorCode=9), commands.counted() as names:
            assert backend.read_and_touch(KEY, 1000, 1000) == Record(ANY, ANY, touched=True)
            assert backend.read_and_touch(KEY, 1000, 1000) == Record(ANY, ANY, touched=True)
            assert backend.read_and_touch(KEY, 1000, 0) == Record(ANY, ANY, touched=False)
        assert names == ["findAndModify", "find", "update", "find", "update", "find"]
        with failing(root, "update", errorCode=13), pytest.raises(TouchFailed) as failure:
            backend.read_and_touch(KEY, 1000, 1000)
        assert failure.value.record.payload == msgspec.msgpack.encode({"a": 1})
