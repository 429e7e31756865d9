"""`harness evaluate`: measure variants on the same items, keep the records, show them side by side."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError, known_names, nearest
from harness.plugins.registry import FIRST_PARTY, Entry
from harness_evaluation.tables import print_table

if TYPE_CHECKING:
    from harness.contract import Evaluation
    from harness.options import Options
    from harness.plugins import Plugins
    from harness.recipe import Recipe
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
    help="Only this evaluation of the recipe, or one that is not in it, as --set has it. Can be given several times.",
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
@click.option(
    "--backend",
    type=click.Choice(["auto", "engine", "local"]),
    default="auto",
    show_default=True,
    envvar="HARNESS_BACKEND",
    help="Ask through one engine for all variants, or load each into this process; auto: the engine where it can.",
)
@click.option("--engine", metavar="NAME", help="Start this engine, not the recipe's, and ask through it.")
@click.option("--endpoint", metavar="URL", help="Ask this running engine, one of `harness serve`, for all variants.")
@click.option(
    "--repeat-share",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Ask this share of the items twice, to see the engine's own noise.",
)
@click.option("--again", is_flag=True, help="Ask anew what is answered already.")
@click.option("--keep-remote", is_flag=True, help="Keep the answers of remote models, too, by their names alone.")
@click.option(
    "--inspect",
    type=click.IntRange(min=1),
    metavar="N",
    help="Print N requests from all over each evaluation as they would be sent; ask nothing.",
)
@click.option("--dry-run", is_flag=True, help="Print the items, tokens and time that it would take; ask nothing.")
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
    backend: Any,
    engine: str | None,
    endpoint: str | None,
    repeat_share: float,
    again: bool,
    keep_remote: bool,
    inspect: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure variants on the same items and show them side by side.

    A VARIANT is a run, RUN@base (its base model, asked through the run's template), a model folder, a hub id, the
    folder of a PEFT adapter, or a remote model (openai:https://host/v1#model, its key in OPENAI_API_KEY).
    Every item is kept in the run's evaluations/, for `harness compare`; records of other weights or settings stay
    beside it. Answers are kept as they come: stopped anyhow, the same command goes on where it was.

    \b
    harness evaluate demo@base demo
    harness evaluate demo --evaluation val_loss
    harness evaluate Qwen/Qwen2.5-0.5B-Instruct --evaluation instruct
    harness evaluate demo --set as_lm_eval=true --dtype float32
    harness evaluate Qwen/Qwen2.5-0.5B --template chatml --tasks gsm8k --limit 100
    """
    from rich.markup import escape

    from harness.recipe import load_recipe
    from harness.run import Events
    from harness.variants import resolve_variants
    from harness_evaluation.backends import choose
    from harness_evaluation.looking import look_first
    from harness_evaluation.measuring import Asking, measure_all

    resolved = resolve_variants(variants, context.runs_folder, context.plugins, template)
    recipe = load_recipe(recipe_path, context.plugins) if recipe_path else None
    if recipe is None:
        recipe = _shared_recipe(resolved, decides=not tasks, need=not (tasks or only))
    known = context.plugins.evaluations
    sets += () if limit is None else (f"limit={limit}",)
    specs = (
        _from_tasks(tasks, include_path) if tasks else _from_recipe(recipe, only, include_path, sets, context.plugins)
    )
    specs = _with_sets(specs, sets)
    resolved = tuple(_as_asked(variant, recipe if recipe_path else None, dtype, specs, context) for variant in resolved)
    if inspect is not None or dry_run:
        look_first(context, resolved, specs, recipe, repeat_share, inspect)
        return
    needs = {name: known[name].needed(options) for name, options in specs if known[name].asks}
    choice = choose(resolved, needs, context.plugins, backend, endpoint, engine)
    if backend == "auto" and choice.kind not in ("remote", "none"):
        click.echo(f"Asked through the {choice.kind} backend: {choice.reason}", err=True)
    events = Events.to(recipe.track if recipe else (), context.plugins)
    asking = Asking(repeat_share, again, keep_remote)
    records = measure_all(resolved, specs, recipe, choice, asking, context, events)
    if as_json:
        click.echo(
            json.dumps([{**record.entries, "path": str(record.path)} for record in records], indent=2, default=str)
        )
    else:
        print_table(context, resolved, records)
        if len(variants) > 1:
            compare = escape(context.typed("compare", *variants[:2]))
            context.console.print(f"[dim]Is a difference real?  [/dim]{compare}", soft_wrap=True)


def _shared_recipe(variants: Sequence[Variant], decides: bool, need: bool) -> Recipe | None:
    """Return the recipe of the variants' runs.

    Raises:
        HarnessError: for none, where there is `need` of one; for runs that measure differently, where that `decides`.
    """
    runs = list({variant.run.folder: variant.run for variant in variants if variant.run is not None}.values())
    if not runs:
        if need:
            raise HarnessError(
                "a plain model has no recipe that says what to measure: name an evaluation with --evaluation NAME (as "
                "`harness plugins list evaluation` shows them), a recipe with --recipe FILE, or tasks with --tasks A,B"
            )
        return None
    first = runs[0]
    for run in runs[1:] if decides else ():
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
    recipe: Recipe | None, only: Sequence[str], include_path: Path | None, sets: Sequence[str], plugins: Plugins
) -> list[tuple[str, Any]]:
    """Return (name, options) of the recipe's evaluations, or of those that `only` names, bare or as `owner:name`.

    One that the recipe does not have gets its defaults, with `sets` over them.
    """
    from harness.recipe import evaluate_spec

    if include_path is not None:
        raise HarnessError("--include-path belongs to --tasks; in a recipe it is `include_path` of the evaluation")
    known = plugins.evaluations
    its = [(known.entry(spec.evaluation), spec) for spec in (recipe.evaluate if recipe else ())]
    if recipe is not None and not (its or only):
        raise HarnessError(
            f"the recipe {recipe.name!r} names no evaluations. Add them under `evaluate:`, or name one with "
            f"--evaluation NAME, or tasks with --tasks A,B"
        )
    wanted = [known.entry(name) for name in only]
    specs: list[tuple[Entry[Evaluation], Any]] = [(one, spec) for one, spec in its if one in wanted or not only]
    for one in wanted:
        if one in [of for of, _ in specs]:
            continue
        if recipe is not None:
            click.echo(f"{one.name} is not in the recipe {recipe.name!r}: its options are the defaults", err=True)
        specs.append((one, evaluate_spec(one.qualified, plugins, _those_of(sets, one.item.options))))
    # Records name those of the harness without it.
    return [(one.qualified.removeprefix(f"{FIRST_PARTY}:"), spec) for one, spec in specs]


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

    return [(name, with_sets(options, _those_of(sets, type(options)))) for name, options in specs]


def _those_of(sets: Sequence[str], options: type[Options]) -> list[str]:
    """Return those of `sets` whose key `options` have."""
    return [override for override in sets if override.partition("=")[0].partition(".")[0] in options.model_fields]


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
