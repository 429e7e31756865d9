"""`harness recipe new`: write the recipe for a file and a model, and say what was chosen and why."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import DataError, HarnessError, ModelError
from harness.files import write_output
from harness.nouns import Conversation, DataItem
from harness.recipe.document import file_near
from harness_commands.data.showing import printable
from harness_commands.recipe.draft import Draft, choices_of, evaluation_of, yaml_of
from harness_commands.recipe.drafting import (
    ENOUGH_ROWS,
    MOST_VALIDATED,
    VALIDATED,
    billions_of,
    figures_of,
    kind_of,
    schedule_of,
    template_for,
)

if TYPE_CHECKING:
    from harness.template import BoundTemplate

PLAIN = "plain"  # the template of texts
PIECE = 1024  # tokens of a piece of a long text
NEEDED = {"torch": "tuning", "peft": "tuning", "scipy": "evaluation", "gradio": "serving"}


@click.command(name="new")
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The rows to tune on.")
@click.option("--model", required=True, metavar="MODEL", help="A model folder, or a hub id (owner/name).")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="RECIPE.yaml",
              help="The recipe to write. [default: FILE's name, in this folder]")  # fmt: skip
@click.option("--dataset", metavar="NAME", help="Read FILE as this dataset of `harness data list`.")
@click.option("--columns", multiple=True, metavar="OURS=THEIRS",
              help="The column THEIRS of FILE is the dataset's OURS, as in prompt=Question.")  # fmt: skip
@click.option("--rows", metavar="KEY", help="Of a JSON object that holds the rows: the key under which they are.")
@click.option("--force", is_flag=True, help="Replace the recipe if it is there.")
@click.pass_obj
def new_recipe(
    context: Context,
    data: Path,
    model: str,
    out: Path | None,
    dataset: str | None,
    columns: tuple[str, ...],
    rows: str | None,
    force: bool,
) -> None:
    """Write the recipe that tunes MODEL on FILE, say what was chosen and why, and what to type next.

    \b
    harness recipe new --data tickets.csv --model .models/SmolLM2-135M-Instruct
    harness recipe new --data fragen.csv --model owner/name --columns prompt=Frage --columns completion=Antwort

    FILE is CSV, TSV, JSON, JSONL, Parquet or text: questions and answers, conversations, preferences, or plain text.
    Every row is read. Tokens are counted with the model's tokenizer where it is here.
    """
    if not data.exists():
        raise DataError(f"{data}: no such file.{file_near(data)}")
    _require_model(model)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", (out or data).name.split(".")[0]).strip("-._") or "my"
    out = out or Path(f"{name}.yaml")
    if out.exists() and not force:
        raise HarnessError(f"{out} is there already: --force replaces it, --out names another")
    with context.console.status(f"Reading {data}"):
        draft = _draft(context, name, data, model, dataset, _renamed(columns), rows)
    write_output(out, yaml_of(draft, out))
    _require_valid(context, out)
    _say(context, draft, out)


def _require_model(model: str) -> None:
    """Raise ModelError for what is neither a model folder nor may be a hub id."""
    path = Path(model).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"{model}: this folder holds no model: it has no config.json")
    if not path.is_dir() and (model.startswith((".", "/", "~")) or model.count("/") != 1):
        raise ModelError(
            f"{model}: neither a model folder nor a hub id (owner/name).{file_near(path)} `harness models list` shows "
            f"the models in .models/"
        )


def _renamed(columns: tuple[str, ...]) -> dict[str, str]:
    pairs = [column.partition("=") for column in columns]
    if bad := [ours for ours, equals, theirs in pairs if not (equals and ours and theirs)]:
        raise click.UsageError(f"--columns {bad[0]}: expected OURS=THEIRS, as in --columns prompt=Question")
    return {ours: theirs for ours, _, theirs in pairs}


def _draft(
    context: Context, name: str, data: Path, model: str, dataset: str | None, columns: Mapping[str, str],
    rows: str | None,
) -> Draft:  # fmt: skip
    from harness.data import load_source
    from harness.data.convert.ways import way_to_read
    from harness.recipe import source_model

    datasets = context.plugins.datasets
    way = way_to_read(str(data), datasets, dataset=dataset, columns=columns, rows=rows)
    spec: dict[str, Any] = {
        "dataset": way.dataset,
        "path": str(data),
        "columns": dict(way.columns),
        "unread": way.unread,
        "rows": rows,
    }
    source = source_model(datasets[way.dataset])(**spec, on_bad_row="drop")
    kind = kind_of(next(iter(load_source(source.model_copy(update={"limit": 1}), datasets))))
    own, bound, why = template_for(context, model)
    template = own
    if kind == "texts":
        template, bound, why = PLAIN, _plain(context, model), "it adds nothing to a text"
    figures = figures_of(context, source, bound)
    if not figures.items:
        raise figures.wrong[0] if figures.wrong else DataError("no row of it can be trained on", path=data)
    share = min(VALIDATED, round(MOST_VALIDATED / figures.items, 4)) if figures.items >= ENOUGH_ROWS else None
    limit = _positions(model)
    width = next(size for size in (2**power for power in range(8, 40)) if size >= figures.longest)
    max_tokens = min(PIECE if kind == "texts" else width, limit or width)
    tokens = figures.tokens * (1 - (share or 0))
    schedule = schedule_of(tokens, figures.items, min(figures.longest, max_tokens))
    overlong = 0 if kind == "texts" else int(figures.longest > max_tokens)
    return Draft(
        name, data, model, way, kind, figures, template, bound, why, schedule, share, rows, max_tokens, overlong,
        billions_of(model),
    )  # fmt: skip


def _plain(context: Context, model: str) -> BoundTemplate | None:
    from harness.model.templates import bind_template
    from harness.recipe import ModelSpec, template_spec

    try:
        return bind_template(template_spec(PLAIN, context.plugins), ModelSpec(path=model), context.plugins)
    except HarnessError:  # not here: `template_for` has said so
        return None


def _positions(model: str) -> int | None:
    """Return the model's positions; None where its configuration is not here."""
    try:
        from harness.model.configs import load_config, positions_of
        from harness.recipe import ModelSpec

        return positions_of(load_config(ModelSpec(path=model)))
    except (HarnessError, ImportError):
        return None


def _require_valid(context: Context, out: Path) -> None:
    """Load what was written, as tuning would: a recipe that does not load is of no use to anybody."""
    from harness.recipe import load_recipe

    load_recipe(out, context.plugins)


def _say(context: Context, draft: Draft, out: Path) -> None:
    from rich.markup import escape

    console = context.console
    console.print(
        f"[bold]{escape(str(out))}[/bold] tunes {escape(draft.model)} on {escape(str(draft.data))}\n", soft_wrap=True
    )
    table = context.table("", "chosen", "why")
    for part, chosen, why in choices_of(draft):
        table.add_row(f"[dim]{part}[/dim]", escape(printable(chosen)), escape(printable(why)))
    console.print(table)
    assert draft.figures.first is not None
    console.print(
        f"\n[dim]the first row, as it is trained on:[/dim]\n{escape(printable(_shown(draft.figures.first)))}",
        soft_wrap=True,
    )
    if missing := sorted({extra for module, extra in NEEDED.items() if importlib.util.find_spec(module) is None}):
        console.print(
            f"\nnot installed yet:\n  pip install 'instruct-harness[{','.join(missing)}]'", markup=False, soft_wrap=True
        )
    console.print("\nnext:")
    commands = list(next_commands(context, draft, out))
    width = max(len(words) for words, _ in commands)
    for words, purpose in commands:
        console.print(f"  {escape(words.ljust(width))}  [dim]# {purpose}[/dim]", soft_wrap=True)


def _shown(item: DataItem, limit: int = 200) -> str:
    """Return the first item in a few lines."""

    def line(role: str, text: str) -> str:
        text = " ".join(text.split())
        return f"  {role}: {text if len(text) <= limit else text[: limit - 1] + '…'}"

    if isinstance(item, Conversation):
        return "\n".join(line(message.role, message.content) for message in item.messages[:4])
    sides = (("chosen", item.chosen), ("rejected", item.rejected))
    asked = [line(message.role, message.content) for message in item.prompt[-1:]]
    return "\n".join(asked + [line(role, messages[-1].content) for role, messages in sides if messages])


def next_commands(context: Context, draft: Draft, out: Path) -> Iterator[tuple[str, str]]:
    """Yield the commands to type next, each with its purpose, in the order in which they work."""
    name, recipe = draft.name, str(out)
    question = next((one.content for one in _asked(draft.figures.first) if one.role == "user"), "")
    question = " ".join(question.split())
    measuring = (
        (("evaluate", f"{name}@base", name), "base and tuned, on the rows held out"),
        (("compare", f"{name}@base", name), "the difference, with its interval"),
    )
    steps: list[tuple[tuple[str, ...], str]] = [
        (("data", "validate", recipe), "every row, through the template"),
        (("tune", recipe, "--plan"), "the steps, the memory and the time, before anything is tuned"),
        (("tune", recipe), f"leaves the run {name}"),
        *(measuring if evaluation_of(draft) else ()),
        *([(("ask", name, question[:60]), "one answer, without an engine")] if question else []),
        (("serve", f"{name}@base", name), "both behind one endpoint, and the page to compare them"),
    ]  # fmt: skip
    for words, purpose in steps:
        yield context.typed(*words), purpose


def _asked(item: DataItem | None) -> Any:
    return () if item is None else item.messages if isinstance(item, Conversation) else item.prompt
