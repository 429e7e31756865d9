"""Laws of commands: help for the command, its options and its subcommands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from harness.contract.kinds import Kind
from harness.errors import HarnessError, listed
from harness.plugins.registry import Entry
from harness.testing.laws.law import Doubtful, Kit


def has_help(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require a line of help for each command, and that `--help` can be written."""
    for name, command, context in _all(entry.item, click.Context(entry.item, info_name=entry.name)):
        if not command.get_short_help_str().strip():
            raise HarnessError(f"`harness {name}` has no help: the docstring of its function is shown")
        command.get_help(context)


def options_have_help(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require help for each option."""
    for name, command, _ in _all(entry.item, click.Context(entry.item, info_name=entry.name)):
        bare = [one.opts[0] for one in command.params if isinstance(one, click.Option) and not one.help]
        if bare:
            raise Doubtful(f"`harness {name}` has no help for {listed(bare)}")


LAWS = {"it has help": has_help, "its options have help": options_have_help}


def _all(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (child := command.get_command(context, name)) is not None:
                yield from _all(child, click.Context(child, parent=context, info_name=name))
