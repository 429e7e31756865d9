"""The words and figures of comparisons, the same in the terminal, in the picture and in the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.measure.comparison import Comparison
from harness.measure.statistics import Estimate, Interval, share_interval

if TYPE_CHECKING:
    from harness.measure.side_by_side import Rival, SideBySide
    from harness.recipe import GateRule

ARROWS = {True: "↑", False: "↓"}


def value(comparison: Comparison, estimate: Estimate) -> str:
    """Return a value alone; of 0/1 items in percent."""
    return f"{estimate.value * 100:.1f} %" if comparison.is_share else f"{estimate.value:.3f}"


def value_with_error(comparison: Comparison, estimate: Estimate) -> str:
    """Return a value ± its standard error; of 0/1 items in percent, with the 95 % interval."""
    alone = value(comparison, estimate)
    if comparison.is_share:
        interval = share_interval(estimate, comparison.paired.clusters)
        return alone if interval is None else f"{alone} ({interval.low * 100:.0f}–{interval.high * 100:.0f})"
    return alone + ("" if estimate.stderr is None else f" ± {estimate.stderr:.3f}")


def difference(comparison: Comparison) -> str:
    """Return B minus A with its sign; of 0/1 items in percentage points."""
    return _signed(comparison, comparison.paired.difference)


def interval(comparison: Comparison, of: Interval | None = None) -> str:
    """Return an interval, the analytic one where none is given."""
    of = of or comparison.paired.interval
    return "–" if of is None else f"{_signed(comparison, of.low)} … {_signed(comparison, of.high)}"


def _signed(comparison: Comparison, number: float) -> str:
    return f"{number * 100:+.1f}" if comparison.is_share else f"{number:+.3f}"


def p_value(p: float | None) -> str:
    """Return a p-value with three digits."""
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def verdict(comparison: Comparison) -> str:
    """Return the verdict on B in words, with the difference that could have been seen where none is."""
    if comparison.better is not None:
        return "better" if comparison.better == "b" else "worse"
    return f"cannot tell apart ({could_see(comparison)})"


def could_see(comparison: Comparison) -> str:
    """Return the smallest difference that would probably have been seen, in words."""
    effect = comparison.detectable
    if effect is None or (comparison.is_share and effect > 1):
        return "too few items to see any difference"
    return f"could see ≥ {effect * 100:.1f} points" if comparison.is_share else f"could see ≥ {effect:.3f}"


def rule(of: GateRule, comparison: Comparison | None) -> str:
    """Return a rule of the gate in words; a bound on 0/1 items in points."""
    if of.no_significant_loss:
        return "no significant loss"
    points = comparison is not None and comparison.is_share
    bounds = [
        f"at {side} {bound * 100:+g} points" if points else f"at {side} {bound:+g}"
        for side, bound in (("least", of.at_least), ("most", of.at_most))
        if bound is not None
    ]
    return " and ".join(bounds) + (" (estimate)" if of.by == "estimate" else "")


def basis(comparison: Comparison, a: str, b: str) -> str:
    """Return how a comparison was made: method, bootstrap interval, 0/1 table, and the engine's noise."""
    paired = comparison.paired
    parts = [f"{paired.a.n} items", paired.method]
    if comparison.bootstrap is not None:
        parts.append(f"bootstrap {interval(comparison, comparison.bootstrap)}")
    if (counts := paired.table) is not None:
        parts.append(f"both right {counts.both}, only {a} {counts.only_a}, only {b} {counts.only_b}, "
                     f"neither {counts.neither}")  # fmt: skip
    for name, noise in zip((a, b), comparison.noise, strict=True):
        if noise is not None:
            parts.append(f"{name} asked twice: {noise.differing} of {noise.n} items came out otherwise")
    return "; ".join(parts)


def family(compared: SideBySide) -> str:
    """Return the sentences on what the p-values are corrected for."""
    lines = []
    if compared.family > 1:
        lines.append(
            f"p is corrected by Holm for all {compared.family} comparisons (each metric of each task, for each "
            f"variant), and decides; intervals are for each alone."
        )
    else:
        lines.append("One comparison: its p-value needs no correction.")
    if any(rival.categories for rival in compared.rivals):
        lines.append("Categories are corrected among those of their task.")
    return " ".join(lines)


def tally(rival: Rival, first: str) -> str:
    """Return on how many metrics and categories a variant is better, worse and not told apart."""
    parts = []
    for words, side in (("better", "b"), ("worse", "a"), ("not told apart", None)):
        counts = [
            f"{sum(c.better == side for c in of)} of {len(of)} {one if len(of) == 1 else several}"
            for one, several, of in (("metric", "metrics", rival.wholes), ("category", "categories", rival.categories))
            if any(c.better == side for c in of)
        ]
        parts.append(f"{words} on {' and '.join(counts) or 'none'}")
    if rival.refused:
        parts.append(f"{len(rival.refused)} task{'s' * (len(rival.refused) > 1)} not compared, see the warnings")
    return f"{rival.name}, beside {first}: {', '.join(parts)}"
