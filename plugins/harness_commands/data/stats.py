"""`harness data stats`: the figures of data as tables with small histograms, as JSON, or as an HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.context import Context
from harness.errors import DataError, MissingExtraError
from harness.files import write_output
from harness_commands.data.measured import Measured, lengths_of, shares_of, summary_of
from harness_commands.data.reading import (
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
from harness_commands.data.showing import STYLES, printable

if TYPE_CHECKING:
    from harness.data.prepare.data_statistics import Lengths, Statistics
    from harness.data.prepare.pipeline import Prepared
    from harness.nouns import Conversation
    from harness.template import BoundTemplate, TrainOn

BLOCKS = " ▁▂▃▄▅▆▇█"
SHAPE_FROM = 110  # columns of a terminal, in which the histograms have a place beside the figures


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
    context: Context,
    path: str | None,
    dataset: str | None,
    sets: tuple[str, ...],
    part: Part,
    model: str | None,
    template: str | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Count what RECIPE or FILE holds: rows, turns, lengths, supervised tokens, languages, sources, exact duplicates.

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
        from harness_commands.data.statistics_page import statistics_page

        write_output(html, statistics_page(measured))
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
        for example in encode_each(template, sequences, refused, train_on, reading.reasoning):
            statistics.add_encoded(example, times)


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
        figures = [
            min(lengths.counts),
            lengths.quantile(0.5),
            lengths.mean,
            lengths.quantile(0.9),
            lengths.quantile(0.99),
            max(lengths.counts),
        ]
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
    """Return the histogram in one line of block characters."""
    counts = [bin.count for bin in lengths.bins() if not bin.beyond]
    highest = max(counts)
    # What is there is seen: a bin with one item is never as empty as an empty one.
    return "".join(BLOCKS[max(round(count / highest * 8), 1 if count else 0)] for count in counts)
