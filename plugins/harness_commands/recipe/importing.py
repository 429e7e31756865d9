"""`harness recipe import`: another tool's configuration as a recipe, with an account of every line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from harness.cli.context import Context
from harness.errors import HarnessError, RecipeError
from harness.files import write_output
from harness.recipe.document import plain, read_document
from harness_commands.data.showing import printable
from harness_commands.recipe.axolotl import is_axolotl, read_axolotl
from harness_commands.recipe.carried import Carried, Line
from harness_commands.recipe.llama_factory import is_llama_factory, read_llama_factory

STYLES = {"carried": "green", "changed": "yellow", "needless": "dim", "left": "red", "unknown": "bold red"}
WORDS = {
    "carried": "carried over",
    "changed": "changed",
    "needless": "not needed",
    "left": "not carried over",
    "unknown": "not known",
}
ORDER = ("name", "model", "template", "data", "tune", "evaluate", "track")


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="RECIPE.yaml",
              help="The recipe to write. [default: FILE's name, in this folder]")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the recipe if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as JSON.")
@click.pass_obj
def import_recipe(context: Context, file: Path, out: Path | None, force: bool, as_json: bool) -> None:
    """Write the recipe of an Axolotl or LLaMA-Factory FILE, and say line by line what was carried over.

    \b
    harness recipe import qlora.yml
    harness recipe import examples/train_lora/llama3_lora_sft.yaml --out llama3.yaml

    LLaMA-Factory's datasets are looked up in its dataset_info.json: in `dataset_dir`, or in `data/` of a folder above.
    What has no counterpart here is named with the reason, and a key that is not known is marked.
    """
    document = read_document(file)
    config = Carried(file, document.tree)
    tool = _read(config)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", (out or file).stem).strip("-._") or "imported"
    out = out or Path(f"{name}.yaml")
    if out.exists() and (not force or out.resolve() == file.resolve()):
        raise HarnessError(f"{out} is there already: --out names another{'' if force else ', --force replaces it'}")
    recipe = {"name": name, **config.recipe}
    write_output(out, _yaml({key: recipe[key] for key in ORDER if key in recipe}, tool, file, out))
    problem = _problem(context, out)
    if as_json:
        lines = [{"line": one.line, "key": one.key, "value": plain(one.value), "outcome": one.outcome,
                  "became": one.became} for one in config.account]  # fmt: skip
        report = {"tool": tool, "recipe": str(out), "lines": lines, "problem": problem}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False, default=str))
        return
    _say(context, config, tool, out, problem)


def _read(config: Carried) -> str:
    """Carry a configuration over by the tool that it is for, and return the tool's name."""
    if is_axolotl(config.tree):
        tool, read = "Axolotl", read_axolotl
    elif is_llama_factory(config.tree):
        tool, read = "LLaMA-Factory", read_llama_factory
    else:
        raise RecipeError(
            f"{config.path}: neither Axolotl's configuration (base_model, datasets) nor LLaMA-Factory's "
            f"(model_name_or_path, stage): it has {', '.join(list(map(str, config.tree))[:8]) or 'no keys'}"
        )
    try:
        read(config)
    except (TypeError, ValueError, AttributeError) as error:
        raise RecipeError(f"{config.path}: not as {tool} writes it: {error}") from None
    config.finish()
    return tool


def _yaml(recipe: dict[str, Any], tool: str, file: Path, out: Path) -> str:
    from io import StringIO

    folder = out.absolute().parent
    for part in ("train", "validation"):
        for source in recipe["data"].get(part, ()):
            if Path(source["path"]).is_absolute():
                source["path"] = os.path.relpath(source["path"], folder)
    text = StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 120
    yaml.dump(plain(recipe), text)
    origin = f"# From {tool}'s {file.name}, by `harness recipe import`, which says what was not carried over."
    return f"{origin}\n{text.getvalue()}"


def _problem(context: Context, out: Path) -> str | None:
    """Return what stands in the way of the recipe, as tuning would say it; None where nothing does."""
    from harness.recipe import load_recipe

    try:
        load_recipe(out, context.plugins)
    except HarnessError as error:
        return str(error)
    return None


def _say(context: Context, config: Carried, tool: str, out: Path, problem: str | None) -> None:
    from rich.markup import escape

    console = context.console
    console.print(f"[bold]{escape(str(out))}[/bold] from {tool}'s {escape(str(config.path))}\n", soft_wrap=True)
    table = context.table("line", "key", "", "here")
    for one in config.account:
        style = STYLES[one.outcome]
        table.add_row(
            str(one.line), escape(printable(one.key)), f"[{style}]{WORDS[one.outcome]}[/{style}]", escape(_here(one))
        )
    console.print(table)
    counts = {outcome: sum(one.outcome == outcome for one in config.account) for outcome in WORDS}
    console.print("\n" + ", ".join(f"{count} {WORDS[outcome]}" for outcome, count in counts.items() if count))
    if problem:
        console.print(f"\n[yellow]before it can be tuned with:[/yellow] {escape(problem)}", soft_wrap=True)
    console.print(
        f"\nnext:\n  {context.typed('data', 'validate', str(out))}\n  {context.typed('tune', str(out), '--plan')}",
        markup=False,
        soft_wrap=True,
    )


def _here(one: Line) -> str:
    value = "" if one.outcome in ("carried", "changed") else f"{printable(str(plain(one.value)))[:40]}: "
    return value + printable(one.became)
