"""The indexes that the MongoDB adapter makes at its first use, and what its check reports: indexes and timeouts."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from typing import Any

from pymongo import errors
from pymongo.collection import Collection

from lazysession.backend import Problem

logger = logging.getLogger("lazysession")


def make_indexes(sessions: Collection[dict[str, Any]]) -> bool:
    """Make the indexes on ``id`` and on ``expiration`` unless they exist; a failure is logged, as all works without.

    :raises ConnectionFailure: when the server is down.
    :returns: whether the one on ``id`` is known to be unique, so that no session is stored twice.
    """
    try:
        present = sessions.index_information()
        missing = list(_missing_indexes(present))
        if "id" in missing:
            _index_ids(sessions)
        if "expiration" in missing:
            sessions.create_index("expiration", expireAfterSeconds=0)
        return _has_unique_ids(sessions.index_information() if missing else present)
    except errors.ConnectionFailure:
        raise
    except errors.PyMongoError as error:
        logger.warning(
            "The indexes of the collection %r could not be checked or created (%s). Without them, sessions are found "
            "slowly, and expired ones stay.", sessions.name, reason_of(error),
        )  # fmt: skip
        return False


def _index_ids(sessions: Collection[dict[str, Any]]) -> None:
    try:
        sessions.create_index("id", unique=True)
    except errors.OperationFailure:  # doubles that Flask-Session left, or a sharded collection
        sessions.create_index("id")


def _missing_indexes(present: Mapping[str, Any]) -> Generator[str]:
    if not any(index["key"][0][0] == "id" for index in present.values()):
        yield "id"
    if not any(index["key"][0][0] == "expiration" and "expireAfterSeconds" in index for index in present.values()):
        yield "expiration"


def _has_unique_ids(present: Mapping[str, Any]) -> bool:
    return any(index["key"] == [("id", 1)] and index.get("unique", False) for index in present.values())


def index_problems(name: str, present: Mapping[str, Any]) -> Generator[Problem]:
    """Return what is wrong with the indexes that are present in the collection ``name``."""
    missing = list(_missing_indexes(present))
    if "id" in missing:
        what = f"The collection {name!r} has no index on id: each request reads all sessions to find its own."
        yield Problem("error", what, f"db.{name}.createIndex({{id: 1}}, {{unique: true}})", "mongodb-id-index")
    elif not _has_unique_ids(present):
        what = f"The index on id of the collection {name!r} is not unique: Flask-Session may store a session twice."
        yield Problem(
            "warning",
            what,
            "Remove the doubles, drop the index, and start the app: it makes a unique one.",
            "mongodb-id-unique",
        )
    if "expiration" in missing:
        what = f"The collection {name!r} has no TTL index on expiration: MongoDB does not remove expired sessions."
        yield Problem(
            "error", what, f"db.{name}.createIndex({{expiration: 1}}, {{expireAfterSeconds: 0}})", "mongodb-ttl-index"
        )


def timeout_problems(client: Any) -> Generator[Problem]:
    """Return a problem for a client without timeouts; none for one that does not have PyMongo's options."""
    options = getattr(client, "options", None)
    pool = getattr(options, "pool_options", None)
    if pool is None or options is None or options.timeout is not None or pool.socket_timeout is not None:
        return
    yield Problem(
        "warning",
        "The client has neither timeoutMS nor socketTimeoutMS: when MongoDB hangs, requests hang with it, and while it "
        f"is away each waits {options.server_selection_timeout:g} s.",
        "Put timeoutMS=5000 into the URL or give it to the client: it bounds both.",
        "mongodb-timeout",
    )


def reason_of(error: errors.PyMongoError) -> str:
    """Name an error without its text, which may quote documents."""
    details: Mapping[str, Any] = getattr(error, "details", None) or {}
    return str(details.get("codeName") or type(error).__name__)
