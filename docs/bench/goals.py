"""The goals of the project, and whether a run has met them. A goal that a run did not measure is shown as such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from growing import NATIVE_EXPIRY, SIZES

#: The time with 1,000 rules over that with one counts as flat up to this.
FLAT = 1.1
#: Shown instead of a missing figure; a dash would begin a list in the documentation.
NOTHING = "n/a"


@dataclass(frozen=True)
class Goal:
    """One goal, as it is shown. ``met`` is None if the run did not measure it, or if there is no goal.

    ``sure`` is False if the interval of the figure contains the bound: another run may have the opposite verdict.
    """

    figure: str
    goal: str
    measured: str
    met: bool | None
    sure: bool = True

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
        *_in_process(results),
        *_over_http(results.get("http", {})),
        *_counted(results),
    ]


def _limit(figure: str, measured: Any, bound: float, *, most: bool = True, digits: int = 3) -> Goal:
    goal = f"{'<=' if most else '>='} {bound:g}"
    if measured is None:
        return Goal(figure, goal, NOTHING, None)
    if isinstance(measured, dict):
        value = measured["median"]
        shown = f"{value:.{digits}f} ({measured['low']:.{digits}f} to {measured['high']:.{digits}f})"
    else:
        value, shown = measured, f"{measured:.{digits}f}"
    sure = not isinstance(measured, dict) or not measured["low"] <= bound <= measured["high"]
    return Goal(figure, goal, shown, value <= bound if most else value >= bound, sure)


def _in_process(results: dict[str, Any]) -> list[Goal]:
    untouched, floor = results.get("untouched", {}), results.get("floor", {})
    counted = results.get("instructions") or {}

    def instructions(one: str, other: str) -> float | None:
        return counted[one] / counted[other] if counted else None

    null, shared = "Flask without SECRET_KEY", "one shared null session"
    return [
        _limit(f"untouched request, LazySession / {null}, time", untouched.get("over null"), 1.01),
        _limit("the same, instructions (callgrind)", instructions("lazy", "null"), 1.01, digits=4),
        _limit(f"untouched request, LazySession / {shared}, time", untouched.get("over shared null"), 1.01),
        _limit("the same, instructions (callgrind)", instructions("lazy", "shared-null"), 1.01, digits=4),
        _limit("read, LazySession / (Flask + one raw GET + decode), time", floor.get("read over floor"), 1.15),
        _limit("change, LazySession / Flask-Session on Redis, time", floor.get("change over flask-session"), 1.0),
    ]


def _over_http(http: dict[str, Any]) -> list[Goal]:
    view = "page view on Redis, LazySession"
    near, far = http.get("redis", {}).get("ratios", {}), http.get("redis, 5 ms", {}).get("ratios", {})
    return [
        _limit(
            f"{view} / Flask without SECRET_KEY, requests/s",
            near.get("lazy/null"),
            0.97,
            most=False,
        ),
        _limit(f"{view} / Flask-Session, requests/s", near.get("lazy/flask-session"), 2, most=False),
        _limit("the same with 5 ms to the store", far.get("lazy/flask-session"), 5, most=False),
    ]


def _counted(results: dict[str, Any]) -> list[Goal]:
    goals = []
    rows = results.get("trips")
    pages = [page for row in rows or [] for page in row.values() if isinstance(page, dict)]
    exact = sum(page["exact"] for page in pages)
    shown = f"{exact} of {len(pages)} counts on {len(rows or [])} stores"
    goals.append(Goal("store round trips per page view", "the least, exactly", shown if rows else NOTHING,
                      exact == len(pages) if rows else None))  # fmt: skip
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
