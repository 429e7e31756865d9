"""Maximum likelihood for multinomial logits, with standard errors that hold where observations come in clusters.

Logistic regression is the case of two outcomes; Bradley-Terry with ties is one of three. Importing this module imports
numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.extras import require
from harness.measure.statistics import numbered

numpy = require("numpy", "evaluation")
STEPS, TOLERANCE = 100, 1e-12
FARTHEST = 25.0  # a coefficient beyond this stands for an infinite one: some outcome never happened


class NoFiniteFitError(ValueError):
    """The likelihood has no maximum: some coefficients would be infinite, or two cannot be told apart."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The coefficients [d], their covariance [d, d] by clusters (None: one cluster), and the number of clusters."""

    coefficients: Any
    covariance: Any
    clusters: int


def fit(designs: Any, shares: Any, clusters: Sequence[str], weights: Any = None) -> Fit:
    """Return the fit of P(outcome k) = exp(z_k b) / sum_j exp(z_j b), by Newton's method.

    The covariance is the sandwich H^-1 (sum_g s_g s_g') H^-1 * G / (G - 1), with the scores s_g summed over a cluster.
    White (1982), Maximum likelihood estimation of misspecified models, Econometrica 50:1; by clusters Liang and Zeger
    (1986), Biometrika 73:13.

    Args:
        designs: z of each observation and outcome, [n, k, d].
        shares: the outcome of each observation [n, k], rows that sum to 1: a one, or shares where it was between two.
        clusters: the cluster of each observation; "" is one of its own.
        weights: of the observations [n], 1 by default.

    Raises:
        NoFiniteFitError: where the likelihood has no single finite maximum.
    """
    z, q = numpy.asarray(designs, dtype=float), numpy.asarray(shares, dtype=float)
    w = numpy.ones(len(z)) if weights is None else numpy.asarray(weights, dtype=float)
    b = numpy.zeros(z.shape[2])
    for _ in range(STEPS):
        gradients, hessian = _derivatives(z, q, w, b)
        step = _solved(hessian, gradients.sum(axis=0))
        size, before = 1.0, _log_likelihood(z, q, w, b)
        while _log_likelihood(z, q, w, b + size * step) < before - 1e-12 * abs(before) and size > 1e-8:
            size /= 2
        b = b + size * step
        if numpy.abs(b).max() > FARTHEST:
            raise NoFiniteFitError("a coefficient is infinite: an outcome that it stands for never happened")
        if numpy.abs(step).max() < TOLERANCE * (1 + numpy.abs(b).max()):
            break
    gradients, hessian = _derivatives(z, q, w, b)
    of_observation = numpy.asarray(numbered(clusters))
    count = int(of_observation.max()) + 1
    if count < 2:
        return Fit(b, None, count)
    sums = numpy.zeros((count, z.shape[2]))
    numpy.add.at(sums, of_observation, gradients)
    inverse = _solved(hessian, numpy.eye(z.shape[2]))
    return Fit(b, count / (count - 1) * inverse @ (sums.T @ sums) @ inverse, count)


def _probabilities(z: Any, b: Any) -> Any:
    logits = z @ b
    odds = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _log_likelihood(z: Any, q: Any, w: Any, b: Any) -> float:
    logits = z @ b
    most = logits.max(axis=1, keepdims=True)
    normaliser = most[:, 0] + numpy.log(numpy.exp(logits - most).sum(axis=1))
    return float((w * ((q * logits).sum(axis=1) - normaliser)).sum())


def _derivatives(z: Any, q: Any, w: Any, b: Any) -> tuple[Any, Any]:
    """Return the gradient of each observation [n, d] and minus the second derivative of their sum [d, d]."""
    p = _probabilities(z, b)
    gradients = w[:, None] * numpy.einsum("nk,nkd->nd", q - p, z)
    centred = z - numpy.einsum("nk,nkd->nd", p, z)[:, None, :]
    return gradients, numpy.einsum("n,nk,nkd,nke->de", w, p, centred, centred)


def _solved(hessian: Any, right: Any) -> Any:
    """Return hessian^-1 right. Raises NoFiniteFitError where the coefficients cannot be told apart."""
    if numpy.linalg.cond(hessian) > 1e12:
        raise NoFiniteFitError("the coefficients cannot be told apart, or one is infinite")
    return numpy.linalg.solve(hessian, right)
