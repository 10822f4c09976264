"""Charts for the documentation: horizontal bars, in the colors of the page, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import places

with places.demo_on_path():
    from chart import number, tick_step

_WIDTH, _LABELS, _VALUES = 680, 214, 70
_BAR, _PITCH, _HEAD, _TOP = 14, 24, 40, 8

# Within a page, the theme sets the variables; as a separate image, the drawing uses the reader's color scheme.
_STYLE = """<style>
    .bn { --ink: #222; --soft: #666; --other: #999; --own: #2a78d6; --line: #ddd; }
    @media (prefers-color-scheme: dark) {
      .bn { --ink: #ddd; --soft: #aaa; --other: #777; --own: #5b9cf0; --line: #444; }
    }
    .bn text { font: 14px var(--font-stack, system-ui, sans-serif); fill: var(--color-foreground-primary, var(--ink)); }
    .bn .quiet { fill: var(--color-foreground-secondary, var(--soft)); }
    .bn .name { font-weight: 600; }
    .bn .bar { fill: var(--color-foreground-border, var(--other)); }
    .bn .ours { fill: var(--drawing-read, var(--own)); }
    .bn .rule { stroke: var(--color-background-border, var(--line)); }
  </style>"""


@dataclass(frozen=True)
class Bar:
    """One bar; that of LazySession (``ours``) is in color."""

    label: str
    value: float
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    """Bars on one scale that starts at zero, under a title that names the unit."""

    title: str
    bars: Sequence[Bar]


def chart(name: str, title: str, description: str, panels: Sequence[Panel], *, one_scale: bool = False) -> str:
    """Draw the panels below each other, each on its own scale or all on one."""
    greatest = max(bar.value for panel in panels for bar in panel.bars)
    parts, top = [], _TOP
    for panel in panels:
        parts.append(_panel(panel, top, greatest if one_scale else max(bar.value for bar in panel.bars)))
        top += _HEAD + _PITCH * len(panel.bars) + 22
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top - 10}" role="img" '
        f'aria-labelledby="{name}-title {name}-text">\n'
        f'  <title id="{name}-title">{escape(title)}</title>\n'
        f'  <desc id="{name}-text">{escape(description)}</desc>\n  {_STYLE}\n  <g class="bn">\n'
        + "\n".join(parts)
        + "\n  </g>\n</svg>\n"
    )


def _panel(panel: Panel, top: int, most: float) -> str:
    most = most or 1
    scale = (_WIDTH - _LABELS - _VALUES) / most
    step = tick_step(most)
    first, last = top + _HEAD, top + _HEAD + _PITCH * len(panel.bars)
    parts = [f'    <text class="name" x="0" y="{top + 18}">{escape(panel.title)}</text>']
    for index in range(int(most / step) + 1):
        x = _LABELS + index * step * scale
        parts.append(f'    <path class="rule" d="M{x:.1f} {first - 8}V{last}"/>')
    for place, bar in enumerate(panel.bars):
        y, width = first + place * _PITCH, max(bar.value * scale, 1)
        style = "bar ours" if bar.ours else "bar"
        weight = "name" if bar.ours else "label"
        parts += [
            f'    <text class="{weight}" x="{_LABELS - 10}" y="{y + 12}" text-anchor="end">{escape(bar.label)}</text>',
            f'    <rect class="{style}" x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>',
            f'    <text class="quiet" x="{_LABELS + width + 7:.1f}" y="{y + 12}">{number(bar.value)}</text>',
        ]
    return "\n".join(parts)
