"""The evaluation `judge`: another model compares answers with a reference's, or grades them.

Pairs are judged in both orders. Answers are asked for turn by turn, each with the answers before it. What the judge
says is a figure about the judge as well: votes of people on the same pairs are shown beside it, where there are any.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

import pydantic
from pydantic import Field

from harness.contract import Answer, Backend, Evaluation, EvaluationContext, Request, Sampling
from harness.errors import HarnessError
from harness.extras import require
from harness.measure import statistics
from harness.measure.statistics import Estimate
from harness.nouns import Message, Remote, Result, Sample, Score
from harness.nouns.variants import KEY_VARIABLE, SCHEME
from harness.options import Options
from harness_evaluation import verdicts
from harness_evaluation.human import blind_votes
from harness_evaluation.progress import progress_bar
from harness_evaluation.questions import Question, read_answers, read_questions

if TYPE_CHECKING:
    from harness_evaluation.judging import Judge

Positive = Annotated[int, Field(gt=0)]
# What decides the verdicts besides the options.
DETAILS: Mapping[str, Any] = {
    "judge_temperature": 0,
    "verdict_rule": "both orders; a win where both verdicts agree, else a tie; no verdict after all tries is a tie",
}
_SCORES: Mapping[verdicts.Verdict, float] = {"A": 1.0, "B": 0.0, "tie": 0.5}


class JudgeOptions(Options):
    """The options in a recipe. `judge` is `openai:URL#MODEL`; its key is in the variable `key_variable`.

    `against` is the variant to compare with (the run's base, if it is not named), `against_path` a file of answers
    instead. `references_path` has right answers, which a judge that grades is shown.
    """

    judge: str
    questions_path: Path
    mode: Literal["pairs", "grades"] = "pairs"
    against: str | None = None
    against_path: Path | None = None
    references_path: Path | None = None
    votes: str | None = None
    key_variable: str = KEY_VARIABLE
    max_tokens: Positive = 512
    verdict_tokens: Positive = 512
    tries: Positive = 3
    concurrency: Positive = 4
    budget_tokens: Positive | None = None
    limit: Positive | None = None
    question: str | None = None  # filled in, so that records hold what was asked

    @pydantic.model_validator(mode="before")
    @classmethod
    def _own_question(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and not values.get("question"):
            own = verdicts.GRADE_QUESTION if values.get("mode") == "grades" else verdicts.PAIR_QUESTION
            return {**values, "question": own}
        return values

    @pydantic.field_validator("judge")
    @classmethod
    def _names_a_remote(cls, judge: str) -> str:
        url, _, model = judge.removeprefix(SCHEME).partition("#")
        if not judge.startswith(SCHEME) or not url.startswith(("http://", "https://")) or not model:
            raise ValueError(f"expected {SCHEME}https://host/v1#model")
        return judge

    @pydantic.model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.against is not None and self.against_path is not None:
            raise ValueError("against and against_path exclude each other")
        if self.mode == "grades" and (self.against or self.against_path):
            raise ValueError("a judge that grades compares with nothing: leave against out, or set mode: pairs")
        if self.mode == "pairs" and self.references_path:
            raise ValueError("references_path goes with mode: grades")
        if "{conversations}" not in self.asked:
            raise ValueError("question needs the placeholder {conversations} for what is judged")
        return self

    @property
    def asked(self) -> str:
        """The question that the judge is asked."""
        assert self.question is not None
        return self.question


class Judged(NamedTuple):
    """One pair that was judged: the score (1 won, 0 lost, 0.5 tie), and the verdict of each order, None for none."""

    score: float
    verdicts: tuple[verdicts.Verdict | None, verdicts.Verdict | None]

    @property
    def is_inconsistent(self) -> bool:
        """True where the two orders have different winners."""
        first, second = self.verdicts
        return None not in (first, second) and first != _swapped(second)


def run(backend: Backend, options: JudgeOptions, context: EvaluationContext) -> Iterator[Result]:
    """Yield one result, of pairs or of grades."""
    require("openai", "generation")
    from harness_evaluation.judging import Judge

    questions = read_questions(options.questions_path)[: options.limit]
    answers = answered(backend, questions, options.max_tokens)
    with progress_bar(f"judge of {backend.name}") as bar:
        judge = functools.partial(
            Judge, _remote(options), os.environ.get(options.key_variable), max_tokens=options.verdict_tokens,
            tries=options.tries, advance=bar.advance,
        )  # fmt: skip
        if options.mode == "grades":
            bar.expect(sum(map(len, answers)))
            yield _graded(backend.name, questions, answers, options, _with_limits(judge, options))
            return
        other, others = _others(backend.name, questions, options, context)
        bar.expect(2 * len(questions))
        judged = judged_pairs(_with_limits(judge, options), options.asked, questions, answers, others)
        yield _compared((backend.name, other), questions, answers, others, judged, options)


EVALUATION = Evaluation(
    "judge",
    "another model compares answers with those of a reference, in both orders, or grades them",
    JudgeOptions,
    run,
    lambda options, context: (
        (question.id, turn) for question in read_questions(options.questions_path) for turn in question.turns
    ),
    requests=lambda backend, options, context: (
        _request(question, (), options.max_tokens)
        for question in read_questions(options.questions_path)[: options.limit]
    ),  # later turns depend on the answers to these
)


def answered(backend: Backend, questions: Sequence[Question], max_tokens: int) -> list[list[Answer]]:
    """Return the answers to all turns of each question; a later turn is asked with the answers before it."""
    answers: list[list[Answer]] = [[] for _ in questions]
    for turn in range(max(len(question.turns) for question in questions)):
        asked = [number for number, question in enumerate(questions) if len(question.turns) > turn]
        requests = [_request(questions[number], answers[number], max_tokens) for number in asked]
        for index, answer in backend.ask(requests):
            answers[asked[index]].append(answer)
    return answers


def judged_pairs(
    judge: Judge,
    question: str,
    questions: Sequence[Question],
    answers: Sequence[Sequence[Answer]],
    others: Sequence[Sequence[str]],
) -> list[Judged]:
    """Return the judge's verdicts on all pairs, each in both orders; equal answers are a tie without asking."""
    asked: list[str] = []
    for one, mine, theirs in zip(questions, answers, others, strict=True):
        if [answer.text for answer in mine] != list(theirs):
            a, b = _turns(one, [answer.text for answer in mine]), _turns(one, theirs)
            asked += [verdicts.pair_question(question, a, b), verdicts.pair_question(question, b, a)]
    given: Iterator[verdicts.Verdict | None] = iter(judge.ask(asked, verdicts.verdict_in, verdicts.PAIR_REMINDER))
    judged = []
    for mine, theirs in zip(answers, others, strict=True):
        if [answer.text for answer in mine] == list(theirs):
            judged.append(Judged(0.5, ("tie", "tie")))
            continue
        first, second = next(given), next(given)
        agreed = first if first == _swapped(second) else None
        judged.append(Judged(_SCORES.get(agreed or "tie", 0.5), (first, second)))
    return judged


def _compared(
    names: tuple[str, str],
    questions: Sequence[Question],
    answers: Sequence[Sequence[Answer]],
    others: Sequence[Sequence[str]],
    judged: Sequence[Judged],
    options: JudgeOptions,
) -> Result:
    samples = tuple(
        _sample(
            question, mine, {"win_rate": one.score, "inconsistent": float(one.is_inconsistent),
                             "no_verdict": float(None in one.verdicts)},
            target="\n\n".join(theirs),
        )
        for question, mine, theirs, one in zip(questions, answers, others, judged, strict=True)
    )  # fmt: skip
    scores = {
        name: Score(*statistics.of_samples(samples, name), higher_is_better=name == "win_rate")
        for name in ("win_rate", "inconsistent", "no_verdict")
    }
    longer_by = [
        sum(len(answer.text) for answer in mine) - sum(map(len, theirs))
        for mine, theirs in zip(answers, others, strict=True)
    ]
    scores_of_items = [one.score for one in judged]
    control, effect, warnings = _at_equal_length(scores_of_items, longer_by)
    if control is not None:
        scores["length_controlled_win_rate"] = Score(*control)
    agreement = _agreement(names, questions, scores_of_items, options)
    if agreement is None and names[0] != names[1]:
        warnings.append(f"no votes of people on these questions for {names[0]} and {names[1]}: the judge is unproven")
    if agreement is not None:
        scores["human_agreement"] = Score(*agreement)
    firsts = [verdict for one in judged for verdict in one.verdicts if verdict in ("A", "B")]
    details = {
        **DETAILS,
        "against": names[1],
        "identical_answers": sum(
            [a.text for a in mine] == list(theirs) for mine, theirs in zip(answers, others, strict=True)
        ),
        "first_place_share": firsts.count("A") / len(firsts) if firsts else None,
        "length_effect": effect,
    }
    return Result("judge", scores, samples, details, tuple(warnings))


def _at_equal_length(
    scores: Sequence[float], longer_by: Sequence[int]
) -> tuple[Estimate | None, list[float | None] | None, list[str]]:
    """Return the length-controlled win rate, the effect of length with its standard error, and warnings."""
    require("numpy", "evaluation")
    from harness.measure.controlled import controlled
    from harness.measure.logits import NoFiniteFitError

    try:
        rate, effect = controlled(scores, longer_by, [""] * len(scores))
    except NoFiniteFitError as error:
        return None, None, [f"no length-controlled win rate: {error}"]
    return rate, None if effect is None else [effect.value, effect.stderr], []


def _graded(
    name: str,
    questions: Sequence[Question],
    answers: Sequence[Sequence[Answer]],
    options: JudgeOptions,
    judge: Judge,
) -> Result:
    """Return the mean grade, of all turns and of each; the turns of a question are one cluster."""
    references = read_answers(options.references_path) if options.references_path else {}
    asked, items = [], []
    for question, mine in zip(questions, answers, strict=True):
        turns = _turns(question, [answer.text for answer in mine])
        for turn in range(len(turns)):
            shown = turns[: turn + 1]
            asked.append(verdicts.grade_question(options.asked, shown, references.get(question.id, ())[: turn + 1]))
            items.append((question, mine, turn))
    grades = judge.ask(asked, verdicts.grade_in, verdicts.GRADE_REMINDER)
    samples = tuple(
        _sample(question, mine[: turn + 1], {"grade": grade}, turn=turn)
        for (question, mine, turn), grade in zip(items, grades, strict=True)
        if grade is not None
    )
    if not samples:
        raise HarnessError(f"{options.judge} gave {name} no grade that can be read, in {options.tries} tries each")
    scores = {"grade": Score(*statistics.of_samples(samples, "grade"))}
    for category in sorted({sample.category for sample in samples if sample.category}):
        among = [sample for sample in samples if sample.category == category]
        scores[f"grade/{category}"] = Score(*statistics.of_samples(among, "grade"))
    missing = grades.count(None)
    left_out = {"left_out": {"the judge gave no grade": missing}} if missing else {}
    warnings = (f"{missing} of {len(grades)} answers are left out: the judge gave them no grade",) if missing else ()
    return Result("judge_grades", scores, samples, {**DETAILS, **left_out}, warnings)


def _sample(
    question: Question,
    answers: Sequence[Answer],
    metrics: Mapping[str, float],
    target: str = "",
    turn: int | None = None,
) -> Sample:
    content = hashlib.sha256(json.dumps(question.turns).encode()).hexdigest()[:12]
    ended = "length" if any(answer.finish == "length" for answer in answers) else "stop"
    return Sample(
        id=f"{question.id}{'' if turn is None else f' turn {turn + 1}'}:{content}",
        metrics=metrics,
        prompt="\n\n".join(question.turns[: len(answers)]),
        response="\n\n".join(answer.text for answer in answers),
        target=target,
        category=question.category,
        reasoning=answers[-1].reasoning,
        group="" if turn is None else question.id,
        finish=ended,
    )


def _others(
    name: str,
    questions: Sequence[Question],
    options: JudgeOptions,
    context: EvaluationContext,
) -> tuple[str, list[list[str]]]:
    """Return the name of what is compared with, and its answers to all turns of each question."""
    if options.against_path is not None:
        by_id = read_answers(options.against_path)
        for question in questions:
            if len(by_id.get(question.id, ())) < len(question.turns):
                raise HarnessError(
                    f"{options.against_path}: the question {question.id!r} has {len(question.turns)} turns, and the "
                    f"file has answers to {len(by_id.get(question.id, ()))} of them"
                )
        return options.against_path.stem, [list(by_id[q.id][: len(q.turns)]) for q in questions]
    against = options.against or (name if name.endswith("@base") else f"{name}@base")
    if context.other is None:
        raise HarnessError("judge: no other variant can be opened here to compare with; name a file: against_path")
    try:
        other = context.other(against)
    except HarnessError as error:
        advice = "" if options.against else ". Name what to compare with: `against: VARIANT` or `against_path: FILE`"
        raise HarnessError(f"judge: {error}{advice}") from None
    answers = answered(other, questions, options.max_tokens)
    return other.name, [[answer.text for answer in one] for one in answers]


def _agreement(
    names: tuple[str, str], questions: Sequence[Question], scores: Sequence[float], options: JudgeOptions
) -> Estimate | None:
    """Return the share of people's votes on the same questions and pair that the judge agrees with, by person.

    Only blind votes count. A vote is on the same question where the side's messages are the question's turns; the
    answers may be others.
    """
    if options.votes is None:
        return None
    from harness.measure.strengths import outcomes_of

    by_turns = {question.turns: score for question, score in zip(questions, scores, strict=True)}
    agrees, people = [], []
    for ballot in blind_votes(options.votes)[0]:
        asked = {tuple(m["content"] for m in side.messages if m["role"] == "user") for side in ballot.sides}
        judged = by_turns.get(asked.pop()) if len(asked) == 1 else None
        for outcome in outcomes_of([ballot]) if judged is not None else ():
            if {outcome.first, outcome.second} == set(names) and names[0] != names[1]:
                voted = outcome.score if outcome.first == names[0] else 1 - outcome.score
                agrees.append(float(voted == judged))
                people.append(outcome.cluster)
    return statistics.mean(agrees, groups=people) if agrees else None


def _request(question: Question, answers: Sequence[Answer], max_tokens: int) -> Request:
    """Return the next turn, asked with the answers before it."""
    messages: list[Message] = []
    for asked, answer in zip(question.turns, answers, strict=False):
        messages += [Message("user", asked), Message("assistant", answer.text)]
    messages.append(Message("user", question.turns[len(answers)]))
    return Request(tuple(messages), sampling=Sampling(max_tokens))


def _turns(question: Question, answers: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(question.turns, answers, strict=True))


def _swapped(verdict: verdicts.Verdict | None) -> verdicts.Verdict | None:
    """Return a verdict on B and A as one on A and B."""
    swapped: Mapping[verdicts.Verdict | None, verdicts.Verdict] = {"A": "B", "B": "A"}
    return swapped.get(verdict, verdict)


def _remote(options: JudgeOptions) -> Remote:
    url, _, model = options.judge.removeprefix(SCHEME).partition("#")
    return Remote(url.rstrip("/"), model, options.key_variable)


def _with_limits(judge: Callable[..., Judge], options: JudgeOptions) -> Judge:
    """Return the judge with its limits, and the journal of its answers in the cache folder."""
    from harness.client.asking import Limits
    from harness.files import cache_folder
    from harness.measure.answers import Journal

    limits = Limits(concurrency=options.concurrency, budget_tokens=options.budget_tokens)
    name = hashlib.sha256(options.judge.encode()).hexdigest()[:16]
    return judge(limits=limits, journal=Journal(cache_folder() / "verdicts" / f"{name}.jsonl"))
