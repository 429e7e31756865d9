"""Strengths of variants from verdicts on pairs: Bradley-Terry with ties, and win rates, with intervals.

Votes of people and verdicts of a judge both come here. Importing this module imports numpy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.errors import listed
from harness.extras import require
from harness.measure import davidson, statistics
from harness.measure.logits import NoFiniteFitError
from harness.measure.statistics import CONFIDENCE, Estimate, Interval
from harness.nouns import Ballot

numpy = require("numpy", "evaluation")


class Outcome(NamedTuple):
    """One pair that was judged: 1 where the first is better, 0 where the second is, 0.5 for a tie.

    Outcomes of one `cluster` (a person's) may be alike; the cluster "" is one of its own. All outcomes of one ballot
    have the `weight` 1 together; `ballot` is its id, where there is one.
    """

    first: str
    second: str
    score: float
    cluster: str = ""
    weight: float = 1.0
    ballot: str = ""


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
            pairs = [(names[best], other) for position, other in enumerate(names) if position != best]
        else:
            pairs = list(itertools.combinations(names, 2))
        score = 0.5 if best is None else 1.0
        judged += [Outcome(*pair, score, cluster, 1 / len(pairs), str(ballot.id)) for pair in pairs]
    return judged


def win_rate(outcomes: Sequence[Outcome], variant: str) -> Estimate:
    """Return the share of its outcomes that a variant won, a tie counting half, by clusters."""
    mine = [(o.score if o.first == variant else 1 - o.score, o) for o in outcomes if variant in o[:2]]
    weights, clusters = [o.weight for _, o in mine], [o.cluster for _, o in mine]
    return statistics.mean([score for score, _ in mine], weights, groups=clusters)


def strengths(outcomes: Sequence[Outcome]) -> Strengths:
    """Return the maximum-likelihood strengths of outcomes, as `strengths_of` of their counts."""
    names = sorted({name for outcome in outcomes for name in outcome[:2]})
    return strengths_of(names, counted(names, outcomes))


def strengths_of(names: Sequence[str], counts: davidson.Counts) -> Strengths:
    """Return the maximum-likelihood strengths by Davidson's model.

    Strengths sum to zero. Intervals are by Student's t with one degree of freedom fewer than clusters.

    Raises:
        NoFiniteFitError: naming the variants that never won or tied against the others, whose strength is infinite.
    """
    if len(names) < 2:
        raise NoFiniteFitError("strengths need outcomes of two variants at least")
    pairs = counts.pairs()
    _require_connected(names, pairs)
    fitted = davidson.fit(pairs)
    covariance = davidson.covariance(counts, fitted)
    covariance = None if covariance is None else covariance[: len(names), : len(names)]
    tie = 0.0 if fitted.log_tie is None else float(numpy.exp(fitted.log_tie))
    return strengths_from(names, fitted.strengths, covariance, tie, counts.clusters)


def strengths_from(names: Sequence[str], values: Any, covariance: Any, tie: float, clusters: int) -> Strengths:
    """Return fitted values as strengths with intervals, the strongest first."""
    each = [
        _strength(name, contrast, values, covariance, clusters)
        for name, contrast in zip(names, numpy.eye(len(names)), strict=True)
    ]
    ranked = tuple(sorted(each, key=lambda one: (-one.value, one.variant)))
    return Strengths(ranked, tie, clusters, tuple(names), values, covariance)


def counted(names: Sequence[str], outcomes: Sequence[Outcome]) -> davidson.Counts:
    """Return the outcomes as counts, with the variants numbered as in `names`."""
    number = {name: place for place, name in enumerate(names)}
    return davidson.Counts.of(
        len(names),
        statistics.numbered([outcome.cluster for outcome in outcomes]),
        [number[outcome.first] for outcome in outcomes],
        [number[outcome.second] for outcome in outcomes],
        [outcome.score for outcome in outcomes],
        [outcome.weight for outcome in outcomes],
    )


def half_width(stderr: float, clusters: int, at_once: int = 1) -> float:
    """Return half the width of the interval of an estimate that rests on so many clusters.

    Args:
        at_once: the estimates whose intervals hold together, by Bonferroni.
    """
    stats = require("scipy.stats", "evaluation")
    return float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / at_once, clusters - 1)) * stderr


def _strength(name: str, contrast: Any, values: Any, covariance: Any, clusters: int) -> Strength:
    value = float(contrast @ values)
    if covariance is None:
        return Strength(name, value, None, None)
    stderr = float(numpy.sqrt(max(0.0, contrast @ covariance @ contrast)))
    half = half_width(stderr, clusters)
    return Strength(name, value, stderr, Interval(value - half, value + half))


def _require_connected(names: Sequence[str], pairs: davidson.Pairs) -> None:
    """Raise NoFiniteFitError unless each variant was, over others, at least as good as each other somewhere.

    Ford (1957), Solution of a ranking problem from binary comparisons, American Mathematical Monthly 64:28.
    """
    reached = davidson.reached(pairs)
    if not reached.all():
        above = int(numpy.flatnonzero(~reached.all(axis=0))[0])
        below = [names[other] for other in numpy.flatnonzero(~reached[:, above])]
        raise NoFiniteFitError(
            f"{listed(below)} never won or tied against {names[above]}, directly or over others: until one does, "
            f"nothing says how much better {names[above]} is, so collect more votes"
        )
