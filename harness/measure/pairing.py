"""Chances of the next pairs to compare: those whose votes say most of the strengths. Importing it imports numpy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from harness.extras import require
from harness.measure import davidson
from harness.measure.strengths import Outcome

numpy = require("numpy", "evaluation")

PRIOR = 0.5  # wins of each over each other that are assumed, so that there is always a finite fit
EVENLY = 0.1  # of the chances, shared by all pairs alike: a lot that can be foreseen is none


def pair_weights(names: Sequence[str], outcomes: Sequence[Outcome]) -> dict[frozenset[str], float]:
    """Return the chance of each pair of variants.

    It grows with what one more vote on the pair adds to the log determinant of the information, log(1 + v I): I is the
    vote's own information on the difference of the two, v the variance of that difference (the D-optimal design;
    Chaloner and Verdinelli (1995), Bayesian experimental design: a review, Statistical Science 10:273).
    """
    order = sorted(names)
    pairs = list(itertools.combinations(range(len(order)), 2))
    number = {name: place for place, name in enumerate(order)}
    known = [outcome for outcome in outcomes if outcome.first in number and outcome.second in number]
    assumed = [(one, other, score, PRIOR) for one, other in pairs for score in (0.0, 1.0)]
    rows = [(number[o.first], number[o.second], o.score, o.weight) for o in known] + assumed
    first, second, score, weight = (numpy.array(column) for column in zip(*rows, strict=True))
    counts = davidson.Counts.of(len(order), numpy.zeros(len(rows), dtype=int), first, second, score, weight)
    fitted = davidson.fit(counts.pairs())
    gains = _gains(fitted, pairs, len(order))
    chances = (1 - EVENLY) * gains / gains.sum() + EVENLY / len(pairs)
    return {
        frozenset((order[one], order[other])): float(chance)
        for (one, other), chance in zip(pairs, chances, strict=True)
    }


def _gains(fitted: davidson.Fit, pairs: Sequence[tuple[int, int]], size: int) -> Any:
    first, second = (numpy.array(side) for side in zip(*pairs, strict=True))
    inverse = fitted.inverse[:size, :size]
    variance = inverse[first, first] + inverse[second, second] - 2 * inverse[first, second]
    return numpy.log1p(variance * davidson.vote_information(fitted, first, second))
