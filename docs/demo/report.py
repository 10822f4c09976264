"""The report: one HTML file without external resources, for light and dark mode."""

from __future__ import annotations

import platform
import sqlite3
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from chart import Pair, paired_bars
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from measuring import Comparison
from results import notes, rows
from scenario import REQUESTS_OF_A_VIEW
from stores import Sessions

_NAMES = (Sessions.FLASK_SESSION.title, Sessions.LAZY.title)
_PACKAGES = ("Flask", "Flask-Session", "LazySession", "Flask-Login", "SQLAlchemy", "redis", "waitress")
_TILES = ("Store round trips", "Bytes written to the store", "Bytes sent to the store", "Set-Cookie headers",
          "CPU time of the server")  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """A drawing, with what stands around it."""

    title: str
    text: str
    svg: str


def write_report(comparison: Comparison, views: int, path: Path) -> None:
    """Write the report."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    table = rows(comparison)
    page = environment.get_template("report.html").render(
        store=comparison.store,
        views=views,
        requests=REQUESTS_OF_A_VIEW,
        names=_NAMES,
        tiles=[line for line in table if line.label in _TILES],
        charts=[chart_of_steps(comparison), chart_of_kinds(comparison)],
        rows=table,
        notes=notes(comparison),
        differences=comparison.differences,
        versions=versions(),
        today=date.today(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def chart_of_steps(comparison: Comparison) -> Chart:
    """Draw the cost of each step of the visitor's journey."""
    pairs = [
        Pair(step, before.store.round_trips / before.views, after.store.round_trips / after.views)
        for (step, before), after in zip(
            comparison.before.by_step.items(), comparison.after.by_step.values(), strict=True
        )
    ]
    return Chart(
        "Store round trips of one page view",
        f"The steps of a visitor, in order; the mean of all visitors. Each step is {REQUESTS_OF_A_VIEW} "
        "requests, and one more if a form is posted.",
        paired_bars(pairs, _NAMES, "Store round trips of one page view, step by step"),
    )


def chart_of_kinds(comparison: Comparison) -> Chart:
    """Draw the round trips by kind, and the headers that were sent."""
    before, after = comparison.before.total, comparison.after.total
    kinds = [Pair(kind, getattr(before.store, kind), getattr(after.store, kind))
             for kind in ("read", "write", "refresh", "delete")]  # fmt: skip
    headers = [
        Pair("Set-Cookie header", before.cookies_set, after.cookies_set),
        Pair("Vary: Cookie header", before.varies_by_cookie, after.varies_by_cookie),
    ]
    return Chart(
        "Round trips by kind, and headers sent",
        "The whole run. Shared caches do not keep a file with Set-Cookie or Vary: Cookie.",
        paired_bars(kinds + headers, _NAMES, "Store round trips by kind, and headers sent, in the whole run"),
    )


def versions() -> list[str]:
    """Return the versions of the measured software."""
    return [
        f"Python {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
        *(f"{package} {version(package)}" for package in _PACKAGES),
    ]
