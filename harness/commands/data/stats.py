"""`harness data stats`: the figures of data as tables with small histograms, as JSON, or as a page to send to somebody."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.commands.data.reading import (
    Part,
    Reading,
    dataset_option,
    encode_each,
    in_batches,
    json_option,
    kinds_of,
    part_option,
    path_argument,
    read_items,
    set_option,
    template_of,
    template_options,
    what_to_read,
)  # fmt: skip
from harness.commands.data.showing import STYLES, printable
from harness.context import Context
from harness.errors import DataError, HarnessError, MissingExtraError
from harness.files import write_text

if TYPE_CHECKING:
    from harness.data import SourceReport
    from harness.data.prepare.data_statistics import Lengths, Statistics
    from harness.data.prepare.pipeline import Prepared
    from harness.nouns import Conversation
    from harness.template import BoundTemplate, TrainOn

BLOCKS = " ▁▂▃▄▅▆▇█"
SHAPE_FROM = 110  # columns of a terminal, in which the histograms have a place beside the figures


@dataclass(frozen=True)
class Measured:
    """The statistics of some data, the account of each source, and what was wrong on the way."""

    title: str
    statistics: Statistics
    reports: list[SourceReport]
    problems: list[DataError] = field(default_factory=list)
    max_tokens: int | None = None
    template: str | None = None
    no_tokens: str | None = None
    no_languages: str | None = None

    def as_dict(self) -> dict[str, Any]:
        found = self.statistics.as_dict()
        if self.max_tokens is not None and self.statistics.tokens.n:
            found["longer_than_max_tokens"] = round(self.statistics.tokens.share_above(self.max_tokens), 4)
        return found | {
            "files": [
                {"dataset": report.source, "path": report.path, "rows": report.rows, "kept": report.kept, "left_out": dict(report.left_out)}
                for report in self.reports
            ],
            "wrong": len(self.problems),
            "tokens_not_counted": self.no_tokens,
            "languages_not_told": self.no_languages,
        }  # fmt: skip


@click.command()
@path_argument
@dataset_option
@set_option
@part_option
@template_options
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with plots, in one file.")
@json_option
@click.pass_obj
def stats(
    context: Context, path: str | None, dataset: str | None, sets: tuple[str, ...], part: Part, model: str | None, template: str | None,
    html: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Count what RECIPE or FILE holds: rows, turns, lengths, what is learnt, languages, sources, exact duplicates.

    Tokens are counted for a recipe, or for a FILE with --model. Rows that are wrong are counted, and left out.
    """
    from harness.data.prepare.data_statistics import Statistics

    reading = what_to_read(context, path, dataset, part, sets)
    bound, no_tokens = template_of(context, reading.recipe, model, template)
    statistics, problems = Statistics(), list[DataError]()
    stream = read_items(context, reading, "counting", problems.append)
    for batch in in_batches(stream.items):
        for prepared in batch:
            statistics.add(prepared.item, prepared.times)
        if bound is not None:
            _count_tokens(statistics, bound, batch, reading, problems)
    no_languages = None
    try:
        statistics.count_languages()
    except MissingExtraError as error:
        no_languages = str(error)
    reports = list(stream.reports)
    title = Path(path or reading.sources[0].dataset).name + (f", {part}" if reading.recipe else "")
    measured = Measured(
        title, statistics, reports, problems, reading.recipe.data.max_tokens if reading.recipe else None,
        bound.name if bound else None, no_tokens, no_languages,
    )  # fmt: skip
    if not statistics.items:
        raise problems[0] if problems else DataError("there is nothing to count")
    if html is not None:
        from harness.commands.data.page import page_of

        try:
            write_text(html, page_of(measured))
        except OSError as error:
            raise HarnessError(f"{html}: cannot be written: {error.strerror or error}") from None
    if as_json:
        click.echo(json.dumps(measured.as_dict() | {"recognised": reading.as_dict()}, indent=2, ensure_ascii=False))
    else:
        _print(context, measured)
        if html is not None:
            context.console.print(f"\nwritten: {html}", markup=False, soft_wrap=True)


def _count_tokens(
    statistics: Statistics, template: BoundTemplate, batch: list[Prepared], reading: Reading, problems: list[DataError]
) -> None:
    """Add the tokens of some items, each as often as it is used."""
    from harness.data.encode.items import sequences_of

    def refused(conversation: Conversation, error: Exception) -> None:
        problems.append(DataError(str(error)))

    alike: dict[tuple[int, TrainOn], list[Conversation]] = {}
    for prepared in batch:
        key = prepared.times, reading.train_on(prepared.item)
        alike.setdefault(key, []).extend(sequences_of(prepared.item))
    for (times, train_on), sequences in alike.items():
        for example in encode_each(template, sequences, refused, train_on):
            statistics.add_encoded(example, times)


def summary_of(measured: Measured) -> list[tuple[str, str]]:
    """What is said of the data as a whole: names and values."""
    found = measured.statistics
    unit = "tokens" if found.tokens.n else "characters"
    rows = sum(report.rows for report in measured.reports)
    lines = [("rows read", f"{rows:,}")]
    if found.conversations:
        lines.append(("conversations", f"{found.conversations:,}"))
    if found.preferences:
        lines.append(("preferences", f"{found.preferences:,}"))
    lines.append(("exact duplicates", f"{found.duplicates:,} ({found.duplicates / found.items:.1%})"))
    if found.tokens.n:
        lines.append(("tokens", f"{found.tokens.total:,}"))
    lines += [
        ("characters", f"{found.characters.total:,}"),
        (f"{unit} learnt", f"{found.supervised_share:.1%}"),
    ]
    if found.tool_calls or found.with_tools:
        lines += [("tool calls", f"{found.tool_calls:,}"), ("tools offered in", f"{found.with_tools:,}")]
    if measured.max_tokens and found.tokens.n:
        above = found.tokens.share_above(measured.max_tokens)
        lines.append((f"longer than {measured.max_tokens:,} tokens", f"{above:.1%}"))
    if measured.problems:
        lines.append(("rows that are wrong", f"{len(measured.problems):,}"))
    return lines


def lengths_of(measured: Measured) -> list[tuple[str, Lengths]]:
    """The lengths that were counted, with what they count."""
    found = measured.statistics
    token = "tokens a sequence" if found.preferences else "tokens a conversation"
    named = [(token, found.tokens), ("characters", found.characters), ("turns", found.turns)]
    return [(name, lengths) for name, lengths in named if lengths.n]


def shares_of(measured: Measured) -> list[tuple[str, dict[str, int]]]:
    """What was counted by name: messages by role, items by language, script and source."""
    from harness.data.prepare.data_statistics import LANGUAGE_SAMPLE

    found = measured.statistics
    drawn = f" (of {LANGUAGE_SAMPLE:,} items drawn at random)" if found.is_language_sampled else ""
    languages = [(f"language{drawn}", dict(found.languages.most_common()))] if found.languages else []
    return [
        ("messages by role", dict(found.roles.most_common())),
        *languages,
        ("script", dict(found.scripts.most_common())),
        ("source", dict(found.sources.most_common())),
    ]


def _print(context: Context, measured: Measured) -> None:
    from rich.markup import escape

    console = context.console
    console.print(f"[bold]{escape(printable(measured.title))}[/bold]", soft_wrap=True)
    summary = context.table("", "")
    summary.show_header = False
    for name, value in summary_of(measured):
        summary.add_row(name, value)
    console.print(summary)
    if measured.no_tokens:
        console.print(f"[yellow]tokens not counted[/yellow]: {escape(measured.no_tokens)}", soft_wrap=True)
    console.print()
    shape = ["least to 99 %"] if console.width >= SHAPE_FROM else []
    table = context.table("", "least", "median", "mean", "90 %", "99 %", "most", *shape)
    for column in table.columns[1:7]:
        column.justify = "right"
    for column in table.columns:
        column.no_wrap = True
    for name, lengths in lengths_of(measured):
        figures = [min(lengths.counts), lengths.quantile(0.5), lengths.mean, lengths.quantile(0.9), lengths.quantile(0.99), max(lengths.counts)]  # fmt: skip
        shown = [f"{figure:,.1f}" if isinstance(figure, float) else f"{figure:,}" for figure in figures]
        table.add_row(name, *shown, *([f"[cyan]{sparkline(lengths)}[/cyan]"] if shape else []))
    console.print(table)
    for name, counts in shares_of(measured):
        console.print()
        table = context.table(name, "", "")
        table.columns[1].justify = table.columns[2].justify = "right"
        for key, count in list(counts.items())[:12]:
            style = STYLES.get(key, "default")
            table.add_row(f"[{style}]{escape(printable(key))}[/]", f"{count:,}", f"{count / sum(counts.values()):.1%}")
        if len(counts) > 12:
            table.add_row(f"and {len(counts) - 12} more", "", "")
        console.print(table)
    if measured.no_languages:
        console.print(f"\n[yellow]languages not told[/yellow]: {escape(measured.no_languages)}", soft_wrap=True)
    left_out = [(count, reason) for report in measured.reports for reason, count in report.left_out.items()]
    for count, reason in left_out:
        console.print(f"[yellow]{count:,} left out[/yellow]: {escape(printable(reason))}", soft_wrap=True)
    for problems in list(kinds_of(measured.problems).values())[:3]:
        first = escape(printable(str(problems[0])))
        console.print(
            f"[red]{len(problems):,} × wrong[/red]: {first}. `harness data validate` shows all", soft_wrap=True
        )


def sparkline(lengths: Lengths) -> str:
    """The histogram in one line of block characters."""
    counts = [bin.count for bin in lengths.bins() if not bin.beyond]
    highest = max(counts)
    # What is there is seen: a bin with one item is never as empty as an empty one.
    return "".join(BLOCKS[max(round(count / highest * 8), 1 if count else 0)] for count in counts)
