"""The comparison as rows of text, for the terminal, the report and the README."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import sums
from browser import Answer
from measuring import Comparison, Tally
from stores import Sessions

Number = int | float


@dataclass(frozen=True)
class Row:
    """One figure, and ``why``: how it adds up. A row with ``part`` counts a part of the row above it."""

    label: str
    before: str
    after: str
    ratio: str
    why: dict[str, str]
    part: bool = False


def why(before: str, after: str) -> dict[str, str]:
    """Return the sentence of each library by its name, or one without a name where both have the same."""
    if before == after:
        return {"": before}
    return {Sessions.FLASK_SESSION.title: before, Sessions.LAZY.title: after}


def sentences(row: Row) -> list[str]:
    """Return how a figure adds up, as sentences."""
    return [f"{name}: {text}." if name else f"{text}." for name, text in row.why.items()]


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


def kilobytes(number: Number) -> str:
    """Return a number of bytes as text, in the same unit on both sides."""
    return f"{number / 1000:,.{0 if number >= 10_000 else 1}f} kB"


def octets(number: Number) -> str:
    """Return a mean number of bytes as text."""
    return f"{number:,.0f} B"


def seconds(number: Number) -> str:
    """Return a time as text."""
    return f"{number:.1f} s" if number >= 1 else f"{number * 1000:.{0 if number >= 0.01 else 1}f} ms"


def mean(total: Number, number: int, nouns: str, write: Callable[[Number], str]) -> str:
    """Return a total as so many things of so much on average."""
    return f"{number:,} {nouns} {sums.TIMES} {write(total / number)} on average" if number else "none"


def rows(comparison: Comparison) -> list[Row]:
    """Return the rows of the table; those of what this store does not have are left out."""
    found = [*rows_of_store(comparison), *rows_of_headers(comparison), *rows_of_time(comparison)]
    some_stores = {"other", "Refreshes as part of a read", "Commits, each to disk", "session data among them"}
    return [row for row in found if row.label not in some_stores or {row.before, row.after} - {"0", "0.0 kB"}]


def row(comparison: Comparison, label: str, of: Callable[[Tally], Number], write: Callable[[Number], str],
        because: dict[str, str], *, part: bool = False) -> Row:  # fmt: skip
    """Make one row."""
    left, right = of(comparison.before.total), of(comparison.after.total)
    return Row(label, write(left), write(right), ratio(left, right), because, part)


def row_of_requests(comparison: Comparison, label: str, of: Callable[[Tally | Answer], int], noun: sums.Noun,
                    noun_after: sums.Noun = sums.by_use, *, note: str = "", part: bool = True) -> Row:  # fmt: skip
    """Make one row whose figure adds up from single requests; each library has its own nouns for them."""
    one, other = comparison.before.total, comparison.after.total
    because = why(sums.add_up(of(one), one.answers, of, noun), sums.add_up(of(other), other.answers, of, noun_after))
    return row(comparison, label, of, count, because | ({"Note": note} if note else {}), part=part)


def rows_of_store(comparison: Comparison) -> list[Row]:
    """Return what reached the store: round trips by kind, and bytes."""
    before, after = comparison.before.total, comparison.after.total
    one, other = before.store, after.store
    make, add_up = partial(row, comparison), partial(row_of_requests, comparison)
    is_redis = comparison.store == "Redis"
    return [
        make("Requests served", lambda tally: tally.requests, count, why(sums.requests(before), sums.requests(after))),
        make("Store round trips", lambda tally: tally.store.round_trips, count,
             why(sums.round_trips(one), sums.round_trips(other))),
        add_up("reads", lambda it: it.store.read, sums.by_cookie,
               note="" if is_redis else "on SQL, Flask-Session reads a second time before it writes"),
        add_up("writes", lambda it: it.store.write, sums.by_cookie if is_redis else sums.by_change, sums.by_change,
               note="on Redis, Flask-Session refreshes the expiry by writing the session again" if is_redis else ""),
        add_up("refreshes of the expiry", lambda it: it.store.refresh, sums.by_refresh,
               note="LazySession refreshes a session at most once an hour, with default settings"),
        add_up("deletes", lambda it: it.store.delete, sums.by_use),
        make("other", lambda tally: tally.store.other, count, {"": "Scripts that Redis did not know yet"}, part=True),
        make("Refreshes as part of a read", lambda tally: tally.store.refreshes_within_reads, count,
             {"": "No round trips of their own"}),
        make("Commits, each to disk", lambda tally: tally.store.commits, count,
             why(sums.round_trips(replace(one, read=0)), sums.round_trips(replace(other, read=0)))),
        row_of_bytes(comparison),
        make("session data among them", lambda tally: tally.store.data_bytes_written, kilobytes,
             why(*(mean(it.data_bytes_written, it.write, "writes", octets) for it in (one, other))), part=True),
    ]  # fmt: skip


def rows_of_headers(comparison: Comparison) -> list[Row]:
    """Return the headers that keep a response out of shared caches."""
    add_up = partial(row_of_requests, comparison)
    return [
        add_up("Set-Cookie headers", lambda it: it.cookies_set, sums.by_cookie, sums.by_change, part=False),
        add_up("Vary: Cookie headers", lambda it: it.varies_by_cookie, sums.by_cookie, part=False,
               note="Flask-Login looks for the key _remember after each request, also without a cookie; LazySession "
                    "does not count that as a use"),
    ]  # fmt: skip


def rows_of_time(comparison: Comparison) -> list[Row]:
    """Return how long it took."""
    both = comparison.before.total, comparison.after.total
    make = partial(row, comparison)
    return [
        make("Time, all page views", lambda tally: sum(tally.seconds), seconds,
             why(*(mean(sum(tally.seconds), tally.views, "page views", seconds) for tally in both))),
        make("Time, median page view", lambda tally: median(tally.seconds), seconds, {}),
        make("CPU time of the server", lambda tally: tally.cpu_seconds, seconds,
             why(*(mean(tally.cpu_seconds, tally.requests, "requests", seconds) for tally in both))),
    ]  # fmt: skip


def row_of_bytes(comparison: Comparison) -> Row:
    """Return the row of bytes: Redis counts all that it receives; of SQL, only what is written is known."""
    stores = [result.total.store for result in (comparison.before, comparison.after)]
    if comparison.store == "Redis":
        label = "Bytes sent to the store"
        note = "all bytes that reach the server, also of reads (INFO total_net_input_bytes)"
        texts = [mean(it.bytes_written, it.round_trips, "round trips", octets) for it in stores]
    else:
        label, note = "Bytes written", "the values that INSERT and UPDATE write"
        texts = [mean(it.bytes_written, it.write + it.refresh, "writes and refreshes", octets) for it in stores]
    return row(comparison, label, lambda tally: tally.store.bytes_written, kilobytes, why(*texts) | {"Note": note})


def notes(comparison: Comparison) -> list[str]:
    """Return sentences about how the figures were counted."""
    counted = (
        "Round trips: the server's INFO commandstats, without commands inside scripts."
        if comparison.store == "Redis"
        else "A round trip is one SQL statement on the session table."
    )
    times = "Counts are exact; times and their ratios differ from run to run. Times include the client's own work."
    return [counted, times]
