"""The axis of a forest plot and the loss curve, as inline SVG like that of `harness.intervals`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from harness.intervals import Scale
from harness.run.facts import Curve

STYLE = """\
.grid { stroke: var(--line); }
svg { display: block; width: 100%; overflow: visible; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
.curve { fill: none; vector-effect: non-scaling-stroke; }
.raw { stroke: var(--better); opacity: .3; } .smooth { stroke: var(--better); stroke-width: 2; }
.validation { stroke: var(--warm); stroke-width: 2; } .dot { fill: var(--warm); }
"""
AXIS = 22  # height in pixels


def axis_svg(scale: Scale, unit: float = 1.0) -> str:
    """Draw the labels under the rows of a forest plot."""
    texts = [
        f'<text x="{scale.at(tick):.2f}%" y="14" text-anchor="middle">{_short(tick * unit)}</text>'
        for tick in scale.ticks()
    ]
    return f'<svg aria-hidden="true" height="{AXIS}">{"".join(texts)}</svg>'


def curve_svg(curve: Curve, height: int = 220) -> str:
    """Draw training loss (raw and smoothed) and validation loss over the steps."""
    if not curve.steps:
        return ""
    shown = [*curve.smoothed, *(value for _, value in curve.validation)]
    scale = Scale(min(0.95 * min(shown), min(shown) - 0.02), max(*shown, _percentile(curve.losses, 0.98)) * 1.03)
    last = max(curve.steps[-1], *(step for step, _ in curve.validation), 1)
    left, bottom = 44, 22  # pixels that labels take
    plot = height - bottom

    def y(value: float) -> float:
        return plot * (1 - scale.at(min(value, scale.high)) / 100)

    def path(points: Sequence[tuple[int, float]], kind: str) -> str:
        places = " ".join(f"{1000 * step / last:.1f},{y(value):.1f}" for step, value in points)
        return f'<polyline class="curve {kind}" points="{places}"/>'

    ticks = scale.ticks()
    labels = [
        f'<line class="grid" x1="{left}" x2="100%" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
        for tick in ticks
    ]
    ends = [(0, "start"), (last // 2, "middle"), (last, "end")]
    steps = "".join(
        f'<text x="{100 * step / last:.1f}%" y="{height - 5}" text-anchor="{anchor}">'
        f"{'step ' if step == last else ''}{step:,}</text>"
        for step, anchor in ends
    )
    dots = "".join(
        f'<circle class="dot" cx="{100 * step / last:.2f}%" cy="{y(value):.1f}" r="3.5"/>'
        for step, value in curve.validation
    )
    raw = list(zip(*_thinned(curve.steps, curve.losses), strict=True))
    smooth = list(zip(*_thinned(curve.steps, curve.smoothed), strict=True))
    words = f"training loss, at last {curve.smoothed[-1]:.3f}"
    if curve.validation:
        words += f"; validation loss from {curve.validation[0][1]:.3f} to {curve.validation[-1][1]:.3f}"
    inner = (
        f'<svg viewBox="0 0 1000 {plot}" preserveAspectRatio="none" width="100%" height="{plot}">'
        f"{path(raw, 'raw')}{path(smooth, 'smooth')}{path(curve.validation, 'validation')}</svg>{dots}{steps}"
    )
    # What is placed by percent lies in a group of its own, so that the labels on the left keep their pixels.
    return (
        f'<div class="plot" role="img" aria-label="{escape(words)}"><svg height="{height}">{"".join(labels)}</svg>'
        f'<div class="inner"><svg height="{height}">{inner}</svg></div></div>'
    )


def _thinned(steps: Sequence[int], values: Sequence[float], most: int = 600) -> tuple[list[int], list[float]]:
    """Return at most about `most` of the points, the last one among them."""
    every = max(1, len(steps) // most)
    kept = sorted({*range(0, len(steps), every), len(steps) - 1})
    return [steps[index] for index in kept], [values[index] for index in kept]


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _short(number: float) -> str:
    return f"{number:.3g}".replace("-", "−")
