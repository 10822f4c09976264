"""The comparison as rows of text, for the terminal, the report and the README."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import sums
from counting import StoreCounts
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


def size(number: Number) -> str:
    """Return a number of bytes as text."""
    return f"{number:,.0f} B" if number < 10_000 else f"{number / 1000:,.0f} kB"


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
    return [row for row in found if row.label not in some_stores or row.before[0] + row.after[0] != "00"]


def row(comparison: Comparison, label: str, of: Callable[[Tally], Number], write: Callable[[Number], str],
        because: dict[str, str], *, part: bool = False) -> Row:  # fmt: skip
    """Make one row."""
    left, right = of(comparison.before.total), of(comparison.after.total)
    return Row(label, write(left), write(right), ratio(left, right), because, part)


def rows_of_store(comparison: Comparison) -> list[Row]:
    """Return what reached the store: round trips by kind, and bytes."""
    before, after = comparison.before.total, comparison.after.total
    one, other = before.store, after.store
    make = partial(row, comparison)
    return [
        make("Requests served", lambda tally: tally.requests, count, why(sums.requests(before), sums.requests(after))),
        make("Store round trips", lambda tally: tally.store.round_trips, count,
             why(sums.round_trips(one), sums.round_trips(other))),
        make("reads", lambda tally: tally.store.read, count, why_read(comparison), part=True),
        make("writes", lambda tally: tally.store.write, count, why_written(comparison), part=True),
        make("refreshes of the expiry", lambda tally: tally.store.refresh, count, why_refreshed(comparison), part=True),
        make("deletes", lambda tally: tally.store.delete, count, why(signed_out(before), signed_out(after)), part=True),
        make("other", lambda tally: tally.store.other, count, {"": "Scripts that Redis did not know yet"}, part=True),
        make("Refreshes as part of a read", lambda tally: tally.store.refreshes_within_reads, count,
             {"": "No round trips of their own"}),
        make("Commits, each to disk", lambda tally: tally.store.commits, count,
             why(sums.round_trips(replace(one, read=0)), sums.round_trips(replace(other, read=0)))),
        make("Bytes sent to the store", lambda tally: tally.store.bytes_written, size,
             why(sent(one, comparison.store), sent(other, comparison.store))),
        make("session data among them", lambda tally: tally.store.data_bytes_written, size,
             why(*(mean(it.data_bytes_written, it.write, "writes", size) for it in (one, other))), part=True),
    ]  # fmt: skip


def rows_of_headers(comparison: Comparison) -> list[Row]:
    """Return the headers that keep a response out of shared caches."""
    before, after = comparison.before.total, comparison.after.total
    kept = sums.of(before.count(lambda a: a.cookies_set and a.cookie_sent), "request with a session cookie")
    make = partial(row, comparison)
    return [
        make("Set-Cookie headers", lambda tally: tally.cookies_set, count, why(
            sums.total_of(before.cookies_set, kept, sums.of(began(before), "sign-in")),
            sums.changes(after.cookies_set, after, deletes=0))),
        make("Vary: Cookie headers", lambda tally: tally.varies_by_cookie, count, why(
            f"{before.varies_by_cookie:,} of {sums.plural(before.requests, 'response')}",
            sums.of_page_views(after.varies_by_cookie, after, with_cookie=False))),
    ]  # fmt: skip


def rows_of_time(comparison: Comparison) -> list[Row]:
    """Return how long it took."""
    both = comparison.before.total, comparison.after.total
    make = partial(row, comparison)
    return [
        make("Time, all page views", lambda tally: sum(tally.seconds), seconds,
             why(*(mean(sum(tally.seconds), tally.views, "page views", seconds) for tally in both))),
        make("Time, median page view", lambda tally: median(tally.seconds), seconds,
             {"": "Half of the page views took longer"}),
        make("CPU time of the server", lambda tally: tally.cpu_seconds, seconds,
             why(*(mean(tally.cpu_seconds, tally.requests, "requests", seconds) for tally in both))),
    ]  # fmt: skip


def why_read(comparison: Comparison) -> dict[str, str]:
    """Say which requests read the session. On SQL, Flask-Session reads it once more before it writes."""
    before, after = comparison.before.total, comparison.after.total
    twice = "" if comparison.store == "Redis" else " (at its start, and before the session is written)"
    return why(
        sums.for_each_cookie(before.store.read, before, twice),
        sums.of_page_views(after.store.read, after, with_cookie=True, unread=after.store.delete),
    )


def why_written(comparison: Comparison) -> dict[str, str]:
    """Say which requests wrote the session: those that changed it, or, with Flask-Session on Redis, all."""
    before, after = comparison.before.total, comparison.after.total
    changed = sums.changes(after.store.write, after, deletes=after.store.delete)
    if before.store.write == after.store.write:
        return why(changed, changed)
    return why(sums.for_each_cookie(before.store.write, before, ", as writing moves the expiry"), changed)


def why_refreshed(comparison: Comparison) -> dict[str, str]:
    """Say which requests moved the expiry and wrote nothing else."""
    before, after = comparison.before.total, comparison.after.total
    carrying = before.count(lambda answer: answer.cookie_sent)
    changing = before.store.write + before.store.delete - began(before)
    text = f"{sums.plural(carrying, 'request with a session cookie')} minus {changing:,} that changed the session"
    return why(
        sums.total_of(before.store.refresh, (carrying - changing, text))
        if before.store.refresh
        else "each write moves the expiry",
        f"{after.store.refresh or 'none'} due; with default settings one an hour at most, for each session",
    )


def began(tally: Tally) -> int:
    """Return how many requests without a session cookie received one."""
    return tally.count(lambda answer: answer.cookies_set and not answer.cookie_sent)


def signed_out(tally: Tally) -> str:
    """Say how many visitors signed out."""
    out = tally.count(lambda answer: answer.role == "form" and answer.path == "/logout")
    return sums.total_of(tally.store.delete, sums.of(out, "sign-out"))


def sent(counts: StoreCounts, store: str) -> str:
    """Say how many commands or statements brought the bytes."""
    if store == "Redis":
        return mean(counts.bytes_written, counts.round_trips, "round trips", size)
    return mean(counts.bytes_written, counts.write + counts.refresh, "writes and refreshes", size)


def notes(comparison: Comparison) -> list[str]:
    """Return sentences about how the figures were counted."""
    counted = (
        "Round trips: the server's INFO commandstats, without commands inside scripts. "
        "Bytes: its total_net_input_bytes, which includes whole commands and reads."
        if comparison.store == "Redis"
        else "A round trip is one SQL statement on the session table. Bytes: the values of INSERT and UPDATE."
    )
    return [counted, "Times include the client's own work and depend on the machine: compare the ratios."]
