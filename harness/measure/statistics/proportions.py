"""Proportions of 0/1 items: Wilson's and Newcombe's intervals, and McNemar's exact test."""

from __future__ import annotations

import math
from typing import NamedTuple

from harness.measure.statistics.estimates import CONFIDENCE, Interval


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


def newcombe_interval(table: Discordance, confidence: float = CONFIDENCE) -> Interval:
    """Return the score interval for the paired difference of proportions p(B) - p(A).

    Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on paired
    data, Statistics in Medicine 17:2635-2650, method 10: Wilson intervals of both proportions, put together by squaring
    and adding, with phi-hat for their correlation, shrunk by n/2 where it is positive.

    Raises:
        ValueError: where the table is empty.
    """
    n = table.n
    if n == 0:
        raise ValueError("the interval of no items")
    right_a, right_b = table.both + table.only_a, table.both + table.only_b
    p_a, p_b = right_a / n, right_b / n
    low_a, high_a = wilson_interval(right_a, n, confidence)
    low_b, high_b = wilson_interval(right_b, n, confidence)
    phi = 0.0
    if margins := right_a * (n - right_a) * right_b * (n - right_b):
        agreement = table.both * table.neither - table.only_a * table.only_b
        phi = (max(agreement - n / 2, 0.0) if agreement > 0 else agreement) / math.sqrt(margins)
    below = _squared_and_added(p_b - low_b, high_a - p_a, phi)
    above = _squared_and_added(high_b - p_b, p_a - low_a, phi)
    difference = p_b - p_a
    return Interval(max(-1.0, difference - below), min(1.0, difference + above))


def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the score interval for a proportion. Wilson (1927), Probable inference, JASA 22:209-212.

    Raises:
        ValueError: where n is 0.
    """
    from scipy import stats

    if n == 0:
        raise ValueError("the interval of no items")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the edges the limits are 0 and 1 exactly; rounding must not push them past the proportion.
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def _squared_and_added(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first * first - 2 * phi * first * second + second * second))
