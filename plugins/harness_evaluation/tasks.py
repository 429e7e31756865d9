"""The evaluation `lm_eval`: tasks of the LM Evaluation Harness, asked through a variant's own template."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import random
import sys
import unittest.mock
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic
from pydantic import Field

from harness.contract import Backend, Evaluation, EvaluationContext, Request
from harness.contract.backends import Capability
from harness.errors import HarnessError, first_line, known_names, nearest
from harness.extras import require
from harness.measure.answers import KeptBackend
from harness.measure.runner import repeated
from harness.nouns import Result
from harness.options import Options
from harness_evaluation.local import in_batches, loaded_of
from harness_evaluation.progress import progress_bar
from harness_evaluation.task_results import Reading, as_result, of_group

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


def needs(options: LmEvalOptions) -> tuple[Capability, ...]:
    """Return what a measurement needs of a backend: as lm-eval, the model itself."""
    return ("template", "weights") if options.as_lm_eval else ("template", "token_ids", "score")


def run(backend: Backend, options: LmEvalOptions, context: EvaluationContext) -> Iterator[Result]:
    """Yield the results, one a task, and one a group of tasks.

    Raises:
        HarnessError: for a task that is not there or cannot be loaded, and a prompt that does not fit the model.
    """
    require("lm_eval", "evaluation")
    with quiet(), contextlib.ExitStack() as stack:
        _seed(options)  # before the tasks are loaded: some draw their items, or the order of choices
        asked = load_tasks(options)
        model = _model(backend, options, stack)
        output = _evaluated(model, asked, options, limit=options.limit)
        again: Mapping[str, Any] = {}
        if context.repeat_share and not options.as_lm_eval:
            twice = {name: _asked_twice(task, context.repeat_share) for name, task in asked["tasks"].items()}
            second = _second(backend, options)
            again = _evaluated(second, asked, options, samples=twice)["samples"]
    reading = Reading(model.questions, model.answers, getattr(model, "template", None))
    for name, task in asked["tasks"].items():
        yield as_result(name, task, output, reading, again.get(name, ()))
    for name, group in asked.get("groups", {}).items():
        yield from of_group(name, group, output)


def requests(backend: Backend, options: LmEvalOptions, context: EvaluationContext) -> Iterator[Request]:
    """Yield what the tasks ask, and again what is asked twice; nothing where lm-eval asks by itself."""
    if options.as_lm_eval:
        return
    require("lm_eval", "evaluation")
    with quiet():
        from harness_evaluation.backend_lm import BackendLM

        _seed(options)
        model, twice = BackendLM(backend), []
        for task in load_tasks(options)["tasks"].values():
            _build(task, model, options)
            chosen = set(_asked_twice(task, context.repeat_share)) if context.repeat_share else set()
            yield from model.requests_of(task.instances)
            twice += [instance for instance in task.instances if instance.doc_id in chosen]
        yield from model.requests_of(twice)


def _model(backend: Backend, options: LmEvalOptions, stack: contextlib.ExitStack) -> Any:
    """Return lm-eval's model: over the backend, or its own over the weights in this process."""
    if options.as_lm_eval:
        from harness_evaluation.own_lm import Kept, LmEvalLM

        bar = stack.enter_context(progress_bar(f"{backend.name}  {' '.join(options.tasks)}"))
        kept = Kept.of(backend, [options.batch_size, options.apply_chat_template])
        return LmEvalLM(loaded_of(backend), options.batch_size, bar, kept)
    from harness_evaluation.backend_lm import BackendLM

    stack.enter_context(in_batches(backend, options.batch_size))
    return BackendLM(backend)


def _second(backend: Backend, options: LmEvalOptions) -> Any:
    from harness_evaluation.backend_lm import BackendLM

    return BackendLM(backend.second() if isinstance(backend, KeptBackend) else backend)


def _evaluated(model: Any, asked: Any, options: LmEvalOptions, **chosen: Any) -> Mapping[str, Any]:
    import lm_eval

    # Not `simple_evaluate`: it ends each call with a report of the environment that takes seven seconds.
    output: Mapping[str, Any] = lm_eval.evaluate(
        lm=model,
        task_dict=asked,
        bootstrap_iters=BOOTSTRAP_ITERATIONS,
        system_instruction=options.system_prompt,
        apply_chat_template=options.apply_chat_template,
        fewshot_as_multiturn=options.apply_chat_template,
        **chosen,
    )
    return output


def _build(task: Any, model: Any, options: LmEvalOptions) -> None:
    """Build the requests of a task as `lm_eval.evaluate` builds them."""
    task.build_all_requests(
        limit=options.limit,
        rank=0,
        world_size=1,
        system_instruction=options.system_prompt,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        chat_template=model.apply_chat_template,
        tokenizer_name=model.tokenizer_name,
    )


def _asked_twice(task: Any, share: float) -> list[int]:
    """Return the numbers of the items that are asked twice, the same for all variants."""
    docs = {instance.doc_id: instance.doc for instance in task.instances}
    hashes = [json.dumps(doc, sort_keys=True, default=str) for doc in docs.values()]
    numbers = list(docs)
    return sorted(numbers[place] for place in repeated(hashes, share))


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
    needs=needs,
    requests=requests,
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


def _seed(options: LmEvalOptions) -> None:
    """Set the seeds for tasks that sample; answers are greedy unless a task's YAML says otherwise."""
    numpy, torch = require("numpy", "evaluation"), require("torch", "evaluation")
    random.seed(0 if options.as_lm_eval else options.seed)  # which lm-eval's command line has, and 1234 for the others
    numpy.random.seed(options.seed)
    torch.manual_seed(options.seed)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of lm-eval and datasets off the screen, and anything that is printed off stdout.

    Errors are still logged. The cases of their warnings (a cut prompt, a refused template) are errors in BackendLM.
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
