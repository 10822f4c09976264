"""Requests in process, on a real Redis: each kind of request, each contender, with and without Flask-Login."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from calling import BOGUS, Caller, log_in
from contenders import EVERYONE, LAZY, NULL, Contender, make_app
from everystore import Visits
from flask import Flask
from rounds import Block, interleave, timed
from spread import Spread, ratio, spread
from storage import settings_of

#: Kinds of requests that are one path with one cookie.
PATHS = {
    "untouched": "/untouched",
    "static file": "/static/site.css",
    "read": "/read",
    "refresh due": "/read",
    "change": "/change",
    "same value": "/same",
    "bogus cookie, read": "/read",
}
#: Requests of a visitor without an earlier session.
VISITS = ("login", "logout")
KINDS = (*PATHS, *VISITS)
NEEDS_STATE = {"change", "same value", *VISITS}


@dataclass(frozen=True)
class Effort:
    """How much to measure: rounds of all contenders, requests in a block, and both for the ratios with a goal."""

    rounds: int
    block: int
    fine_rounds: int
    fine_block: int


def kinds_of(contender: Contender) -> Iterable[str]:
    """Return the kinds of requests that a contender can serve."""
    return [kind for kind in KINDS if contender.stateful or kind not in NEEDS_STATE]


def measure_kinds(url: str, effort: Effort, *, flask_login: bool) -> dict[str, dict[str, Spread]]:
    """Return the seconds of each kind of request, by kind and contender."""
    apps = {each.name: make_app(each, settings_of(url), flask_login=flask_login) for each in EVERYONE}
    due = make_app(LAZY, {**settings_of(url), "LAZYSESSION_REFRESH_THROTTLE": 0}, flask_login=flask_login)
    cookies = {each.name: log_in(apps[each.name]) if each.stateful else BOGUS for each in EVERYONE}
    found: dict[str, dict[str, Spread]] = {}
    for kind, path in PATHS.items():
        blocks: dict[str, Block] = {}
        for each in EVERYONE:
            if kind in kinds_of(each):
                app = due if kind == "refresh due" and each is LAZY else apps[each.name]
                cookie = BOGUS if kind.startswith("bogus") else cookies[each.name]
                blocks[each.name] = requests(app, path, cookie, effort.block)
        found[kind] = {name: spread(seconds) for name, seconds in interleave(blocks, effort.rounds).items()}
    found.update(_measure_visits({each.name: apps[each.name] for each in EVERYONE if each.stateful}, effort))
    return found


def requests(app: Flask, path: str, cookie: str | None, times: int) -> Block:
    """Make a block of the same request."""
    caller = Caller(app, path, cookie)
    return timed(lambda: caller.send(times), times)


def _measure_visits(apps: dict[str, Flask], effort: Effort) -> dict[str, dict[str, Spread]]:
    """Measure logins without a cookie, and then the logouts of those sessions."""
    told: dict[str, list[dict[str, float]]] = {name: [] for name in apps}
    visits = {name: Visits(app) for name, app in apps.items()}

    def visit(name: str) -> float:
        told[name].append(visits[name].send(effort.block))
        return 0.0

    interleave({name: partial(visit, name) for name in apps}, effort.rounds)
    return {
        kind: {name: spread([each[key] for each in of_rounds[-effort.rounds :]]) for name, of_rounds in told.items()}
        for kind, key in (("login", "first write"), ("logout", "logout"))
    }


def measure_untouched(url: str, effort: Effort) -> dict[str, Spread]:
    """Return the time of an untouched request in LazySession over that of bare Flask.

    The ratio of two equal apps of bare Flask shows how much is noise.
    """
    apps = {each.name: make_app(each, settings_of(url)) for each in (NULL, LAZY)}
    apps["null again"] = make_app(NULL, {})
    blocks = {name: requests(app, "/untouched", BOGUS, effort.fine_block) for name, app in apps.items()}
    told = interleave(blocks, effort.fine_rounds, warm_up=10)
    return {
        "over null": ratio(told["lazy"], told["null"]),
        "null over null": ratio(told["null again"], told["null"]),
        "seconds": spread(told["lazy"]),
    }


def measure_rules(url: str, effort: Effort, counts: Iterable[int] = (1, 10, 100, 1000)) -> dict[str, dict[str, Spread]]:
    """Return, by path and number of rules, the time over that with one rule."""
    found = {}
    for path in ("/untouched", "/read"):
        blocks = {}
        for count in counts:
            rules = [(f"/area-{number}/**", "readonly") for number in range(count)]
            app = make_app(LAZY, {**settings_of(url), "LAZYSESSION_RULES": rules})
            blocks[str(count)] = requests(app, path, log_in(app), effort.fine_block // 2)
        told = interleave(blocks, effort.fine_rounds // 4, warm_up=5)
        found[path] = {name: ratio(seconds, told["1"]) for name, seconds in told.items()}
    return found
