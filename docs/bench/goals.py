"""The goals of the project, and whether a run has met them. A goal that a run did not measure is shown as such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cells import judge_cells, summary
from growing import NATIVE_EXPIRY, SIZES

#: The time with 1,000 rules over that with one counts as flat up to this.
FLAT = 1.1
#: Shown instead of a missing figure; a dash would begin a list in the documentation.
NOTHING = "n/a"


@dataclass(frozen=True)
class Goal:
    """One goal, as it is shown. ``met`` is None if the run did not measure it, or if there is no goal.

    ``sure`` is False if the interval of the figure contains the bound: another run may have the opposite verdict.
    ``limit`` is the least (or the most) that any session interface can reach.
    """

    figure: str
    goal: str
    measured: str
    met: bool | None
    sure: bool = True
    limit: str = ""

    @property
    def verdict(self) -> str:
        """Return the verdict as text."""
        if self.met is None:
            return "not measured" if self.measured == NOTHING else ""
        verdict = "met" if self.met else "missed"
        return verdict if self.sure else f"{verdict}, within noise"


def judge(results: dict[str, Any]) -> list[Goal]:
    """Return all goals, from the results as they are written to JSON."""
    return [
        *_untouched(results),
        *_over_http(results),
        *_floors(results),
        *_against_flask_session(results),
        *_trips(results.get("trips")),
        *_growth(results),
    ]


def _limit(figure: str, measured: Any, bound: float, *, most: bool = True, digits: int = 3, limit: str = "") -> Goal:
    goal = f"{'<=' if most else '>='} {bound:g}"
    if measured is None:
        return Goal(figure, goal, NOTHING, None, limit=limit)
    value = measured["median"] if isinstance(measured, dict) else measured
    sure = not isinstance(measured, dict) or not measured["low"] <= bound <= measured["high"]
    return Goal(figure, goal, _shown(measured, digits), value <= bound if most else value >= bound, sure, limit)


def _for_comparison(figure: str, measured: Any, digits: int = 3) -> Goal:
    return Goal(figure, "", NOTHING if measured is None else _shown(measured, digits), None)


def _shown(measured: Any, digits: int) -> str:
    if isinstance(measured, dict):
        return f"{measured['median']:.{digits}f} ({measured['low']:.{digits}f} to {measured['high']:.{digits}f})"
    return f"{measured:.{digits}f}"


def _instructions(results: dict[str, Any], one: str, other: str) -> float | None:
    counted = results.get("instructions")
    return counted[one] / counted[other] if counted else None


def _untouched(results: dict[str, Any]) -> list[Goal]:
    figure = "untouched request, LazySession / bare Flask, instructions"
    return [
        _limit(figure, _instructions(results, "lazy", "null"), 1.01, digits=4, limit="1"),
        _for_comparison("the same, time", results.get("untouched", {}).get("over null")),
    ]


def _over_http(results: dict[str, Any]) -> list[Goal]:
    bare = results.get("http", {}).get("redis", {}).get("ratios", {})
    goals = [_limit("bare page view on Redis, LazySession / bare Flask, requests/s", bare.get("lazy/null"), 0.97,
                    most=False, limit="1")]  # fmt: skip
    figure = "realistic page view on Redis, LazySession / Flask-Session, requests/s"
    for place, name, bound in (("redis", figure, 1.7), ("redis, 5 ms", "the same with 5 ms to the store", 8)):
        ratios = results.get("realistic", {}).get(place, {}).get("ratios", {})
        most = ratios.get("null/flask-session")
        limit = f"{most['median']:.2f} (bare Flask / Flask-Session)" if most else ""
        goals.append(_limit(name, ratios.get("lazy/flask-session"), bound, most=False, limit=limit))
    return goals


def _floors(results: dict[str, Any]) -> list[Goal]:
    floor, goals = results.get("floor", {}), []
    for kind, by_hand, bound in (("read", "GET and decode", 1.05), ("change", "GET, decode, encode and SET", 1.2)):
        figure = f"{kind}, LazySession / bare Flask with {by_hand} by hand, time"
        goals.append(_limit(figure, floor.get(f"{kind} over floor"), bound, limit="1"))
        counted = _instructions(results, f"lazy {kind}", f"{kind} floor")
        goals.append(_for_comparison("the same, instructions", counted))
    return goals


def _against_flask_session(results: dict[str, Any]) -> list[Goal]:
    figure, goal = "each kind of request on each store, LazySession / Flask-Session, time", "<= 1 in every cell"
    stores = results.get("stores")
    if stores:
        shown, met = summary(judge_cells(stores, results.get("instructions") or {}))
        cells = Goal(figure, goal, shown, met)
    else:
        cells = Goal(figure, goal, NOTHING, None)
    late = results.get("threads", {}).get("32", {}).get("p99 over flask-session")
    return [cells, _limit("requests that use their session, 32 threads, LazySession / Flask-Session, p99", late, 1.0)]


def _trips(rows: list[Any] | None) -> list[Goal]:
    pages = [page for row in rows or [] for page in row.values() if isinstance(page, dict)]
    exact = sum(page["exact"] for page in pages)
    shown = f"{exact} of {len(pages)} counts on {len(rows or [])} stores"
    return [Goal("store round trips of the bare page view", "the least, exactly", shown if rows else NOTHING,
                 exact == len(pages) if rows else None)]  # fmt: skip


def _growth(results: dict[str, Any]) -> list[Goal]:
    goals = []
    for store in NATIVE_EXPIRY:
        sizes = results.get("refresh", {}).get(store)
        figure, goal = f"refresh by session size, {store}: {SIZES[0]} B, then {SIZES[-1]:,} B", "flat"
        if not sizes:
            goals.append(Goal(figure, goal, NOTHING, None))
            continue
        least, most = sizes[str(SIZES[0])], sizes[str(SIZES[-1])]
        measured = (
            f"{least['refresh']['median'] * 1e6:.0f} us, {most['refresh']['median'] * 1e6:.0f} us "
            f"(a write: {least['write']['median'] * 1e6:.0f} us, {most['write']['median'] * 1e6:.0f} us)"
        )
        # Flat: the time that a refresh adds has not grown by more than the time of the smallest read.
        grown = most["refresh"]["low"] - least["refresh"]["high"]
        goals.append(Goal(figure, goal, measured, grown <= least["read"]["median"]))
    for path, name in (("/untouched", "untouched request"), ("/read", "reading request")):
        made = _limit(f"1,000 rules / 1 rule, {name}", results.get("rules", {}).get(path, {}).get("1000"), FLAT)
        goals.append(Goal(made.figure, "flat", made.measured, made.met, made.sure))
    return goals
