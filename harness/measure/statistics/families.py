"""Families of tests: p-values corrected for their number, and the effect that a comparison could have seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.measure.statistics.estimates import CONFIDENCE
from harness.measure.statistics.paired import PairedDifference

POWER = 0.8


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values adjusted so that one wrong verdict in the whole family is as likely as in a single test.

    Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6:65. It is
    valid however the tests depend on each other. A p-value of None (one item only) is no test and stays None.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = largest
    return adjusted


def detectable(paired: PairedDifference, family: int = 1) -> float | None:
    """Return the smallest true difference that a comparison like this one sees in 80 of 100 cases; None without one.

    (t(1 - alpha / 2) + t(power)) * stderr: Bloom (1995), Minimum detectable effects, Evaluation Review 19:547. The
    standard error is half the interval over its quantile, which for Newcombe's never is zero. In a family of m tests
    alpha is 0.05 / m, the level that Holm's first test has to reach.
    """
    from scipy import stats

    if paired.interval is None:
        return None
    quantile, power = (float(stats.t.ppf(level, paired.degrees)) for level in (0.5 + CONFIDENCE / 2, POWER))
    level = 1 - (1 - CONFIDENCE) / 2 / max(family, 1)
    half = (paired.interval.high - paired.interval.low) / 2
    effect = half / quantile * (float(stats.t.ppf(level, paired.degrees)) + power)
    return effect if math.isfinite(effect) else None
