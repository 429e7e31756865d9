"""Strengths at equal looks: length and format of the answers as covariates. Importing it imports numpy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from harness.extras import require
from harness.measure.logits import NoFiniteFitError, fit
from harness.measure.statistics import Estimate
from harness.measure.strengths import Outcome, Strengths, strengths_from
from harness.nouns import Ballot

numpy = require("numpy", "evaluation")

MARKS = re.compile(r"^\s{0,3}(?:#{1,6}\s|[-*+]\s|\d+[.)]\s|\||```)|\*\*[^*\n]+\*\*", re.MULTILINE)
COVARIATES: dict[str, Callable[[str], int]] = {
    "length": len,  # characters
    "format": lambda text: len(MARKS.findall(text)),  # headings, list items, bold, tables and code
}


class Styled(NamedTuple):
    """Strengths at equal looks, and what a covariate adds in log odds where it differs as much as it usually does."""

    strengths: Strengths
    effects: dict[str, Estimate]


def styled(ballots: Sequence[Ballot], outcomes: Sequence[Outcome], control: Sequence[str]) -> Styled:
    """Return Davidson's fit with the difference of each covariate of two answers beside the difference of strengths.

    A difference is (a - b) / (a + b), divided by its root mean square, as in the style control of Chatbot Arena (Li et
    al. (2024), Does style matter?, lmsys.org/blog/2024-08-28-style-control) but for the mean, which would depend on
    which answer is called the first. Errors are clustered as the outcomes are.

    Args:
        ballots: those that the `outcomes` are of.
        control: names among COVARIATES.

    Raises:
        NoFiniteFitError: where no finite fit is the best, or a covariate never differs.
    """
    texts = {str(ballot.id): {side.variant: side.answer for side in ballot.sides} for ballot in ballots}
    names = sorted({name for outcome in outcomes for name in outcome[:2]})
    number = {name: place for place, name in enumerate(names)}
    rows = range(len(outcomes))
    first = numpy.array([number[outcome.first] for outcome in outcomes])
    second = numpy.array([number[outcome.second] for outcome in outcomes])
    looks = numpy.stack([_differences(texts, outcomes, name) for name in control], axis=1)
    ties = any(outcome.score == 0.5 for outcome in outcomes)
    size = len(names) + len(control) + ties
    design = numpy.zeros((len(outcomes), 2 + ties, size))  # of first better, second better, tie
    for position, sign in ((0, 0.5), (1, -0.5)):
        design[rows, position, first] += sign
        design[rows, position, second] -= sign
        design[:, position, len(names) : len(names) + len(control)] = sign * looks
    if ties:
        design[:, 2, -1] = 1
    chosen = numpy.zeros((len(outcomes), 2 + ties))
    chosen[rows, [{1.0: 0, 0.0: 1, 0.5: 2}[outcome.score] for outcome in outcomes]] = 1
    clusters, weights = [outcome.cluster for outcome in outcomes], [outcome.weight for outcome in outcomes]
    fitted = fit(design[:, :, 1:], chosen, clusters, weights)  # the first variant is at zero
    spread = numpy.eye(size)[:, 1:]
    spread[: len(names)] -= spread[: len(names)].mean(axis=0)  # strengths sum to zero
    values = spread @ fitted.coefficients
    covariance = None if fitted.covariance is None else spread @ fitted.covariance @ spread.T
    tie = float(numpy.exp(values[-1])) if ties else 0.0
    inner = None if covariance is None else covariance[: len(names), : len(names)]
    effects = {}
    for at, name in enumerate(control, len(names)):
        error = None if covariance is None else float(numpy.sqrt(covariance[at, at]))
        effects[name] = Estimate(float(values[at]), error, len(outcomes))
    return Styled(strengths_from(names, values[: len(names)], inner, tie, fitted.clusters), effects)


def _differences(texts: dict[str, dict[str, str]], outcomes: Sequence[Outcome], name: str) -> Any:
    measure = COVARIATES[name]
    pairs = [
        (measure(texts[outcome.ballot][outcome.first]), measure(texts[outcome.ballot][outcome.second]))
        for outcome in outcomes
    ]
    one, other = numpy.array(pairs, dtype=float).T
    differences = (one - other) / numpy.maximum(one + other, 1)
    usual = float(numpy.sqrt((differences**2).mean()))
    if not usual:
        raise NoFiniteFitError(f"the answers never differ in {name}, so that nothing tells what it does")
    return differences / usual
