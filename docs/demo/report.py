"""The report: one HTML file without external resources, for light and dark mode; and the table of the README."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from textwrap import wrap

import sums
from chart import Bar, Pair, bars
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from measuring import Comparison, Tally
from results import Row, notes, rows, sentences
from scenario import JOURNEY, REQUESTS_OF_A_VIEW
from stores import Sessions

_NAMES = (Sessions.FLASK_SESSION.title, Sessions.LAZY.title)
_PACKAGES = ("Flask", "Flask-Session", "LazySession", "Flask-Login", "waitress")
_TILES = ("Store round trips", "Set-Cookie headers", "Vary: Cookie headers", "CPU time of the server")
_README_ROWS = ("Store round trips", "reads", "writes", "Set-Cookie headers", "Vary: Cookie headers",
                "Time, median page view", "CPU time of the server")  # fmt: skip
_BEGIN, _END = "<!-- demo:begin -->", "<!-- demo:end -->"


@dataclass(frozen=True)
class Chart:
    """A drawing, with what stands around it."""

    title: str
    text: str
    pairs: list[tuple[str, tuple[Bar, Bar]]]


def write_report(comparison: Comparison, views: int, command: str, path: Path) -> None:
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
        sentences=sentences,
        notes=notes(comparison),
        differences=comparison.differences,
        command=command,
        versions=versions([comparison]),
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
        f"The steps of a visitor, in order; the mean of all visitors. Each step is {REQUESTS_OF_A_VIEW} requests, "
        f"and one more if a form is posted. {sum_of_a_view(comparison)}",
        bars(pairs, _NAMES),
    )


def sum_of_a_view(comparison: Comparison) -> str:
    """Say how the round trips of a page view with a cookie and without a form add up, if there was one."""
    title = next(step.title for step in JOURNEY[4:] if step.fields is None)
    if title not in comparison.before.by_step:
        return ""
    before, after = (result.by_step[title] for result in (comparison.before, comparison.after))
    used = dict.fromkeys(answer.path for answer in after.answers if answer.store.round_trips)
    return (
        f"“{title}”: {_NAMES[0]} {sum_of_one(before, lambda it: sums.by_cookie(it).removeprefix('other '))}; "
        f"{_NAMES[1]} {sum_of_one(after, sums.by_use)} ({', '.join(used)})."
    )


def sum_of_one(tally: Tally, noun: sums.Noun) -> str:
    """Return the mean of the round trips of a page view, and how those of the first one add up."""
    mean = tally.store.round_trips / tally.views
    first = tally.answers[: tally.requests // tally.views]
    return f"{mean:g} = {sums.add_up(mean, first, lambda it: it.store.round_trips, noun)}"


def chart_of_kinds(comparison: Comparison) -> Chart:
    """Draw the round trips by kind, and the headers that were sent."""
    before, after = comparison.before.total, comparison.after.total
    kinds = [Pair(noun, getattr(before.store, kind), getattr(after.store, kind))
             for kind, noun in (("read", "Reads"), ("write", "Writes"), ("refresh", "Refreshes of the expiry"),
                                ("delete", "Deletes"))]  # fmt: skip
    headers = [
        Pair("Set-Cookie headers", before.cookies_set, after.cookies_set),
        Pair("Vary: Cookie headers", before.varies_by_cookie, after.varies_by_cookie),
    ]
    return Chart(
        "Round trips by kind, and headers sent",
        "The whole run. Caches do not share a response with Set-Cookie or Vary: Cookie between visitors.",
        bars(kinds + headers, _NAMES),
    )


def versions(comparisons: list[Comparison]) -> list[str]:
    """Return the machine's part in the figures: Python, processors, and the software of these runs only."""
    return [
        f"Python {platform.python_version()}",
        f"{os.cpu_count()} cores",
        *(f"{package} {version(package)}" for package in _PACKAGES),
        *dict.fromkeys(name for comparison in comparisons for name in comparison.store_versions),
    ]


def write_readme(comparisons: list[Comparison], views: int, command: str, path: Path) -> None:
    """Put the table between the markers of a README."""
    before, rest = path.read_text(encoding="utf-8").split(_BEGIN)
    after = rest.split(_END)[1]
    path.write_text(f"{before}{_BEGIN}\n{markdown(comparisons, views, command)}\n{_END}{after}", encoding="utf-8")


def markdown(comparisons: list[Comparison], views: int, command: str) -> str:
    """Return the comparisons as one table: a column for each store, and one that says how each figure adds up."""
    titles = [comparison.store for comparison in comparisons]
    tables = [{line.label: line for line in rows(one)} for one in comparisons]
    intro = (
        f"{views} page views of {REQUESTS_OF_A_VIEW} requests each, the same in both shops: `{command}` on "
        f"{date.today()}, with {', '.join(versions(comparisons))}. {notes(comparisons[0])[1]} "
        + " ".join(f"{comparison.store}: {notes(comparison)[0]}" for comparison in comparisons)
    )
    head = [
        f"| {_NAMES[0]} → {_NAMES[1]} | {' | '.join(titles)} | How it adds up |",
        f"|---|{'--:|' * len(titles)}---|",
    ]
    lines = []
    for label in _README_ROWS:
        found = {title: table[label] for title, table in zip(titles, tables, strict=True)}
        cells = " | ".join(cell(line) for line in found.values())
        lines.append(f"| {label} | {cells} | {reasons(found)} |")
    return "\n".join([*wrap(intro, 118, break_on_hyphens=False), "", *head, *lines])


def cell(row: Row) -> str:
    """Return both numbers of a row and their ratio."""
    return f"{row.before} → **{row.after}**" + (f" ({row.ratio})" if ":" in row.ratio else "")


def reasons(found: dict[str, Row]) -> str:
    """Return how a figure of LazySession adds up, if it does so with each store, and the notes."""
    after = {(row.after, row.why.get(_NAMES[1], row.why.get("", ""))) for row in found.values()}
    same = [f"{_NAMES[1]}: {text}." for _, text in after if text and len(after) == 1]
    remarks = [row.why["Note"] for row in found.values() if "Note" in row.why]
    return " ".join([*same, *(f"{text[0].upper()}{text[1:]}." for text in dict.fromkeys(remarks))])
