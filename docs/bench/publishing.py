"""Write the results of a run into the documentation: JSON, tables and charts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import places
from contenders import BY_NAME, LAZY
from drawing import Bar, Panel, chart
from goals import Goal
from tabulating import WIDTHS, tables

from tests.support.tables import list_table

FIGURES = places.ROOT / "docs" / "_figures"
GENERATED = places.ROOT / "docs" / "_generated"
#: The charts of the page views: the part of the results, the name of the file, and the title.
_VIEWS = (
    ("http", "bench-page-view", "The bare page view"),
    ("realistic", "bench-realistic-view", "The realistic page view"),
)


def plain(value: Any) -> Any:
    """Return results in the form that they have in JSON: strings as keys, dataclasses as objects."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def write(results: dict[str, Any], goals: Sequence[Goal]) -> list[Path]:
    """Write everything into the documentation."""
    FIGURES.mkdir(exist_ok=True)
    written = {FIGURES / "bench.json": json.dumps(results, indent=1) + "\n"}
    for name, (head, rows) in tables(results, goals).items():
        file = f"bench-{name.lower().replace(', ', '-')}.rst"
        written[GENERATED / file] = list_table(head, rows, WIDTHS.get(name, [20] * len(head)))
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
    for part, name, title in _VIEWS:
        panels = _view_panels(results.get(part, {}))
        if panels:
            told = "Requests a second by session interface; the figures are in the table."
            drawn[name] = chart(name, f"{title} over HTTP, sessions in Redis", told, panels)
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


def _view_panels(http: dict[str, Any]) -> list[Panel]:
    return [
        Panel(title, _bars({name: told["rate"]["median"] for name, told in http[place]["contenders"].items()}))
        for place, title in (("redis", "Requests a second"), ("redis, 5 ms", "The same with 5 ms to the store"))
        if place in http
    ]


def _bars(values: dict[str, float]) -> list[Bar]:
    return [Bar(BY_NAME[name].title, value, name == LAZY.name) for name, value in values.items()]
