"""`harness gate`: the rules of a recipe, judged by records on disk, with an exit code for continuous integration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError
from harness_evaluation.compare_command import compared_variants, comparison_json
from harness_evaluation.tables import print_figures

if TYPE_CHECKING:
    from harness.measure.gate import Ruling
    from harness.recipe import GateRule

BROKEN, NOT_JUDGED = 1, 2
COLOURS = {"kept": "green", "broken": "red", "not judged": "yellow"}


@click.command(name="gate")
@click.argument("run", metavar="RUN")
@click.option("--against", metavar="VARIANT", help="The variant to compare with.  [default: RUN@base]")
@click.option(
    "--recipe",
    "recipe_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the rules from this recipe, not from the run's own.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout and nothing else.")
@click.pass_context
def command(ctx: click.Context, run: str, against: str | None, recipe_path: Path | None, as_json: bool) -> None:
    """Judge an evaluated run by the `gate:` rules of its recipe: exit 0 where all are kept.

    Exits 1 where a rule is broken, and 2 where one cannot be judged: nothing was measured, or other items. A bound is
    kept where the whole 95% interval of the difference RUN minus VARIANT keeps it.

    \b
    harness gate demo
    harness gate new --against old --recipe recipes/rules.yaml
    """
    context: Context = ctx.obj
    against = against or f"{run}@base"
    try:
        rules = _rules(context, run, recipe_path)
        compared = compared_variants(context, (against, run), refuse=False)
    except HarnessError as error:
        # A mistake is no broken rule: 1 is kept for those.
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(str(error), err=True)
        ctx.exit(NOT_JUDGED)
    from harness.measure.gate import judge

    rulings = judge(rules, compared.rivals[0])
    names = (compared.first, compared.rivals[0].name)
    outcomes = {ruling.outcome for ruling in rulings}
    if as_json:
        rows = [_as_json(ruling, names[1]) for ruling in rulings]
        click.echo(json.dumps({"run": names[1], "against": names[0], "rules": rows}, indent=2, ensure_ascii=False))
    else:
        _print(context, rulings, names)
    ctx.exit(BROKEN if "broken" in outcomes else NOT_JUDGED if "not judged" in outcomes else 0)


def _rules(context: Context, name: str, recipe_path: Path | None) -> tuple[GateRule, ...]:
    """Return the rules. Raises HarnessError where there are none."""
    from harness.recipe import load_recipe
    from harness.variants import resolve_variant

    if recipe_path is not None:
        recipe = load_recipe(recipe_path, context.plugins)
    else:
        run = resolve_variant(name, context.runs_folder, context.plugins).run
        if run is None:
            raise HarnessError(f"{name} is no run and has no recipe; name one with rules: --recipe FILE")
        recipe = run.recipe
    if not recipe.gate:
        raise HarnessError(
            f"the recipe {recipe.name!r} has no rules. Add them, as in\n\n"
            f"gate:\n  - {{no_significant_loss: true}}\n  - {{task: TASK, metric: METRIC, at_least: 2 points}}\n\n"
            f"or name a recipe that has: --recipe FILE"
        )
    return recipe.gate


def _print(context: Context, rulings: list[Ruling], names: tuple[str, str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from harness_evaluation import wording

    say = context.console.print
    say(f"[bold]{escape(names[1])}[/bold] against [bold]{escape(names[0])}[/bold]\n")
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rule", overflow="fold")
    table.add_column("on", overflow="fold")
    for title in (escape(names[0]), escape(names[1]), "difference", "95% interval", "p"):
        table.add_column(title, justify="right")
    table.add_column("outcome")
    for ruling in rulings:
        of = ruling.comparison
        on, figures = "", ("", "", "", "", "")
        if of is not None:
            on = " ".join(part for part in (of.task, of.metric, of.category) if part)
            means = [wording.value(of, side) for side in (of.paired.a, of.paired.b)]
            p = wording.p_value(of.adjusted) if ruling.rule.no_significant_loss else ""
            figures = (means[0], means[1], wording.difference(of), wording.interval(of), p)
        outcome = f"[{COLOURS[ruling.outcome]}]{ruling.outcome}[/]: {escape(ruling.reason)}"
        if of is not None and ruling.rule.no_significant_loss and ruling.outcome == "kept" and of.better is None:
            outcome += f", {escape(wording.could_see(of))}"
        table.add_row(escape(wording.rule(ruling.rule, of)), escape(on), *figures, outcome)
    print_figures(context.console, table, labels=2, words_last=True)
    counts = [sum(ruling.outcome == outcome for ruling in rulings) for outcome in COLOURS]
    say(f"\n{counts[0]} kept, {counts[1]} broken, {counts[2]} not judged")


def _as_json(ruling: Ruling, name: str) -> dict[str, Any]:
    of = ruling.comparison
    return {
        "rule": ruling.rule.model_dump(mode="json", exclude_defaults=True),
        "outcome": ruling.outcome,
        "reason": ruling.reason,
        "comparison": None if of is None else comparison_json(of, name),
    }
