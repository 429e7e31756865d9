"""`harness keys`: who may ask a server, by name; made, listed and revoked while servers run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.context import Context
from harness_serve.keys import MAY

if TYPE_CHECKING:
    from harness_serve.keys import KeyFile

FILE_NAME = "keys.json"


OF_FILE = click.option(
    "--file", "path", type=click.Path(path_type=Path), metavar="FILE",
    help=f"The file of keys. [default: {FILE_NAME} in the runs folder]",
)  # fmt: skip


def opened(context: Context, path: Path | None) -> KeyFile:
    """Return the file of keys that was named, or the one in the runs folder."""
    from harness_serve.keys import KeyFile

    return KeyFile(path or context.runs_folder / FILE_NAME)


@click.group()
def keys() -> None:
    """Name who may ask a server: each person or program has a key of its own, with limits, to be revoked alone.

    Servers read the file again when it changes: a key that is made opens them at once, a revoked one no more.
    """


@keys.command()
@click.argument("name")
@click.option("--requests-per-minute", type=click.IntRange(min=1), metavar="N", help="At most N in any 60 seconds.")
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="At most N at once.")
@click.option(
    "--may",
    type=click.Choice(MAY),
    multiple=True,
    help="What the key opens besides questions: `harness adapters` on a server that runs; /metrics. Can be repeated.",
)
@OF_FILE
@click.pass_obj
def make(
    context: Context,
    name: str,
    requests_per_minute: int | None,
    concurrency: int | None,
    may: tuple[str, ...],
    path: Path | None,
) -> None:
    """Make a key and print it, once: the file keeps only its hash."""
    file = opened(context, path)
    text = file.make(name, requests_per_minute, concurrency, tuple(dict.fromkeys(may)))
    click.echo(f"The key of {name}, kept in {file.path} as a hash, is shown this once:", err=True)
    click.echo(text)


@keys.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@OF_FILE
@click.pass_obj
def list_command(context: Context, as_json: bool, path: Path | None) -> None:
    """List the keys: names, limits, since when, and which are revoked."""
    file = opened(context, path)
    listed = file.read()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(key) for key in listed], indent=2))
        return
    if not listed:
        click.echo(f"no keys in {file.path}: `harness keys make NAME` makes one")
        return
    from rich.markup import escape

    table = context.table("key", "limits", "may", "made", "state")
    for key in listed:
        state = "[green]open[/green]" if key.revoked is None else f"revoked {_shown(key.revoked)}"
        table.add_row(
            f"[bold]{escape(key.name)}[/bold]", key.limits, ", ".join(("ask", *key.may)), _shown(key.created), state
        )
    context.console.print(table)


@keys.command()
@click.argument("name")
@OF_FILE
@click.pass_obj
def revoke(context: Context, name: str, path: Path | None) -> None:
    """Let a key open nothing any more, in servers that run too."""
    opened(context, path).revoke(name)
    click.echo(f"{name} is revoked: requests with this key are refused from now on, and its page is closed")


def _shown(time: str) -> str:
    return time.replace("T", " ")[:16]
