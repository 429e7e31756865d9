"""The noise of the engine itself: how far a second asking of the same items falls from the first.

An engine's greedy answers may change with the batch they are computed in. Such noise, independent from item to item,
is part of how much items vary, and so is in every standard error already. Two kinds are not, and are added: noise that
is common to many items of one asking, and that of answers which both sides share, where it cancels in the difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.measure.statistics.estimates import CONFIDENCE, Estimate, Interval, mean
from harness.measure.statistics.paired import PairedDifference

COMMON_LEVEL = 0.01  # how sure it must be that a second asking shifts items together


@dataclass(frozen=True, slots=True)
class Noise:
    """Items that were asked twice: how many, how many came out otherwise, and how they changed.

    `change` is the mean of second minus first, `squared` the mean of its square: twice the variance of one asking.
    """

    n: int
    differing: int
    change: Estimate
    squared: float

    @property
    def rate(self) -> float:
        """The share of the items that came out otherwise."""
        return self.differing / self.n

    @property
    def common_variance(self) -> float:
        """The variance that noise common to all items gives the mean of one asking; 0 where none is seen.

        It is seen where the second asking moved items together: their mean change is not zero at p < 0.01.
        """
        from scipy import stats

        value, stderr, n = self.change
        if stderr is None or value == 0:
            return 0.0
        if stderr > 0 and 2 * stats.t.sf(abs(value) / stderr, n - 1) >= COMMON_LEVEL:
            return 0.0
        return max(0.0, value**2 - stderr**2) / 2


def noise_of(first: Sequence[float], again: Sequence[float], groups: Sequence[str] | None = None) -> Noise | None:
    """Return the noise between two askings of the same items; None without items."""
    if not first:
        return None
    changes = [y - x for x, y in zip(first, again, strict=True)]
    squared = math.fsum(change**2 for change in changes) / len(changes)
    return Noise(len(changes), sum(change != 0 for change in changes), mean(changes, groups=groups), squared)


def shared_variance(noise: Noise, weights: Sequence[float] | None, n: int) -> float:
    """Return the variance that a difference would have from two askings, where both sides share those of one."""
    shares = 1 / n if weights is None else math.fsum(w * w for w in weights) / math.fsum(weights) ** 2
    return noise.squared * shares


def with_noise(paired: PairedDifference, added: Sequence[tuple[float, float]]) -> PairedDifference:
    """Return the difference with a wider interval: variances, each with its degrees of freedom, are added to its own.

    Student's t takes the degrees of Satterthwaite (1946), An approximate distribution of estimates of variance
    components, Biometrics Bulletin 2:110. The p-value is never smaller than it was.
    """
    from scipy import stats

    added = [(variance, degrees) for variance, degrees in added if variance > 0]
    if not added or paired.interval is None or paired.p_value is None:
        return paired
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, paired.degrees))
    below, above = paired.difference - paired.interval.low, paired.interval.high - paired.difference
    own = ((below + above) / 2 / quantile) ** 2
    more = math.fsum(variance for variance, _ in added)
    parts = [(own, paired.degrees), *added]
    degrees = (own + more) ** 2 / math.fsum(variance**2 / degrees for variance, degrees in parts)
    wider = float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees))
    low, high = (wider * math.sqrt((half / quantile) ** 2 + more) for half in (below, above))
    p_value = float(2 * stats.t.sf(abs(paired.difference) / math.sqrt(own + more), degrees))
    interval = Interval(paired.difference - low, paired.difference + high)
    if paired.table is not None:  # noise moves no share past these
        interval = Interval(max(-1.0, interval.low), min(1.0, interval.high))
    return replace(
        paired,
        interval=interval,
        p_value=max(paired.p_value, p_value),
        degrees=degrees,
        method=f"{paired.method}, with the engine's noise",
    )
