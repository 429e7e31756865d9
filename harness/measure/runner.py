"""The runner of evaluations: it asks Backends, several at once where it can, scores the answers, averages."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.contract import Evaluation, EvaluationContext, EvaluationItem, LeftOut
from harness.contract.backends import Answer, Backend, Request, require_capabilities
from harness.errors import HarnessError, PluginError, listed
from harness.measure import statistics
from harness.measure.answers import KeptBackend
from harness.measure.asking import ask_all
from harness.measure.endings import warnings_of
from harness.measure.soundness import checked
from harness.nouns import Result, Sample, Score

if TYPE_CHECKING:
    from harness.plugins import PluginInfo

MOST_ITEMS = 1_000_000  # of one evaluation


def results(evaluation: Evaluation, backend: Backend, options: object, context: EvaluationContext) -> Iterable[Result]:
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
        asked: dict[Any, list[Request]] = {}
        keeping = [backend for backend in backends if isinstance(backend, KeptBackend)]
        for kept in keeping:
            if _rendering(kept) not in asked:
                asked[_rendering(kept)] = list(evaluation.requests(kept, options, context))
        for _ in ask_all([(kept, asked[_rendering(kept)]) for kept in keeping]):
            pass
    for number, backend in enumerate(backends):
        for result in checked(evaluation.run(backend, options, context), evaluation.name, plugin):
            yield number, result


def _rendering(backend: Backend) -> tuple[object, ...]:
    """Return what decides the requests of an evaluation that runs itself: they are built once for all that share it."""
    return backend.identity.template["sha256"], backend.longest_scored


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
            left_out[f"this variant does not offer {listed(missing)}"] += 1
        else:
            items.append(item)
        if len(items) > MOST_ITEMS:
            raise PluginError(
                f"evaluation {evaluation.name!r}: items gave more than {MOST_ITEMS:,}, and goes on: it has to end"
            )
    if not items:
        reasons = "".join(f"; {count} are left out: {reason}" for reason, count in left_out.items())
        raise HarnessError(f"the evaluation {evaluation.name!r} has no items with these options{reasons}")
    return items, dict(left_out)


class Questions(NamedTuple):
    """The items of an evaluation for one backend, those of them that are asked twice, and their requests in order."""

    items: list[EvaluationItem]
    left_out: dict[str, int]
    twice: list[int]
    requests: list[Request]

    @classmethod
    def of(cls, evaluation: Evaluation, given: Iterable[object], backend: Backend, share: float) -> Questions:
        items, left_out = askable(evaluation, given, backend)
        twice = sorted(repeated([content_hash(item) for item in items], share))
        requests = [request for item in items for request in item.requests]
        again = [request for number in twice for request in items[number].requests]
        return cls(items, left_out, twice, requests + again)


def repeated(hashes: Sequence[str], share: float) -> set[int]:
    """Return the numbers of the items that are asked twice: at least `share` of them, the same for all variants."""
    order = sorted(range(len(hashes)), key=lambda number: hashlib.sha256(hashes[number].encode()).digest())
    return set(order[: math.ceil(share * len(hashes))])


def _of_items(
    evaluation: Evaluation, backends: Sequence[Backend], options: object, context: EvaluationContext
) -> Iterator[tuple[int, Result]]:
    """Yield the result of each backend as soon as its last item is answered."""
    assert evaluation.items is not None
    given = list(evaluation.items(options, context))
    asked = [Questions.of(evaluation, given, backend, context.repeat_share) for backend in backends]
    answers: list[dict[int, Answer]] = [{} for _ in backends]
    for done in ask_all([(backend, its.requests) for backend, its in zip(backends, asked, strict=True)]):
        its, mine = asked[done.backend], answers[done.backend]
        mine[done.place] = done.answer
        if len(mine) == len(its.requests):
            yield done.backend, _result(evaluation, backends[done.backend], its, mine)


def _result(evaluation: Evaluation, backend: Backend, asked: Questions, answers: Mapping[int, Answer]) -> Result:
    ordered = iter([answers[index] for index in range(len(answers))])

    def sample(item: EvaluationItem) -> Sample:
        return _sample(evaluation, backend, item, list(itertools.islice(ordered, len(item.requests))))

    samples = [sample(item) for item in asked.items]
    for number in asked.twice:
        samples[number] = replace(samples[number], again=sample(asked.items[number]).metrics)
    details = {"left_out": asked.left_out} if asked.left_out else {}
    left_out = tuple(f"{count} items are left out: {reason}" for reason, count in asked.left_out.items())
    return Result(
        evaluation.name, _scores(evaluation, samples), tuple(samples), details, (*left_out, *warnings_of(samples))
    )


def _sample(evaluation: Evaluation, backend: Backend, item: EvaluationItem, answers: Sequence[Answer]) -> Sample:
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
