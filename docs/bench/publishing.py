"""Write the results of a run: JSON, tables and charts in the documentation, and tables in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import places
from contenders import BY_NAME, LAZY
from drawing import Bar, Panel, chart
from goals import Goal
from storage import TITLES

from tests.support.tables import list_table

FIGURES = places.ROOT / "docs" / "_figures"
GENERATED = places.ROOT / "docs" / "_generated"

Table = tuple[list[str], list[list[str]]]


def plain(value: Any) -> Any:
    """Return results in the form that they have in JSON: strings as keys, dataclasses as objects."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def goal_table(goals: Sequence[Goal]) -> Table:
    """Return the table of goals."""
    rows = [[goal.figure, goal.goal, goal.measured, goal.verdict] for goal in goals]
    return ["Figure", "Goal", "Measured", "Verdict"], rows


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


def stores_table(stores: dict[str, Any]) -> Table:
    """Return the table of every store: the time with LazySession over that with Flask-Session."""

    def cell(told: dict[str, Any]) -> str:
        times = f"{told['lazy']['median'] * 1e6:.0f}/{told['flask-session']['median'] * 1e6:.0f}"
        ratio = told["ratio"]
        return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f}) {times}"

    kinds = list(next(iter(stores.values())))
    return ["Store", *kinds], [[TITLES[store], *(cell(told[kind]) for kind in kinds)] for store, told in stores.items()]


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
    """Return the table of reads a second by threads in one process."""
    names = list(next(iter(threads.values())))
    rows = [[count, *(f"{told[name]['median']:,.0f}" for name in names)] for count, told in threads.items()]
    return ["Threads", *(f"{BY_NAME[name].title}, reads/s" for name in names)], rows


def rules_table(rules: dict[str, Any]) -> Table:
    """Return the table of requests by the number of rules: the time over that with one rule."""
    counts = list(next(iter(rules.values())))
    rows = [[count, *(f"{told[count]['median']:.3f}" for told in rules.values())] for count in counts]
    return ["Rules", *(f"{path}, time / with one rule" for path in rules)], rows


#: The tables except that of the goals, by the part of the results that each shows.
TABLES: dict[str, Callable[[Any], Table]] = {
    "kinds": kinds_table,
    "kinds, Flask-Login": kinds_table,
    "stores": stores_table,
    "http": views_table,
    "sessions": sessions_table,
    "threads": threads_table,
    "rules": rules_table,
    "trips": trips_table,
}
_HEADS = {"untouched": "not used", "bogus cookie, read": "bogus cookie"}  # for narrow columns
_WIDTHS = {"kinds": [16] + [11] * 9, "kinds, Flask-Login": [16] + [11] * 9, "http": [20, 34, 16, 14, 14],
           "trips": [20] + [14] * 6}  # fmt: skip


def write(results: dict[str, Any], goals: Sequence[Goal]) -> list[Path]:
    """Write everything into the documentation."""
    FIGURES.mkdir(exist_ok=True)
    written = {
        FIGURES / "bench.json": json.dumps(results, indent=1) + "\n",
        GENERATED / "bench.rst": list_table(*goal_table(goals), [46, 16, 26, 12]),
    }
    for name, make in TABLES.items():
        if results.get(name):
            head, rows = make(results[name])
            file = f"bench-{name.lower().replace(', ', '-')}.rst"
            written[GENERATED / file] = list_table(head, rows, _WIDTHS.get(name, [20] * len(head)))
    for name, drawn in charts(results).items():
        written[FIGURES / f"{name}.svg"] = drawn
    written[GENERATED / "bench-machine.rst"] = _machine_line(results)
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
    return list(written)


def _machine_line(results: dict[str, Any]) -> str:
    run = "A quick run" if results.get("quick") else "A full run"
    took = f", {results['seconds'] / 60:.0f} minutes" if "seconds" in results else ""
    return f"{run} of {results['date']}{took}: {', '.join(results['machine'])}.\n"


def charts(results: dict[str, Any]) -> dict[str, str]:
    """Draw what was measured."""
    drawn = {}
    http = results.get("http", {})
    panels = [
        Panel(title, _bars({name: told["rate"]["median"] for name, told in http[place]["contenders"].items()}))
        for place, title in (("redis", "Requests a second"), ("redis, 5 ms", "The same with 5 ms to the store"))
        if place in http
    ]
    if panels:
        drawn["bench-page-view"] = chart(
            "bench-page-view", "The page view over HTTP, sessions in Redis",
            "Requests a second by session interface; the figures are in the table.", panels)  # fmt: skip
    kinds = results.get("kinds", {})
    panels = [
        Panel(f"{title}, microseconds", _bars({name: told["median"] * 1e6 for name, told in kinds[kind].items()}))
        for kind, title in (
            ("untouched", "A request that does not use its session"),
            ("read", "A request that reads it"),
        )
        if kind in kinds
    ]
    if panels:
        drawn["bench-request"] = chart(
            "bench-request", "One request in process, sessions in Redis",
            "Microseconds by session interface; the figures are in the table.", panels)  # fmt: skip
    sizes = results.get("refresh", {}).get("redis", {})
    if sizes:
        names = {size: f"{int(size):,} bytes" for size in sizes}
        panels = [
            Panel(title, [Bar(names[size], max(told[part]["median"], 0) * 1e6, ours) for size, told in sizes.items()])
            for part, title, ours in (("refresh", "What a refresh adds to a read on Redis, microseconds", True),
                                      ("write", "Writing the session again instead, microseconds", False))
        ]  # fmt: skip
        drawn["bench-refresh"] = chart(
            "bench-refresh", "Refreshing sessions of different sizes",
            "By the size of the session.", panels, one_scale=True)  # fmt: skip
    return drawn


def _bars(values: dict[str, float]) -> list[Bar]:
    return [Bar(BY_NAME[name].title, value, name == LAZY.name) for name, value in values.items()]
