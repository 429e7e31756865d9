"""`harness data recognise`: which dataset a file is for, why, and how sure that is."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from harness.cli.context import Context
from harness.errors import DataError
from harness_commands.data.reading import json_option
from harness_commands.data.showing import printable


@click.command(name="recognise")
@click.argument("path", metavar="FILE")
@json_option
@click.pass_obj
def recognise_file(context: Context, path: str, as_json: bool) -> None:
    """Say which dataset FILE is for, why, and how sure that is.

    Exits 1 where none fits, or several fit equally well.
    """
    from harness.data.convert.hints import losing_least
    from harness.data.convert.recognise import best_of, recognise
    from harness.data.convert.sample import SampledRows

    datasets = context.plugins.datasets
    seen = SampledRows.of(path)
    matches = recognise(seen, datasets)
    worth_a_look = losing_least([match for match in matches if match.named])
    refusal = None
    try:
        chosen = best_of(matches, seen, datasets).dataset
    except DataError as error:
        chosen, refusal = None, error
    if as_json:
        choice = {"path": path, "dataset": chosen, "refused": None if refusal is None else refusal.reason}
        click.echo(
            json.dumps(choice | {"matches": [asdict(match) for match in worth_a_look]}, indent=2, ensure_ascii=False)
        )
        if refusal:
            raise SystemExit(1)
        return
    from rich.markup import escape

    table = context.table("dataset", "sure", "why", "the first row it cannot read")
    for match in worth_a_look:
        style = "bold green" if match.dataset == chosen else "default"
        why, refused = escape(printable(match.why)), escape(printable(match.error or ""))
        table.add_row(f"[{style}]{escape(match.dataset)}[/]", f"{match.sureness:.0%}", why, refused)
    if table.rows:
        context.console.print(table)
    if refusal:
        raise refusal
