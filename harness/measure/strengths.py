"""Strengths of variants from verdicts on pairs: Bradley-Terry with ties, and win rates, with intervals.

Votes of people and verdicts of a judge both come here. Importing this module imports numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.errors import listed
from harness.extras import require
from harness.measure import statistics
from harness.measure.logits import NoFiniteFitError, fit
from harness.measure.statistics import CONFIDENCE, Estimate, Interval
from harness.nouns import Ballot

numpy = require("numpy", "evaluation")


class Outcome(NamedTuple):
    """One pair that was judged: 1 where the first is better, 0 where the second is, 0.5 for a tie.

    Outcomes of one `cluster` (a person's) may be alike; the cluster "" is one of its own.
    """

    first: str
    second: str
    score: float
    cluster: str = ""


class Strength(NamedTuple):
    """A variant's strength: log odds against the average of all, with its standard error and interval."""

    variant: str
    value: float
    stderr: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Strengths:
    """The strengths of all variants, the strongest first, and how their estimates vary together.

    `tie` is Davidson's parameter: between equals, a tie is `tie` times as likely as a win of the first. `clusters` are
    those that the intervals rest on.
    """

    ranked: tuple[Strength, ...]
    tie: float
    clusters: int
    names: tuple[str, ...]
    values: Any  # [v], in the order of names
    covariance: Any  # [v, v], or None

    def difference(self, first: str, second: str) -> Strength:
        """Return the log odds that the first is judged better than the second, ties left out, with its interval."""
        contrast = numpy.zeros(len(self.names))
        contrast[self.names.index(first)] += 1
        contrast[self.names.index(second)] -= 1
        return _strength(f"{first} - {second}", contrast, self.values, self.covariance, self.clusters)


def outcomes_of(ballots: Iterable[Ballot]) -> list[Outcome]:
    """Return the pairs that the verdicts on ballots decide.

    The best of a ballot is better than each other side; `tie` and `bad` are ties of all sides. All pairs of a ballot,
    and all ballots of a person, are one cluster.
    """
    judged = []
    for ballot in ballots:
        if ballot.verdict is None or ballot.state == "void":
            continue
        names = [side.variant for side in ballot.sides]
        cluster = f"person {ballot.annotator}" if ballot.annotator else f"ballot {ballot.id}"
        best = ballot.verdict.best
        if best is not None:
            others = (name for position, name in enumerate(names) if position != best)
            judged += [Outcome(names[best], other, 1.0, cluster) for other in others]
        else:
            judged += [Outcome(a, b, 0.5, cluster) for at, a in enumerate(names) for b in names[at + 1 :]]
    return judged


def win_rate(outcomes: Sequence[Outcome], variant: str) -> Estimate:
    """Return the share of its outcomes that a variant won, a tie counting half, by clusters."""
    mine = [(j.score if j.first == variant else 1 - j.score, j.cluster) for j in outcomes if variant in j[:2]]
    return statistics.mean([score for score, _ in mine], groups=[cluster for _, cluster in mine])


def strengths(outcomes: Sequence[Outcome]) -> Strengths:
    """Return the maximum-likelihood strengths by Davidson's model.

    With strengths s and tie parameter t, first : second : tie are as exp(s_1) : exp(s_2) : t exp((s_1 + s_2) / 2).
    Davidson (1970), JASA 65:317. Strengths sum to zero. Intervals are by Student's t with one degree of freedom fewer
    than clusters.

    Raises:
        NoFiniteFitError: naming the variants that never won or tied against the others, whose strength is infinite.
    """
    names = sorted({name for outcome in outcomes for name in outcome[:2]})
    if len(names) < 2:
        raise NoFiniteFitError("strengths need outcomes of two variants at least")
    _require_connected(names, outcomes)
    number = {name: place for place, name in enumerate(names)}
    with_ties = any(outcome.score == 0.5 for outcome in outcomes)
    if with_ties and all(outcome.score == 0.5 for outcome in outcomes):
        raise NoFiniteFitError("every outcome is a tie: there is no scale of strengths")
    size = len(names) + with_ties
    z = numpy.zeros((len(outcomes), 2 + with_ties, size))
    q = numpy.zeros((len(outcomes), 2 + with_ties))
    for row, (first, second, score, _) in enumerate(outcomes):
        z[row, 0, number[first]] = z[row, 1, number[second]] = 1
        if with_ties:
            z[row, 2, [number[first], number[second]]] = 0.5
            z[row, 2, -1] = 1
        q[row, {1.0: 0, 0.0: 1, 0.5: 2}[score]] = 1
    # The first strength is 0 in the fit, and all are centred afterwards.
    fitted = fit(z[:, :, 1:], q, [outcome.cluster for outcome in outcomes])
    spread = len(names) - 1
    centre = numpy.vstack([numpy.zeros(spread), numpy.eye(spread)]) - 1 / len(names)
    values = centre @ fitted.coefficients[:spread]
    covariance = None if fitted.covariance is None else centre @ fitted.covariance[:spread, :spread] @ centre.T
    each = [
        _strength(name, contrast, values, covariance, fitted.clusters)
        for name, contrast in zip(names, numpy.eye(len(names)), strict=True)
    ]
    ranked = tuple(sorted(each, key=lambda one: (-one.value, one.variant)))
    tie = float(numpy.exp(fitted.coefficients[-1])) if with_ties else 0.0
    return Strengths(ranked, tie, fitted.clusters, tuple(names), values, covariance)


def half_width(stderr: float, clusters: int) -> float:
    """Return half the width of the interval of an estimate that rests on so many clusters."""
    stats = require("scipy.stats", "evaluation")
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, clusters - 1)) * stderr


def _strength(name: str, contrast: Any, values: Any, covariance: Any, clusters: int) -> Strength:
    value = float(contrast @ values)
    if covariance is None:
        return Strength(name, value, None, None)
    stderr = float(numpy.sqrt(max(0.0, contrast @ covariance @ contrast)))
    half = half_width(stderr, clusters)
    return Strength(name, value, stderr, Interval(value - half, value + half))


def _require_connected(names: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """Raise NoFiniteFitError unless each variant was, over others, at least as good as each other somewhere.

    Ford (1957), Solution of a ranking problem from binary comparisons, American Mathematical Monthly 64:28.
    """
    beats: dict[str, set[str]] = {name: set() for name in names}
    for first, second, score, _ in outcomes:
        if score > 0:
            beats[first].add(second)
        if score < 1:
            beats[second].add(first)
    reached: dict[str, set[str]] = {}
    for name in names:
        seen, open_ = {name}, [name]
        while open_:
            fresh = beats[open_.pop()] - seen
            seen |= fresh
            open_ += fresh
        reached[name] = seen
    if any(len(seen) < len(names) for seen in reached.values()):
        above = next(name for name in names if any(name not in reached[other] for other in names))
        below = [other for other in names if above not in reached[other]]
        raise NoFiniteFitError(
            f"{listed(below)} never won or tied against {above}, directly or over others: no finite strength fits that"
        )
