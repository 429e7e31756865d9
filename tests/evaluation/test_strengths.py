"""Strengths from outcomes: equal to scikit-learn's and scipy's fits, sandwich errors, infinite ones refused."""

from __future__ import annotations

import datetime
import math
import random

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression

from harness.measure.logits import NoFiniteFitError, fit
from harness.measure.strengths import Outcome, outcomes_of, strengths, win_rate
from harness.nouns import Ballot, Side, Verdict

TRUE = {"a": 0.8, "b": 0.1, "c": -0.3, "d": -0.6}


def judged(n: int, tie: float, seed: int = 0, people: int = 40) -> list[Outcome]:
    """Draw outcomes by Davidson's model."""
    rng = random.Random(seed)
    drawn = []
    for number in range(n):
        one, other = rng.sample(sorted(TRUE), 2)
        odds = [math.exp(TRUE[one]), math.exp(TRUE[other]), tie * math.exp((TRUE[one] + TRUE[other]) / 2)]
        drawn.append(Outcome(one, other, rng.choices([1.0, 0.0, 0.5], odds)[0], f"person {number % people}"))
    return drawn


def design(outcomes: list[Outcome]) -> tuple[np.ndarray, np.ndarray]:
    x = np.array([[(j.first == name) - (j.second == name) for name in sorted(TRUE)] for j in outcomes], dtype=float)
    return x[:, 1:] - 0, np.array([j.score for j in outcomes])


def test_without_ties_it_is_scikit_learns_logistic_regression() -> None:
    outcomes = judged(800, 0.0)
    x, y = design(outcomes)
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, solver="newton-cholesky").fit(x, y).coef_[0]
    centred = np.array([0.0, *theirs]) - np.array([0.0, *theirs]).mean()
    ours = strengths(outcomes)
    assert ours.values == pytest.approx(centred, abs=1e-6) and ours.tie == 0
    assert sum(ours.values) == pytest.approx(0, abs=1e-12)
    assert [one.variant for one in ours.ranked] == ["a", "b", "c", "d"]
    assert ours.difference("a", "d").value == pytest.approx(centred[0] - centred[3], abs=1e-6)


def test_with_ties_it_is_the_maximum_that_scipy_finds() -> None:
    outcomes = judged(800, 0.7)
    names = sorted(TRUE)

    def minus_log_likelihood(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """With its gradient: differences of a sum of 800 terms know the maximum to some 1e-6 only."""
        s, t = dict(zip(names, [0.0, *parameters[:3]], strict=True)), parameters[3]
        total, gradient = 0.0, np.zeros(5)
        for first, second, score, *_ in outcomes:
            logits = {1.0: s[first], 0.0: s[second], 0.5: t + (s[first] + s[second]) / 2}
            odds = sum(map(math.exp, logits.values()))
            total += math.log(odds) - logits[score]
            for outcome, logit in logits.items():
                more = math.exp(logit) / odds - (outcome == score)
                gradient[names.index(first)] += more * outcome
                gradient[names.index(second)] += more * (1 - outcome)
                gradient[4] += more * (outcome == 0.5)
        return total, gradient[1:]

    best = optimize.minimize(minus_log_likelihood, np.zeros(4), method="BFGS", jac=True, options={"gtol": 1e-9}).x
    ours = strengths(outcomes)
    expected = np.array([0.0, *best[:3]])
    assert ours.values == pytest.approx(expected - expected.mean(), abs=1e-6)
    assert ours.tie == pytest.approx(math.exp(best[3]), abs=1e-6)


def test_the_sandwich_is_that_of_its_formula() -> None:
    outcomes = judged(300, 0.0, people=30)
    x, y = design(outcomes)
    z = np.stack([x, np.zeros_like(x)], axis=1)
    fitted = fit(z, np.stack([y, 1 - y], axis=1), [j.cluster for j in outcomes])
    p = 1 / (1 + np.exp(-x @ fitted.coefficients))
    bread = np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x)
    scores = np.zeros((30, 3))
    for row, outcome in enumerate(outcomes):
        scores[int(outcome.cluster.split()[1])] += (y[row] - p[row]) * x[row]
    assert fitted.covariance == pytest.approx(30 / 29 * bread @ scores.T @ scores @ bread, rel=1e-9)
    assert fitted.clusters == 30


def test_intervals_cover_the_truth() -> None:
    """Of 300 draws, the 95 % intervals of a difference cover it in 93 to 97 of 100, give or take three."""
    hits = 0
    for seed in range(300):
        one = strengths(judged(240, 0.5, seed=seed, people=60)).difference("a", "d")
        assert one.interval is not None
        hits += one.interval.low <= TRUE["a"] - TRUE["d"] <= one.interval.high
    assert stats.binomtest(hits, 300, 0.95).pvalue > 0.001


def test_one_person_gives_no_interval() -> None:
    everything = strengths([j._replace(cluster="person 1") for j in judged(200, 0.3)])
    assert all(one.stderr is None and one.interval is None for one in everything.ranked)


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ([Outcome("a", "b", 1.0), Outcome("b", "c", 1.0)], "b, c never won or tied against a"),
        ([Outcome("a", "b", 1.0), Outcome("b", "a", 1.0), Outcome("c", "d", 0.5)], "c, d never won or tied"),
        ([Outcome("a", "b", 0.5)] * 3, "every outcome is a tie"),
        ([], "of two variants at least"),
    ],
)
def test_strengths_that_would_be_infinite_are_refused(outcomes: list[Outcome], message: str) -> None:
    with pytest.raises(NoFiniteFitError, match=message):
        strengths(outcomes)


def test_a_separated_regression_is_refused() -> None:
    x = np.array([[1.0, -1.0], [1.0, -2.0], [1.0, 1.0], [1.0, 2.0]])
    y = np.array([0.0, 0.0, 1.0, 1.0])
    with pytest.raises(NoFiniteFitError):
        fit(np.stack([x, np.zeros_like(x)], axis=1), np.stack([y, 1 - y], axis=1), ["", "", "", ""])


def ballot(id: int, names: str, verdict: Verdict | None, annotator: str = "", state: str = "voted") -> Ballot:
    sides = tuple(Side(name, None, [], "answer", "stop") for name in names)
    now = datetime.datetime.now(datetime.UTC)
    return Ballot(id, now, sides, 0, annotator=annotator, state=state, verdict=verdict)  # type: ignore[arg-type]


def test_a_verdict_decides_pairs() -> None:
    ballots = [
        ballot(1, "abc", Verdict("best", 1), "ann"),
        ballot(2, "ab", Verdict("tie")),
        ballot(3, "ab", Verdict("bad"), "ann"),
        ballot(4, "ab", None),
        ballot(5, "ab", Verdict("best", 0), state="void"),
    ]
    assert outcomes_of(ballots) == [
        Outcome("b", "a", 1.0, "person ann", 0.5, "1"), Outcome("b", "c", 1.0, "person ann", 0.5, "1"),
        Outcome("a", "b", 0.5, "ballot 2", ballot="2"), Outcome("a", "b", 0.5, "person ann", ballot="3"),
    ]  # fmt: skip


def test_a_win_rate_counts_a_tie_half_and_clusters_by_person() -> None:
    outcomes = outcomes_of([ballot(1, "abc", Verdict("best", 1), "ann"), ballot(2, "ab", Verdict("tie"), "bob")])
    assert win_rate(outcomes, "b").value == pytest.approx(0.75) and win_rate(outcomes, "b").n == 3
    assert win_rate(outcomes, "a").value == pytest.approx(1 / 3)
    assert win_rate(outcomes, "b").stderr == pytest.approx(math.sqrt(2 * 2 * 0.25**2) / 2)
