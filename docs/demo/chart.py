"""Bar charts of the report, pairs of bars that its style sheet draws; and the scale of the bench's charts."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One bar: its value as text, and its length in percent of the longest one of its chart."""

    style: str
    name: str
    value: str
    percent: float


@dataclass(frozen=True)
class Pair:
    """One label and the values of its two bars."""

    label: str
    before: float
    after: float


def bars(pairs: list[Pair], names: tuple[str, str]) -> list[tuple[str, tuple[Bar, Bar]]]:
    """Return each label with its two bars, on one scale that starts at zero."""
    longest = max((max(pair.before, pair.after) for pair in pairs), default=0) or 1
    return [
        (
            pair.label,
            (
                Bar("before", names[0], number(pair.before), 100 * pair.before / longest),
                Bar("after", names[1], number(pair.after), 100 * pair.after / longest),
            ),
        )
        for pair in pairs
    ]


def tick_step(most: float) -> float:
    """Return a round distance between the lines of a scale, for about five lines."""
    rough = most / 5
    power: float = 10 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)


def number(value: float) -> str:
    """Return a value as text: whole from ten on, below with one decimal unless that is zero."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
