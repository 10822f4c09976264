"""Sessions in a MongoDB collection: the documents of Flask-Session, changed by filters with the expected payload."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from bson import ObjectId
from bson.codec_options import CodecOptions
from pymongo import MongoClient, ReadPreference, WriteConcern, errors
from pymongo.collection import Collection

from lazysession.backend import Outcome, Problem, Record, TouchFailed, WriteResult
from lazysession.backends.common import Preparation, utc_now
from lazysession.backends.mongodb.indexes import index_problems, make_indexes, reason_of, timeout_problems

_SCHEMES = ("mongodb://", "mongodb+srv://")
_DEFAULT_DB = "flask_session"
_DATABASES_OF_THE_SERVER = ("admin", "config", "local")
_FIELDS = {"_id": False, "val": True, "expiration": True}
_CODEC_OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions()

#: Timeouts of a client that is made from a URL, unless the URL sets them, in milliseconds. PyMongo's own defaults are
#: 30 s, 20 s and none.
TIMEOUTS = {"serverSelectionTimeoutMS": 5000, "connectTimeoutMS": 5000, "socketTimeoutMS": 5000}


class MongoDBBackend:
    """Keep each payload in a document ``{id, val, expiration}``; every verb is one command, a read that refreshes too.

    Reads go to the primary, whatever the client prefers: a secondary that lags behind would show a session that has
    ended, or not the one that was just made. A client that does not ask for acknowledgements gets them here, as no
    change can be compared without; any other write concern is left as it is.

    :param client: the client that the collection belongs to.
    :param sessions: the collection.
    :param unique: its index on ``id`` is unique; otherwise duplicates that Flask-Session left are deleted, too. None:
        make the indexes at the first use, which finds this out. (A client that was connected before a fork, or before
        gevent patched the process, may fail in the workers.)
    :param clock: the present time, in naive UTC.
    """

    interface_class: ClassVar[str | None] = "flask_session.mongodb.mongodb:MongoDBSessionInterface"

    def __init__(
        self,
        client: Any,
        sessions: Collection[dict[str, Any]],
        *,
        unique: bool | None = False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.client = client
        self.clock = clock
        self._unique = bool(unique)
        #: Whether to read and touch with one command, until that fails here.
        self._combines = True
        #: The collection, as Flask-Session's interface has it.
        self.store = sessions
        self._prepared = _with_own_options(sessions)
        self._preparation = Preparation(self._make_indexes, is_done=unique is not None)

    @classmethod
    def from_interface(cls, interface: Any) -> MongoDBBackend:
        """Take over the client and the collection of Flask-Session's interface, and see to its indexes."""
        return cls(interface.client, interface.store, unique=None)

    @classmethod
    def from_setting(
        cls, value: Any, *, db: str | None = None, collect: str = "sessions", **options: object
    ) -> MongoDBBackend:
        """Return a backend of SESSION_MONGODB: a client, or a URL (``mongodb://``, ``mongodb+srv://``).

        Missing indexes are made at the first use. This method connects to no server.

        :param db: the database; None for the one in the URL's path, or else Flask-Session's ``flask_session``.
        :param collect: the collection.
        :raises ValueError: for anything else, and for names that MongoDB does not take.
        :returns: without a value, one for the MongoDB on localhost, as with Flask-Session, which warns of that too.
            Never None: Flask-Session makes an index when it is set up, for which MongoDB must be reachable.
        """
        if value is None:
            warnings.warn("SESSION_MONGODB is not set: sessions go to the MongoDB on localhost.", RuntimeWarning, 2)
            value = MongoClient(connect=False)
        if not isinstance(value, str):
            sessions = _collection_of(value, db or _DEFAULT_DB, collect)
            return cls(value, sessions, unique=None)
        client = _client_of_url(value)
        db = db or _database_of_url(client)
        sessions = _collection_of(client, db, collect)
        return cls(client, sessions, unique=None)

    def explain(self, error: Exception) -> str:
        """Return MongoDB's name for an error, or that of its class."""
        return reason_of(error) if isinstance(error, errors.PyMongoError) else type(error).__name__

    @property
    def _sessions(self) -> Collection[dict[str, Any]]:
        self._preparation.ensure()
        return self._prepared

    def _make_indexes(self) -> None:
        self._unique = make_indexes(self._prepared)

    def read(self, key: str) -> Record | None:
        """Read with one find."""
        now = self.clock()
        return _record_of(self._sessions.find_one({"id": key}, _FIELDS), now)

    def read_and_touch(self, key: str, ttl: float | None, unless_more_than: float) -> Record | None:
        """Read, and touch if that is due, with one findAndModify; with two commands where that is refused.

        It is refused by servers without pipelines in updates (before MongoDB 4.2, and some that imitate MongoDB), and
        to an account that may not write.

        :raises TouchFailed: when the record was read, and its expiry could not be moved.
        """
        if ttl is None:
            return self.read(key)
        if self._combines:
            try:
                return self._read_and_touch(key, ttl, unless_more_than)
            except (errors.OperationFailure, NotImplementedError):  # the latter by mongomock
                self._combines = False
        record = self.read(key)
        if record is None or record.ttl is None or unless_more_than < record.ttl <= ttl + 1:
            return record
        try:
            return record._replace(touched=self.touch(key, ttl))
        except errors.PyMongoError as error:
            raise TouchFailed(record) from error

    def _read_and_touch(self, key: str, ttl: float, unless_more_than: float) -> Record | None:
        sessions, now = self._sessions, self.clock()
        enough, most = now + timedelta(seconds=unless_more_than), now + timedelta(seconds=ttl + 1)
        due = {"$or": [{"$lte": ["$expiration", enough]}, {"$gt": ["$expiration", most]}]}
        expiration = {"$cond": [due, now + timedelta(seconds=ttl), "$expiration"]}
        # Not by find_one_and_update: a server of a replica set keeps a copy of the whole document with each one that
        # PyMongo could repeat, and a read would wait until other servers have the expiry, as the client's writes do.
        command = {
            "findAndModify": sessions.name,
            "query": {"id": key, "expiration": {"$gt": now}},
            "update": [{"$set": {"expiration": expiration}}],
            "fields": _FIELDS,
            "writeConcern": {"w": 1},
        }
        answer = _repeated(lambda: sessions.database.command(command, codec_options=_CODEC_OPTIONS))
        record = _record_of(answer["value"], now)
        return record and record._replace(touched=not enough < answer["value"]["expiration"] <= most)

    def create(self, key: str, payload: bytes, ttl: float) -> bool:
        """Create with one insert; without a unique index on ``id``, with an upsert that changes no other document.

        Upserts that run at once can each insert. Here they want the same ``_id``, so that one of them does.
        """
        sessions = self._sessions
        expiration = self.clock() + timedelta(seconds=ttl)
        document = {"_id": _object_id(key), "id": key, "expiration": expiration, "val": payload}
        try:
            if self._unique:
                sessions.insert_one(document)
                return True
            answer = sessions.update_one({"id": key}, {"$setOnInsert": document}, upsert=True)
            return answer.upserted_id is not None
        except errors.DuplicateKeyError:
            return False

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> WriteResult:
        """Replace with one update that names the expected payload; a second command only tells why none matched."""
        values: dict[str, Any] = {"val": payload}
        if ttl is not None:
            values["expiration"] = self.clock() + timedelta(seconds=ttl)
        return self._set(values, key, expected)

    def delete(self, key: str, expected: bytes | None = None) -> WriteResult:
        """Delete with one command; with an expected payload, it names that as a replace does.

        Without one, every document with the key is deleted: Flask-Session's own races can leave two.
        """
        if expected is not None:
            deleted = self._change(lambda document: self._sessions.delete_one(document).deleted_count, key, expected)
        else:
            deleted = _deleted(_repeated(lambda: self._sessions.find_one_and_delete({"id": key}, _FIELDS)))
        if not self._unique and deleted.outcome is Outcome.STORED:
            _repeated(lambda: self._sessions.delete_many({"id": key}))
        return deleted

    def touch(self, key: str, ttl: float, expected: bytes | None = None) -> bool:
        """Move the expiration with one update; ``expected`` is not compared: it would be sent with each refresh."""
        now = self.clock()
        live = {"id": key, "expiration": {"$gt": now}}
        values = {"expiration": now + timedelta(seconds=ttl)}
        return self._sessions.update_one(live, {"$set": values}).matched_count > 0

    def check(self) -> Generator[Problem]:
        """Return problems of the client's timeouts, missing indexes, and what a failover may lose.

        :raises PyMongoError: when the server cannot be reached; a missing permission is a finding.
        """
        yield from timeout_problems(self.client)
        try:
            present = self._sessions.index_information()
        except errors.OperationFailure:
            what = f"The account may not list the indexes of the collection {self._prepared.name!r}."
            yield Problem(
                "warning",
                what,
                "Grant it listIndexes, or look for indexes on id and expiration yourself.",
                "mongodb-rights",
            )
        else:
            yield from index_problems(self._prepared.name, present)
        # Asked for last: a client knows its servers once it has connected.
        if self._prepared.write_concern.document.get("w") in (0, 1) and len(self.client.nodes) > 1:
            what = "The client's write concern is 1: a failover may lose sessions that were stored."
            yield Problem("warning", what, "Leave out w, or set w=majority.", "mongodb-write-concern")

    def _set(self, values: dict[str, Any], key: str, expected: bytes) -> WriteResult:
        return self._change(
            lambda document: self._sessions.update_one(document, {"$set": values}).matched_count, key, expected
        )

    def _change(self, change: Callable[[dict[str, Any]], int], key: str, expected: bytes) -> WriteResult:
        live = {"id": key, "expiration": {"$gt": self.clock()}}
        stored: Any = expected
        for _ in range(2):
            if change({**live, "val": stored}):
                return WriteResult(Outcome.STORED)
            found = self._sessions.find_one(live, _FIELDS)
            if found is None:
                return WriteResult(Outcome.MISSING)
            stored = found["val"]
            if _as_bytes(stored) != expected:
                break
            # What is expected is there: as text, which does not match as bytes. Name it as it is stored.
        return WriteResult(Outcome.CONFLICT, _as_bytes(stored))


def _client_of_url(url: str, **options: Any) -> MongoClient[dict[str, Any]]:
    if not url.startswith(_SCHEMES):
        raise ValueError(f"a string is taken for a URL, which starts with {' or '.join(_SCHEMES)}.")
    try:
        named = {name.lower() for name, _ in parse_qsl(urlsplit(url).query)}
        patience: dict[str, Any] = {} if "timeoutms" in named else TIMEOUTS
        options = {name: value for name, value in patience.items() if name.lower() not in named} | options
        return MongoClient(url, connect=False, **options)
    except (errors.ConfigurationError, ValueError, TypeError) as error:
        # Not its words: they may quote the URL, and that a password.
        raise ValueError(
            f"PyMongo does not take the URL ({type(error).__name__}): is each port a number, and are '/', ':', '@' and "
            "'%' in a password written as %2F, %3A, %40 and %25?"
        ) from None


def _database_of_url(client: MongoClient[dict[str, Any]]) -> str:
    """Return the database in the URL's path; the default if it is one for logging in, such as ``admin``."""
    name = client.get_default_database(_DEFAULT_DB).name
    return _DEFAULT_DB if name in _DATABASES_OF_THE_SERVER else name


def _collection_of(client: Any, db: str, collect: str) -> Collection[dict[str, Any]]:
    try:
        sessions: Any = client[db][collect]
    except errors.InvalidName as error:
        raise ValueError(f"{db!r} and {collect!r} cannot name a database and a collection: {error}.") from None
    except (TypeError, LookupError):
        sessions = None
    find_one = getattr(sessions, "find_one", None)
    # Indexing a database twice also works: it returns a collection with the name "db.collect".
    if not callable(find_one) or inspect.iscoroutinefunction(find_one) or sessions.name != collect:
        raise ValueError(
            f"an object of class {type(client).__name__} is neither a MongoDB client (that is not asynchronous) nor a "
            "URL such as 'mongodb://localhost:27017/'."
        )
    return sessions  # type: ignore[no-any-return]  # checked above, as far as possible


def _with_own_options(sessions: Collection[dict[str, Any]]) -> Collection[dict[str, Any]]:
    concern = sessions.write_concern if sessions.write_concern.acknowledged else WriteConcern()
    return sessions.with_options(_CODEC_OPTIONS, ReadPreference.PRIMARY, concern)


def _repeated(command: Callable[[], Any]) -> Any:
    """Run a command, and once more if the connection was lost; any, as PyMongo returns a result or a document.

    PyMongo itself repeats no delete of many, no command that is sent by name, and on a server without replicas no
    write at all.
    """
    try:
        return command()
    except errors.ServerSelectionTimeoutError:
        raise
    except errors.AutoReconnect:
        return command()


def _record_of(document: dict[str, Any] | None, now: datetime) -> Record | None:
    """Return the record of a document; None for one that has expired: MongoDB removes it within the minute."""
    expiration = document.get("expiration") if document else None
    if document is None or expiration is None or expiration <= now:
        return None
    return Record(_as_bytes(document["val"]), (expiration - now).total_seconds())


def _deleted(document: dict[str, Any] | None) -> WriteResult:
    if document is None:
        return WriteResult(Outcome.MISSING)
    return WriteResult(Outcome.STORED, _as_bytes(document["val"]))


def _as_bytes(payload: bytes | str) -> bytes:
    """Return the bytes of a payload as Flask-Session does: an older one may have stored text."""
    return payload.encode() if isinstance(payload, str) else bytes(payload)


def _object_id(key: str) -> ObjectId:
    return ObjectId(hashlib.sha256(key.encode()).digest()[:12])
