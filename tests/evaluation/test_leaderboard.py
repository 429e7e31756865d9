"""The leaderboard: places that the votes bear out, and what speaks against them, against slow and independent sums."""

from __future__ import annotations

import datetime
import itertools
import math
import random
from typing import Any

import numpy as np
import pytest

from harness.measure import davidson
from harness.measure.leaderboard import agreement, fragility, leaderboard
from harness.measure.strengths import Outcome, counted, outcomes_of, strengths
from harness.nouns import Ballot, Side, Verdict

TRUE = {"ash": 0.9, "elm": 0.2, "fir": -0.2, "oak": -0.9}


def ballot(id: int, names: str | tuple[str, ...], verdict: Verdict | None, **about: object) -> Ballot:
    sides = tuple(Side(name, None, [{"role": "user", "content": "Who?"}], f"by {name}", "stop") for name in names)
    settings: Any = {"blind": True, "state": "revealed", "annotator": f"p{id % 12}"} | about
    return Ballot(id, datetime.datetime.now(datetime.UTC), sides, 0, verdict=verdict, **settings)


def drawn(n: int, tie: float = 0.4, seed: int = 0, first: float = 0.0) -> list[Ballot]:
    """Draw ballots by Davidson's model, with `first` more log odds for the side shown first."""
    rng = random.Random(seed)
    ballots = []
    for id in range(n):
        one, other = rng.sample(sorted(TRUE), 2)
        odds = [math.exp(TRUE[one] + first), math.exp(TRUE[other]), tie * math.exp((TRUE[one] + TRUE[other]) / 2)]
        verdict = rng.choices([Verdict("best", 0), Verdict("best", 1), Verdict("tie")], odds)[0]
        ballots.append(ballot(id, (one, other), verdict))
    return ballots


def test_places_are_by_strength_and_shared_where_intervals_meet() -> None:
    board = leaderboard(drawn(400))
    assert [place.variant for place in board.places] == ["ash", "elm", "fir", "oak"]
    assert board.votes == 400 and board.people == 12 and not board.problem
    for place in board.places:
        assert place.interval is not None
        stronger = [other for other in board.places if other.interval and other.interval.low > place.interval.high]
        assert place.rank == 1 + len(stronger)
    few = leaderboard(drawn(30))
    assert few.places[0].rank == few.places[1].rank == 1 and any("preliminary" in line for line in few.warnings)


def test_intervals_are_wider_than_those_of_one_variant_alone() -> None:
    board = leaderboard(drawn(300))
    assert board.strengths is not None
    alone = {one.variant: one.interval for one in board.strengths.ranked}
    for place in board.places:
        own = alone[place.variant]
        assert place.interval is not None and own is not None
        assert place.interval.low < own.low and own.high < place.interval.high


def test_only_blind_verdicts_count() -> None:
    ballots = [
        *drawn(100),
        ballot(900, ("oak", "ash"), Verdict("best", 0), blind=False),
        ballot(901, ("oak", "ash"), None, state="open"),
        ballot(902, ("oak", "ash"), None, state="void"),
    ]
    board = leaderboard(ballots)
    assert board.votes == 100
    assert board.left_out == {"names were shown": 1, "never judged": 1, "an answer failed or was stopped": 1}


def test_variants_that_were_never_compared_are_named_and_not_ranked() -> None:
    apart = [ballot(500 + k, ("yew", "box"), Verdict("best", k % 2)) for k in range(4)]
    board = leaderboard([*drawn(100), *apart])
    assert board.apart == (("box", "yew"),) and {place.variant for place in board.places} == set(TRUE)
    assert any("never compared" in line and "box, yew" in line for line in board.warnings)


def test_a_variant_that_never_lost_has_no_finite_strength() -> None:
    board = leaderboard([ballot(k, ("ash", "oak"), Verdict("best", 0)) for k in range(9)])
    assert not board.places and "never won or tied against ash" in board.problem
    assert board.wins == {("ash", "oak"): 9}


def test_a_side_that_wins_more_often_is_said() -> None:
    assert not leaderboard(drawn(400)).side.is_biased
    biased = leaderboard(drawn(400, first=0.8))
    assert biased.side.is_biased and any("side shown first" in line for line in biased.warnings)


def test_alpha_is_krippendorffs() -> None:
    """The example of binary data by two observers of Krippendorff (2011), Computing Krippendorff's alpha, B: 0.095."""
    first, second = "0100000000", "1110010010"
    ballots = []
    for unit, pair in enumerate(zip(first, second, strict=True)):
        for judged in pair:
            sides = tuple(Side(name, None, [], f"{name} {unit}", "stop") for name in ("ash", "oak"))
            now = datetime.datetime.now(datetime.UTC)
            verdict = Verdict("best", int(judged))
            ballots.append(Ballot(len(ballots), now, sides, 0, verdict=verdict, blind=True, state="revealed"))
    assert agreement(ballots) == pytest.approx(0.095, abs=5e-4)
    assert agreement(drawn(1)) is None


def test_the_fewest_votes_that_change_the_order_do_and_fewer_do_not() -> None:
    rng = random.Random(2)
    ballots = [
        ballot(k, pair, Verdict("best", rng.random() > odds))
        for k, (pair, odds) in enumerate([(("ash", "elm"), 0.55), (("ash", "oak"), 0.6), (("elm", "oak"), 0.6)] * 10)
    ]  # fmt: skip
    outcomes = outcomes_of(ballots)
    whole = strengths(outcomes)
    weak = fragility(whole, outcomes)
    assert weak is not None and weak.dropped == 2

    def swapped(dropped: tuple[int, ...]) -> bool:
        kept = [outcome for at, outcome in enumerate(outcomes) if at not in dropped]
        return strengths(kept).difference(weak.below, weak.above).value > 1e-9

    assert any(swapped(some) for some in itertools.combinations(range(len(outcomes)), weak.dropped))
    for fewer in range(1, weak.dropped):
        assert not any(swapped(some) for some in itertools.combinations(range(len(outcomes)), fewer))


def test_an_order_that_a_tenth_of_the_votes_bears_out_is_not_called_fragile() -> None:
    outcomes = [Outcome("ash", "oak", float(k % 10 != 0), f"p{k % 9}") for k in range(200)]
    assert fragility(strengths(outcomes), outcomes) is None


def test_the_bootstrap_agrees_with_the_sandwich() -> None:
    outcomes = outcomes_of(drawn(600))
    many = [outcome._replace(cluster=f"p{at % 60}") for at, outcome in enumerate(outcomes)]
    counts = counted(sorted(TRUE), many)
    fitted = davidson.fit(counts.pairs())
    sandwich = np.sqrt(np.diag(davidson.covariance(counts, fitted)))[:4]
    drawn_again = davidson.bootstrap(counts, fitted, 400)
    assert len(drawn_again) == 400 and drawn_again.std(axis=0) == pytest.approx(sandwich, rel=0.15)
    assert np.abs(davidson.cluster_scores(counts, fitted).sum(axis=0)).max() < 1e-8


def test_the_best_of_several_counts_once() -> None:
    """Weights make a ballot of four count as one of two."""
    four, two = ballot(1, ("ash", "elm", "fir", "oak"), Verdict("best", 1)), ballot(2, ("ash", "elm"), Verdict("tie"))
    outcomes = outcomes_of([four, two, ballot(3, ("ash", "elm", "oak"), Verdict("bad"))])
    for person in ("person p1", "person p2", "person p3"):
        assert sum(outcome.weight for outcome in outcomes if outcome.cluster == person) == pytest.approx(1)
