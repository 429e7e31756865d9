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

    plugins = context.plugins
    table = context.table("plugin", "owner", "version", "registers", "source")
    for info in plugins.loaded.values():
        registers = plugins.registered_by(info.name)
        registered = "\n".join(f"[dim]{kind}[/dim] {escape(', '.join(registers[kind]))}" for kind in registers)
        table.add_row(
            f"[bold]{escape(info.name)}[/bold]",
            escape(info.owner),
            info.version,
            registered or "[dim]nothing[/dim]",
            escape(info.path),
        )
    context.console.print(table)
    for info in plugins.failed.values():
        context.console.print(
            f"\n[bold red]failed[/bold red]  [bold]{escape(info.name)}[/bold] {info.version}  {escape(info.path)}"
        )
        context.console.print(f"        {escape(info.details if verbose else info.error or '')}")
