"""Measure with growing numbers: of bytes in a session, and of sessions in a store."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec
from calling import Caller, log_in
from contenders import LAZY, ONE_DAY, make_app
from redis import Redis
from rounds import interleave, timed
from spread import Spread, difference, spread
from sqlalchemy import create_engine, insert
from storage import settings_of

from lazysession.backends.common import utc_now
from lazysession.records.expiry import Refresh

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
#: Stores that remove expired sessions themselves. The sizes are round because memcached refuses items of 1 MiB.
NATIVE_EXPIRY = ("redis", "memcached", "mongodb")


def backend_of(app: Any) -> Any:
    """Return the backend of a lazy app."""
    return app.session_interface.handler.backend


def refresh_by_size(url: str, rounds: int) -> dict[int, dict[str, Spread]]:
    """Return, by payload size, the seconds that a refresh adds to a read, and those of writing the session again."""
    app = make_app(LAZY, settings_of(url))
    backend = backend_of(app)
    due, never = Refresh(ONE_DAY, 0), Refresh(ONE_DAY, 3600)
    records = app.session_interface.handler.records
    found = {}
    for size in SIZES:
        key, payload = f"session:{size:043d}", msgspec.msgpack.encode({"a": "x" * size})
        backend.create(key, payload, ONE_DAY)
        told = interleave(
            {
                "read": timed(lambda key=key: records.load(key, never)),  # type: ignore[misc]
                "refresh": timed(lambda key=key: records.load(key, due)),  # type: ignore[misc]
                "write": timed(lambda key=key, load=payload: backend.replace(key, load, ONE_DAY, load)),  # type: ignore[misc]
            },
            rounds,
        )
        backend.delete(key)
        found[size] = {
            "read": spread(told["read"]),
            "refresh": difference(told["refresh"], told["read"]),
            "write": spread(told["write"]),
        }
    return found


def fill_redis(url: str, already: int, count: int) -> None:
    """Add sessions to Redis until it has ``count``, in batches."""
    client, payload = Redis.from_url(url), msgspec.msgpack.encode({"a": 1, "name": "A. Visitor"})
    for start in range(already, count, 10_000):
        batch = client.pipeline(transaction=False)
        for number in range(start, min(start + 10_000, count)):
            batch.set(f"session:filler-{number}", payload, ex=ONE_DAY)
        batch.execute()


def fill_sql(url: str, backend: Any, already: int, count: int, *, expired: bool = False) -> None:
    """Add sessions to a table until it has ``count``."""
    payload = msgspec.msgpack.encode({"a": 1, "name": "A. Visitor"})
    expiry = utc_now() + timedelta(seconds=-60 if expired else ONE_DAY)
    kind = "expired" if expired else "filler"
    engine = create_engine(url)  # the backend's own commits each row
    with engine.begin() as connection:
        for start in range(already, count, 50_000):
            rows = [
                {"session_id": f"session:{kind}-{number}", "data": payload, "expiry": expiry}
                for number in range(start, min(start + 50_000, count))
            ]
            connection.execute(insert(backend._table), rows)
    engine.dispose()


def read_by_sessions(redis_url: str, sqlite_url: str, counts: Iterable[int], rounds: int) -> dict[str, Any]:
    """Return, by number of sessions, the seconds of a read, a read with a refresh, and a purge of as many expired."""
    never, due = ({"LAZYSESSION_REFRESH_THROTTLE": seconds} for seconds in (3600, 0))
    found: dict[str, Any] = {"redis": {}, "sqlite": {}}
    already = 0
    for count in counts:
        fill_redis(redis_url, already, count)
        for store, url in (("redis", redis_url), ("sqlite", sqlite_url)):
            apps = {
                name: make_app(LAZY, {**settings_of(url), **more}) for name, more in (("read", never), ("due", due))
            }
            if store == "sqlite":
                fill_sql(url, backend_of(apps["read"]), already, count)
            callers = {name: Caller(app, "/read", log_in(app)) for name, app in apps.items()}
            blocks = {name: timed(lambda caller=caller: caller.send(20), 20) for name, caller in callers.items()}  # type: ignore[misc]
            found[store][count] = {name: spread(told) for name, told in interleave(blocks, rounds).items()}
            if store == "sqlite":
                backend = backend_of(apps["read"])
                fill_sql(url, backend, 0, count, expired=True)
                started = time.perf_counter()
                purged: int = backend.purge()
                found[store][count]["purge seconds"] = time.perf_counter() - started
                if purged != count:
                    raise RuntimeError(f"{purged} of {count} expired sessions were purged")
        already = count
    return found
