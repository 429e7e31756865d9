"""`harness plugins`: what is installed, what it registers, and why the failed ones failed."""

from __future__ import annotations

import json

import click

from harness.cli.context import Context
from harness.cli.lazy import OpenGroup


@click.group(cls=OpenGroup, name="plugins", help="List plugins, what they register, and the failed ones.")
def command() -> None:
    pass


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verbose", "-v", is_flag=True, help="Show the traceback of failed plugins.")
@click.pass_obj
def list_plugins(context: Context, as_json: bool, verbose: bool) -> None:
    """List plugins with version, source and what they register; failed ones with the reason. Exits 1 if one failed.

    The owner is what stands before the colon in `owner:name`.
    """
    plugins = context.plugins
    plugins.load_all()
    if as_json:
        rows = [
            {
                "name": info.name,
                "owner": info.owner,
                "version": info.version,
                "path": info.path,
                "registers": plugins.registered_by(info.name),
            }
            for info in plugins.loaded.values()
        ]
        failed = [
            {"name": info.name, "version": info.version, "path": info.path, "error": info.error}
            for info in plugins.failed.values()
        ]
        click.echo(json.dumps({"plugins": rows, "failed": failed}, indent=2))
    else:
        _print_tables(context, verbose)
    if plugins.failed:
        raise SystemExit(1)


def _print_tables(context: Context, verbose: bool) -> None:
    from rich.markup import escape
    from rich.padding import Padding

    plugins, console = context.plugins, context.console
    for info in plugins.loaded.values():
        heading = f"[bold]{escape(info.name)}[/bold] {info.version}  [dim]owner {escape(info.owner)}, from[/dim] "
        console.print(heading + escape(info.path), soft_wrap=True)
        registers = plugins.registered_by(info.name)
        shapes = set(registers.get("shapes", ()))  # a shape is registered as a dataset too, and is named once here
        table = context.table("", "")
        table.show_header = False
        for kind, names in registers.items():
            shown = [name for name in names if kind != "datasets" or name not in shapes]
            if shown:
                table.add_row(f"[dim]{kind}[/dim]", escape(", ".join(shown)))
        console.print(Padding(table if table.row_count else "[dim]nothing[/dim]", (0, 0, 0, 2)))
    for info in plugins.failed.values():
        console.print(
            f"\n[bold red]failed[/bold red]  [bold]{escape(info.name)}[/bold] {info.version}  {escape(info.path)}",
            soft_wrap=True,
        )
        console.print(Padding(escape(info.details if verbose else info.error or ""), (0, 0, 0, 8)))
