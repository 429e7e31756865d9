"""Paired differences of two variants on the same items, with intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.measure.statistics.estimates import CONFIDENCE, Estimate, Interval, mean, numbered, variance_of_sum
from harness.measure.statistics.proportions import (
    Discordance,
    effective_size,
    mcnemar_exact,
    newcombe_interval,
    student,
)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Two variants on the same items. `difference` is always B minus A.

    `interval` and `p_value` are None where there is one cluster only. `degrees` are those of Student's t, infinite for
    the normal distribution. `clusters` is their number, None where each item is one. `table` is there for 0/1 metrics.
    """

    a: Estimate
    b: Estimate
    difference: float
    interval: Interval | None
    p_value: float | None
    method: str
    table: Discordance | None = None
    degrees: float = math.inf
    clusters: int | None = None

    @property
    def is_told_apart(self) -> bool:
        """True where the interval excludes zero and p < 0.05; both are required."""
        if self.interval is None or self.p_value is None:
            return False
        return not self.interval.low <= 0 <= self.interval.high and self.p_value < 1 - CONFIDENCE


def compare(
    a: Sequence[float],
    b: Sequence[float],
    weights: Sequence[float] | None = None,
    groups: Sequence[str] | None = None,
    weights_b: Sequence[float] | None = None,
) -> PairedDifference:
    """Compare B with A on the same items: 0/1 metrics by `compare_binary`, others by `compare_means`.

    McNemar's test takes items to be independent. 0/1 items that come in clusters are therefore tested by the clusters'
    t, and their interval is Newcombe's for as many independent items as tell as much. Unlike that of t it stays
    within [-1, 1], and it holds the truth as often near the edges, where t's held it in 88 to 93 of 100 simulated
    cases. Where all clusters differ alike, which leaves t no variance, each counts as one item of McNemar's test.
    """
    groups = None if groups is None or len(set(numbered(groups))) == len(a) else groups
    equal = all(w is None or all(weight == w[0] for weight in w) for w in (weights, weights_b))
    if not equal or not all(value in (0, 1) for value in (*a, *b)):
        return compare_means(a, b, weights, groups, weights_b)
    binary = compare_binary(a, b)
    return binary if groups is None else _clustered(binary, a, b, groups)


def _clustered(
    binary: PairedDifference, a: Sequence[float], b: Sequence[float], groups: Sequence[str]
) -> PairedDifference:
    """Return the difference of 0/1 items in clusters, whose figures as independent items are `binary`."""
    by_t = compare_means(a, b, groups=groups)
    clusters, table = by_t.clusters, binary.table
    assert clusters is not None and table is not None
    if by_t.p_value is None:
        return replace(by_t, table=table)
    changes = [y - x for x, y in zip(a, b, strict=True)]
    alone, together = mean(changes).stderr or 0.0, mean(changes, groups=groups).stderr or 0.0
    size = effective_size(len(a), clusters, alone**2, together**2)
    p_value, test = by_t.p_value, "t"
    if together == 0:
        share = clusters / len(a)
        p_value, test = mcnemar_exact(Discordance(*(round(count * share) for count in table))), "exact McNemar test"
    interval = newcombe_interval(table, size, student(clusters))
    method = f"Newcombe interval for {size:.3g} independent items, {test} over {clusters} clusters"
    return replace(by_t, interval=interval, p_value=p_value, method=method, table=table)


def compare_means(
    a: Sequence[float],
    b: Sequence[float],
    weights: Sequence[float] | None = None,
    groups: Sequence[str] | None = None,
    weights_b: Sequence[float] | None = None,
) -> PairedDifference:
    """Return the paired difference B - A with Student's t interval (G - 1 degrees of freedom) and two-sided p-value.

    The standard error is that of `mean` for the differences, by G clusters (the items where there are no groups), and
    leaves out what the two variants have in common. Student (1908), The probable error of a mean; for evaluations
    Miller (2024, arXiv:2411.00640), section 4.2. With equal weights and no groups it is `scipy.stats.ttest_rel`.

    With `weights_b` an item weighs otherwise under B (its tokens under another template); the two means are then two
    ratio estimators on the same items, and the residual of an item is the difference of its two:

        w_b (x_b - R_b) / sum(w_b) - w_a (x_a - R_a) / sum(w_a)

    Where every item differs by the same amount, the interval has no width: p is 1 if that amount is 0, else 0.

    Raises:
        ValueError: without items, or where the two are not of one length.
    """
    from scipy import stats

    clusters = len(a) if groups is None else len(set(numbered(groups)))
    means = mean(a, weights, groups), mean(b, weights_b or weights, groups)
    if weights_b is None:
        difference, stderr, _ = mean([y - x for x, y in zip(a, b, strict=True)], weights, groups)
    else:
        difference = means[1].value - means[0].value
        sides = [
            [w * (x - of.value) / math.fsum(its) for x, w in zip(values, its, strict=True)]
            for values, its, of in ((a, weights or [1.0] * len(a), means[0]), (b, weights_b, means[1]))
        ]
        variance = variance_of_sum([y - x for x, y in zip(*sides, strict=True)], groups)
        stderr = None if variance is None else math.sqrt(variance)
    weighted = ", weighted" if weights is not None or weights_b is not None else ""
    method = f"paired t{weighted}" + ("" if groups is None else f", {clusters} clusters")
    count = None if groups is None else clusters
    if stderr is None:
        return PairedDifference(*means, difference, None, None, method, clusters=count)
    degrees = clusters - 1
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees)) * stderr
    interval = Interval(difference - half, difference + half)
    if stderr == 0:
        p_value = 1.0 if difference == 0 else 0.0
    else:
        p_value = float(2 * stats.t.sf(abs(difference) / stderr, degrees))
    return PairedDifference(*means, difference, interval, p_value, method, degrees=degrees, clusters=count)


def compare_binary(a: Sequence[float], b: Sequence[float]) -> PairedDifference:
    """Return the difference of two proportions on the same items, with Newcombe's interval and McNemar's exact p.

    The interval never collapses to a point and never leaves [-1, 1], also where few items differ, which is where the
    t interval of 0/1 differences fails.

    Raises:
        ValueError: without items, with other values than 0 and 1, or where the two are not of one length.
    """
    counts = [0, 0, 0, 0]
    for x, y in zip(a, b, strict=True):
        if x not in (0, 1) or y not in (0, 1):
            raise ValueError(f"a 0/1 metric was expected, found {x} and {y}")
        counts[(0 if y else 1) if x else (2 if y else 3)] += 1
    table = Discordance(*counts)
    difference = (table.only_b - table.only_a) / table.n
    method = "Newcombe interval, exact McNemar test"
    return PairedDifference(mean(a), mean(b), difference, newcombe_interval(table), mcnemar_exact(table), method, table)
