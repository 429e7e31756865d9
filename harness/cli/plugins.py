"""`harness plugins`: what is installed, what it registers, and why the failed ones failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from harness.cli.context import Context
from harness.cli.lazy import OpenGroup
from harness.contract.kinds import KINDS
from harness.plugins.registry import SLOW_S

if TYPE_CHECKING:
    from harness.plugins import PluginInfo, Plugins


@click.group(cls=OpenGroup, name="plugins", help="List plugins, what they register, and the failed ones.")
def command() -> None:
    pass


@command.command(name="list")
@click.argument("kind", type=click.Choice([kind.name for kind in KINDS]), required=False, metavar="[KIND]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verbose", "-v", is_flag=True, help="Show the traceback of failed plugins.")
@click.pass_obj
def list_plugins(context: Context, kind: str | None, as_json: bool, verbose: bool) -> None:
    """List plugins with version, source and what they register; failed ones with the reason. Exits 1 if one failed.

    The owner is what stands before the colon in `owner:name`. A plugin whose import takes long is named with its time.
    With a KIND (dataset, template, command, ...), only the plugins that register one, and only that.
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
                "import_s": round(info.import_s, 4),
                "registers": registers,
            }
            for info, registers in _registered(plugins, kind)
        ]
        failed = [
            {"name": info.name, "version": info.version, "path": info.path, "error": info.error}
            for info in plugins.failed.values()
        ]
        click.echo(json.dumps({"plugins": rows, "failed": failed}, indent=2))
    else:
        _print_tables(context, kind, verbose)
    if plugins.failed:
        raise SystemExit(1)


def _registered(plugins: Plugins, kind: str | None) -> Iterator[tuple[PluginInfo, dict[str, list[str]]]]:
    """Yield each plugin with the names that it registers by kind: of all kinds, or of one where it has any."""
    for info in plugins.loaded.values():
        registers = plugins.registered_by(info.name)
        if kind is None:
            yield info, registers
        elif (plural := next(one.plural for one in KINDS if one.name == kind)) in registers:
            yield info, {plural: registers[plural]}


def _print_tables(context: Context, kind: str | None, verbose: bool) -> None:
    from rich.markup import escape
    from rich.padding import Padding

    plugins, console = context.plugins, context.console
    for info, registers in _registered(plugins, kind):
        heading = f"[bold]{escape(info.name)}[/bold] {info.version}  [dim]owner {escape(info.owner)}, from[/dim] "
        slow = f"  [yellow]its import takes {info.import_s:.1f} s[/yellow]" if info.import_s >= SLOW_S else ""
        console.print(heading + escape(info.path) + slow, soft_wrap=True)
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
