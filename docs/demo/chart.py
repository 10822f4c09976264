"""Bar charts as inline SVG: pairs of horizontal bars, colored by the style sheet of the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

_WIDTH, _LABELS, _VALUES = 760, 196, 64
_BAR, _GAP, _BETWEEN, _TOP = 11, 2, 15, 22


@dataclass(frozen=True)
class Pair:
    """One label and its two bars."""

    label: str
    before: float
    after: float


def paired_bars(pairs: list[Pair], names: tuple[str, str], description: str) -> str:
    """Draw the pairs below each other, on one scale that starts at zero."""
    step = tick_step(max((max(pair.before, pair.after) for pair in pairs), default=1) or 1)
    ticks = math.ceil(max(max(pair.before, pair.after) for pair in pairs) / step) or 1
    scale = (_WIDTH - _LABELS - _VALUES) / (ticks * step)
    pitch = 2 * _BAR + _GAP + _BETWEEN
    height = _TOP + pitch * len(pairs)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(description)}">',
        *(_tick(_LABELS + index * step * scale, index * step, height) for index in range(ticks + 1)),
    ]
    for place, pair in enumerate(pairs):
        top = _TOP + place * pitch + _BETWEEN / 2
        parts.append(f'<text class="label" x="{_LABELS - 12}" y="{top + _BAR + 5:.1f}">{escape(pair.label)}</text>')
        values = (("before", names[0], pair.before), ("after", names[1], pair.after))
        for row, (style, name, value) in enumerate(values):
            parts.append(_bar(style, f"{pair.label}: {name}", value, top + row * (_BAR + _GAP), scale))
    return "\n".join([*parts, "</svg>"])


def tick_step(most: float) -> float:
    """Return a round distance between the lines of a scale, for about five lines."""
    rough = most / 5
    power: float = 10 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)


def number(value: float) -> str:
    """Return a value as text: whole from ten on, below with one decimal unless that is zero."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _tick(x: float, value: float, height: float) -> str:
    line = f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{height}"/>'
    return f'{line}<text class="tick-label" x="{x:.1f}" y="{_TOP - 9}">{number(value)}</text>'


def _bar(style: str, name: str, value: float, y: float, scale: float) -> str:
    width = value * scale
    title = f"<title>{escape(name)}: {number(value)}</title>"
    shown = max(width, 2) if value else 0  # small values stay visible
    bar = f'<rect class="{style}" x="{_LABELS}" y="{y:.1f}" width="{shown:.1f}" height="{_BAR}" rx="2"/>'
    text = f'<text class="value" x="{_LABELS + width + 7:.1f}" y="{y + _BAR - 1.5:.1f}">{number(value)}</text>'
    return f"<g>{title}{bar}{text}</g>"
