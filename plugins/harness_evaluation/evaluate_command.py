"""`harness evaluate`: measure variants on the same items, keep the records, show them side by side."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError, known_names

if TYPE_CHECKING:
    from harness.nouns import Result
    from harness.recipe import EvaluateSpec, Recipe
    from harness.variants import Variant
    from harness_evaluation.records import Record


@click.command(name="evaluate")
@click.argument("variants", nargs=-1, required=True, metavar="VARIANT...")
@click.option(
    "--recipe",
    "recipe_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the evaluations from this recipe, not from the run's own.",
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
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N items of each task.")
@click.option(
    "--template",
    metavar="NAME",
    help="Ask plain models through this chat template, not their own, by its name or as in a recipe.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout and nothing else.")
@click.option("--force", is_flag=True, help="Replace records that were made with other settings.")
@click.pass_obj
def command(
    context: Context,
    variants: tuple[str, ...],
    recipe_path: Path | None,
    only: tuple[str, ...],
    tasks: str | None,
    include_path: Path | None,
    limit: int | None,
    template: str | None,
    as_json: bool,
    force: bool,
) -> None:
    """Measure variants on the same items and show them side by side.

    A VARIANT is a run, RUN@base (its base model, asked through the run's template), a model folder or a hub id.
    Every item is kept in the run's evaluations/, for `harness compare`.

    \b
    harness evaluate demo@base demo
    harness evaluate demo --evaluation val_loss
    harness evaluate Qwen/Qwen2.5-0.5B --template chatml --tasks gsm8k --limit 100
    """
    from harness.contract.events import Evaluated
    from harness.recipe import load_recipe
    from harness.run import Events
    from harness.variants import resolve_variants

    resolved = resolve_variants(variants, context.runs_folder, context.plugins, template)
    recipe = load_recipe(recipe_path, context.plugins) if recipe_path else _shared_recipe(resolved, need=not tasks)
    specs = _from_tasks(tasks, include_path) if tasks else _from_recipe(recipe, only, include_path)
    specs = [(name, _limited(name, options, limit)) for name, options in specs]
    for variant in resolved:
        for name, options in specs:
            if not force:
                _check_replaceable(variant, context.runs_folder, name, options)

    records: list[Record] = []
    events = Events.to(recipe.track if recipe else (), context.plugins)
    for variant in resolved:
        measured, results = _measure(variant, specs, recipe, context)
        _give_memory_back()
        records += measured
        events.send(Evaluated(variant.run.name if variant.run else None, variant.name, results))
    if as_json:
        click.echo(
            json.dumps([{**record.entries, "path": str(record.path)} for record in records], indent=2, default=str)
        )
    else:
        _print_table(context, resolved, records)


def _shared_recipe(variants: Sequence[Variant], need: bool) -> Recipe | None:
    """The recipe of the variants' runs. Raises HarnessError where there is none, or where runs measure differently."""
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
                f"the recipes of {first.name} and {run.name} name different evaluations or validation data;"
                f" say which to "
                f"use for all: --recipe {first.folder / 'recipe.yaml'}"
            )
    return first.recipe


def _measures(recipe: Recipe) -> tuple[Any, ...]:
    """What decides what a recipe's evaluations measure on."""
    data = recipe.data
    held_out = (data.validation_share, data.train, data.clean) if data.validation_share else ()
    return recipe.evaluate, data.validation, *held_out


def _from_recipe(recipe: Recipe | None, only: Sequence[str], include_path: Path | None) -> list[tuple[str, Any]]:
    assert recipe is not None
    if include_path is not None:
        raise HarnessError("--include-path belongs to --tasks; in a recipe it is `include_path` of the evaluation")
    known = [spec.evaluation for spec in recipe.evaluate]
    if not known:
        raise HarnessError(
            f"the recipe {recipe.name!r} names no evaluations. "
            f"Add them under `evaluate:`, or name tasks with --tasks A,B"
        )
    for name in only:
        if name not in known:
            raise HarnessError(f"--evaluation {name}: the recipe {recipe.name!r} has {known_names(known)}")
    return [(spec.evaluation, spec) for spec in recipe.evaluate if not only or spec.evaluation in only]


def _from_tasks(tasks: str, include_path: Path | None) -> list[tuple[str, Any]]:
    from harness_evaluation.tasks import LmEvalOptions

    names = tuple(name.strip() for name in tasks.split(",") if name.strip())
    if not names:
        raise HarnessError("--tasks: no task is named; write --tasks A,B")
    folder = str(include_path.resolve()) if include_path else None
    return [("lm_eval", LmEvalOptions(tasks=names, include_path=folder))]


def _limited(name: str, options: EvaluateSpec, limit: int | None) -> EvaluateSpec:
    if limit is None:
        return options
    if "limit" not in type(options).model_fields:
        raise HarnessError(f"--limit: the evaluation {name!r} has no option `limit`")
    return options.model_copy(update={"limit": limit})


def _dumped(options: EvaluateSpec) -> dict[str, Any]:
    return options.model_dump(mode="json", exclude={"evaluation"})


def _check_replaceable(variant: Variant, runs_folder: Path, name: str, options: EvaluateSpec) -> None:
    """Raises HarnessError where a record of the same task, measured with other options, would be overwritten."""
    from harness_evaluation.records import read_records

    new = json.loads(json.dumps(_dumped(options)))
    for record in read_records(variant, runs_folder).values():
        old = dict(record.entries["options"])
        same_task = record.task in new.get("tasks", [name]) or old.get("tasks", [name]) == new.get("tasks", [name])
        if record.evaluation != name or not same_task:
            continue
        changed = [key for key in sorted({*old, *new} - {"tasks"}) if old.get(key) != new.get(key)]
        if changed:
            told = ", ".join(f"{key} {old.get(key)} is now {new.get(key)}" for key in changed)
            raise HarnessError(
                f"{record.path} was measured with other settings ({told}) and would be replaced. "
                f"To do that, add --force"
            )


def _measure(
    variant: Variant, specs: Sequence[tuple[str, Any]], recipe: Recipe | None, context: Context
) -> tuple[list[Record], tuple[Result, ...]]:
    """Load one variant, run the evaluations on it, and write each result as soon as it is there."""
    from harness.model.load import load_variant
    from harness_evaluation.records import folder_of, write_record

    loaded = load_variant(variant, context.plugins)
    folder = folder_of(variant, context.runs_folder)
    records, results = [], []
    for name, options in specs:
        began = time.perf_counter()
        for result in context.plugins.evaluations[name].run(loaded, options, recipe):
            records.append(write_record(loaded, name, _dumped(options), result, folder, time.perf_counter() - began))
            results.append(result)
    return records, tuple(results)


def _give_memory_back() -> None:
    """Let go of the variant that was measured before the next one is loaded: two may not fit beside each other."""
    import torch

    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _print_table(context: Context, variants: Sequence[Variant], records: Sequence[Record]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("task")
    table.add_column("metric")
    for variant in variants:
        table.add_column(escape(variant.name), justify="right")
    table.add_column("n", justify="right")
    by_task: dict[str, dict[str, Record]] = {}
    for record in records:
        by_task.setdefault(record.task, {})[record.variant] = record
    for task, measured in by_task.items():
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
    context.console.print(table)
    context.console.print("\n[dim]value ± standard error; ↑ more is better, ↓ less is better[/dim]")
    if len(variants) > 1:
        names = " ".join(variant.name for variant in variants[:2])
        context.console.print(f"[dim]Is a difference real?  [/dim]harness compare {escape(names)}")


def shown(score: Any) -> str:
    """A score for people: value ± standard error."""
    if score is None or score.value is None:
        return "–"
    return f"{score.value:.3f}" + (f" ± {score.stderr:.3f}" if score.stderr is not None else "")
