"""The evaluation `human`: what people voted, as win rates and strengths of a variant. It asks the variant nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.contract import Backend, Evaluation, EvaluationContext
from harness.errors import HarnessError, known_names, nearest
from harness.extras import require
from harness.measure import statistics
from harness.nouns import Ballot, Result, Sample, Score
from harness.options import Options

if TYPE_CHECKING:
    from harness.measure.strengths import Outcome


class HumanOptions(Options):
    """The options in a recipe. `votes` is a votes database: a SQLite file, or a SQLAlchemy URL."""

    votes: str = "votes.db"


def run(backend: Backend, options: HumanOptions, context: EvaluationContext) -> Iterator[Result]:
    """Yield one result: `win_rate`, also against each other variant, a tie counting half, and `strength`.

    The strength is the log odds against the average variant, by Davidson's model of all votes. Votes of a person are
    one cluster. Only blind votes count; the others are counted as left out. Raises HarnessError where nobody voted on
    the variant.
    """
    require("numpy", "evaluation")
    from harness.measure.logits import NoFiniteFitError
    from harness.measure.strengths import outcomes_of, strengths

    ballots, left_out = blind_votes(options.votes)
    outcomes = outcomes_of(ballots)
    variants = sorted({name for outcome in outcomes for name in outcome[:2]})
    name = backend.name
    if name not in variants:
        raise HarnessError(
            f"{options.votes}: nobody voted on {name}.{nearest(name, variants)} "
            f"There are votes on {known_names(variants) if variants else 'none'}{_why(left_out)}"
        )
    samples = tuple(sample for ballot in ballots for sample in _samples(name, ballot, outcomes_of([ballot])))
    scores = {"win_rate": Score(*statistics.of_samples(samples, "win_rate"))}
    for other in sorted({sample.category for sample in samples}):
        among = [sample for sample in samples if sample.category == other]
        scores[f"win_rate/{other}"] = Score(*statistics.of_samples(among, "win_rate"))
    people = {outcome.cluster for outcome in outcomes}
    details: dict[str, Any] = {
        "votes": options.votes,
        "ballots": len(ballots),
        "clusters": len(people),
        "left_out": left_out,
    }
    warnings = [] if len(people) > 1 else ["all votes are one person's: nothing says what others would vote"]
    try:
        all_strengths = strengths(outcomes)
    except NoFiniteFitError as error:
        warnings.append(f"no strengths: {error}")
    else:
        mine = next(one for one in all_strengths.ranked if one.variant == name)
        scores["strength"] = Score(mine.value, mine.stderr, len(samples))
        differences = {
            other: [one.value, list(one.interval) if one.interval else None]
            for other in variants
            if other != name
            for one in [all_strengths.difference(name, other)]
        }
        details |= {"tie": all_strengths.tie, "stronger_than_by": differences}
    yield Result("human", scores, samples, details, tuple(warnings))


EVALUATION = Evaluation(
    "human", "what people voted on the page: win rates and strengths, with intervals", HumanOptions, run, asks=False
)


def blind_votes(votes: str) -> tuple[list[Ballot], dict[str, int]]:
    """Return the ballots of a votes database that count, and how many others do not, by reason.

    Raises HarnessError where there is none: opening must not create it.
    """
    require("sqlalchemy", "serving")
    from harness.measure.leaderboard import usable
    from harness.votes.store import Ballots, is_there

    if not is_there(votes):
        raise HarnessError(f"there is no votes database {votes}; `harness serve --votes FILE` keeps votes in one")
    return usable(Ballots(votes, reads=True))


def _why(left_out: Mapping[str, int]) -> str:
    """Return what was left out, for a message."""
    parts = [f"{count} where {reason}" for reason, count in left_out.items()]
    return f"; left out: {', '.join(parts)}" if parts else ""


def _samples(name: str, ballot: Ballot, outcomes: Sequence[Outcome]) -> Iterator[Sample]:
    """Yield the record of each pair that a vote on a variant decided, with the other side's answer as its target."""
    sides = {side.variant: side for side in ballot.sides}
    for first, second, score, cluster, weight, _ in outcomes:
        if name in (first, second):
            other = second if first == name else first
            messages = [message["content"] for message in sides[name].messages if message["role"] == "user"]
            yield Sample(
                id=f"ballot {ballot.id} against {other}",
                metrics={"win_rate": score if first == name else 1 - score},
                prompt=str(messages[-1]) if messages else "",
                response=sides[name].answer,
                target=sides[other].answer,
                weight=weight,
                category=other,
                group=cluster,
                finish=sides[name].finish or "",
            )
