"""`harness evaluate`: measure variants on the same items, keep the records, show them side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError, known_names, nearest
from harness.plugins.registry import FIRST_PARTY, Registry
from harness_evaluation.tables import print_figures

if TYPE_CHECKING:
    from harness.contract import Backend, Evaluation
    from harness.measure.records import Record
    from harness.nouns import Result
    from harness.recipe import EvaluateSpec, Recipe
    from harness.run import Events
    from harness.variants import Variant


@click.command(name="evaluate")
@click.argument("variants", nargs=-1, required=True, metavar="VARIANT...")
@click.option(
    "--recipe",
    "recipe_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the evaluations from this recipe, not from the run's own; of a plain model, dtype and revision too.",
)
@click.option(
    "--evaluation",
    "only",
    multiple=True,
    metavar="NAME",
    help="Only this evaluation of the recipe. Can be given several times.",
)
@click.option("--tasks", metavar="A,B", help="Instead of a recipe: these lm-eval tasks.")
@click.option(
    "--include-path", type=click.Path(path_type=Path), metavar="DIR", help="A folder of task YAMLs for --tasks."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Short for --set limit=N: the first N items.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set an option of every evaluation that has it, as in --set batch_size=8. Can be given several times.",
)
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    help="Load the weights in this type, not in the recipe's; of a plain model without --recipe: bfloat16.",
)
@click.option(
    "--template",
    metavar="NAME",
    help="Ask plain models through this chat template, not their own, by its name or as in a recipe.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout and nothing else.")
@click.pass_obj
def command(
    context: Context,
    variants: tuple[str, ...],
    recipe_path: Path | None,
    only: tuple[str, ...],
    tasks: str | None,
    include_path: Path | None,
    limit: int | None,
    sets: tuple[str, ...],
    dtype: str | None,
    template: str | None,
    as_json: bool,
) -> None:
    """Measure variants on the same items and show them side by side.

    A VARIANT is a run, RUN@base (its base model, asked through the run's template), a model folder, a hub id, the
    folder of a PEFT adapter, or a remote model (openai:https://host/v1#model, its key in OPENAI_API_KEY).
    Every item is kept in the run's evaluations/, for `harness compare`; records of other weights or settings stay
    beside it.

    \b
    harness evaluate demo@base demo
    harness evaluate demo --evaluation val_loss
    harness evaluate demo --set as_lm_eval=true --dtype float32
    harness evaluate Qwen/Qwen2.5-0.5B --template chatml --tasks gsm8k --limit 100
    """
    from rich.markup import escape

    from harness.contract.events import Evaluated
    from harness.recipe import load_recipe
    from harness.run import Events
    from harness.variants import resolve_variants

    resolved = resolve_variants(variants, context.runs_folder, context.plugins, template)
    recipe = load_recipe(recipe_path, context.plugins) if recipe_path else _shared_recipe(resolved, need=not tasks)
    known = context.plugins.evaluations
    specs = _from_tasks(tasks, include_path) if tasks else _from_recipe(recipe, only, include_path, known)
    sets += () if limit is None else (f"limit={limit}",)
    specs = _with_sets(specs, sets)
    resolved = tuple(_as_asked(variant, recipe if recipe_path else None, dtype, specs, context) for variant in resolved)

    records: list[Record] = []
    events = Events.to(recipe.track if recipe else (), context.plugins)
    for variant in resolved:
        measured, results = _measure(variant, specs, recipe, context, events)
        records += measured
        name, folder = (variant.run.name, variant.run.folder) if variant.run else (None, None)
        events.send(Evaluated(name, variant.name, results, folder))
    if as_json:
        click.echo(
            json.dumps([{**record.entries, "path": str(record.path)} for record in records], indent=2, default=str)
        )
    else:
        _print_table(context, resolved, records)
        if len(variants) > 1:
            names = " ".join(variants[:2])
            context.console.print(f"[dim]Is a difference real?  [/dim]harness compare {escape(names)}", soft_wrap=True)


def _shared_recipe(variants: Sequence[Variant], need: bool) -> Recipe | None:
    """Return the recipe of the variants' runs. Raises HarnessError for none, or for runs that measure differently."""
    runs = list({variant.run.folder: variant.run for variant in variants if variant.run is not None}.values())
    if not runs:
        if need:
            raise HarnessError(
                "a plain model has no recipe that says what to measure: "
                "name one with --recipe FILE, or tasks with --tasks A,B"
            )
        return None
    first = runs[0]
    for run in runs[1:] if need else ():
        if _measures(run.recipe) != _measures(first.recipe):
            raise HarnessError(
                f"the recipes of {first.name} and {run.name} name different evaluations or validation data; "
                f"name the one to use for all: --recipe {first.folder / 'recipe.yaml'}"
            )
    return first.recipe


def _measures(recipe: Recipe) -> dict[str, Any]:
    """Return the parts of a recipe that decide what its evaluations measure on.

    As plain data: the classes of options are built for each set of plugins, and objects of two classes never are equal.
    """
    held_out = {"validation_share", "train", "clean"} if recipe.data.validation_share else set()
    return recipe.model_dump(mode="json", include={"evaluate": True, "data": {"validation", *held_out}})


def _from_recipe(
    recipe: Recipe | None, only: Sequence[str], include_path: Path | None, known: Registry[Evaluation]
) -> list[tuple[str, Any]]:
    """Return (name, options) of the recipe's evaluations, or of those that `only` names, bare or as `owner:name`."""
    assert recipe is not None
    if include_path is not None:
        raise HarnessError("--include-path belongs to --tasks; in a recipe it is `include_path` of the evaluation")
    entries = [known.entry(spec.evaluation) for spec in recipe.evaluate]
    if not entries:
        raise HarnessError(
            f"the recipe {recipe.name!r} names no evaluations. "
            f"Add them under `evaluate:`, or name tasks with --tasks A,B"
        )
    its = Registry(known.kind, entries=list({entry.qualified: entry for entry in entries}.values()))
    for name in only:
        if name not in its:
            raise HarnessError(
                f"--evaluation {name}: no evaluation of the recipe {recipe.name!r} has this name."
                f"{nearest(name, its)} It has: {known_names(its)}"
            )
    wanted = [its.entry(name) for name in only] or entries
    return [
        (entry.qualified.removeprefix(f"{FIRST_PARTY}:"), spec)  # records name those of the harness without it
        for entry, spec in zip(entries, recipe.evaluate, strict=True)
        if entry in wanted
    ]


def _from_tasks(tasks: str, include_path: Path | None) -> list[tuple[str, Any]]:
    from harness_evaluation.tasks import LmEvalOptions

    names = tuple(name.strip() for name in tasks.split(",") if name.strip())
    if not names:
        raise HarnessError("--tasks: no task is named; write --tasks A,B")
    folder = str(include_path.resolve()) if include_path else None
    return [("lm_eval", LmEvalOptions(tasks=names, include_path=folder))]


def _with_sets(specs: Sequence[tuple[str, Any]], sets: Sequence[str]) -> list[tuple[str, Any]]:
    """Set each KEY=VALUE in all evaluations that have an option KEY. Raises HarnessError where none has it."""
    from harness.recipe import with_sets

    known = {key for _, options in specs for key in type(options).model_fields} - {"evaluation"}
    for override in sets:
        key = override.partition("=")[0].partition(".")[0]
        if key not in known:
            raise HarnessError(
                f"--set {override}: no evaluation that is asked for has an option {key!r}.{nearest(key, known)} "
                f"{', '.join(dict.fromkeys(name for name, _ in specs))} have: {known_names(known)}"
            )

    def those_of(options: EvaluateSpec) -> list[str]:
        return [o for o in sets if o.partition("=")[0].partition(".")[0] in type(options).model_fields]

    return [(name, with_sets(options, those_of(options))) for name, options in specs]


def _as_asked(
    variant: Variant, recipe: Recipe | None, dtype: str | None, specs: Sequence[tuple[str, Any]], context: Context
) -> Variant:
    """Return the variant in `dtype`, a plain model with the settings that the recipe of --recipe has for it.

    Revision and `trust_remote_code` of another model are not taken over; that, and a default dtype, are reported.
    """
    if variant.remote is not None:
        return variant
    say = functools.partial(click.echo, err=True)
    model = variant.model
    if variant.run is None and recipe is not None:
        theirs = recipe.model
        if Path(theirs.path).resolve() == Path(model.path).resolve() or theirs.path == model.path:
            model = theirs.model_copy(update={"path": model.path})
        else:
            model = model.model_copy(update={"dtype": theirs.dtype})
            say(
                f"{variant.name}: measured is {model.path}, not {theirs.path}, which the recipe {recipe.name!r} "
                f"is for; of its `model` only the dtype ({theirs.dtype}) is taken"
            )
    if dtype is not None:
        model = model.model_copy(update={"dtype": dtype})
    elif variant.run is None and recipe is None:
        say(f"{variant.name}: in {model.dtype}, the default; --dtype, or the recipe of --recipe, can set another")
    template = variant.template
    without = all(getattr(options, "apply_chat_template", True) is False for _, options in specs)
    if without and variant.chat_folder is None and template is None:
        template = "plain"  # nothing is rendered, and the model may have no template of its own
    return dataclasses.replace(variant, model=model, template=template)


def _dumped(options: EvaluateSpec) -> dict[str, Any]:
    return options.model_dump(mode="json", exclude={"evaluation"})


def _measure(
    variant: Variant, specs: Sequence[tuple[str, Any]], recipe: Recipe | None, context: Context, events: Events
) -> tuple[list[Record], tuple[Result, ...]]:
    """Run all evaluations on one variant, and write each result and show it to trackers as soon as it is there."""
    from harness.contract import EvaluationContext
    from harness.contract.events import MOST_SAMPLES, Samples
    from harness.measure.records import folder_of, write_record
    from harness.measure.runner import results
    from harness.measure.soundness import checked
    from harness_evaluation.progress import progress_bar

    evaluations = context.plugins.evaluations
    around = EvaluationContext(recipe, context.plugins, functools.partial(_backend_named, context))
    backend = _backend_of(variant, context)
    identity = backend.identity
    folder = folder_of(variant, context.runs_folder, identity.weights)
    records, measured = [], []
    for name, options in specs:
        began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            progress = {}
            if evaluations[name].items is not None:  # the others have a bar of their own
                bar = stack.enter_context(progress_bar(f"{variant.name}  {name}"))
                progress = {"expect": bar.expect, "advance": bar.advance}
            outcome = results(evaluations[name], backend, options, around, **progress)
            for result in checked(outcome, evaluations[name].name, evaluations.owner(name)):
                seconds = time.perf_counter() - began
                records.append(write_record(variant, identity, name, _dumped(options), result, folder, seconds))
                measured.append(result)
                of_run, place = (variant.run.name, variant.run.folder) if variant.run else (None, None)
                events.send(Samples(of_run, variant.name, result.task, result.samples[:MOST_SAMPLES], place))
    return records, tuple(measured)


def _backend_of(variant: Variant, context: Context) -> Backend:
    """Return the Backend of a variant: the endpoint of a remote one, else its weights, loaded."""
    if variant.remote is not None:
        from harness.client.served import HttpBackend

        return HttpBackend.of_remote(variant.remote, variant.name)
    from harness.model.load import free_memory, load_variant
    from harness.model.local import LocalBackend

    free_memory()  # that of the variant measured before: two may not fit beside each other
    return LocalBackend(load_variant(variant, context.plugins))


def _backend_named(context: Context, name: str) -> Backend:
    """Return the Backend of another variant, for an evaluation that compares answers with those of one."""
    from harness.variants import resolve_variant

    return _backend_of(resolve_variant(name, context.runs_folder, context.plugins), context)


def _print_table(context: Context, variants: Sequence[Variant], records: Sequence[Record]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("task", overflow="fold")
    table.add_column("metric", overflow="fold")
    for variant in variants:
        table.add_column(escape(variant.name), justify="right")
    table.add_column("n", justify="right")
    rows: dict[tuple[str, str], dict[str, Record]] = {}  # an evaluation may be named twice, with other options
    for record in records:
        rows.setdefault((record.task, json.dumps(record.entries["options"])), {})[record.variant] = record
    for (task, _), measured in rows.items():
        shown_task = task
        for metric, score in next(iter(measured.values())).scores.items():
            _, slash, category = metric.partition("/")
            cells = [shown(measured[v.name].scores.get(metric)) if v.name in measured else "" for v in variants]
            arrow = "" if slash else (" ↑" if score.higher_is_better else " ↓")
            name = f"  [dim]{escape(category)}[/dim]" if slash else f"{escape(metric)}{arrow}"
            style = "dim" if slash else ""
            table.add_row(
                escape(shown_task), name, *(f"[{style}]{c}[/{style}]" if style else c for c in cells), str(score.n)
            )
            shown_task = ""
    print_figures(context.console, table, labels=2)
    dtypes = ", ".join(dict.fromkeys(_weights(variant) for variant in variants))
    context.console.print(
        f"\n[dim]value ± standard error; ↑ more is better, ↓ less is better; weights in {dtypes}[/dim]"
    )
    for record in records:
        for warning in record.warnings:
            context.console.print(
                f"[yellow]{escape(record.variant)}, {escape(record.task)}: {escape(warning)}[/yellow]"
            )


def _weights(variant: Variant) -> str:
    return variant.model.dtype if variant.remote is None else "an endpoint's own type"


def shown(score: Any) -> str:
    """Return a score for people: value ± standard error."""
    if score is None or score.value is None:
        return "–"
    return f"{score.value:.3f}" + (f" ± {score.stderr:.3f}" if score.stderr is not None else "")
