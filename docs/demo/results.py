"""The comparison as rows of text, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from measuring import Comparison, Tally

Number = int | float


@dataclass(frozen=True)
class Row:
    """One line of the table. A line with ``part`` counts a part of the line above it."""

    label: str
    before: str
    after: str
    ratio: str
    part: bool = False


def ratio(before: Number, after: Number) -> str:
    """Return how many times smaller the second number is, as text."""
    if before == after:
        return "same"
    if not after:
        return "none left"
    times = before / after
    return f"{times:.0f} : 1" if times >= 10 else f"{times:.1f} : 1"


def count(number: Number) -> str:
    """Return a count as text."""
    return f"{number:,}"


def size(number: Number) -> str:
    """Return a number of bytes as text."""
    return f"{number:,} B" if number < 10_000 else f"{number / 1000:,.0f} kB"


def seconds(number: Number) -> str:
    """Return a time as text."""
    return f"{number:.1f} s" if number >= 1 else f"{number * 1000:.0f} ms"


def rows(comparison: Comparison) -> list[Row]:
    """Return the rows of the table."""
    before, after = comparison.before.total, comparison.after.total
    on_redis = comparison.store == "Redis"

    def row(label: str, of: Callable[[Tally], Number], write: Callable[[Number], str], *, part: bool = False) -> Row:
        left, right = of(before), of(after)
        return Row(label, write(left), write(right), ratio(left, right), part)

    table = [
        row("Requests served", lambda tally: tally.requests, count),
        row("Store round trips", lambda tally: tally.store.round_trips, count),
        row("read", lambda tally: tally.store.read, count, part=True),
        row("write", lambda tally: tally.store.write, count, part=True),
        row("refresh of the expiry", lambda tally: tally.store.refresh, count, part=True),
        row("delete", lambda tally: tally.store.delete, count, part=True),
        row("other", lambda tally: tally.store.other, count, part=True),
        row("Refreshes as part of a read", lambda tally: tally.store.refreshes_within_reads, count),
        row("Commits, each to disk", lambda tally: tally.store.commits, count),
        row("Bytes sent to the store" if on_redis else "Bytes written to the store",
            lambda tally: tally.store.bytes_written, size),
        row("session data among them", lambda tally: tally.store.data_bytes_written, size, part=True),
        row("Set-Cookie headers", lambda tally: tally.cookies_set, count),
        row("Vary: Cookie headers", lambda tally: tally.varies_by_cookie, count),
        row("Time, all page views", lambda tally: sum(tally.seconds), seconds),
        row("Time, median page view", lambda tally: median(tally.seconds), seconds),
        row("CPU time of the server", lambda tally: tally.cpu_seconds, seconds),
    ]  # fmt: skip
    some_stores = {"other", "Refreshes as part of a read", "Commits, each to disk", "session data among them"}
    return [line for line in table if line.label not in some_stores or line.before[0] + line.after[0] != "00"]


def notes(comparison: Comparison) -> list[str]:
    """Return sentences about what the figures mean."""
    if comparison.store == "Redis":
        counted = (
            "Round trips: the server's INFO commandstats, without commands inside scripts. "
            "Bytes: its total_net_input_bytes, which includes whole commands and reads."
        )
        refreshed = "Flask-Session refreshes the expiry by writing the session again, at every request with a cookie"
    else:
        counted = "A round trip is one SQL statement on the session table. Bytes: the values of INSERT and UPDATE."
        refreshed = "Flask-Session refreshes the expiry by an UPDATE of that column, at every request with a cookie"
    return [
        counted,
        f"{refreshed}; LazySession at most once an hour with default settings, so a run of a minute has none.",
        "Times include the client's own work and depend on the machine: compare the ratios.",
    ]
