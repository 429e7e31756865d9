"""`harness runs card`: a model card of a run: data with their licences, recipe, figures and evaluations."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click

from harness.cli.context import Context
from harness.cli.runs import find_run
from harness.errors import HarnessError
from harness.files import write_output
from harness.plugins import Plugins
from harness.run import Run
from harness.run.facts import base_name, figures_of, recipe_of, recipe_yaml, scores_of, shown

UNKNOWN = "not stated"


@click.command(name="card")
@click.argument("name", metavar="RUN")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there, not to the output.")
@click.pass_obj
def card(context: Context, name: str, out: Path | None) -> None:
    """Write a model card of RUN: base, data with licences, recipe, figures, evaluations, how to ask it."""
    text = card_of(find_run(context, name), context.plugins)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_output(out, text)
        click.echo(f"wrote {out}")


def card_of(run: Run, plugins: Plugins, base: str | None = None, *, is_merged: bool = False) -> str:
    """Return the card as Markdown, with the front matter that the hub reads.

    Paths of this machine are left out: files are named by their last part.

    Args:
        base: the hub id of the base model, where the recipe names a folder.
        is_merged: the card is for the merged model.
    """
    from ruamel.yaml import YAML

    run.require_finished()
    recipe = recipe_of(run)
    own_name, is_hub_id = base_name(recipe)
    base_shown = base or own_name
    whole = is_merged or run.model_folder.is_dir()
    front: dict[str, Any] = {"library_name": "transformers" if whole else "peft", "tags": ["instruct-harness"]}
    if base or is_hub_id:
        front["base_model"] = base_shown
    out = io.StringIO()
    YAML().dump(front, out)
    method = recipe["tune"]["method"]["name"].rpartition(":")[2]
    objective = recipe["tune"]["objective"]["name"].rpartition(":")[2]
    kind = "A whole model" if whole else "An adapter"
    parts = [
        f"---\n{out.getvalue()}---\n\n# {run.name}\n",
        f"{kind}, tuned from `{base_shown}` with {method} on the objective {objective}, by "
        f"[instruct-harness](https://pypi.org/project/instruct-harness/).\n",
        _use(run, base_shown, whole),
        _data(run, plugins),
        _figures(run),
        _evaluations(run),
        _merging(run) if is_merged else "",
        _recipe(recipe, base_shown),
        _versions(run),
    ]
    return "\n".join(part for part in parts if part)


def _use(run: Run, base: str, whole: bool) -> str:
    loading = (
        'model = AutoModelForCausalLM.from_pretrained("THIS")'
        if whole
        else f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "THIS")'
    )
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    imports = imports if whole else f"from peft import PeftModel\n{imports}"
    template = (run.manifest.get("template") or {}).get("name", UNKNOWN)
    stretch = (run.manifest.get("model") or {}).get("rope_scaling")
    base_is = "" if whole or not stretch else (
        f" The base is to be loaded with positions stretched by {stretch['type']} x {stretch['factor']:g} "
        f"(`rope_parameters` of its configuration), as it was when the adapter was trained."
    )  # fmt: skip
    return (
        f"## Use\n\nThe chat template is `{template}`; it is in the folder with the tokenizer.{base_is}\n\n```python\n"
        f"{imports}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("THIS")\n{loading}\n'
        'messages = [{"role": "user", "content": "Who are you?"}]\n'
        "asked = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n)\n'
        "print(tokenizer.decode(model.generate(**asked)[0]))\n```\n"
    )


def _data(run: Run, plugins: Plugins) -> str:
    rows = ["| dataset | file | licence | rows used | tokens | supervised |", "|---|---|---|---|---|---|"]
    for source in run.manifest.get("data") or ():
        try:
            licence = plugins.datasets[source["dataset"]].licence
        except HarnessError:  # its plugin is not installed
            licence = UNKNOWN
        place = Path(str(source["path"] or "")).name or "its own"
        rows.append(
            f"| {source['dataset']} | {place} | {licence} | {source['used']:,} | {source['tokens']:,} | "
            f"{source['supervised_tokens']:,} |"
        )
    return (
        "## Data\n\n"
        + "\n".join(rows)
        + "\n\nA licence is that of the rows where the dataset states one; of a file in "
        "a general form its owner has to say it.\n"
    )


def _figures(run: Run) -> str:
    rows = "\n".join(f"| {name} | {value:,.6g} |" for name, value in figures_of(run).items())
    kept = run.manifest.get("kept") or {}
    note = (
        f"\nKept are the weights after step {kept['step']:,}, of the lowest validation loss.\n"
        if kept.get("which") == "best"
        else ""
    )
    return f"## Training\n\n| | |\n|---|---|\n{rows}\n{note}"


def _evaluations(run: Run) -> str:
    scores = scores_of(run)
    if not scores:
        return "## Evaluations\n\nNone were run.\n"
    sides = list(dict.fromkeys(variant for row in scores.values() for variant in row))
    head = f"| | {' | '.join(sides)} |\n|---|{'---|' * len(sides)}\n"
    rows = "".join(
        f"| {name} | {' | '.join(shown(row.get(side)) for side in sides)} |\n" for name, row in scores.items()
    )
    return f"## Evaluations\n\nValue ± standard error, on the same items.\n\n{head}{rows}"


def _merging(run: Run) -> str:
    merged = run.manifest.get("merged")
    if merged is None:
        return ""
    return (
        f"## Merging\n\nBase and adapter were merged in float32 and rounded to {merged['dtype']}, which changed "
        f"log-probabilities by {merged['rounding']:.2g} nats on average over {merged['tokens']:,} tokens.\n"
    )


def _recipe(recipe: dict[str, Any], base: str) -> str:
    shown_recipe = {key: value for key, value in recipe.items() if key not in ("track", "serve")}
    shown_recipe["model"] = shown_recipe["model"] | {"path": base}
    return f"## Recipe\n\n```yaml\n{recipe_yaml(shown_recipe)}```\n"


def _versions(run: Run) -> str:
    session = (run.manifest.get("sessions") or [{}])[-1]
    versions = ", ".join(f"{name} {version}" for name, version in (session.get("versions") or {}).items())
    return (
        f"## Provenance\n\nRun `{run.manifest.get('id', run.name)}`, seed {run.manifest.get('seed')}, on "
        f"{session.get('device', UNKNOWN)}; {versions}. Base weights: sha256 "
        f"`{(run.manifest.get('identity') or {}).get('model_sha256', UNKNOWN)}`.\n"
    )
