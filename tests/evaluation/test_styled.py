"""Strengths at equal looks, and the pairs to compare next: against independent fits and determinants."""

from __future__ import annotations

import datetime
import itertools
import math
import random

import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy import optimize
from sklearn.linear_model import LogisticRegression

from harness.measure import davidson
from harness.measure.leaderboard import leaderboard
from harness.measure.logits import NoFiniteFitError
from harness.measure.pairing import EVENLY, PRIOR, pair_weights
from harness.measure.strengths import Outcome, counted, outcomes_of
from harness.measure.styled import styled
from harness.nouns import Ballot, Side, Verdict

TRUE = {"ash": 0.6, "elm": 0.0, "oak": -0.6}
WORDS = {"ash": 20, "elm": 60, "oak": 200}  # at most: the weakest writes most
NAMES = sorted(TRUE)


def drawn(n: int, tie: float = 0.0) -> list[Ballot]:
    """Draw ballots by Davidson's model, with up to 3 log odds more for the longer answer."""
    rng, ballots = random.Random(1), []
    for id in range(n):
        names = rng.sample(NAMES, 2)
        texts = ["word " * rng.randint(5, WORDS[name]) + "\n- **a point**" * rng.randint(0, 4) for name in names]
        one, other = map(len, texts)
        half = (TRUE[names[0]] - TRUE[names[1]] + 3 * (one - other) / (one + other)) / 2
        verdict = rng.choices(
            [Verdict("best", 0), Verdict("best", 1), Verdict("tie")], [math.exp(half), math.exp(-half), tie]
        )[0]
        sides = tuple(Side(name, None, [], text, "stop") for name, text in zip(names, texts, strict=True))
        now = datetime.datetime.now(datetime.UTC)
        ballots.append(
            Ballot(id, now, sides, 0, verdict=verdict, blind=True, state="revealed", annotator=f"p{id % 30}")
        )
    return ballots


def looks(ballots: list[Ballot]) -> tuple[np.ndarray, np.ndarray]:
    """The differences of names, length and bold list items of each ballot [n, 5], and 1, 0 or 0.5 by its verdict.

    Answers have two marks an item, a list's and a bold one.
    """
    rows = []
    for one, other in (ballot.sides for ballot in ballots):
        lengths = [len(side.answer) for side in (one, other)]
        points = [side.answer.count("**") for side in (one, other)]
        names = [(one.variant == name) - (other.variant == name) for name in NAMES]
        rows.append([*names, *((a - b) / max(a + b, 1) for a, b in (lengths, points))])
    x = np.array(rows)
    x[:, 3:] /= np.sqrt((x[:, 3:] ** 2).mean(axis=0))
    scores = {None: 0.5, 0: 1.0, 1: 0.0}
    return x, np.array([scores[ballot.verdict.best] for ballot in ballots if ballot.verdict])


def centred(coefficients: np.ndarray) -> np.ndarray:
    strengths = np.array([0.0, *coefficients[:2]])
    return strengths - strengths.mean()


def test_without_ties_it_is_scikit_learns_logistic_regression_on_the_differences() -> None:
    ballots = drawn(600)
    x, y = looks(ballots)
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, solver="newton-cholesky")
    expected = theirs.fit(x[:, 1:], y).coef_[0]
    ours = styled(ballots, outcomes_of(ballots), ["length", "format"])
    assert ours.strengths.values == pytest.approx(centred(expected), abs=1e-6)
    assert [effect.value for effect in ours.effects.values()] == pytest.approx(expected[2:], abs=1e-6)
    assert ours.strengths.tie == 0 and ours.strengths.clusters == 30


def test_with_ties_it_is_the_maximum_that_scipy_finds() -> None:
    ballots = drawn(600, tie=0.7)
    x, y = looks(ballots)

    def minus_log_likelihood(b: np.ndarray) -> tuple[float, np.ndarray]:
        half, tie = x[:, 1:] @ b[:4] / 2, np.full(len(x), b[4])
        odds = np.exp(np.stack([half, -half, tie]))
        chances = odds / odds.sum(axis=0)
        won, lost, tied = ((y == score) - chance for score, chance in zip((1, 0, 0.5), chances, strict=True))
        log_chances = np.log(np.where(y == 1, chances[0], np.where(y == 0, chances[1], chances[2])))
        return -log_chances.sum(), -np.array([*((won - lost) @ x[:, 1:] / 2), tied.sum()])

    best = optimize.minimize(minus_log_likelihood, np.zeros(5), method="BFGS", jac=True, options={"gtol": 1e-9}).x
    ours = styled(ballots, outcomes_of(ballots), ["length", "format"])
    assert ours.strengths.values == pytest.approx(centred(best), abs=1e-6)
    assert [effect.value for effect in ours.effects.values()] == pytest.approx(best[2:4], abs=1e-6)
    assert ours.strengths.tie == pytest.approx(math.exp(best[4]), abs=1e-6)


def test_at_equal_looks_the_one_that_only_writes_more_is_not_ahead() -> None:
    ballots = drawn(900, tie=0.3)
    plain, equal = leaderboard(ballots), leaderboard(ballots, ["length", "format"])
    assert plain.places[0].variant == "oak" and [place.variant for place in equal.places] == NAMES
    length, format = equal.effects["length"], equal.effects["format"]
    assert length.stderr and format.stderr
    assert length.value > 4 * length.stderr and abs(format.value) < 3 * format.stderr
    for place in equal.places:
        assert place.interval is not None and place.interval.low < TRUE[place.variant] < place.interval.high


def test_a_covariate_that_never_differs_is_refused() -> None:
    ballots = [ballot for ballot in drawn(60) if not any("**" in side.answer for side in ballot.sides)]
    with pytest.raises(NoFiniteFitError, match="the answers never differ in format"):
        styled(ballots, outcomes_of(ballots), ["format"])


def outcomes(**wins: int) -> list[Outcome]:
    """Outcomes by pair, as `ae=10` for ten of ash against elm, which each win half."""
    long = {name[0]: name for name in NAMES}
    return [
        Outcome(long[pair[0]], long[pair[1]], float(number % 2))
        for pair, count in wins.items()
        for number in range(count)
    ]


def test_a_pair_is_drawn_by_what_a_vote_adds_to_the_log_determinant() -> None:
    votes = outcomes(ae=30, eo=8, ao=2)
    assumed = [Outcome(*pair, score, weight=PRIOR) for pair in itertools.combinations(NAMES, 2) for score in (0.0, 1.0)]
    information = davidson.fit(counted(NAMES, [*votes, *assumed]).pairs()).information
    strengths = davidson.fit(counted(NAMES, [*votes, *assumed]).pairs()).strengths

    def log_determinant(matrix: np.ndarray) -> float:
        return float(np.linalg.slogdet(matrix[1:, 1:])[1])  # the first variant is at zero

    gains = {}
    for one, other in itertools.combinations(range(3), 2):
        chance = 1 / (1 + math.exp(strengths[other] - strengths[one]))
        contrast = np.eye(3)[one] - np.eye(3)[other]
        more = information + chance * (1 - chance) * np.outer(contrast, contrast)
        gains[frozenset((NAMES[one], NAMES[other]))] = log_determinant(more) - log_determinant(information)
    total = sum(gains.values())
    expected = {pair: (1 - EVENLY) * gain / total + EVENLY / 3 for pair, gain in gains.items()}
    assert pair_weights(NAMES, votes) == pytest.approx(expected, abs=1e-9)


def test_no_pair_is_left_out_and_a_newcomer_comes_first() -> None:
    even = pair_weights(NAMES, [])
    assert list(even.values()) == pytest.approx([1 / 3] * 3)
    weights = pair_weights([*NAMES, "yew"], [*outcomes(ae=40, eo=40, ao=40), Outcome("ash", "gone", 1.0)])
    assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) >= EVENLY / 6
    of_yew = [weight for pair, weight in weights.items() if "yew" in pair]
    assert min(of_yew) > 3 * max(weight for pair, weight in weights.items() if "yew" not in pair)
    ties = [Outcome("ash", "elm", 0.5)] * 20
    assert pair_weights(NAMES, ties)[frozenset(("ash", "elm"))] < 1 / 3
