"""The tables of a run, as they are shown in the terminal and written into the documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cells import Cell, judge_cells
from contenders import BY_NAME, FLASK_SESSION, LAZY
from goals import Goal
from storage import TITLES

Table = tuple[list[str], list[list[str]]]


def tables(results: dict[str, Any], goals: Sequence[Goal]) -> dict[str, Table]:
    """Return the tables of what was measured, by name."""
    made = {name: make(results[name]) for name, make in _TABLES.items() if results.get(name)}
    if results.get("stores"):
        made["stores"] = stores_table(judge_cells(results["stores"], results.get("instructions") or {}))
        made["stores, times"] = stores_times_table(results["stores"])
    return {**made, "goals": goal_table(goals)}


def goal_table(goals: Sequence[Goal]) -> Table:
    """Return the table of goals."""
    rows = [[goal.figure, goal.goal, goal.measured, goal.limit, goal.verdict] for goal in goals]
    return ["Figure", "Goal", "Measured", "Limit", "Verdict"], rows


def kinds_table(kinds: dict[str, Any]) -> Table:
    """Return the table of request kinds: microseconds, a row for each contender."""
    names = [name for name in BY_NAME if any(name in told for told in kinds.values())]
    rows = [
        [
            BY_NAME[name].title,
            *(f"{told[name]['median'] * 1e6:.0f}" if name in told else "n/a" for told in kinds.values()),
        ]
        for name in names
    ]
    return ["us", *(_HEADS.get(kind, kind) for kind in kinds)], rows


def views_table(http: dict[str, Any]) -> Table:
    """Return the table of page views over HTTP."""
    rows = [
        [place.replace("redis", "Redis") if place not in TITLES else TITLES[place], BY_NAME[name].title,
         f"{told['rate']['median']:,.0f}", f"{told['p50']['median'] * 1000:.1f}", f"{told['p99']['median'] * 1000:.1f}"]
        for place, measured in http.items()
        for name, told in measured["contenders"].items()
    ]  # fmt: skip
    return ["Store", "Sessions by", "Requests/s", "p50, ms", "p99, ms"], rows


def trips_table(trips: Sequence[dict[str, Any]]) -> Table:
    """Return the table of round trips of one page view."""

    def cell(value: int | None) -> str:
        return "n/a" if value is None else str(value)

    rows = [
        [row["store"], *(cell(row[page][whose]) for page in ("untouched", "read", "change")
                         for whose in ("flask-session", "lazy"))]
        for row in trips
    ]  # fmt: skip
    pages = ("nothing", "a read", "a change")
    return ["Store", *(f"{page}: {who}" for page in pages for who in ("Flask-Session", "LazySession"))], rows


def stores_table(judged: dict[str, dict[str, Cell]]) -> Table:
    """Return the table of every store: the verdict of each kind of request."""
    kinds = list(next(iter(judged.values())))
    rows = [[TITLES[store], *(cells[kind].text for kind in kinds)] for store, cells in judged.items()]
    return ["Store", *(_HEADS.get(kind, kind) for kind in kinds)], rows


def stores_times_table(stores: dict[str, Any]) -> Table:
    """Return the microseconds behind the table of every store: LazySession, then Flask-Session."""
    kinds = list(next(iter(stores.values())))
    rows = [
        [TITLES[store],
         *(f"{told[kind]['lazy']['median'] * 1e6:,.0f} / {told[kind]['flask-session']['median'] * 1e6:,.0f}"
           for kind in kinds)]
        for store, told in stores.items()
    ]  # fmt: skip
    return ["us", *(_HEADS.get(kind, kind) for kind in kinds)], rows


def view_trips_table(trips: dict[str, dict[str, int]]) -> Table:
    """Return the table of round trips of each kind of request of the realistic page view."""
    kinds = list(next(iter(trips.values())))
    return ["Sessions by", *kinds], [[BY_NAME[name].title, *map(str, told.values())] for name, told in trips.items()]


def hiredis_table(hiredis: dict[str, Any]) -> Table:
    """Return the table of what hiredis brings."""
    rows = []
    for case, told in hiredis["process"].items():
        name, kind = case.split()
        python, with_it = (f"{told[parser]['median'] * 1e6:.0f} us" for parser in ("python", "hiredis"))
        rows.append([f"{kind}, {BY_NAME[name].title}", python, with_it, _ratio(told["ratio"])])
    for name, told in hiredis.get("http", {}).items():
        python, with_it = (f"{told[parser]['median']:,.0f} requests/s" for parser in ("python", "hiredis"))
        rows.append([f"realistic page view, {BY_NAME[name].title}", python, with_it, _ratio(told["ratio"])])
    return ["Measured", "Without", "With hiredis", "With / without"], rows


def _ratio(told: dict[str, float]) -> str:
    return f"{told['median']:.3f} ({told['low']:.3f} to {told['high']:.3f})"


def sessions_table(stores: dict[str, Any]) -> Table:
    """Return the table of reads by the number of sessions in a store: microseconds."""
    rows = [
        [TITLES[store], f"{int(count):,}", f"{told['read']['median'] * 1e6:.0f}", f"{told['due']['median'] * 1e6:.0f}",
         f"{told['purge seconds']:.1f} s" if "purge seconds" in told else "not needed"]
        for store, counts in stores.items()
        for count, told in counts.items()
    ]  # fmt: skip
    return ["Store", "Sessions", "Read, us", "With a refresh, us", "Purge of all"], rows


def threads_table(threads: dict[str, Any]) -> Table:
    """Return the table of requests that use their session, by threads in one process."""
    names = (FLASK_SESSION.name, LAZY.name)
    rows = [
        [count, *(f"{told[f'{name} rate']['median']:,.0f}" for name in names),
         *(f"{told[f'{name} p99']['median'] * 1000:.1f}" for name in names), _ratio(told["p99 over flask-session"])]
        for count, told in threads.items()
    ]  # fmt: skip
    titles = [BY_NAME[name].title for name in names]
    return ["Threads", *(f"{title}, requests/s" for title in titles), *(f"{title}, p99, ms" for title in titles),
            "p99, ratio"], rows  # fmt: skip


def rules_table(rules: dict[str, Any]) -> Table:
    """Return the table of requests by the number of rules: the time over that with one rule."""
    counts = list(next(iter(rules.values())))
    rows = [[count, *(f"{told[count]['median']:.3f}" for told in rules.values())] for count in counts]
    return ["Rules", *(f"{path}, time / with one rule" for path in rules)], rows


#: By the part of the results that each shows.
_TABLES: dict[str, Callable[[Any], Table]] = {
    "kinds": kinds_table,
    "kinds, Flask-Login": kinds_table,
    "http": views_table,
    "realistic": views_table,
    "realistic, trips": view_trips_table,
    "hiredis": hiredis_table,
    "sessions": sessions_table,
    "threads": threads_table,
    "rules": rules_table,
    "trips": trips_table,
}
_HEADS = {"untouched": "not used", "bogus cookie, read": "bogus cookie"}  # for narrow columns
WIDTHS = {
    "goals": [40, 12, 22, 14, 12],
    "kinds": [16] + [11] * 9,
    "kinds, Flask-Login": [16] + [11] * 9,
    "stores": [16] + [15] * 6,
    "stores, times": [16] + [15] * 6,
    "http": [20, 34, 16, 14, 14],
    "realistic": [20, 34, 16, 14, 14],
    "realistic, trips": [22] + [11] * 9,
    "hiredis": [34, 20, 20, 26],
    "threads": [10, 18, 18, 18, 18, 24],
    "trips": [20] + [14] * 6,
}
