"""The verdict of each cell of the table of every store, and the cells that no conditional write can meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Up to this distance from 1, times do not decide: other load on the machine moves them by as much.
NOISE = 0.05
#: Why a kind of request cannot be as cheap as Flask-Session's on a store; the page of the docs has the texts.
REASONS = {
    **{("files", kind): "a" for kind in ("change", "first write", "logout")},
    **{("memcached", kind): "b" for kind in ("change", "first write", "logout")},
}


@dataclass(frozen=True)
class Cell:
    """A ratio with its verdict.

    :param met: whether it is at most 1; by instructions if these were counted and the times are too close.
    :param sure: whether another run would have the same verdict.
    :param reason: the letter of the reason for a cell that is missed, or nothing.
    """

    ratio: float
    met: bool
    sure: bool
    reason: str
    instructions: float | None

    @property
    def text(self) -> str:
        """Return it as the table shows it."""
        verdict = ("met" if self.met else "missed") + ("" if self.sure else ", within noise")
        counted = "" if self.instructions is None else f", {self.instructions:.2f} in instructions"
        reason = f" [{self.reason}]" if self.reason else ""
        return f"{verdict}: {self.ratio:.2f}{counted}{reason}"


def judge_cells(stores: dict[str, Any], counted: dict[str, float]) -> dict[str, dict[str, Cell]]:
    """Return the verdicts by store and kind of request.

    :param counted: the instructions of a request by case, on Redis.
    """
    return {
        store: {
            kind: judge_cell(told["ratio"]["median"], by_instructions(store, kind, counted), REASONS.get((store, kind)))
            for kind, told in kinds.items()
        }
        for store, kinds in stores.items()
    }


def judge_cell(ratio: float, counted: float | None, reason: str | None) -> Cell:
    """Return the verdict of one cell: by time, or by instructions if the times are too close."""
    close = abs(ratio - 1) <= NOISE
    decides = counted if close and counted is not None else ratio
    met = decides <= 1
    sure = not close or counted is not None
    return Cell(ratio, met, sure, "" if met or reason is None else reason, counted if close else None)


def by_instructions(store: str, kind: str, counted: dict[str, float]) -> float | None:
    """Return the ratio of a cell in instructions, if they were counted."""
    if store != "redis" or not counted:
        return None
    if kind == "untouched":  # with Flask-Session, a request that does not use its session reads it and writes it
        return counted["lazy"] / counted["flask-session read"]
    if kind == "logout":  # a visit is a first write and a logout
        ours, theirs = (counted[f"{name} visit"] - counted[f"{name} first write"] for name in ("lazy", "flask-session"))
        return ours / theirs
    ours = counted[f"lazy {kind}"]
    return ours / counted[f"flask-session {'read' if kind == 'read with refresh' else kind}"]


def summary(judged: dict[str, dict[str, Cell]]) -> tuple[str, bool]:
    """Return how many cells are met, as text, and whether all are that have no reason against it."""
    cells = [cell for kinds in judged.values() for cell in kinds.values()]
    met = sum(cell.met for cell in cells)
    explained = sum(bool(cell.reason) for cell in cells)
    missed = len(cells) - met - explained
    parts = [f"{met} of {len(cells)} cells met", f"{explained} with a reason" if explained else "",
             f"{missed} missed" if missed else ""]  # fmt: skip
    return ", ".join(filter(None, parts)), not missed
