"""The statistics of evaluations: means with standard errors, paired differences with intervals, families of tests.

Every figure that `evaluate`, `compare`, `report` and `gate` print is computed here and nowhere else.
"""

from harness.measure.statistics.estimates import (
    CONFIDENCE,
    Estimate,
    Interval,
    exponential,
    mean,
    numbered,
    of_samples,
    variance_of_sum,
)
from harness.measure.statistics.families import POWER, detectable, holm
from harness.measure.statistics.noise import Noise, noise_of, shared_variance, with_noise
from harness.measure.statistics.paired import PairedDifference, compare, compare_binary, compare_means
from harness.measure.statistics.proportions import (
    Discordance,
    effective_size,
    mcnemar_exact,
    newcombe_interval,
    share_interval,
    wilson_interval,
)

__all__ = [
    "CONFIDENCE",
    "POWER",
    "Discordance",
    "Estimate",
    "Interval",
    "Noise",
    "PairedDifference",
    "compare",
    "compare_binary",
    "compare_means",
    "detectable",
    "effective_size",
    "exponential",
    "holm",
    "mcnemar_exact",
    "mean",
    "newcombe_interval",
    "noise_of",
    "numbered",
    "of_samples",
    "share_interval",
    "shared_variance",
    "variance_of_sum",
    "wilson_interval",
    "with_noise",
]
