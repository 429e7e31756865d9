"""Checks of the results that evaluations return, before they are written: a score must be the mean of its items."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from harness.errors import HarnessError, PluginError, listed
from harness.measure import statistics
from harness.nouns import Result, Sample, Score

if TYPE_CHECKING:
    from harness.plugins import PluginInfo


def checked(returned: object, evaluation: str, plugin: PluginInfo) -> Iterator[Result]:
    """Yield the results that `Evaluation.run` returned, each after its checks.

    Raises:
        PluginError: naming evaluation, plugin and fault: no results, a task that is no file name or is there twice, an
            item id given twice, a metric that is no finite number, a score that is not the mean of its items.
        Exception: raised by the evaluation itself, with a note that names it.
    """
    who = f"evaluation {evaluation!r} of plugin {plugin}"
    if not isinstance(returned, Iterable) or isinstance(returned, str | bytes):
        raise PluginError(f"{who}: run returned {returned!r:.80}, expected harness.Result objects, one a task")
    tasks: set[str] = set()
    for result in _noted(returned, who):
        if not isinstance(result, Result):
            raise PluginError(
                f"{who}: run gave {result!r:.80} (a {type(result).__name__}), expected a harness.Result a task"
            )
        _check_task(result.task, who)
        if result.task in tasks:
            raise PluginError(f"{who}: it gave two results for the task {result.task!r}")
        tasks.add(result.task)
        _check_parts(result, f"{who}, task {result.task!r}")
        _check_items(result.samples, f"{who}, task {result.task!r}")
        _check_scores(result, f"{who}, task {result.task!r}")
        yield result
    if not tasks:
        raise PluginError(f"{who}: run gave no result, expected a harness.Result a task")


def _noted(results: Iterable[object], who: str) -> Iterator[object]:
    """Yield the results; add a note to an exception that the evaluation raises meanwhile."""
    try:
        yield from results
    except HarnessError:
        raise
    except Exception as error:
        error.add_note(f"raised by {who}")
        raise


def _check_parts(result: Result, who: str) -> None:
    """Check the types of the parts of a result."""
    if not isinstance(result.scores, Mapping) or not result.scores:
        raise PluginError(f"{who}: scores is {result.scores!r:.80}, expected a harness.Score a metric, at least one")
    for name, score in result.scores.items():
        if not isinstance(score, Score):
            raise PluginError(f"{who}: the score {name!r} is {score!r:.80}, expected a harness.Score")
        if not _is_finite(score.value) or not (score.stderr is None or _is_finite(score.stderr)):
            raise PluginError(
                f"{who}: the score {name!r} is {score.value!r:.40} with the standard error {score.stderr!r:.40}, "
                f"expected finite numbers (a standard error can be None)"
            )
    for part in ("samples", "warnings"):
        if not isinstance(getattr(result, part), list | tuple):
            raise PluginError(f"{who}: {part} is {getattr(result, part)!r:.80}, expected a tuple")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _check_task(task: object, who: str) -> None:
    """Check that a task's name can be a file's: no slash, no leading dot, no control characters."""
    fits = isinstance(task, str) and task.isprintable() and 0 < len(task.encode()) <= 200
    if not fits or any(sign in str(task) for sign in "/\\") or str(task).startswith("."):
        raise PluginError(
            f"{who}: the task is named {task!r:.120}, which cannot be a file's name: leave out slashes, control "
            f"characters and a dot at the beginning"
        )


def _check_items(samples: Iterable[Sample], who: str) -> None:
    seen: set[str] = set()
    for sample in samples:
        if not isinstance(sample, Sample):
            raise PluginError(f"{who}: an item is {sample!r:.80}, expected a harness.Sample")
        if not isinstance(sample.id, str):
            raise PluginError(
                f"{who}: the item id {sample.id!r:.80} is a {type(sample.id).__name__}, expected a string"
            )
        if sample.id in seen:
            raise PluginError(f"{who}: the item id {sample.id!r} is given twice; an id is what pairs two variants")
        seen.add(sample.id)
        weights = {"weight": sample.weight} | {f"weight of {name!r}": sample.weight_of(name) for name in sample.metrics}
        numbers = weights | {f"metric {name!r}": value for name, value in sample.metrics.items()}
        for name, value in numbers.items():
            if not _is_finite(value):
                raise PluginError(f"{who}: the {name} of item {sample.id!r} is {value!r:.40}, expected a finite number")
        if wrong := [name for name, weight in weights.items() if weight <= 0]:
            raise PluginError(
                f"{who}: the {wrong[0]} of item {sample.id!r} is {weights[wrong[0]]}, expected more than 0"
            )


def _check_scores(result: Result, who: str) -> None:
    """Check that each score is the weighted mean of its items; one that no item has is a figure of all together."""
    metrics = {name for sample in result.samples for name in sample.metrics}
    if missing := metrics - result.scores.keys():
        raise PluginError(f"{who}: the items have {listed(missing)}, and there is no score of that name")
    for name, score in result.scores.items():
        having = result.items_of(name)
        metric, slash, category = (name, "", "") if name in metrics else name.partition("/")
        if not having:
            if slash and metric in metrics:
                raise PluginError(f"{who}: there is a score {name!r}, and no item of the category {category!r}")
            continue
        if score.n != len(having):
            lacks = next((s.id for s in result.samples if metric not in s.metrics), None)
            example = f"; item {lacks!r} has no {metric!r}" if lacks is not None and not slash else ""
            raise PluginError(f"{who}: the score {name!r} is of {score.n} items, and {len(having)} have it{example}")
        mean = statistics.of_samples(having, metric).value
        if not math.isclose(score.value, mean, rel_tol=1e-6, abs_tol=1e-9):
            raise PluginError(f"{who}: the score {name!r} is {score.value}, and the mean of its {score.n} items {mean}")
