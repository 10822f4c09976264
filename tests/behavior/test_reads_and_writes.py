"""Every way to read a session, overlapping with every way to write it: no pair may tear what belongs together.

The session is mallory's, who asked for a code. Then bob's code is asked for while mallory's is entered::

    /forgot/bob                          /code
    session["reset_for"] = "bob"         if session["reset_for"] == "mallory":
    session["code_ok"] = False               session["code_ok"] = True

A way to read that is not noticed makes the second one decide by an old value; a way to write that is not noticed
loses the assignment of an equal value.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from flask import Flask

from tests.support.interleaved import OpenRequest, view
from tests.support.programs import READS_ALL, READS_KEY, WRITES, plain
from tests.support.stores import LIVE, Store

MakeApp = Callable[..., Flask]
KEY = f"session:{LIVE}"
#: What mallory's session holds at first: no code was right, which is said by False, or by nothing.
STARTS: tuple[dict[str, Any], ...] = ({"reset_for": "mallory", "code_ok": False}, {"reset_for": "mallory"})
BOB = {"reset_for": "bob", "bob": 1, "code_ok": False}


pytestmark = pytest.mark.parametrize("store", ["fakeredis"], indirect=True)


#: The ways to read. Each sees a difference where bob's code was asked for: that adds the key "bob".
READS: dict[str, Callable[[Any], Any]] = {
    "get": lambda session: READS_KEY["get"](session, "reset_for"),
    "[]": lambda session: READS_KEY["[]"](session, "reset_for"),
    "in": lambda session: READS_KEY["in"](session, "reset_for"),
    "get of an absent key": lambda session: READS_KEY["get"](session, "bob"),
    "[] of an absent key": lambda session: READS_KEY["[]"](session, "bob"),
    "in, of an absent key": lambda session: READS_KEY["in"](session, "bob"),
    "pop of an absent key": lambda session: session.pop("bob", None),
    "pop": lambda session: session.pop("reset_for"),
    "pop with a default": lambda session: session.pop("reset_for", None),
    "del": lambda session: session.__delitem__("reset_for"),
    "setdefault": lambda session: session.setdefault("reset_for", "mallory"),
    "setdefault of an absent key": lambda session: session.setdefault("bob", 0),
    "popitem": lambda session: [session.popitem() for _ in range(len(session))] and None,
    "!=": lambda session: tuple(session != {"_permanent": True, **start} for start in STARTS),
    "==": lambda session: tuple(session == {"_permanent": True, **start} for start in STARTS),
    "reflected ==": lambda session: tuple({"_permanent": True, **start} == session for start in STARTS),
    **{way: read for way, read in READS_ALL.items() if way != "=="},
}
#: The ways to write: for bob, for the key that is added, and for the value that may be equal.
FORGETS: dict[str, Callable[[Any], Any]] = {
    **{
        way: lambda session, write=write: [write(session, *item) for item in BOB.items()]
        for way, write in WRITES.items()
    },
    "update(dict) at once": lambda session: session.update(BOB),
    "update(**kw) at once": lambda session: session.update(**BOB),
    "update(dict, **kw)": lambda session: session.update({"reset_for": "bob"}, bob=1, code_ok=False),
    "|= at once": lambda session: session.__ior__(BOB),
    "pop": lambda session: (session.update(reset_for="bob", bob=1), session.pop("code_ok", None)),
    "setdefault": lambda session: (session.update(reset_for="bob", bob=1), session.setdefault("code_ok", False)),
    "del": lambda session: (session.update(reset_for="bob", bob=1, code_ok=0), session.__delitem__("code_ok")),
}


@pytest.fixture
def app(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> Flask:
    """An app whose views are taken step by step."""
    caplog.set_level(logging.CRITICAL)
    app = make_app()
    app.testing = False
    app.add_url_rule("/", view_func=view)
    return app


def run_overlapping(app: Flask, views: list[Callable[[Any], Any]]) -> list[bool]:
    """Make requests load the session at the same time and end in this order; return which of them were refused."""
    requests = [OpenRequest(app, "", LIVE) for _ in views]
    for request, take in zip(requests, views, strict=True):
        request.run(take)
        assert request.failed is None
    return [request.finish().status_code >= 400 for request in requests]


@pytest.mark.parametrize("write", FORGETS)
@pytest.mark.parametrize("read", READS)
def test_not_torn(app: Flask, store: Store, read: str, write: str) -> None:
    """Bob never gets the code that mallory entered: a last write of his stands, a last read of hers is refused."""
    start = STARTS[write in ("pop", "setdefault", "del")]
    forgot, expected = FORGETS[write], dict(start)
    forgot(expected)
    seen = READS[read]({"_permanent": True, **start})
    same: list[bool] = []

    def code(session: Any) -> None:
        same.append(READS[read](session) == seen)
        session["code_ok"] = True

    results = []
    for views in ([code, forgot], [forgot, code]):
        store.put(app, KEY, msgspec.msgpack.encode({"_permanent": True, **start}))
        refused = run_overlapping(app, views)
        (payload,) = store.payloads(app).values()
        results.append((refused, plain(msgspec.msgpack.decode(payload))))
        store.remove(app, KEY)
    assert same == [True, True]
    assert results == [([False, False], expected), ([False, True], expected)]
