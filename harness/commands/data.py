"""`harness data`: what data sets there are, what their rows look like as conversations, and every row that is wrong.

Needs no torch. `validate` checks a recipe's rows against its template too, where transformers is installed.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from harness.context import Context
from harness.errors import DataError, HarnessError, ModelError, TemplateError
from harness.nouns import Conversation, Message, Preference

if TYPE_CHECKING:
    from harness.data import SourceReport
    from harness.recipe import DataSource, Recipe
    from harness.template import BoundTemplate

STYLES = {"system": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow"}
SHOWN_ROWS = 5

source_arguments = (
    click.argument("path", required=False, type=click.Path(path_type=Path), metavar="[RECIPE|FILE]"),
    click.option("--dataset", metavar="NAME", help="Read FILE as this data set, instead of reading a recipe."),
)


@click.group(name="data", help="See and check data: list, preview, validate.")
def command() -> None:
    pass


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_datasets(context: Context, as_json: bool) -> None:
    """List the registered data sets with licence and the plugin each comes from. Reads no data."""
    datasets = context.plugins.datasets
    rows = [
        {
            "name": name,
            "description": dataset.description,
            "licence": dataset.licence,
            "source": None if dataset.source is None else str(dataset.source),
            "plugin": datasets.owner(name).name,
        }
        for name, dataset in datasets.items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.markup import escape

    table = context.table("data set", "description", "licence", "data", "plugin")
    for row in rows:
        own = "its own" if row["source"] else "[dim]give a path[/dim]"
        table.add_row(
            f"[bold]{escape(str(row['name']))}[/bold]", escape(str(row["description"])), escape(str(row["licence"])), own,
            escape(str(row["plugin"])),
        )  # fmt: skip
    context.console.print(table)


@command.command()
@source_arguments[0]
@source_arguments[1]
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="How many rows to show of each source.",
)
@click.option(
    "--part",
    type=click.Choice(["train", "validation"]),
    default="train",
    show_default=True,
    help="Which data of a recipe.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a row.")
@click.pass_obj
def preview(
    context: Context,
    path: Path | None,
    dataset: str | None,
    count: int,
    part: Literal["train", "validation"],
    as_json: bool,
) -> None:
    """Show the first rows as conversations: of the recipe RECIPE, or of FILE read as the data set --dataset NAME."""
    from harness.data import load_source

    for source in _sources(context, path, dataset, part):
        for item in itertools.islice(load_source(source, context.plugins.datasets), count):
            if as_json:
                click.echo(json.dumps(asdict(item), ensure_ascii=False, default=str))
            else:
                _print_item(context, item)


@command.command()
@source_arguments[0]
@source_arguments[1]
@click.option(
    "--part", type=click.Choice(["train", "validation"]), default=None, help="Check only this data of a recipe."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def validate(
    context: Context, path: Path | None, dataset: str | None, part: Literal["train", "validation"] | None, as_json: bool
) -> None:
    """Check every row of RECIPE, or of FILE as --dataset NAME, and show all problems, grouped. Exits 1 if there are any.

    A recipe's conversations are also rendered and encoded by its template and measured against data.max_tokens,
    where transformers is installed.
    """
    recipe = None if dataset else _recipe(context, path)
    template, not_checked = _template(context, recipe)
    if recipe is None or part:
        sources = _sources(context, path, dataset, part or "train")
    else:
        sources = recipe.data.train + recipe.data.validation
    checks = [_check(context, source, recipe, template) for source in sources]
    if as_json:
        click.echo(
            json.dumps(
                {"sources": [check.as_dict() for check in checks], "template_not_checked": not_checked},
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        for check in checks:
            _print_check(context, check)
        if not_checked:
            context.console.print(f"[yellow]not checked[/yellow] against the template: {not_checked}", soft_wrap=True)
    if any(check.problems for check in checks):
        raise SystemExit(1)


# What is read


def _recipe(context: Context, path: Path | None) -> Recipe:
    from harness.recipe import load_recipe

    if path is None:
        raise HarnessError(
            "name a recipe, as in `harness data preview recipe.yaml`, or a file and what it is: --dataset NAME FILE"
        )
    if path.suffix in {".json", ".jsonl"}:
        raise HarnessError(
            f"{path} looks like data, not like a recipe: say what it is with --dataset NAME (`harness data list` shows them)"
        )
    return load_recipe(path, context.plugins)


def _sources(
    context: Context, path: Path | None, dataset: str | None, part: Literal["train", "validation"]
) -> tuple[DataSource, ...]:
    from harness.recipe import source_model

    if dataset is not None:
        declared = context.plugins.datasets[dataset]
        return (source_model(declared)(dataset=dataset, path=None if path is None else str(path)),)
    recipe = _recipe(context, path)
    sources = recipe.data.train if part == "train" else recipe.data.validation
    if not sources:
        raise HarnessError(f"{path}: the recipe has no data.{part}")
    return sources


def _template(context: Context, recipe: Recipe | None) -> tuple[BoundTemplate | None, str | None]:
    """The recipe's template on its model's tokenizer, or the reason why it cannot be had here."""
    if recipe is None:
        return None, None
    if importlib.util.find_spec("transformers") is None:
        return None, "transformers is not installed: pip install 'instruct-harness[tuning]'"
    from harness.models import bind_template

    try:
        return bind_template(recipe.template, recipe.model, context.plugins), None
    except ModelError as error:
        return None, str(error)


# What is checked


@dataclass
class Check:
    """What one source holds, and everything that is wrong with it."""

    report: SourceReport
    problems: list[DataError] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    supervised: int = 0

    def groups(self) -> dict[str, list[DataError]]:
        """The problems by kind, the most frequent first; what differs only in a figure or a found value is one kind."""
        found: dict[str, list[DataError]] = {}
        for problem in self.problems:
            reason = problem.reason.splitlines()[0]
            kind = re.sub(r"\d+", "0", re.sub(r"(found|The row has:|at column \d+:) .*", r"\1", reason))
            found.setdefault(kind, []).append(problem)
        return dict(sorted(found.items(), key=lambda group: -len(group[1])))

    def as_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.report.source,
            "path": self.report.path,
            "rows": self.report.rows,
            "kept": self.report.kept,
            "left_out": dict(self.report.left_out),
            "tokens": sum(self.lengths),
            "supervised_tokens": self.supervised,
            "longest": max(self.lengths, default=None),
            "problems": [{"row": problem.row, "reason": problem.reason} for problem in self.problems],
        }


def _check(context: Context, source: DataSource, recipe: Recipe | None, template: BoundTemplate | None) -> Check:
    from harness.data import SourceReport, load_source

    dataset = context.plugins.datasets[source.dataset]
    check = Check(SourceReport(source.dataset, source.path or str(dataset.source)))
    items: Iterable[Conversation | Preference] = load_source(
        source, context.plugins.datasets, check.report, check.problems.append
    )
    for batch in _batches(items, 256):
        if recipe is not None and template is not None:
            _check_encoding(check, [item for item in batch if isinstance(item, Conversation)], recipe, template)
    return check


def _check_encoding(check: Check, conversations: list[Conversation], recipe: Recipe, template: BoundTemplate) -> None:
    """Encode conversations as tuning would, noting what the template refuses and what is too long."""
    path, limit = check.report.path, recipe.data.max_tokens
    try:
        examples = template.encode_batch(conversations)
    except TemplateError:
        examples = []
        for conversation in conversations:
            try:
                examples.append(template.encode(conversation))
            except TemplateError as error:
                check.problems.append(DataError(str(error), path=path, row=_row(conversation.id)))
    for example in examples:
        check.lengths.append(len(example))
        check.supervised += example.supervised
        if len(example) > limit and recipe.data.on_overlong == "error":
            told = f"{len(example)} tokens, more than data.max_tokens = {limit}; see data.on_overlong"
            check.problems.append(DataError(told, path=path, row=_row(example.id)))


def _row(id: str) -> int | None:
    """The row in an id that the core gave (`file:row`)."""
    row = id.rpartition(":")[2]
    return int(row) if row.isdigit() else None


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


# What is shown


def _print_check(context: Context, check: Check) -> None:
    from rich.markup import escape

    console, report = context.console, check.report
    console.print(f"[bold]{escape(report.path)}[/bold] as {escape(report.source)}", soft_wrap=True)
    console.print(f"  {report.rows} rows read, {report.kept} kept")
    for reason, count in report.left_out.items():
        console.print(f"  {count} left out: {escape(reason)}")
    if check.lengths:
        share = check.supervised / sum(check.lengths)
        console.print(
            f"  {sum(check.lengths)} tokens, {share:.0%} of them learnt; the longest has {max(check.lengths)}"
        )
    for problems in check.groups().values():
        rows = ", ".join(str(problem.row) for problem in problems[:SHOWN_ROWS] if problem.row is not None)
        more = ", …" if len(problems) > SHOWN_ROWS else ""
        where = f" (row {rows}{more})" if rows else ""
        console.print(f"  [red]{len(problems)} ×[/red] {escape(printable(problems[0].reason))}{where}", soft_wrap=True)
    if not check.problems:
        console.print("  [green]nothing wrong[/green]")


def _print_item(context: Context, item: Conversation | Preference) -> None:
    from rich.markup import escape
    from rich.rule import Rule

    context.console.print(
        Rule(f"[bold]{escape(printable(item.id))}[/bold]  {escape(item.source)}", align="left", style="dim")
    )
    if isinstance(item, Conversation):
        for tool in item.tools:
            _print_turn(context, "offered", "dim", json.dumps(dict(tool), ensure_ascii=False))
        for message in item.messages:
            _print_message(context, message)
        return
    for messages, told in ((item.prompt, ""), (item.chosen, "chosen"), (item.rejected, "rejected")):
        for message in messages:
            _print_message(context, message, told)


def _print_message(context: Context, message: Message, told: str = "") -> None:
    text = message.content
    for call in message.tool_calls:
        text += f"{chr(10) if text else ''}→ {call.name}({json.dumps(dict(call.arguments), ensure_ascii=False)})"
    style = {"chosen": "green", "rejected": "red"}.get(told, STYLES[message.role])
    untrained = " (not learnt)" if message.role == "assistant" and not message.is_trained else ""
    _print_turn(context, told or message.role + untrained, style, text)


def _print_turn(context: Context, label: str, style: str, text: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    context.console.print(Text(label, style=f"bold {style}"))
    context.console.print(Padding(Text(printable(text)), (0, 0, 0, 2)))


def printable(text: str) -> str:
    """The text with control characters made visible, so that data cannot drive the terminal."""
    return re.sub(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda match: chr(0x2400 + ord(match[0])) if match[0] < " " else "␦", text
    )
