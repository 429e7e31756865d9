"""Davidson's model of paired comparisons with ties, fitted to counts: quick for a million outcomes.

Strengths s and the tie parameter t give first : second : tie as exp(s_1) : exp(s_2) : t exp((s_1 + s_2) / 2), by
Davidson (1970), JASA 65:317. Without ties t is 0, and the model is that of Bradley and Terry (1952), Biometrika 39:324.
Strengths sum to zero.

Importing this module imports numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.extras import require
from harness.measure.logits import NoFiniteFitError

numpy = require("numpy", "evaluation")

TOLERANCE = 1e-10  # of the largest step of Newton's method, in log odds
MOST_STEPS = 100


@dataclass(frozen=True)
class Counts:
    """Outcomes, a row for all of one cluster on one pair; `weights` [rows, 3] of first better, second better, tie.

    `first` and `second` [rows] are numbers of variants below `size`, the first the smaller; `cluster` [rows] numbers
    below `clusters`.
    """

    size: int
    clusters: int
    cluster: Any
    first: Any
    second: Any
    weights: Any

    @classmethod
    def of(cls, size: int, cluster: Any, first: Any, second: Any, score: Any, weight: Any) -> Counts:
        """Count outcomes, each with `score` 1 where the first is better, 0 where the second is, 0.5 for a tie.

        Args:
            cluster: whole numbers, [n]; outcomes of one cluster may be alike.
            first, second, score, weight: [n] each.
        """
        names, cluster = numpy.unique(numpy.asarray(cluster), return_inverse=True)
        first, second = numpy.asarray(first), numpy.asarray(second)
        score = numpy.where(first < second, score, 1 - numpy.asarray(score, dtype=float))
        low, high = numpy.minimum(first, second), numpy.maximum(first, second)
        cells, row = numpy.unique((cluster * size + low) * size + high, return_inverse=True)
        weights = numpy.zeros((len(cells), 3))
        outcome = numpy.select([score == 1, score == 0], [0, 1], 2)
        numpy.add.at(weights, (row, outcome), numpy.asarray(weight, dtype=float))
        pair = cells % (size * size)
        return cls(size, len(names), cells // (size * size), pair // size, pair % size, weights)

    def pairs(self, times: Any = None) -> Pairs:
        """Return the counts of each pair over all clusters, each cluster counted `times` [clusters] (None: once)."""
        factors = numpy.ones(self.clusters) if times is None else times
        summed = (self._by_cluster @ factors).reshape(self.size**2, 3)
        cells = numpy.flatnonzero(summed.any(axis=1))
        return Pairs(self.size, cells // self.size, cells % self.size, summed[cells])

    @cached_property
    def _by_cluster(self) -> Any:
        """The weights, [size^2 * 3, clusters], sparse: most clusters saw few pairs, each with few outcomes."""
        sparse = require("scipy.sparse", "evaluation")
        row, outcome = numpy.nonzero(self.weights)
        of_pair = (self.first * self.size + self.second)[row] * 3 + outcome
        shape = (self.size**2 * 3, self.clusters)
        return sparse.csr_array((self.weights[row, outcome], (of_pair, self.cluster[row])), shape)


@dataclass(frozen=True)
class Pairs:
    """Counts of each pair that was compared: `weights` [pairs, 3] of first better, second better, tie."""

    size: int
    first: Any
    second: Any
    weights: Any


@dataclass(frozen=True)
class Fit:
    """The maximum-likelihood strengths [size] and log tie parameter (None without ties), and the information [k, k].

    k is `size`, and one more with ties. The information has no inverse in the direction in which all strengths grow
    alike; `inverse` is that of the others.
    """

    strengths: Any
    log_tie: float | None
    information: Any

    @property
    def inverse(self) -> Any:
        """The inverse of the information among strengths that sum to zero, [k, k]."""
        size = len(self.strengths)
        inverse = numpy.linalg.inv(self._filled)
        inverse[:size, :size] -= 1 / size
        return inverse

    def solved(self, gradient: Any) -> Any:
        """Return `inverse @ gradient` for a gradient that sums to zero over the strengths, as that of outcomes does."""
        return numpy.linalg.solve(self._filled, gradient)

    @property
    def _filled(self) -> Any:
        size = len(self.strengths)
        filled = self.information.copy()
        filled[:size, :size] += 1 / size
        return filled


def fit(pairs: Pairs, start: Fit | None = None, tolerance: float = TOLERANCE) -> Fit:
    """Return the maximum-likelihood fit by Newton's method.

    Args:
        start: a fit of similar counts, to begin at.
        tolerance: the largest last step, in log odds.

    Raises:
        NoFiniteFitError: where no finite strengths are the best.
    """
    ties = pairs.weights[:, 2].sum() > 0
    if ties and pairs.weights[:, :2].sum() == 0:
        raise NoFiniteFitError("every outcome is a tie: there is no scale of strengths")
    point = numpy.zeros(pairs.size + ties)
    if start is not None and (start.log_tie is None) == (not ties):
        point[: pairs.size] = start.strengths
        point[pairs.size :] = start.log_tie if ties else ()
    value = _log_likelihood(pairs, point)
    for _ in range(MOST_STEPS):
        gradient, information = _derivatives(pairs, point)
        current = Fit(point[: pairs.size], None, information)
        try:
            step = current.solved(gradient)
        except numpy.linalg.LinAlgError:
            break
        shortened = 1.0
        while shortened > 1e-6 and (tried := _log_likelihood(pairs, point + shortened * step)) < value - 1e-12 * abs(
            value
        ):
            shortened /= 2
        point = point + shortened * step
        value = tried
        if numpy.abs(point).max() > 50:  # log odds that no counts of the world bear out: they grow for ever
            break
        if numpy.abs(step).max() < tolerance:
            point[: pairs.size] -= point[: pairs.size].mean()
            information = _derivatives(pairs, point)[1]
            return Fit(point[: pairs.size], float(point[-1]) if ties else None, information)
    raise NoFiniteFitError("no finite strengths fit these outcomes best")


def _probabilities(pairs: Pairs, point: Any) -> Any:
    """Return [pairs, 3]: the probabilities of first better, second better, tie."""
    half = (point[pairs.first] - point[pairs.second]) / 2
    parts = [half, -half]
    if len(point) > pairs.size:
        parts.append(numpy.full_like(half, point[-1]))
    logits = numpy.stack(parts, axis=1)
    odds = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    chances = odds / odds.sum(axis=1, keepdims=True)
    return chances if chances.shape[1] == 3 else numpy.pad(chances, ((0, 0), (0, 1)))


def _log_likelihood(pairs: Pairs, point: Any) -> float:
    chances = _probabilities(pairs, point)
    seen = pairs.weights > 0
    with numpy.errstate(divide="ignore"):
        return float((pairs.weights[seen] * numpy.log(chances[seen])).sum())


def _scores(weights: Any, chances: Any) -> tuple[Any, Any]:
    """Return the derivatives [rows] of the log-likelihood by half the difference of strengths, and by the log tie."""
    n = weights.sum(axis=1)
    by_half = (weights[:, 0] - weights[:, 1]) - n * (chances[:, 0] - chances[:, 1])
    return by_half / 2, weights[:, 2] - n * chances[:, 2]


def _derivatives(pairs: Pairs, point: Any) -> tuple[Any, Any]:
    """Return the gradient [k] and the information [k, k]."""
    size, k = pairs.size, len(point)
    chances, n = _probabilities(pairs, point), pairs.weights.sum(axis=1)
    by_difference, by_tie = _scores(pairs.weights, chances)
    gradient = numpy.zeros(k)
    gradient[:size] = numpy.bincount(pairs.first, by_difference, size) - numpy.bincount(
        pairs.second, by_difference, size
    )
    lead = chances[:, 0] - chances[:, 1]
    between = n * _information(chances)
    information = numpy.zeros((k, k))
    information[pairs.first, pairs.second] = information[pairs.second, pairs.first] = -between  # each pair is one row
    information[range(size), range(size)] = numpy.bincount(pairs.first, between, size) + numpy.bincount(
        pairs.second, between, size
    )
    if k > size:
        gradient[size] = by_tie.sum()
        across = -n * lead / 2 * chances[:, 2]
        information[:size, size] = numpy.bincount(pairs.first, across, size) - numpy.bincount(
            pairs.second, across, size
        )
        information[size, :size] = information[:size, size]
        information[size, size] = (n * chances[:, 2] * (1 - chances[:, 2])).sum()
    return gradient, information


def vote_information(fitted: Fit, first: Any, second: Any) -> Any:
    """Return what one vote on each pair would tell of the difference of its two strengths, [pairs]."""
    point = numpy.append(fitted.strengths, [] if fitted.log_tie is None else [fitted.log_tie])
    return _information(_probabilities(Pairs(len(fitted.strengths), first, second, None), point))


def _information(chances: Any) -> Any:
    """Return the information of one outcome on the difference of two strengths, [pairs]."""
    return (chances[:, 0] + chances[:, 1] - (chances[:, 0] - chances[:, 1]) ** 2) / 4


def cluster_scores(counts: Counts, fitted: Fit) -> Any:
    """Return the gradient of each cluster's log-likelihood at the fit, [clusters, k]; they sum to zero."""
    size = counts.size
    point = numpy.append(fitted.strengths, [] if fitted.log_tie is None else [fitted.log_tie])
    chances = _probabilities(Pairs(size, counts.first, counts.second, counts.weights), point)
    by_difference, by_tie = _scores(counts.weights, chances)
    scores = numpy.zeros((counts.clusters, len(point)))
    numpy.add.at(scores, (counts.cluster, counts.first), by_difference)
    numpy.add.at(scores, (counts.cluster, counts.second), -by_difference)
    if len(point) > size:
        scores[:, size] = numpy.bincount(counts.cluster, by_tie, counts.clusters)
    return scores


def covariance(counts: Counts, fitted: Fit) -> Any:
    """Return the sandwich covariance [k, k] clustered by `counts.cluster`, with the factor g / (g - 1); None for g = 1.

    Liang and Zeger (1986), Longitudinal data analysis using generalized linear models, Biometrika 73:13.
    """
    if counts.clusters < 2:
        return None
    inverse, scores = fitted.inverse, cluster_scores(counts, fitted)
    return inverse @ (scores.T @ scores) @ inverse * counts.clusters / (counts.clusters - 1)


def bootstrap(counts: Counts, fitted: Fit, rounds: int, seed: int = 0) -> Any:
    """Return strengths [rounds that have a finite fit, size] of samples of clusters, drawn with replacement.

    A round is the fit of a sample as large as the counts have clusters; one without a finite fit is left out.
    """
    random = numpy.random.default_rng(seed)
    even = numpy.full(counts.clusters, 1 / counts.clusters)
    strengths = []
    for _ in range(rounds):
        pairs = counts.pairs(random.multinomial(counts.clusters, even).astype(float))
        try:
            strengths.append(fit(pairs, fitted, 1e-5).strengths)
        except NoFiniteFitError:
            continue
    return numpy.array(strengths).reshape(len(strengths), counts.size)


def reached(pairs: Pairs) -> Any:
    """Return bool [size, size]: True where one variant was at least as good as another somewhere, or over others."""
    at_least = numpy.eye(pairs.size, dtype=bool)
    won = pairs.weights > 0
    at_least[pairs.first[won[:, 0]], pairs.second[won[:, 0]]] = True
    at_least[pairs.second[won[:, 1]], pairs.first[won[:, 1]]] = True
    tied = won[:, 2]
    at_least[pairs.first[tied], pairs.second[tied]] = at_least[pairs.second[tied], pairs.first[tied]] = True
    while True:
        further = at_least @ at_least
        if (further == at_least).all():
            return at_least
        at_least = further


def groups_compared(pairs: Pairs) -> list[Sequence[int]]:
    """Return the groups of variants that were compared with one another, directly or over others; the largest first."""
    together = numpy.eye(pairs.size, dtype=bool)
    together[pairs.first, pairs.second] = together[pairs.second, pairs.first] = True
    while not ((further := together @ together) == together).all():
        together = further
    rows = {tuple(numpy.flatnonzero(row).tolist()) for row in together}
    return sorted(rows, key=lambda row: (-len(row), row))
