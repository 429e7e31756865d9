"""The leaderboard of blind votes: ranks that the votes bear out, and what speaks against trusting them.

Only ballots of which all sides were blind and answered count. Importing this module imports numpy and scipy.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.extras import require
from harness.measure import davidson
from harness.measure.logits import NoFiniteFitError
from harness.measure.statistics import CONFIDENCE, Estimate, Interval
from harness.measure.strengths import (
    Outcome,
    Strength,
    Strengths,
    counted,
    half_width,
    outcomes_of,
    strengths_of,
    win_rate,
)
from harness.nouns import Ballot

numpy = require("numpy", "evaluation")

FEWEST_VOTES = 30  # of a variant, below which its place is preliminary
FEWEST_PEOPLE = 5  # below which intervals rest on too few clusters
FEWEST_REPEATS = 5  # of answers that several people judged, below which their agreement says nothing
MOST_DROPPED = 0.1  # of the votes, tried for what changes the order


class Place(NamedTuple):
    """One variant's place. `rank` is 1 and one more for each variant that is stronger beyond doubt.

    `interval` holds for all variants at once; None where it cannot be computed. `votes` are ballots that it was on.
    """

    variant: str
    rank: int
    strength: float
    interval: Interval | None
    win_rate: Estimate
    votes: int


class Side(NamedTuple):
    """The share of decided pairs that one side won, the one shown first or the one that finished first.

    `p_value` is the exact one against a half.
    """

    first_won: int
    decided: int
    p_value: float

    @property
    def is_biased(self) -> bool:
        return self.p_value < 1 - CONFIDENCE


class Fragility(NamedTuple):
    """The fewest votes found that change the order: without `dropped` of them, `below` is ahead of `above`."""

    above: str
    below: str
    dropped: int


@dataclass(frozen=True)
class Leaderboard:
    """The places, the strongest first, and what to know beside them. `apart`: groups never compared with the largest.

    `places` are empty where no finite strengths fit; `problem` says why. `left_out` counts ballots by reason. `effects`
    are what the controlled covariates add in log odds, where they differ as much as they usually do.
    """

    places: tuple[Place, ...]
    strengths: Strengths | None
    problem: str
    wins: Mapping[tuple[str, str], float]
    ties: Mapping[tuple[str, str], float]
    apart: tuple[tuple[str, ...], ...]
    votes: int
    people: int
    side: Side
    finish: Side
    agreement: float | None
    fragility: Fragility | None
    left_out: Mapping[str, int]
    effects: Mapping[str, Estimate]

    @property
    def warnings(self) -> list[str]:
        """Sentences for readers of the places."""
        lines = []
        if few := [place.variant for place in self.places if place.votes < FEWEST_VOTES]:
            lines.append(
                f"preliminary: {', '.join(few)} {'has' if len(few) == 1 else 'have'} under {FEWEST_VOTES} votes"
            )
        if self.places and self.people < FEWEST_PEOPLE:
            lines.append(f"intervals rest on {self.people} people; from {FEWEST_PEOPLE} on they can be trusted")
        lines += [
            f"never compared with the rest, directly or through others: {', '.join(group)}" for group in self.apart
        ]
        if self.side.is_biased:
            share = self.side.first_won / self.side.decided
            lines.append(f"the side shown first won {share:.0%} of {self.side.decided} (p = {self.side.p_value:.2g})")
        if self.finish.is_biased:
            share = self.finish.first_won / self.finish.decided
            odds = f"{share:.0%} of {self.finish.decided} (p = {self.finish.p_value:.2g})"
            lines.append(f"the side that was finished first won {odds}: shorter answers, or a pace that shows")
        if self.fragility is not None:
            above, below, dropped = self.fragility
            votes = "this vote" if dropped == 1 else f"these {dropped} votes"
            lines.append(f"dropping {votes} of {self.votes} changes the order: {below} is then ahead of {above}")
        return lines


def leaderboard(ballots: Iterable[Ballot], control: Sequence[str] = ()) -> Leaderboard:
    """Return the leaderboard of the verdicts on ballots.

    Intervals are simultaneous over variants by Bonferroni: a rank is wrong for any of them in 5 of 100 leaderboards at
    most. Errors are clustered by person.

    Args:
        control: covariates of the answers that are held equal, names among `styled.COVARIATES`.
    """
    everything = list(ballots)
    judged, left_out = usable(everything)
    again = [ballot for ballot in everything if ballot.repeat_of is not None and ballot.state != "void"]
    outcomes = outcomes_of(judged)
    names = sorted({name for outcome in outcomes for name in outcome[:2]})
    counts = counted(names, outcomes)
    together, apart = _compared(names, counts)
    kept = outcomes
    if apart:
        kept = [outcome for outcome in outcomes if outcome.first in together]
        names = sorted(together)
        counts = counted(names, kept)
    fitted, problem = None, ""
    effects: Mapping[str, Estimate] = {}
    try:
        fitted = strengths_of(names, counts)
        if control:
            from harness.measure.styled import styled

            fitted, effects = styled(judged, kept, control)
    except NoFiniteFitError as error:
        fitted, problem = None, str(error)
    of_variant = Counter(side.variant for ballot in judged for side in ballot.sides)
    places = _places(fitted, kept, of_variant) if fitted is not None else ()
    wins, ties = _matrix(outcomes)
    return Leaderboard(
        places, fitted, problem, wins, ties, apart, len(judged), len({outcome.cluster for outcome in outcomes}),
        _side(judged), _finish(judged), agreement([*judged, *again]),
        fragility(fitted, kept) if fitted is not None and not control else None, left_out, effects,
    )  # fmt: skip


def usable(ballots: Iterable[Ballot]) -> tuple[list[Ballot], dict[str, int]]:
    """Return the ballots that count, and of the others how many do not, by reason."""
    judged, left_out = [], Counter[str]()
    for ballot in ballots:
        if ballot.state == "void":
            left_out[ballot.note or "an answer failed or was stopped"] += 1
        elif ballot.verdict is None:
            left_out["never judged"] += 1
        elif not ballot.blind:
            left_out["names were shown"] += 1
        elif ballot.repeat_of is not None:
            left_out["earlier answers were shown again"] += 1
        elif any(side.reveals for side in ballot.sides):
            left_out["an answer says who it is"] += 1
        else:
            judged.append(ballot)
    return judged, dict(left_out)


def _compared(names: Sequence[str], counts: davidson.Counts) -> tuple[set[str], tuple[tuple[str, ...], ...]]:
    """Return the largest group of variants that were compared with one another, and the other groups."""
    if not names:
        return set(), ()
    groups = [tuple(names[at] for at in group) for group in davidson.groups_compared(counts.pairs())]
    return set(groups[0]), tuple(groups[1:])


def _places(fitted: Strengths, outcomes: Sequence[Outcome], of_variant: Mapping[str, int]) -> tuple[Place, ...]:
    wide = {one.variant: _simultaneous(one, fitted) for one in fitted.ranked}
    places = []
    for one in fitted.ranked:
        own = wide[one.variant]
        stronger = [other for other in wide.values() if own is not None and other is not None and other.low > own.high]
        rank = 1 + len(stronger)
        places.append(
            Place(one.variant, rank, one.value, own, win_rate(outcomes, one.variant), of_variant[one.variant])
        )
    return tuple(places)


def _simultaneous(one: Strength, fitted: Strengths) -> Interval | None:
    """Return the interval of a strength that holds for all variants at once."""
    if one.stderr is None:
        return None
    half = half_width(one.stderr, fitted.clusters, len(fitted.names))
    return Interval(one.value - half, one.value + half)


def _matrix(outcomes: Sequence[Outcome]) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """Return the wins of one variant over another, and the ties of two, in votes."""
    wins: dict[tuple[str, str], float] = defaultdict(float)
    ties: dict[tuple[str, str], float] = defaultdict(float)
    for first, second, score, _, weight, _ in outcomes:
        if score == 0.5:
            ties[first, second] += weight
            ties[second, first] += weight
        else:
            wins[(first, second) if score == 1 else (second, first)] += weight
    return dict(wins), dict(ties)


def _side(ballots: Sequence[Ballot]) -> Side:
    """Test whether the side shown first wins more or less often than the other, on ballots of two."""
    return _against_half([best == 0 for _, best in _decided(ballots)])


def _finish(ballots: Sequence[Ballot]) -> Side:
    """Test whether the side whose answer was finished first wins more or less often, on ballots of two."""
    timed = [(ballot.sides[best].seconds, ballot.sides[1 - best].seconds) for ballot, best in _decided(ballots)]
    return _against_half([won < lost for won, lost in timed if won is not None and lost is not None and won != lost])


def _decided(ballots: Sequence[Ballot]) -> list[tuple[Ballot, int]]:
    """Return the ballots of two on which one side is better, with the position of that side."""
    pairs = [(ballot, ballot.verdict.best) for ballot in ballots if len(ballot.sides) == 2 and ballot.verdict]
    return [(ballot, best) for ballot, best in pairs if best is not None]


def _against_half(won: Sequence[bool]) -> Side:
    stats = require("scipy.stats", "evaluation")
    return Side(sum(won), len(won), float(stats.binomtest(sum(won), len(won)).pvalue) if won else 1.0)


def agreement(ballots: Sequence[Ballot]) -> float | None:
    """Return Krippendorff's alpha of the verdicts on equal answers, as names of categories; None without repeats.

    A unit is a pair of variants with the same question and answers, judged on several ballots. Krippendorff (2004),
    Content Analysis, 2nd ed., ch. 11; for nominal data 1 - (n - 1) * sum o_disagreeing / sum n_c n_k.
    """
    units: dict[Any, list[str]] = defaultdict(list)
    for ballot in ballots:
        if len(ballot.sides) != 2 or ballot.verdict is None:
            continue
        sides = sorted(ballot.sides, key=lambda side: (side.variant, side.answer))
        question = repr(ballot.sides[0].messages)
        best = ballot.verdict.best
        chosen = ballot.verdict.kind if best is None else ballot.sides[best].variant
        units[question, *((side.variant, side.answer) for side in sides)].append(chosen)
    repeated = [values for values in units.values() if len(values) > 1]
    coincidences: dict[tuple[str, str], float] = defaultdict(float)
    for values in repeated:
        for one, other in itertools.permutations(values, 2):
            coincidences[one, other] += 1 / (len(values) - 1)
    totals: dict[str, float] = defaultdict(float)
    for (one, _), count in coincidences.items():
        totals[one] += count
    n = sum(totals.values())
    if len(repeated) < FEWEST_REPEATS:
        return None
    expected = sum(totals[one] * totals[other] for one, other in itertools.permutations(totals, 2))
    if not expected:
        return None
    return 1 - (n - 1) * sum(count for (one, other), count in coincidences.items() if one != other) / expected


def fragility(fitted: Strengths, outcomes: Sequence[Outcome]) -> Fragility | None:
    """Return the fewest votes whose loss swaps two neighbours, or None where more than a tenth of them would be needed.

    Votes are dropped greedily by their influence on the difference of the two, c' H^-1 g; the fewest that do it are
    found by halving and verified by a refit. Broderick, Giordano and Meager (2020), An automatic finite-sample
    robustness metric, arXiv:2011.14999.
    """
    most = int(MOST_DROPPED * len(outcomes))
    singles = counted(fitted.names, [outcome._replace(cluster=str(at)) for at, outcome in enumerate(outcomes)])
    whole = davidson.fit(singles.pairs())
    influence = davidson.cluster_scores(singles, whole) @ whole.inverse
    weakest: Fragility | None = None
    for above, below in itertools.pairwise(fitted.ranked):
        contrast = numpy.zeros(len(whole.inverse))
        contrast[fitted.names.index(above.variant)], contrast[fitted.names.index(below.variant)] = 1, -1
        order = numpy.argsort(-(influence @ contrast))
        fewest = _fewest(singles, whole, order, contrast[: len(fitted.names)], most)
        if fewest is not None and (weakest is None or fewest < weakest.dropped):
            weakest = Fragility(above.variant, below.variant, fewest)
            most = fewest
    return weakest


def _fewest(singles: davidson.Counts, whole: davidson.Fit, order: Any, contrast: Any, most: int) -> int | None:
    """Return the smallest number of votes, from the beginning of `order`, without which the contrast is negative."""

    def swaps(dropped: int) -> bool:
        times = numpy.ones(singles.clusters)
        times[order[:dropped]] = 0
        try:
            return bool(contrast @ davidson.fit(singles.pairs(times), whole).strengths < 0)
        except NoFiniteFitError:
            return False

    low, high = 0, 1
    while high <= most and not swaps(high):
        low, high = high, high * 2
    if high > most:
        if most <= low or not swaps(most):
            return None
        high = most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if swaps(middle) else (middle, high)
    return high
