"""The measurement behind `harness evaluate`: all variants through their backends, records as soon as they are there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness_evaluation.backends import Unasked, local_backend, rounds
from harness_evaluation.progress import progress_bar, waiting

if TYPE_CHECKING:
    from harness.cli.context import Context
    from harness.contract import Backend
    from harness.measure.records import Record
    from harness.nouns import Result
    from harness.recipe import EvaluateSpec, Recipe
    from harness.run import Events
    from harness.variants import Variant
    from harness_evaluation.backends import Choice


@dataclass(frozen=True, slots=True)
class Asking:
    """The settings of a measurement that are no evaluation's own.

    `again` asks anew what is answered already; `keep_remote` keeps the answers of remote models, too, by their names.
    """

    repeat_share: float = 0.0
    again: bool = False
    keep_remote: bool = False


def measure_all(
    variants: Sequence[Variant],
    specs: Sequence[tuple[str, Any]],
    recipe: Recipe | None,
    choice: Choice,
    asking: Asking,
    context: Context,
    events: Events,
) -> list[Record]:
    """Measure variants by all evaluations; write each result and show it to trackers as soon as it is there.

    Returns the records, variant by variant in the order given.
    """
    from harness.contract.events import Evaluated

    by_name = {variant.name: variant for variant in variants}
    records: dict[str, list[Record]] = {name: [] for name in by_name}
    results: dict[str, list[Result]] = {name: [] for name in by_name}
    evaluations = context.plugins.evaluations
    reading, asked = ([spec for spec in specs if evaluations[spec[0]].asks is asks] for asks in (False, True))

    def add(backends: Sequence[Backend], theirs: Sequence[tuple[str, Any]]) -> None:
        with _kept(backends, asking) as kept:
            for name, record, result in _measured(kept, by_name, theirs, recipe, asking, context, events):
                records[name].append(record)
                results[name].append(result)

    add([Unasked(variant) for variant in variants if reading], reading)
    with rounds(variants, choice, context.plugins, waiting) as parts:
        for backends in parts:
            add(backends, asked)
            for backend in backends:
                run, place = _run_of(by_name[backend.name])
                events.send(Evaluated(run, backend.name, tuple(results[backend.name]), place))
            del backends
    return [record for variant in variants for record in records[variant.name]]


@contextlib.contextmanager
def _kept(backends: Sequence[Backend], asking: Asking) -> Iterator[list[Backend]]:
    """Yield the backends with a journal around each, whose answers are counted in the bar."""
    from harness.measure.answers import KeptBackend, journal_of

    journals = [journal_of(backend.identity, remote=asking.keep_remote) for backend in backends]
    try:
        yield [
            KeptBackend(backend, journal, again=asking.again)
            for backend, journal in zip(backends, journals, strict=True)
        ]
    finally:
        for journal in journals:
            journal.close()


def _measured(
    backends: Sequence[Any],
    variants: dict[str, Variant],
    specs: Sequence[tuple[str, Any]],
    recipe: Recipe | None,
    asking: Asking,
    context: Context,
    events: Events,
) -> Iterator[tuple[str, Record, Result]]:
    """Yield the name of the variant, the record and the result of every task."""
    from harness.contract import EvaluationContext
    from harness.contract.events import MOST_SAMPLES, Samples
    from harness.measure.records import folder_of, write_record
    from harness.measure.runner import measure

    evaluations = context.plugins.evaluations
    around = EvaluationContext(recipe, context.plugins, _others(context, backends), asking.repeat_share)
    names = " ".join(backend.name for backend in backends)
    for name, options in specs:
        began = time.perf_counter()
        with progress_bar(f"{name}  {names}") as bar:
            for backend in backends:
                backend.progress = bar.count
            outcome = measure(evaluations[name], backends, options, around, evaluations.owner(name))
            for number, result in outcome:
                backend = backends[number]
                variant, identity = variants[backend.name], backend.identity
                seconds = time.perf_counter() - began
                folder = folder_of(variant, context.runs_folder, identity.weights)
                record = write_record(variant, identity, name, dumped(options), result, folder, seconds)
                run, place = _run_of(variant)
                events.send(Samples(run, variant.name, result.task, result.samples[:MOST_SAMPLES], place))
                yield variant.name, record, result


def dumped(options: EvaluateSpec) -> dict[str, Any]:
    """Return the options of an evaluation as records keep them."""
    return options.model_dump(mode="json", exclude={"evaluation"})


def _run_of(variant: Variant) -> tuple[Any, Any]:
    return (variant.run.name, variant.run.folder) if variant.run else (None, None)


def _others(context: Context, backends: Sequence[Backend]) -> Callable[[str], Backend]:
    """Return what opens the Backend of another variant: one that is measured beside it, or a new one.

    Answers of a new one are kept, too.
    """
    here = {backend.name: backend for backend in backends}

    def opened(name: str) -> Backend:
        from harness.client.served import HttpBackend
        from harness.measure.answers import KeptBackend, journal_of
        from harness.variants import resolve_variant

        if name in here:
            return here[name]
        variant = resolve_variant(name, context.runs_folder, context.plugins)
        backend: Backend
        if variant.remote is not None:
            backend = HttpBackend.of_remote(variant.remote, variant.name)
        else:
            backend = local_backend(variant, context.plugins)
        return KeptBackend(backend, journal_of(backend.identity))

    return opened
