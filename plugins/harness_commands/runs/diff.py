"""`harness runs diff`: where the recipes of two runs differ, and their figures side by side."""

from __future__ import annotations

import json
from typing import Any

import click

from harness.cli.context import Context
from harness.cli.runs import find_run
from harness.run.facts import figures_of, recipe_of, scores_of, shown

ABSENT = "–"


@click.command(name="diff")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def diff(context: Context, first: str, second: str, as_json: bool) -> None:
    """Show where the recipes of runs A and B differ, and their figures and evaluations side by side."""
    from harness.options import leaves

    runs = [find_run(context, name) for name in (first, second)]
    one, other = (dict(leaves(recipe_of(run))) for run in runs)
    keys = [key for key in dict.fromkeys([*one, *other]) if key != "name" and one.get(key) != other.get(key)]
    recipes = {key: (one.get(key), other.get(key)) for key in keys}
    figures = [figures_of(run) for run in runs]
    scores = [
        {f"{task} ({_side(variant)})": score for task, row in scores_of(run).items() for variant, score in row.items()}
        for run in runs
    ]
    if as_json:
        sides = [
            {"run": run.name, "figures": figure, "scores": score}
            for run, figure, score in zip(runs, figures, scores, strict=True)
        ]
        click.echo(json.dumps({"recipe": recipes, "runs": sides}, indent=2, ensure_ascii=False, default=str))
        return
    from rich.markup import escape

    table = context.table("", *(escape(run.name) for run in runs))
    table.add_row("[bold]recipe[/bold]")
    for key, (before, after) in recipes.items():
        table.add_row(f"  {escape(key)}", escape(_text(before)), escape(_text(after)))
    if not recipes:
        table.add_row("  [dim]no difference[/dim]")
    table.add_row("[bold]figures[/bold]")
    for key in dict.fromkeys([*figures[0], *figures[1]]):
        table.add_row(f"  {key}", *(f"{side[key]:,.5g}" if key in side else ABSENT for side in figures))
    for number, key in enumerate(dict.fromkeys([*scores[0], *scores[1]])):
        if number == 0:
            table.add_row("[bold]evaluations[/bold]")
        table.add_row(f"  {escape(key)}", *(shown(side.get(key)) for side in scores))
    context.console.print(table)
    if scores[0] and scores[1]:
        compare = escape(context.typed("compare", *(run.name for run in runs)))
        context.console.print(f"[dim]Is a difference real?  [/dim]{compare}", soft_wrap=True)


def _side(variant: str) -> str:
    return "base" if variant.endswith("@base") else "tuned"


def _text(value: Any) -> str:
    return ABSENT if value is None else str(value)
