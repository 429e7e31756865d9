"""The evaluation `lm_eval`: tasks of the LM Evaluation Harness, asked of a loaded variant through its own template."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import os
import random
import sys
import unittest.mock
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic
from pydantic import Field

from harness.contract import Backend, Evaluation, EvaluationContext
from harness.errors import HarnessError, first_line, known_names, nearest
from harness.extras import require
from harness.measure import statistics
from harness.measure.records import categories
from harness.nouns import Result, Sample, Score
from harness.options import Options
from harness_evaluation.local import LOCAL, loaded_of
from harness_evaluation.progress import progress_bar

Positive = Annotated[int, Field(gt=0)]
BOOTSTRAP_ITERATIONS = 1000  # for metrics of the whole corpus, such as F1 or BLEU; a mean needs none


class LmEvalOptions(Options):
    """The options in a recipe. `include_path` is a folder of task YAMLs; its names come before lm-eval's own.

    `as_lm_eval` scores as lm-eval's own command line does, for figures to be compared with published ones;
    `apply_chat_template` is that command line's option, and can be false only there.
    """

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    include_path: str | None = None
    limit: Positive | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    batch_size: Positive = 64
    max_gen_toks: Positive | None = None
    system_prompt: str | None = None
    seed: int = 1234
    as_lm_eval: bool = False
    apply_chat_template: bool = True

    @pydantic.model_validator(mode="after")
    def _only_lm_eval_asks_without_a_template(self) -> Self:
        if not self.apply_chat_template and not self.as_lm_eval:
            raise ValueError("apply_chat_template: false goes with as_lm_eval: true")
        return self


def run(backend: Backend, options: LmEvalOptions, context: EvaluationContext) -> Iterator[Result]:
    """Yield the results, one a task.

    Raises:
        HarnessError: for a task that is not there or cannot be loaded, and a prompt that does not fit the model.
    """
    loaded = loaded_of(backend)
    require("lm_eval", "evaluation")
    with quiet(), progress_bar(f"{loaded.variant.name}  {' '.join(options.tasks)}") as bar:
        import lm_eval

        from harness_evaluation.chat_lm import ChatLM, LmEvalLM

        _seed(options)  # before the tasks are loaded: some draw their items, or the order of choices
        asked = load_tasks(options)
        model = (LmEvalLM if options.as_lm_eval else ChatLM)(loaded, options.batch_size, bar)
        # Not `simple_evaluate`: it ends each call with a report of the environment that takes seven seconds.
        output = lm_eval.evaluate(
            lm=model,
            task_dict=asked,
            limit=options.limit,
            bootstrap_iters=BOOTSTRAP_ITERATIONS,
            system_instruction=options.system_prompt,
            apply_chat_template=options.apply_chat_template,
            fewshot_as_multiturn=options.apply_chat_template,
        )
    for name, task in asked["tasks"].items():
        yield _as_result(name, task, output, model.questions)


def texts(options: LmEvalOptions, context: EvaluationContext) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of every item: its question and, where that is text, its target."""
    require("lm_eval", "evaluation")
    with quiet():
        items = [
            (f"{name} {number}", text)
            for name, task in load_tasks(options)["tasks"].items()
            for number, doc in enumerate(itertools.islice(task.eval_docs, options.limit))
            for text in _texts(task, doc)
        ]
    yield from items


def _texts(task: Any, doc: Any) -> tuple[str, ...]:
    """Return question and answer together, and the question alone: a short one is copied without its answer too."""
    asked, target = task.doc_to_text(doc), task.doc_to_target(doc)
    if task.OUTPUT_TYPE == "multiple_choice" and isinstance(target, int):
        choices = task.doc_to_choice(doc)
        target = choices[target] if 0 <= target < len(choices) else ""
    parts = [part for part in (asked, target) if isinstance(part, str) and part]
    return tuple(dict.fromkeys(("\n".join(parts), parts[0]))) if parts else ()


EVALUATION = Evaluation(
    "lm_eval",
    "tasks of the LM Evaluation Harness: its own, or those of a folder",
    LmEvalOptions,
    run,
    texts,
    needs=LOCAL,
)


def load_tasks(options: LmEvalOptions) -> dict[str, Any]:
    """Load the tasks of `options` for lm-eval's `evaluate`, each with its data, few-shot count and token limit.

    Raises:
        HarnessError: where there is no such task, or where it or its data cannot be loaded.
    """
    from lm_eval.tasks import TaskManager

    if options.include_path is not None and not Path(options.include_path).is_dir():
        raise HarnessError(f"include_path: no such folder: {options.include_path}")
    # lm-eval's own index takes fifteen seconds to read; a folder's takes none.
    manager = TaskManager(include_path=options.include_path, include_defaults=False)
    if not set(options.tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=options.include_path)
    for name in options.tasks:
        if name not in manager.all_tasks:
            local = TaskManager(include_path=options.include_path, include_defaults=False).all_tasks
            where = f" {options.include_path} has: {known_names(local)}." if options.include_path else ""
            raise HarnessError(
                f"no task is named {name!r}.{nearest(name, manager.all_tasks)}{where} "
                f"`lm-eval ls tasks` lists lm-eval's own"
            )
    no_default_stops = contextlib.nullcontext() if options.as_lm_eval else _without_default_stops()
    try:
        with no_default_stops:
            asked: dict[str, Any] = dict(manager.load(list(options.tasks)))
    except Exception as error:
        raise HarnessError(
            f"the tasks {', '.join(options.tasks)} could not be loaded: {type(error).__name__}: {first_line(error)}"
        ) from error
    for name, task in asked["tasks"].items():
        _configure(name, task, options)
    return asked


@contextlib.contextmanager
def _without_default_stops() -> Iterator[None]:
    """Load tasks without an `until` as tasks without stop texts: an answer ends at the template's stop tokens.

    lm-eval gives them the few-shot delimiter, a blank line, which cuts a chat model's answer after one paragraph; once
    a task is loaded, that looks like an `until` that it names itself.
    """
    from lm_eval.config.task import TaskConfig

    complete = TaskConfig.__post_init__

    def completed(config: Any) -> None:
        names_stops = "until" in (config.generation_kwargs or {})
        complete(config)
        if config.generation_kwargs is not None and not names_stops:
            config.generation_kwargs["until"] = []

    with unittest.mock.patch.object(TaskConfig, "__post_init__", completed):
        yield


def _configure(name: str, task: Any, options: LmEvalOptions) -> None:
    fixed = task.get_config("num_fewshot")
    if options.num_fewshot is not None:
        if fixed == 0 and options.num_fewshot:
            raise HarnessError(
                f"the task {name!r} is asked without examples (its YAML says num_fewshot: 0); leave num_fewshot out"
            )
        task.set_config(key="num_fewshot", value=options.num_fewshot)
    elif fixed is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=options.seed)
    if options.max_gen_toks is not None and task.OUTPUT_TYPE == "generate_until":
        task.set_config(key="generation_kwargs", value={"max_gen_toks": options.max_gen_toks}, update=True)


def _as_result(name: str, task: Any, output: Mapping[str, Any], questions: Mapping[str, str]) -> Result:
    """Return one task's output in our nouns. A metric is called `metric`, or `metric,filter` for a named filter."""
    logged: dict[int, list[Mapping[str, Any]]] = defaultdict(list)  # one entry a filter
    for entry in output["samples"][name]:
        logged[entry["doc_id"]].append(entry)
    means = _averaged(task, output["samples"][name])
    samples = tuple(_as_sample(task, entries, means, questions) for _, entries in sorted(logged.items()))

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
    return Result(name, scores, samples, details)


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


def _as_sample(
    task: Any, entries: Sequence[Mapping[str, Any]], means: set[str], questions: Mapping[str, str]
) -> Sample:
    first = entries[0]
    doc = first["doc"]
    metrics, weight = {}, 1.0
    for entry in entries:
        for metric in entry["metrics"]:
            name = _called(metric, entry["filter"])
            if name in means and (bits := _bits_per_byte(task, metric, entry)) is not None:
                metrics[name], weight = bits
            elif name in means:
                metrics[name] = float(_number(entry[metric]))  # type: ignore[arg-type]
    asked = str(first["arguments"][0][0])
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
        prompt=questions.get(asked, asked),
        response=response,
        target=target if isinstance(target, str) else repr(target),
        category=category if isinstance(category, str) else "",
        input=asked,
        weight=weight,
        log_likelihoods=likelihoods,
    )


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


def _seed(options: LmEvalOptions) -> None:
    """Set the seeds for tasks that sample; answers are greedy unless a task's YAML says otherwise."""
    numpy, torch = require("numpy", "evaluation"), require("torch", "evaluation")
    random.seed(0 if options.as_lm_eval else options.seed)  # which lm-eval's command line has, and 1234 for the others
    numpy.random.seed(options.seed)
    torch.manual_seed(options.seed)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of lm-eval and datasets off the screen, and anything that is printed off stdout.

    Errors are still logged. The cases of their warnings (a cut prompt, a refused template) are errors in ChatLM.
    """
    import datasets
    import tqdm

    had_bars = not datasets.utils.are_progress_bars_disabled()
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    silent = functools.partialmethod(tqdm.tqdm.__init__, disable=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        # lm-eval draws a bar for every stage, with no setting to switch them off.
        stack.enter_context(unittest.mock.patch.object(tqdm.tqdm, "__init__", silent))
        # Its bootstrap forks a pool of workers, which is not safe once torch has started its threads.
        stack.enter_context(unittest.mock.patch.dict(os.environ, {"DISABLE_MULTIPROC": "1"}))
        datasets.utils.disable_progress_bars()
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if had_bars:
                datasets.utils.enable_progress_bars()
