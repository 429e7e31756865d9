"""The output of lm-eval in our nouns: results of tasks and groups, with a record of every item."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from harness.contract import Answer
from harness.measure import statistics
from harness.measure.endings import warnings_of
from harness.measure.records import categories
from harness.nouns import Result, Sample, Score


class Reading(NamedTuple):
    """A record of what lm-eval's model asked: the question of each rendered prompt, each answer, and the template."""

    questions: Mapping[str, str]
    answers: Mapping[tuple[str, ...], Answer]
    template: Any


def as_result(
    name: str, task: Any, output: Mapping[str, Any], reading: Reading, again: Sequence[Mapping[str, Any]]
) -> Result:
    """Return one task's output in our nouns. A metric is called `metric`, or `metric,filter` for a named filter.

    Args:
        again: what lm-eval logged of the items that were asked twice.
    """
    means = _averaged(task, output["samples"][name])
    second = {doc: _metrics(task, entries, means)[0] for doc, entries in _by_doc(again).items()}
    samples = tuple(
        _as_sample(task, entries, means, reading, second.get(doc, {}))
        for doc, entries in sorted(_by_doc(output["samples"][name]).items())
    )

    scores: dict[str, Score] = {}
    aggregated = output["results"][name]
    directions = output["higher_is_better"].get(name) or {}
    for key, value in aggregated.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        score, up = _called(metric, filter_name), directions.get(metric) is not False
        if score in means:
            scores |= _mean_scores(score, samples, up)
        else:
            stderr = aggregated.get(f"{metric}_stderr,{filter_name}")
            known = isinstance(stderr, float) and math.isfinite(stderr)  # lm-eval says "N/A" or nan where it has none
            scores[score] = Score(float(value), stderr if known else None, len(samples), up)
    details = {
        "task_version": task.VERSION,
        "num_fewshot": output["n-shot"].get(name, 0),
        "output_type": task.OUTPUT_TYPE,
        "generation_kwargs": task.get_config("generation_kwargs") if task.OUTPUT_TYPE == "generate_until" else None,
    }
    if task.OUTPUT_TYPE == "generate_until" and reading.template is not None and reading.template.habits.marks:
        details["thoughts_cut"] = list(reading.template.habits.marks)
    return Result(name, scores, samples, details, warnings_of(samples))


def of_group(name: str, group: Any, output: Mapping[str, Any]) -> Iterator[Result]:
    """Yield the scores of a group of tasks, as lm-eval aggregates them, with their error; nothing where it has none."""
    scores: dict[str, Score] = {}
    aggregated = output["results"].get(name, {})
    for key, value in aggregated.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = aggregated.get(f"{metric}_stderr,{filter_name}")
        known = isinstance(stderr, float) and math.isfinite(stderr)
        n = sum(len({entry["doc_id"] for entry in output["samples"][task.task_name]}) for task in group.get_all_tasks())
        scores[_called(metric, filter_name)] = Score(float(value), stderr if known else None, n)
    if scores:
        yield Result(name, scores, details={"group": [task.task_name for task in group.get_all_tasks()]})


def _by_doc(entries: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """Return what lm-eval logged of each item, one entry a filter."""
    logged: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        logged[entry["doc_id"]].append(entry)
    return logged


def _averaged(task: Any, entries: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the metrics whose score is the mean of one number an item; only these can be compared item by item.

    The bits per byte of whole texts are too, each text weighing by its bytes.
    """
    from lm_eval.api.metrics import mean

    aggregations = task.aggregation()
    are_means: dict[str, bool] = {}
    for entry in entries:
        for metric in entry["metrics"]:
            name = _called(metric, entry["filter"])
            is_mean = aggregations.get(metric, mean) is mean and _number(entry[metric]) is not None
            is_mean |= _bits_per_byte(task, metric, entry) is not None
            are_means[name] = are_means.get(name, True) and is_mean
    return {name for name, is_mean in are_means.items() if is_mean}


def _mean_scores(metric: str, samples: Sequence[Sample], higher_is_better: bool) -> dict[str, Score]:
    """Return the mean of a metric over all items, and over those of each category where there are several."""
    having = [sample for sample in samples if metric in sample.metrics]
    groups = {metric: having}
    for category in categories(having):
        groups[f"{metric}/{category}"] = [sample for sample in having if sample.category == category]
    return {name: Score(*statistics.of_samples(of, metric), higher_is_better) for name, of in groups.items()}


def _metrics(task: Any, entries: Sequence[Mapping[str, Any]], means: set[str]) -> tuple[dict[str, float], float]:
    """Return the metrics of one item that are averaged, and its weight."""
    metrics, weight = {}, 1.0
    for entry in entries:
        for metric in entry["metrics"]:
            name = _called(metric, entry["filter"])
            if name in means and (bits := _bits_per_byte(task, metric, entry)) is not None:
                metrics[name], weight = bits
            elif name in means:
                metrics[name] = float(_number(entry[metric]))  # type: ignore[arg-type]
    return metrics, weight


def _as_sample(
    task: Any, entries: Sequence[Mapping[str, Any]], means: set[str], reading: Reading, again: Mapping[str, float]
) -> Sample:
    first = entries[0]
    doc = first["doc"]
    metrics, weight = _metrics(task, entries, means)
    asked = str(first["arguments"][0][0])
    answers = [reading.answers.get(key_of(arguments)) for arguments in first["arguments"]]
    answered = [answer for answer in answers if answer is not None]
    target, response = first["target"], ""
    likelihoods = _log_likelihoods(task, first)
    if task.OUTPUT_TYPE == "generate_until":
        response = str(first["resps"][0][0])
    elif task.OUTPUT_TYPE == "multiple_choice":
        choices = task.doc_to_choice(doc)
        if isinstance(target, int) and 0 <= target < len(choices):
            target = choices[target]
        response = str(choices[max(range(len(choices)), key=likelihoods.__getitem__)])
    # The hash of the whole item beside its name: pairing by name alone would pair items that were edited in between.
    name = doc.get("id", first["doc_id"]) if isinstance(doc, Mapping) else first["doc_id"]
    category = doc.get("category") if isinstance(doc, Mapping) else None
    return Sample(
        id=f"{name}:{first['doc_hash'][:12]}",
        metrics=metrics,
        prompt=reading.questions.get(asked, asked),
        response=response,
        target=target if isinstance(target, str) else repr(target),
        category=category if isinstance(category, str) else "",
        input=asked,
        weight=weight,
        log_likelihoods=likelihoods,
        reasoning=answered[0].reasoning if answered else "",
        finish=answered[0].finish if answered else "",
        seconds=round(sum(answer.seconds or 0.0 for answer in answered), 4) if answered else None,
        prompt_ids=answered[0].prompt_ids or () if answered else (),
        again=again,
    )


def key_of(arguments: Sequence[Any]) -> tuple[str, ...]:
    """Return the arguments of a request of lm-eval as something to find its answer by."""
    return tuple(str(argument) for argument in arguments)


def _log_likelihoods(task: Any, entry: Mapping[str, Any]) -> tuple[float, ...]:
    """Return those of the item's texts, in the order of the requests; none where answers are generated."""
    if task.OUTPUT_TYPE == "generate_until":
        return ()
    first = [answers[0] for answers in entry["resps"]]  # of each text; asked again, it is the same
    return tuple(float(answer[0] if isinstance(answer, tuple | list) else answer) for answer in first)


def _bits_per_byte(task: Any, metric: str, entry: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return one text's bits per byte and its size in bytes; None for other metrics."""
    if task.OUTPUT_TYPE != "loglikelihood_rolling" or metric != "bits_per_byte":
        return None
    log_likelihood, size_bytes = entry[metric]
    return (-log_likelihood / size_bytes / math.log(2), float(size_bytes)) if size_bytes else None


def _called(metric: str, filter_name: str) -> str:
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def _number(value: Any) -> float | None:
    """Return the value as a number, numpy's and booleans included; None for anything else."""
    if isinstance(value, bool | int | float):
        return float(value)
    item = getattr(value, "item", None)
    return float(item()) if item is not None and getattr(value, "ndim", None) == 0 else None
