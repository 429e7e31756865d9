"""The bootstrap interval of a paired difference: nothing is assumed of how items or clusters are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy

from harness.measure.statistics.estimates import CONFIDENCE, Interval, numbered

RESAMPLES = 2000
_AT_ONCE = 4_000_000  # drawn clusters that are held in memory


def bootstrap_interval(
    a: Sequence[float],
    b: Sequence[float],
    weights: Sequence[float] | None = None,
    groups: Sequence[str] | None = None,
    weights_b: Sequence[float] | None = None,
    seed: int = 0,
) -> Interval | None:
    """Return the interval of B - A by resampling clusters (items, where there are no groups); None of fewer than two.

    The expanded percentile interval: percentiles lie further out, at Phi(-sqrt(G / (G - 1)) t(0.975, G - 1)), so that
    for few clusters it is as wide as Student's. Hesterberg (2015), What teachers should know about the bootstrap, The
    American Statistician 69:371, section 5.2. The same seed draws the same resamples.
    """
    from scipy import stats

    x, y = numpy.asarray(a, float), numpy.asarray(b, float)
    w_a = numpy.ones(len(x)) if weights is None else numpy.asarray(weights, float)
    w_b = w_a if weights_b is None else numpy.asarray(weights_b, float)
    cluster = numpy.arange(len(x)) if groups is None else numpy.asarray(numbered(groups))
    count = int(cluster.max(initial=-1)) + 1
    if count < 2:
        return None
    sums = numpy.stack([numpy.bincount(cluster, of, count) for of in (w_a, w_a * x, w_b, w_b * y)])  # [4, clusters]
    generator = numpy.random.default_rng(seed)
    differences: list[float] = []
    while len(differences) < RESAMPLES:
        rows = min(RESAMPLES - len(differences), max(1, _AT_ONCE // count))
        drawn = generator.integers(0, count, (rows, count))
        size_a, sum_a, size_b, sum_b = (of[drawn].sum(axis=1) for of in sums)
        differences += (sum_b / size_b - sum_a / size_a).tolist()
    tail = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * math.sqrt(count / (count - 1))
    level = float(stats.norm.cdf(-tail))
    low, high = numpy.quantile(differences, [level, 1 - level]).tolist()
    return Interval(low, high)
