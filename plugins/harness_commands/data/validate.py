"""`harness data validate`: every row that is wrong, grouped by what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import DataError
from harness_commands.data.reading import (
    Part,
    Reading,
    dataset_option,
    encode_items,
    in_batches,
    json_option,
    kinds_of,
    not_read,
    path_argument,
    print_passed_over,
    read_items,
    row_of,
    set_option,
    template_of,
    template_options,
    what_to_read,
)  # fmt: skip
from harness_commands.data.showing import printable

if TYPE_CHECKING:
    from harness.data import Reader, SourceReport
    from harness.data.prepare.pipeline import Prepared
    from harness.recipe import DataRecipe
    from harness.template import BoundTemplate

SHOWN_ROWS = 5


@click.command()
@path_argument
@dataset_option
@set_option
@click.option(
    "--part", type=click.Choice(["train", "validation"]), default=None, help="Check only this data of a recipe."
)
@template_options
@json_option
@click.pass_obj
def validate(
    context: Context,
    path: str | None,
    dataset: str | None,
    sets: tuple[str, ...],
    part: Part | None,
    model: str | None,
    template: str | None,
    as_json: bool,
) -> None:
    """Check every row of RECIPE or FILE and show all problems, grouped. Exits 1 if there are any.

    A recipe's rows have to be what its objective reads. They are also rendered and encoded by its template and measured
    against data.max_tokens, where transformers is installed; a FILE's are rendered and encoded with --model.
    """
    reading = what_to_read(context, path, dataset, part, sets)
    bound, not_checked = template_of(context, reading.recipe, model, template)
    checks = _check(context, reading, bound)
    if as_json:
        report = {
            "sources": [check.as_dict() for check in checks],
            "recognised": reading.as_dict(),
            "template_not_checked": not_checked,
        }
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for check in checks:
            _print_check(context, check)
        if not_checked:
            from rich.markup import escape

            message = f"[yellow]not checked[/yellow] against the template: {escape(not_checked)}"
            context.console.print(message, soft_wrap=True)
    if any(check.problems for check in checks):
        raise SystemExit(1)


@dataclass
class Check:
    """The counts of one source, and every problem in it."""

    report: SourceReport
    problems: list[DataError] = field(default_factory=list)
    tokens: int = 0
    supervised: int = 0
    longest: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.report.source,
            "path": self.report.path,
            "rows": self.report.rows,
            "kept": self.report.kept,
            "left_out": dict(self.report.left_out),
            "not_read": not_read(self.report.path),
            "left_out_ids": self.report.ids or {},
            "notes": self.report.notes(),
            "tokens": self.tokens,
            "supervised_tokens": self.supervised,
            "longest": self.longest,
            "problems": [{"row": problem.row, "reason": problem.reason} for problem in self.problems],
        }


def _check(context: Context, reading: Reading, template: BoundTemplate | None) -> list[Check]:
    """Return one check a source, with every problem that was met on the way."""
    from harness.data import Reader
    from harness.data.encode.encoder import require_kind, require_train_on

    problems: list[DataError] = []
    reader = None
    if reading.recipe and reading.recipe.tune:
        reader = Reader.of(reading.recipe.tune.objective, context.plugins, _positions(reading.recipe, template))
        require_train_on(reading.recipe.data, reader.reads)
    stream = read_items(context, reading, "checking", problems.append, list_ids=True)
    checks = {id(report): Check(report) for report in stream.reports}
    if stream.report:  # what is held out for validation is checked too, with the source that it is from
        for report, held_out in zip(stream.report.train, stream.report.held_out, strict=True):
            checks[id(held_out)] = checks.setdefault(id(report), Check(report))
    for batch in in_batches(stream.items):
        alike: dict[tuple[int, type], list[Prepared]] = {}
        for prepared in batch:
            try:
                if reader:
                    require_kind(prepared, reader)
            except DataError as error:
                check, row = checks[id(prepared.report)], row_of(prepared.item.id)
                check.problems.append(DataError(str(error), path=check.report.path, row=row))
                continue
            if template:
                alike.setdefault((id(prepared.report), type(prepared.item)), []).append(prepared)
        for (report_id, _), same in alike.items():
            assert template
            _check_encoding(checks[report_id], same, reading, template, reader or Reader())
    distinct = list({id(check): check for check in checks.values()}.values())
    sources = {
        file: check for check in reversed(distinct) for file in (check.report.path, *_files(reading, check.report.path))
    }
    for problem in problems:
        sources.get(problem.path or "", distinct[0]).problems.append(problem)
    return distinct


def _files(reading: Reading, path: str) -> list[str]:
    """Return the files that the problems of a source may name; none where it has none."""
    from harness.data.read.storage import files_of

    revision = next((source.revision for source in reading.sources if source.path == path), None)
    try:
        return files_of(path, revision)
    except DataError:
        return []


def _positions(recipe: DataRecipe, template: BoundTemplate | None) -> int | None:
    """Return the positions of the recipe's model, whose files are there where its template is."""
    if recipe.model is None or template is None:
        return None
    from harness.model.configs import load_config, positions_of

    return positions_of(load_config(recipe.model))


def _check_encoding(
    check: Check, batch: list[Prepared], reading: Reading, template: BoundTemplate, reader: Reader
) -> None:
    """Encode items as tuning would, counting their tokens and noting what the template refuses and what is too long."""
    from harness.data.encode.encoder import fitted

    def wrong(prepared: Prepared, reason: str) -> None:
        check.problems.append(DataError(reason, path=check.report.path, row=row_of(prepared.item.id)))

    spec = reading.recipe.data if reading.recipe else None
    for prepared, encoded in encode_items(template, batch, reading, lambda one, error: wrong(one, str(error))):
        check.longest = max(check.longest or 0, *map(len, encoded.examples))
        try:
            items = [encoded] if spec is None else fitted(encoded, prepared, spec, reader, template)
        except DataError as error:
            wrong(prepared, error.reason)
            continue
        for example in (example for item in items for example in item.examples):
            check.tokens += prepared.times * len(example)
            check.supervised += prepared.times * example.supervised


def _print_check(context: Context, check: Check) -> None:
    from rich.markup import escape

    console, report = context.console, check.report
    console.print(f"[bold]{escape(report.path)}[/bold] as {escape(report.source)}", soft_wrap=True)
    print_passed_over(context, report.path)
    console.print(f"  {report} kept")
    for reason, count in report.left_out.items():
        ids = (report.ids or {}).get(reason, [])
        rows = f" ({', '.join(ids[:SHOWN_ROWS])}{', …' if len(ids) > SHOWN_ROWS else ''})" if ids else ""
        console.print(f"  {count} left out: {escape(printable(reason + rows))}", soft_wrap=True)
    for note in report.notes():
        console.print(f"  [yellow]{escape(printable(note))}[/yellow]", soft_wrap=True)
    if check.tokens:
        share = check.supervised / check.tokens
        console.print(f"  {check.tokens} tokens, {share:.0%} of them trained on; the longest row has {check.longest}")
    for problems in kinds_of(check.problems).values():
        rows = ", ".join(str(problem.row) for problem in problems[:SHOWN_ROWS] if problem.row is not None)
        more = ", …" if len(problems) > SHOWN_ROWS else ""
        where = f" (row {rows}{more})" if rows else ""
        console.print(f"  [red]{len(problems)} ×[/red] {escape(printable(problems[0].reason))}{where}", soft_wrap=True)
    if not check.problems:
        console.print("  [green]nothing wrong[/green]")
