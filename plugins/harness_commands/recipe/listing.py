"""`harness recipe list` and `harness recipe copy`: the recipes that come along."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.cli.context import Context
from harness.errors import command
from harness_commands.recipe.shipped import copy, find_recipe, shipped_recipes


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_recipes(context: Context, as_json: bool) -> None:
    """List the recipes that come along, each with its model and what it is for.

    `harness recipe copy NAME` puts one into a folder of yours, with the data that it reads.
    """
    recipes = shipped_recipes()
    if as_json:
        rows = [
            {"name": name, "model": recipe.model, "summary": recipe.summary, "path": str(recipe.path)}
            for name, recipe in recipes.items()
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.markup import escape

    table = context.table("recipe", "model", "what it does")
    for name, recipe in recipes.items():
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(recipe.model), escape(recipe.summary))
    table.columns[0].no_wrap = True
    context.console.print(table)


def _begun(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the recipes whose names begin so, for the shell."""
    return [name for name in shipped_recipes() if name.startswith(incomplete)]


@click.command(name="copy")
@click.argument("name", shell_complete=_begun)
@click.argument("to", required=False, type=click.Path(path_type=Path, file_okay=False), metavar="[FOLDER]")
def copy_recipe(name: str, to: Path | None) -> None:
    """Copy the recipe NAME and the data that it reads to FOLDER (by default one of its name), to be changed there."""
    recipe = find_recipe(name)
    target = copy(recipe, to or Path(recipe.path.stem))
    click.echo(f"{target}: {recipe.summary}")
    for path in recipe.named.values():
        outside = path.parent.name if path.parent.name in (".models", "runs") else ""
        if outside == ".models" and not Path(outside, path.name).exists():
            click.echo(f"  it reads the model {outside}/{path.name}, which is not here yet: `make real-model` in a "
                       f"checkout, or another model: --set model.path=FOLDER")  # fmt: skip
    click.echo(f"\n  {command('tune', target, '--plan')}\n  {command('tune', target)}")
