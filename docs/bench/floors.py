"""The least that a read and a change can cost: a view of bare Flask that does it by hand, with a client of Redis."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
from calling import Caller, log_in
from contenders import FLASK_SESSION, LAZY, NULL, ONE_DAY, make_app
from inprocess import Effort
from redis import Redis
from rounds import interleave, timed
from spread import Spread, ratio, spread
from storage import settings_of


def callers(url: str) -> dict[str, Caller]:
    """Make the floors, and the same requests with LazySession and with Flask-Session: each on a session of its own."""
    apps = {"lazy": make_app(LAZY, settings_of(url)), "flask-session": make_app(FLASK_SESSION, settings_of(url))}
    made = {}
    for path, raw in (("read", raw_read), ("change", raw_change)):
        cookie, floor = log_in(apps["lazy"]), make_app(NULL, {})
        floor.add_url_rule("/raw", view_func=raw(url, cookie))
        made[f"{path} floor"] = Caller(floor, "/raw", cookie)
        for name, app in apps.items():
            made[f"{name} {path}"] = Caller(app, f"/{path}", log_in(app))
    return made


def raw_read(url: str, cookie: str) -> Callable[[], str]:
    """Make a view that reads a session by hand: one GET through the client's pool, and one decoding."""
    client: Any = Redis.from_url(url)
    key, decode = key_of(cookie), msgspec.msgpack.Decoder().decode

    def raw() -> str:
        decode(client.get(key)).get("a")
        return "read"

    return raw


def raw_change(url: str, cookie: str) -> Callable[[], str]:
    """Make a view that changes a session by hand: GET, decode, set a key, encode, SET. It loses concurrent changes."""
    client: Any = Redis.from_url(url)
    key, decode, encode = key_of(cookie), msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode
    changes = count(2)

    def raw() -> str:
        data = decode(client.get(key))
        data["a"] = next(changes)
        client.set(key, encode(data), ex=ONE_DAY)
        return "changed"

    return raw


def key_of(cookie: str) -> str:
    """Return the key of a session in the store."""
    return f"session:{cookie.partition('=')[2]}"


def measure(url: str, effort: Effort) -> dict[str, Spread]:
    """Return the time of a read and of a change over that of the floor, and over that with Flask-Session."""
    few = max(effort.fine_block // 4, 1)
    blocks = {
        name: timed(lambda caller=caller: caller.send(few), few)  # type: ignore[misc]
        for name, caller in callers(url).items()
    }
    told = interleave(blocks, effort.fine_rounds // 2, warm_up=10)
    found = {}
    for path in ("read", "change"):
        found[f"{path} over floor"] = ratio(told[f"lazy {path}"], told[f"{path} floor"])
        found[f"{path} over flask-session"] = ratio(told[f"lazy {path}"], told[f"flask-session {path}"])
    return {**found, **{f"{name} seconds": spread(seconds) for name, seconds in told.items()}}
