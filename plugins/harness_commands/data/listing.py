"""`harness data list`: the registered datasets."""

from __future__ import annotations

import json

import click

from harness.cli.context import Context


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_datasets(context: Context, as_json: bool) -> None:
    """List the registered datasets: what they yield, their rows, licence and plugin. Reads no data."""
    datasets = context.plugins.datasets
    rows = [
        {
            "name": name,
            "description": dataset.description,
            "yields": dataset.yields,
            "fields": [list(alternative) for alternative in dataset.fields],
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

    from harness.plugins.registry import FIRST_PARTY

    table = context.table("dataset", "yields", "description")
    for column in table.columns[:2]:
        column.no_wrap = True
    for name, row in zip(datasets, rows, strict=True):
        notes = [
            "brings its own data" if row["source"] else "",
            f"licence {row['licence']}" if row["licence"] != "not stated" else "",
            f"from {row['plugin']}" if datasets.owner(name).owner != FIRST_PARTY else "",
        ]
        noted = "".join(f"; {note}" for note in notes if note)
        table.add_row(
            f"[bold]{escape(name)}[/bold]",
            str(row["yields"]),
            f"{escape(str(row['description']))}[dim]{escape(noted)}[/dim]",
        )
    context.console.print(table)
