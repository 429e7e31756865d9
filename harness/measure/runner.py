"""The runner of evaluations: it asks Backends, several at once where it can, scores the answers, averages."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.contract import Evaluation, EvaluationContext, EvaluationItem
from harness.contract.backends import Answer, Backend, Request, require_capabilities
from harness.errors import HarnessError, PluginError
from harness.measure import statistics
from harness.measure.answers import KeptBackend
from harness.measure.asking import ask_all
from harness.measure.endings import warnings_of
from harness.measure.soundness import checked
from harness.nouns import Result, Sample, Score

if TYPE_CHECKING:
    from harness.plugins import PluginInfo


def results(
    evaluation: Evaluation, backend: Backend, options: object, context: EvaluationContext
) -> Iterable[Result]:
    """Return the results of an evaluation for one backend, of its own `run` or of its items; see `measure`."""
    require_capabilities(backend, evaluation.needed(options), f"the evaluation {evaluation.name!r}")
    if evaluation.run is not None:
        return evaluation.run(backend, options, context)
    return (result for _, result in _of_items(evaluation, [backend], options, context))


def measure(
    evaluation: Evaluation,
    backends: Sequence[Backend],
    options: object,
    context: EvaluationContext,
    plugin: PluginInfo,
) -> Iterator[tuple[int, Result]]:
    """Yield the results for all backends, each with the backend's number, checked, as they are there.

    All are asked at once: by their items, or by the `requests` of an evaluation that runs itself, whose answers are
    kept until its `run` asks for them.

    Raises:
        HarnessError: where a backend lacks what the evaluation needs, or there is no item.
        PluginError: where `items`, `score` or `run` returns something else than declared.
    """
    for backend in backends:
        require_capabilities(backend, evaluation.needed(options), f"the evaluation {evaluation.name!r}")
    if evaluation.run is None:
        for number, result in _of_items(evaluation, backends, options, context):
            yield from ((number, one) for one in checked([result], evaluation.name, plugin))
        return
    if evaluation.requests is not None and len(backends) > 1:
        keeping = [backend for backend in backends if isinstance(backend, KeptBackend)]
        for _ in ask_all([(kept, list(evaluation.requests(kept, options, context))) for kept in keeping]):
            pass
    for number, backend in enumerate(backends):
        for result in checked(evaluation.run(backend, options, context), evaluation.name, plugin):
            yield number, result


def items_of(evaluation: Evaluation, options: object, context: EvaluationContext) -> list[EvaluationItem]:
    """Return the items of an evaluation. Raises HarnessError where there is none, PluginError for anything else."""
    assert evaluation.items is not None
    items = list(evaluation.items(options, context))
    if not items:
        raise HarnessError(f"the evaluation {evaluation.name!r} has no items with these options")
    for item in items:
        if not isinstance(item, EvaluationItem) or not item.requests:
            raise PluginError(
                f"evaluation {evaluation.name!r}: items gave {item!r:.80}, expected EvaluationItem with requests"
            )
    return items


def repeated(hashes: Sequence[str], share: float) -> set[int]:
    """Return the numbers of the items that are asked twice: `share` of them, one at least, the same for all variants."""
    order = sorted(range(len(hashes)), key=lambda number: hashlib.sha256(hashes[number].encode()).digest())
    return set(order[: math.ceil(share * len(hashes))])


def _of_items(
    evaluation: Evaluation, backends: Sequence[Backend], options: object, context: EvaluationContext
) -> Iterator[tuple[int, Result]]:
    """Yield the result of each backend as soon as its last item is answered."""
    items = items_of(evaluation, options, context)
    twice = sorted(repeated([content_hash(item) for item in items], context.repeat_share))
    places = [(number, place) for number, item in enumerate(items) for place in range(len(item.requests))]
    again = [(number, place) for number, place in places if number in twice]
    requests = [items[number].requests[place] for number, place in (*places, *again)]
    answers: list[dict[int, Answer]] = [{} for _ in backends]
    for done in ask_all([(backend, requests) for backend in backends]):
        mine = answers[done.backend]
        mine[done.index] = done.answer
        if len(mine) == len(requests):
            yield done.backend, _result(evaluation, backends[done.backend], items, twice, mine)


def _result(
    evaluation: Evaluation, backend: Backend, items: Sequence[EvaluationItem], twice: Sequence[int], answers: Any
) -> Result:
    ordered = iter([answers[index] for index in range(len(answers))])
    samples = [
        _sample(evaluation, backend, item, list(itertools.islice(ordered, len(item.requests)))) for item in items
    ]
    for number in twice:
        second = list(itertools.islice(ordered, len(items[number].requests)))
        again = _sample(evaluation, backend, items[number], second)
        samples[number] = replace(samples[number], again=again.metrics)
    return Result(
        evaluation.name, _scores(evaluation, samples), tuple(samples), warnings=warnings_of(samples)
    )


def _sample(
    evaluation: Evaluation, backend: Backend, item: EvaluationItem, answers: Sequence[Answer]
) -> Sample:
    assert evaluation.score is not None
    asked, seconds = answers[0].prompt_ids or (), [answer.seconds for answer in answers if answer.seconds is not None]
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
        finish=next((answer.finish for answer in answers if answer.finish == "length"), answers[0].finish),
        input=backend.template.decoded(asked) if asked and backend.template is not None else "",
        seconds=round(sum(seconds), 4) if seconds else None,
        prompt_ids=asked,
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
                mean = statistics.mean([s.metrics[metric] for s in having], [s.weight for s in having])
                name = f"{metric}/{category}" if category else metric
                scores[name] = Score(*mean, higher_is_better=metric not in evaluation.lower_is_better)
    return scores
