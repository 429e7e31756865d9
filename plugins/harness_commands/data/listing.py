"""`harness data list`: the registered datasets."""

from __future__ import annotations

import json

import click

from harness.cli.context import Context


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_datasets(context: Context, as_json: bool) -> None:
    """List the registered datasets: their rows, what they yield, licence and plugin. Reads no data."""
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

    table = context.table("dataset", "description", "yields", "licence", "data", "plugin")
    table.columns[0].no_wrap = True
    for row in rows:
        own = "its own" if row["source"] else "[dim]give a path[/dim]"
        table.add_row(
            f"[bold]{escape(str(row['name']))}[/bold]",
            escape(str(row["description"])),
            str(row["yields"]),
            escape(str(row["licence"])),
            own,
            escape(str(row["plugin"])),
        )
    context.console.print(table)
