"""A command in one file: the longest rows of a file, with their numbers, to look at before tuning cuts or refuses them.

harness --plugin examples/harness-longest/command_longest.py longest rows.jsonl
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from pathlib import Path

import click

import harness


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(1), default=5, show_default=True, help="Rows to show.")
def longest(file: Path, count: int) -> None:
    """Show the longest lines of FILE, longest first, as number, length and beginning."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        rows = heapq.nlargest(count, ((len(line.rstrip()), -number, line) for number, line in enumerate(lines, 1)))
    for length, number, line in rows:
        click.echo(f"{-number:>8}  {length:>8}  {line.strip()[:60]}")


@harness.hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    register(longest)
