"""The runner of evaluations that declare items and a score: it asks a Backend, scores the answers, averages."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from harness.contract import Evaluation, EvaluationContext, EvaluationItem, LeftOut
from harness.contract.backends import Answer, Backend, Request, require_capabilities
from harness.errors import HarnessError, PluginError, listed
from harness.measure import statistics
from harness.nouns import Result, Sample, Score


def results(
    evaluation: Evaluation,
    backend: Backend,
    options: object,
    context: EvaluationContext,
    expect: Callable[[int], None] = lambda n: None,
    advance: Callable[[int], None] = lambda n: None,
) -> Iterable[Result]:
    """Return the results of an evaluation, of its own `run` or of its items.

    Args:
        expect: called with the number of requests; `advance` with the number of those that are answered.

    Raises:
        HarnessError: where the backend lacks what the evaluation needs, or there is no item.
        PluginError: where `items` or `score` returns something else than declared.
    """
    require_capabilities(backend, evaluation.needs, f"the evaluation {evaluation.name!r}")
    if evaluation.run is not None:
        return evaluation.run(backend, options, context)
    return [_of_items(evaluation, backend, options, context, expect, advance)]


def _of_items(
    evaluation: Evaluation,
    backend: Backend,
    options: object,
    context: EvaluationContext,
    expect: Callable[[int], None],
    advance: Callable[[int], None],
) -> Result:
    assert evaluation.items is not None
    items, left_out = askable(evaluation, evaluation.items(options, context), backend)
    asked = [(number, place) for number, item in enumerate(items) for place in range(len(item.requests))]
    expect(len(asked))
    answers: list[dict[int, Answer]] = [{} for _ in items]
    for index, answer in backend.ask([items[number].requests[place] for number, place in asked]):
        number, place = asked[index]
        answers[number][place] = answer
        advance(1)
    samples = tuple(
        _sample(evaluation, item, [its[place] for place in range(len(item.requests))])
        for item, its in zip(items, answers, strict=True)
    )
    details = {"left_out": left_out} if left_out else {}
    warnings = tuple(f"{count} items are left out: {reason}" for reason, count in left_out.items())
    return Result(evaluation.name, _scores(evaluation, samples), samples, details, warnings)


def askable(
    evaluation: Evaluation, given: Iterable[object], backend: Backend
) -> tuple[list[EvaluationItem], dict[str, int]]:
    """Return the items that can be asked of a backend, and the number of the others by the reason.

    Raises:
        HarnessError: where none can be asked.
        PluginError: for something else than an item.
    """
    items: list[EvaluationItem] = []
    left_out: Counter[str] = Counter()
    for item in given:
        if isinstance(item, LeftOut):
            left_out[item.reason] += 1
        elif not isinstance(item, EvaluationItem) or not item.requests:
            raise PluginError(
                f"evaluation {evaluation.name!r}: items gave {item!r:.80}, expected EvaluationItem with requests"
            )
        elif missing := [need for need in item.needs if need not in backend.capabilities]:
            left_out[f"{backend.name} does not offer {listed(missing)}"] += 1
        else:
            items.append(item)
    if not items:
        reasons = "".join(f"; {count} are left out: {reason}" for reason, count in left_out.items())
        raise HarnessError(f"the evaluation {evaluation.name!r} has no items with these options{reasons}")
    return items, dict(left_out)


def _sample(evaluation: Evaluation, item: EvaluationItem, answers: Sequence[Answer]) -> Sample:
    assert evaluation.score is not None
    metrics = {name: float(value) for name, value in evaluation.score(item, answers).items()}
    return Sample(
        id=f"{item.id}:{content_hash(item)}",
        metrics=metrics,
        prompt=_question(item.requests[0]),
        response=answers[0].text,
        target=item.target,
        weight=item.weight,
        category=item.category,
        reasoning=answers[0].reasoning,
        group=item.group,
        finish=answers[0].finish,
        prompt_ids=answers[0].prompt_ids or (),
        weights=item.weights,
    )


def content_hash(item: EvaluationItem) -> str:
    """Return a hash of what is asked and wanted, the same whatever answers: messages, tools, sampling and target."""
    asked = [
        [
            request.prompt if request.messages is None else [message.as_dict() for message in request.messages],
            [dict(tool) for tool in request.tools],
            [request.sampling.max_tokens, request.sampling.temperature, request.sampling.top_p, request.sampling.seed],
            list(request.sampling.stop),
        ]
        for request in item.requests
    ]
    text = json.dumps([asked, item.target], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _question(request: Request) -> str:
    """Return the words of the last user turn, or the text that is gone on with."""
    if (messages := request.messages) is not None:
        return next((message.content for message in reversed(messages) if message.role == "user"), "")
    return request.prompt if isinstance(request.prompt, str) else ""


def _scores(evaluation: Evaluation, samples: Sequence[Sample]) -> dict[str, Score]:
    """Return the mean of each metric, by weight, and that of each category where there are several."""
    scores: dict[str, Score] = {}
    groups = [""] + (names if len(names := sorted({s.category for s in samples if s.category})) > 1 else [])
    for metric in dict.fromkeys(name for sample in samples for name in sample.metrics):
        for category in groups:
            having = [s for s in samples if metric in s.metrics and category in ("", s.category)]
            if having:
                name = f"{metric}/{category}" if category else metric
                mean = statistics.of_samples(having, metric)
                scores[name] = Score(*mean, higher_is_better=metric not in evaluation.lower_is_better)
    return scores
