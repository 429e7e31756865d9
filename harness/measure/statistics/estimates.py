"""Means over items with their standard errors; items of one group count as a cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from harness.nouns import Sample

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A weighted mean over `n` items. `stderr` is None where one cluster cannot say how much clusters vary."""

    value: float
    stderr: float | None
    n: int


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


def mean(
    values: Sequence[float], weights: Sequence[float] | None = None, groups: Sequence[str] | None = None
) -> Estimate:
    """Return the weighted mean of items and its standard error, the clusters taken as a simple random sample.

    With weights this is the ratio estimator R = sum(w x) / sum(w), each item a cluster of w units (the tokens of a
    conversation). Items of one group (of a passage, a template) are one cluster; an item of the group "" is a cluster
    of its own. The linearized variance, with G clusters g, is

        var(R) = G / (G - 1) * sum_g (sum_{i in g} w_i (x_i - R))^2 / (sum w)^2

    Cochran, Sampling Techniques, 3rd ed. (1977), eq. 6.13 (with the finite-population factor left out); for clusters
    Liang and Zeger (1986), Biometrika 73:13, with the factor of small samples known as CR1; for language models Miller,
    Adding Error Bars to Evals (2024, arXiv:2411.00640), section 2. With equal weights and no groups it is s / sqrt(n),
    the standard error of the mean that lm-eval reports.

    One cluster has no standard error (None). Items all alike have 0.0: the sample showed no variation, which does not
    mean that none exists; the intervals of `compare_binary` do not share that weakness.

    Raises:
        ValueError: without items, or with weights that are negative or sum to nothing.
    """
    n = len(values)
    weights = [1.0] * n if weights is None else weights
    if n == 0:
        raise ValueError("the mean of no items")
    if len(weights) != n:
        raise ValueError(f"{n} values and {len(weights)} weights")
    total = math.fsum(weights)
    if min(weights) < 0 or total <= 0:
        raise ValueError("weights must not be negative, and not all zero")
    value = math.fsum(w * x for w, x in zip(weights, values, strict=True)) / total
    variance = variance_of_sum([w * (x - value) for w, x in zip(weights, values, strict=True)], groups)
    return Estimate(value, None if variance is None else math.sqrt(variance) / total, n)


def of_samples(samples: Sequence[Sample], metric: str) -> Estimate:
    """Return the mean of a metric over the items that have it, by their weights and groups."""
    having = [sample for sample in samples if metric in sample.metrics]
    weights = [sample.weight_of(metric) for sample in having]
    return mean([sample.metrics[metric] for sample in having], weights, [sample.group for sample in having])


def variance_of_sum(residuals: Sequence[float], groups: Sequence[str] | None = None) -> float | None:
    """Return the variance of a sum whose terms have these residuals, by clusters; None where there is one cluster.

    G / (G - 1) times the sum of squares of the clusters' sums.

    Raises:
        ValueError: where residuals and groups are not of one length.
    """
    of_item = range(len(residuals)) if groups is None else numbered(groups)
    if len(of_item) != len(residuals):
        raise ValueError(f"{len(residuals)} values and {len(of_item)} groups")
    sums: dict[int, list[float]] = {}
    for cluster, residual in zip(of_item, residuals, strict=True):
        sums.setdefault(cluster, []).append(residual)
    count = len(sums)
    return None if count < 2 else count / (count - 1) * math.fsum(math.fsum(of) ** 2 for of in sums.values())


def numbered(groups: Sequence[str]) -> list[int]:
    """Return the number of each item's cluster, from 0 in order of appearance; the group "" begins a new one."""
    numbers: dict[object, int] = {}
    return [numbers.setdefault(group or (index,), len(numbers)) for index, group in enumerate(groups)]


def exponential(estimate: Estimate) -> Estimate:
    """Return exp of an estimate (perplexity of a mean loss), its standard error by the delta method: exp(m) * se(m).

    Overflows to infinity, without a standard error, where the loss is above about 709.
    """
    try:
        value = math.exp(estimate.value)
    except OverflowError:
        return Estimate(math.inf, None, estimate.n)
    return Estimate(value, None if estimate.stderr is None else value * estimate.stderr, estimate.n)
