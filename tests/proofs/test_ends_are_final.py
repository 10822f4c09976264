"""Slow requests that a logout or a rotation overtakes, by the hundred on every store: what has ended stays ended."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask, Response, session
from werkzeug.http import parse_cookie
from werkzeug.test import TestResponse

from lazysession.records.rotation import FORWARDING_LIFETIME
from tests.support.stores import EVERY_STORE, Store

MakeApp = Callable[..., Flask]

PAIRS = 167  # of each slow kind with each end, which makes a thousand for each store
SLOW = ("untouched", "reading", "writing")
ENDS = ("logout", "rotation")

pytestmark = pytest.mark.parametrize("store", EVERY_STORE, indirect=True)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The store's name."""
    return str(request.node.callspec.params["store"])


@pytest.fixture
def pairs(request: pytest.FixtureRequest, name: str) -> int:
    """How many pairs are made: a tenth in the quick run, and on what only stands in for a store."""
    in_full = request.config.getoption("--require-servers") and not name.startswith("fake")
    return PAIRS if in_full else PAIRS // 10


class Site:
    """An app with slow pages and pages that end a session, and what it has sent to its visitors."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.between: Callable[[], Any] = lambda: None
        self._client = app.test_client(use_cookies=False)
        app.add_url_rule("/look", "look", lambda: {key: session[key] for key in session if key != "_permanent"})
        app.add_url_rule("/set/<key>/<value>", "set", self._set)
        app.add_url_rule("/tell", "tell", lambda: f"{session.sid} {session!r} {dict(session)}")  # type: ignore[attr-defined]
        app.add_url_rule("/clear", "clear", self._clear)
        app.add_url_rule("/slow/<kind>", "slow", self._slow)
        app.add_url_rule("/quick/<kind>", "quick", self._quick)

    def get(self, path: str, sid: str) -> TestResponse:
        """Make a request with a session id."""
        return self._client.get(path, headers={"Cookie": f"session={sid}"})

    def begin(self) -> str:
        """Begin a session; answer its id."""
        (sid,) = sent(self._client.get("/set/owner/anybody"))
        return sid

    def look(self, sid: str) -> dict[str, Any]:
        """Return what an id opens."""
        return dict(self.get("/look", sid).json or {})

    def _set(self, key: str, value: str) -> str:
        session[key] = value
        return ""

    def _clear(self) -> str:
        session.clear()
        return ""

    def _slow(self, kind: str) -> str:
        if kind != "untouched":
            session.get("owner")
        self.between()
        if kind == "reading":
            session.get("owner")
        elif kind == "writing":
            session["late"] = 1
        elif kind == "logout":
            session.clear()
        elif kind == "rotation":
            self._login("slow")
        return ""

    def _quick(self, kind: str) -> str:
        if kind == "logout":
            session.get("owner")
            session.clear()
        else:
            self._login("quick")
        return ""

    def _login(self, user: str) -> None:
        session["_user_id"] = user
        self.app.session_interface.regenerate(session)  # type: ignore[attr-defined]


def sent(response: Response | TestResponse) -> list[str]:
    """Return the session ids that a response sends."""
    cookies = [parse_cookie(header.partition(";")[0]) for header in response.headers.getlist("Set-Cookie")]
    return [sid for cookie in cookies if (sid := cookie.get("session"))]


def interleaved(site: Site, slow: str, end: str, sid: str) -> tuple[TestResponse, TestResponse]:
    """End the session in the middle of the slow request."""
    ends: list[TestResponse] = []
    site.between = lambda: ends.append(site.get(f"/quick/{end}", sid))
    late = site.get(f"/slow/{slow}", sid)
    return late, ends[0]


def raced(site: Site, slow: str, end: str, sid: str) -> tuple[TestResponse, TestResponse]:
    """Start both at once, and let the scheduler and the store decide."""
    together = threading.Barrier(2)

    def request(path: str) -> TestResponse:
        together.wait()
        return site.get(path, sid)

    site.between = lambda: None
    with ThreadPoolExecutor(2) as threads:
        late, ended = threads.map(request, (f"/slow/{slow}", f"/quick/{end}"))
    return late, ended


Met = tuple[str, TestResponse, TestResponse]


def meetings(site: Site, slow: str, end: str, pairs: int) -> Iterator[tuple[Met, bool]]:
    """Make the pairs, three of five interleaved on purpose; return of each whether it was."""
    for number in range(pairs):
        sid, on_purpose = site.begin(), number % 5 < 3
        yield (sid, *(interleaved if on_purpose else raced)(site, slow, end, sid)), on_purpose


def revived(site: Site, met: Met) -> int:
    """Count the ids ever sent that open what was in the session before its logout."""
    first, *responses = met
    ids = {first, *(sid for response in responses for sid in sent(response))}
    return sum("owner" in site.look(sid) for sid in ids)


def alive(site: Site, old: str, new: str) -> int:
    """Count what the old id can still do after a login: see it, change it, or be sent a cookie."""
    user, look = site.look(new)["_user_id"], site.get("/look", old)
    change = site.get("/set/_user_id/somebody", old)
    told = bool(look.headers.getlist("Set-Cookie") or change.headers.getlist("Set-Cookie"))
    return told + ("_user_id" in (look.json or {})) + bool(site.look(new)["_user_id"] != user)


def after_the_note(site: Site) -> None:
    """Pass the time in which an old id still leads to the new session."""
    handler: Any = site.app.session_interface.handler  # type: ignore[attr-defined]
    now: Callable[[], float] = handler.clock

    def later() -> float:
        return now() + FORWARDING_LIFETIME

    handler.clock = later


def show(name: str, slow: str, end: str, pairs: int, **counts: int) -> None:
    """Print the counts, which are all to be none."""
    named = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"{name}: {pairs} pairs of slow {slow} and quick {end}: {named}")  # noqa: T201
    assert not any(counts.values())


@pytest.mark.parametrize("slow", SLOW)
def test_a_logout_is_final(store: Store, make_app: MakeApp, name: str, pairs: int, slow: str) -> None:
    """A request that a logout overtakes restores nothing, and sends no cookie."""
    site, counts = Site(make_app()), Counter(revived=0, cookies=0)
    for met, on_purpose in meetings(site, slow, "logout", pairs):
        counts["revived"] += revived(site, met)
        counts["cookies"] += on_purpose and "Set-Cookie" in met[1].headers
    show(name, slow, "logout", pairs, **counts)


@pytest.mark.parametrize("slow", SLOW)
def test_a_rotated_id_ends(store: Store, make_app: MakeApp, name: str, pairs: int, slow: str) -> None:
    """A request that a login overtakes does not keep the old id alive, gets no cookie, and loses no change."""
    site, counts = Site(make_app()), Counter(alive=0, cookies=0, lost=0)
    expected = {"owner": "anybody", "_user_id": "quick", **({"late": 1} if slow == "writing" else {})}
    ids: list[tuple[str, str]] = []
    for (old, late, end), on_purpose in meetings(site, slow, "rotation", pairs):
        (new,) = sent(end)
        counts["alive"] += (new == old) + alive(site, old, new)
        counts["cookies"] += on_purpose and "Set-Cookie" in late.headers
        counts["lost"] += site.look(new) != expected
        ids.append((old, new))
    after_the_note(site)
    counts["alive"] += sum(site.look(old) != {} for old, _ in ids)
    counts["lost"] += sum(site.look(new) != expected for _, new in ids)
    show(name, slow, "rotation", pairs, **counts)


@pytest.mark.parametrize(("slow", "end"), [("logout", "logout"), ("logout", "rotation"), ("rotation", "logout")])
def test_one_of_two_is_a_logout(
    store: Store, make_app: MakeApp, name: str, pairs: int, slow: str, end: str
) -> None:  # fmt: skip
    """In either order of a logout and a login, no client can use the session any more, under either id."""
    site, some = Site(make_app()), pairs // 3
    ended = sum(revived(site, met) for met, _ in meetings(site, slow, end, some))
    show(name, slow, end, some, revived=ended)


def test_two_rotations(store: Store, make_app: MakeApp, name: str, pairs: int) -> None:
    """Two logins at once are two sessions: neither id opens what the other login stored, nor does the old one."""
    site, some, counts = Site(make_app()), pairs // 3, Counter(alive=0, lost=0, mixed=0)
    for (old, late, end), _ in meetings(site, "rotation", "rotation", some):
        ids = [*sent(late), *sent(end)]
        counts["lost"] += len(set(ids) - {old}) != 2
        counts["mixed"] += [site.look(sid).get("_user_id") for sid in ids] != ["slow", "quick"]
        counts["alive"] += alive(site, old, ids[-1])
    show(name, "rotation", "rotation", some, **counts)


@pytest.mark.parametrize("when", ["within", "after"])
def test_a_planted_id(store: Store, make_app: MakeApp, when: str) -> None:
    """An attacker who fixated the id that a visitor logs in with learns nothing, sets nothing and gets no new id."""
    site = Site(make_app())
    fixated = site.begin()
    (new,) = sent(site.get("/quick/rotation", fixated))
    site.get("/set/_user_id/7", new)
    if when == "after":
        after_the_note(site)
    answers = [
        site.get(path, fixated) for path in ("/look", "/tell", "/set/_user_id/9", "/slow/writing", "/slow/rotation")
    ]
    for answer in answers:
        assert new not in answer.text + str(answer.headers)
    assert "_user_id" not in (answers[0].json or {})
    assert (answers[0].json == {}) == (when == "after")
    assert "_user_id" not in answers[1].text
    assert site.look(new)["_user_id"] == "7"
    for sid in (sid for answer in answers for sid in sent(answer)):
        assert site.look(sid).get("_user_id") != "7"


def test_logging_out_unread_with_an_old_id(store: Store, make_app: MakeApp) -> None:
    """A logout that comes with the old id just after a rotation ends the session, though it reads nothing first."""
    site = Site(make_app())
    old = site.begin()
    (new,) = sent(site.get("/quick/rotation", old))
    site.get("/clear", old)
    assert site.look(old) == site.look(new) == {}
