"""Length-controlled win rates: what a judge would say of answers of equal length. Importing this imports numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from harness.extras import require
from harness.measure.logits import NoFiniteFitError, fit
from harness.measure.statistics import Estimate

numpy = require("numpy", "evaluation")


class Controlled(NamedTuple):
    """A length-controlled win rate, and the log odds that an answer gains where it is much longer."""

    win_rate: Estimate
    length_effect: Estimate | None


def controlled(scores: Sequence[float], longer_by: Sequence[float], clusters: Sequence[str]) -> Controlled:
    """Return the win rate at equal lengths by the logistic model of AlpacaEval 2.

    logit P(win) = theta + phi tanh(d / sd(d)) with d the difference in length; the controlled win rate is that at
    d = 0, 1 / (1 + exp(-theta)). Dubois et al. (2024), Length-Controlled AlpacaEval, arXiv:2404.04475, section 3. Its
    term of an instruction's difficulty needs the answers of many models and is left out. A tie counts as half a win,
    which is quasi-likelihood. Standard errors are those of the sandwich, by the delta method.

    Args:
        scores: 1 for a win, 0.5 for a tie, 0 for a loss.
        longer_by: the length of each answer less that of the answer it is compared with.
        clusters: of the items; "" is a cluster of its own.

    Raises:
        NoFiniteFitError: where all are won or all lost, where lengths alone decide every verdict, or where every answer
            is longer by the same.
    """
    d = numpy.asarray(longer_by, dtype=float)
    spread = float(d.std())
    if spread == 0 and d.any():
        raise NoFiniteFitError("every answer is longer by the same, so that nothing tells what length does")
    columns = [numpy.ones(len(d))] + ([numpy.tanh(d / spread)] if spread > 0 else [])
    x, y = numpy.stack(columns, axis=1), numpy.asarray(scores, dtype=float)
    fitted = fit(numpy.stack([x, numpy.zeros_like(x)], axis=1), numpy.stack([y, 1 - y], axis=1), clusters)
    rate = 1 / (1 + math.exp(-fitted.coefficients[0]))
    errors = None if fitted.covariance is None else numpy.sqrt(numpy.diag(fitted.covariance))
    rate_error = None if errors is None else float(rate * (1 - rate) * errors[0])
    effect = None
    if spread > 0:
        effect = Estimate(float(fitted.coefficients[1]), None if errors is None else float(errors[1]), len(d))
    return Controlled(Estimate(rate, rate_error, len(d)), effect)
