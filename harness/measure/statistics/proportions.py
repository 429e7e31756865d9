"""Proportions of 0/1 items: Wilson's and Newcombe's intervals, and McNemar's exact test."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

from harness.measure.statistics.estimates import CONFIDENCE, Estimate, Interval

NORMAL = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


class Discordance(NamedTuple):
    """A 2x2 table of two variants on the same 0/1 items."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither


def mcnemar_exact(table: Discordance) -> float:
    """Return the two-sided exact p-value of the discordant items under a fair coin; 1.0 where there are none.

    McNemar (1947), Note on the sampling error of the difference between correlated proportions; the exact form is the
    binomial test of only_b among only_a + only_b.
    """
    from scipy import stats

    discordant = table.only_a + table.only_b
    return 1.0 if discordant == 0 else float(stats.binomtest(table.only_b, discordant, 0.5).pvalue)


def newcombe_interval(table: Discordance, size: float | None = None, quantile: float = NORMAL) -> Interval:
    """Return the score interval for the paired difference of proportions p(B) - p(A).

    Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on paired
    data, Statistics in Medicine 17:2635-2650, method 10: Wilson intervals of both proportions, put together by squaring
    and adding, with phi-hat for their correlation, shrunk by n/2 where it is positive.

    Args:
        size: the number of independent items that the table counts for; None: all of them.
        quantile: as in `wilson_interval`.

    Raises:
        ValueError: where the table is empty.
    """
    n = table.n
    if n == 0:
        raise ValueError("the interval of no items")
    size = n if size is None else size
    right_a, right_b = table.both + table.only_a, table.both + table.only_b
    p_a, p_b = right_a / n, right_b / n
    low_a, high_a = wilson_interval(p_a, size, quantile)
    low_b, high_b = wilson_interval(p_b, size, quantile)
    phi = 0.0
    if margins := right_a * (n - right_a) * right_b * (n - right_b):
        agreement = table.both * table.neither - table.only_a * table.only_b
        shrunk = max(agreement - n * n / (2 * size), 0.0)  # n/2 of a table of `size` items
        phi = (shrunk if agreement > 0 else agreement) / math.sqrt(margins)
    below = _squared_and_added(p_b - low_b, high_a - p_a, phi)
    above = _squared_and_added(high_b - p_b, p_a - low_a, phi)
    difference = p_b - p_a
    return Interval(max(-1.0, difference - below), min(1.0, difference + above))


def wilson_interval(proportion: float, n: float, quantile: float = NORMAL) -> Interval:
    """Return the score interval for a proportion. Wilson (1927), Probable inference, JASA 22:209-212.

    Args:
        n: the number of items; of clustered ones their effective number (`effective_size`), which may be a fraction.
        quantile: of the normal distribution, or of Student's where `n` was estimated from clusters.

    Raises:
        ValueError: where n is 0.
    """
    if n == 0:
        raise ValueError("the interval of no items")
    square = quantile * quantile
    centre = (proportion + square / (2 * n)) / (1 + square / n)
    half = quantile / (1 + square / n) * math.sqrt(proportion * (1 - proportion) / n + square / (4 * n * n))
    # At the edges the limits are 0 and 1 exactly; rounding must not push them past the proportion.
    return Interval(0.0 if proportion == 0 else centre - half, 1.0 if proportion == 1 else centre + half)


def share_interval(share: Estimate, clusters: int | None = None) -> Interval | None:
    """Return Wilson's interval for a share of right items that `mean` returned; None of a single cluster.

    It never leaves [0, 1] and never collapses to a point. Items in clusters count as their effective number.

    Args:
        clusters: the number of clusters; None where each item is one.
    """
    if clusters is None:
        return wilson_interval(share.value, share.n)
    if share.stderr is None:
        return None
    alone = share.value * (1 - share.value) / max(share.n - 1, 1)
    return wilson_interval(share.value, effective_size(share.n, clusters, alone, share.stderr**2), student(clusters))


def effective_size(n: int, clusters: int, alone: float, clustered: float) -> float:
    """Return the number of independent items that tell as much as `n` items in clusters: n over the design effect.

    Never more than n: clusters that differ less than items alone would are taken for chance. Where clusters show no
    variance at all, each counts as one item. Kish (1965), Survey Sampling, section 8.2; with Wilson's interval, and
    Student's t for clusters that are few, Franco et al. (2019), Journal of Survey Statistics and Methodology 7:334.

    Args:
        alone: the variance of the mean if the items were independent.
        clustered: its variance by clusters.
    """
    return min(n * alone / clustered, n) if clustered > 0 and alone > 0 else clusters


def student(clusters: int) -> float:
    """Return the quantile of Student's t for a 95 % interval over clusters."""
    from scipy import stats

    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, clusters - 1))


def _squared_and_added(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first * first - 2 * phi * first * second + second * second))
