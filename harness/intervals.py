"""Estimates with their intervals as inline SVG, for reports and the leaderboard.

A drawing fits any width without scaling its marks: positions are in percent of the width, heights in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.measure.statistics import Interval

STYLE = """\
.estimate { display: block; width: 100%; overflow: visible; }
.estimate .grid { stroke: var(--line); } .estimate .zero { stroke: var(--ink); }
.estimate .span { stroke-width: 4; stroke-linecap: round; } .estimate .mark { stroke: var(--card); stroke-width: 1.5; }
.svg-better { stroke: var(--better); } .svg-worse { stroke: var(--worse); } .svg-unclear { stroke: var(--soft); }
.fill-better { fill: var(--better); } .fill-worse { fill: var(--worse); } .fill-unclear { fill: var(--soft); }
.svg-strength { stroke: var(--accent); } .fill-strength { fill: var(--accent); }
"""
CIRCLE = "M-6 0A6 6 0 1 0 6 0A6 6 0 1 0 -6 0Z"
MARKS = {"better": "M-7 6L0 -7L7 6Z", "worse": "M-7 -6L0 7L7 -6Z", "unclear": CIRCLE, "strength": CIRCLE}
ROW = 26  # height in pixels


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`, with room at both ends, in percent of the width."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> Scale:
        """Return the scale that holds the values, and zero."""
        low, high = min(0.0, *values), max(0.0, *values)
        room = 0.06 * (high - low or 1.0)
        return cls(low - room, high + room)

    def at(self, value: float) -> float:
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 5) -> list[float]:
        """Return round values within the scale, zero among them where it lies in it."""
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        step = next(step * by for by in (1, 2, 2.5, 5, 10, 20) if (self.high - self.low) / (step * by) <= most)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]


def interval_svg(
    scale: Scale, value: float, interval: Interval | None, look: str, label: str, ticks: Sequence[float] = (0.0,)
) -> str:
    """Draw one row: lines at `ticks`, the interval, and a mark whose shape says what its colour says.

    Args:
        look: one of MARKS.
        label: the row in words.
    """
    middle = ROW / 2
    lines = [
        f'<line class="{"zero" if tick == 0 else "grid"}" x1="{scale.at(tick):.2f}%" x2="{scale.at(tick):.2f}%" '
        f'y1="0" y2="{ROW}"/>'
        for tick in ticks
    ]
    span = ""
    if interval is not None:
        span = (
            f'<line class="span svg-{look}" x1="{scale.at(interval.low):.2f}%" x2="{scale.at(interval.high):.2f}%" '
            f'y1="{middle}" y2="{middle}"/>'
        )
    mark = (
        f'<svg x="{scale.at(value):.2f}%" y="{middle}" overflow="visible" width="1" height="1">'
        f'<path class="mark fill-{look}" d="{MARKS[look]}"/></svg>'
    )
    drawn = "".join([*lines, span, mark])
    return f'<svg class="estimate" role="img" aria-label="{escape(label)}" height="{ROW}">{drawn}</svg>'
