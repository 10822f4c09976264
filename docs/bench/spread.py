"""Medians and ratios with their spread: how exact a figure is, without assuming how noise is distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """A median, and the interval that contains the true one in 95 of 100 runs."""

    median: float
    low: float
    high: float

    def times(self, factor: float) -> Spread:
        """Return the same in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def text(self, digits: int = 3) -> str:
        """Return the median and, in brackets, the interval as text."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Return the median of values, and its interval by order statistics.

    The ranks n/2 -+ 0.98 * sqrt(n) bound the median with a confidence of 95 %, whatever the distribution. With fewer
    than six values they are the smallest and the largest.
    """
    if not values:
        raise ValueError("nothing was measured")
    ordered, count = sorted(values), len(values)
    low = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)))
    return Spread(median(ordered), ordered[low], ordered[count - 1 - low])


def ratio(ones: Sequence[float], others: Sequence[float]) -> Spread:
    """Return one over the other, round by round: anything that slows down a whole round cancels out."""
    return spread([one / other for one, other in zip(ones, others, strict=True)])


def difference(ones: Sequence[float], others: Sequence[float]) -> Spread:
    """Return one minus the other, round by round."""
    return spread([one - other for one, other in zip(ones, others, strict=True)])
