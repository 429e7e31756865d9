"""Other commands of `harness`, run one after another in this process, each shown as a user would type it."""

from __future__ import annotations

import click

from harness.cli.context import Context
from harness.errors import HarnessError


def run_step(ctx: click.Context, name: str, *arguments: str) -> None:
    """Run a command of `harness` in this process (importing torch once is enough), showing it first.

    Raises:
        HarnessError: if no plugin brings the command.
    """
    from rich.markup import escape

    context: Context = ctx.obj
    context.console.print(f"\n[bold cyan]$ {escape(context.typed(name, *arguments))}[/bold cyan]", soft_wrap=True)
    root = ctx.find_root().command
    assert isinstance(root, click.Group)
    step = root.get_command(ctx, name)
    if step is None:
        raise HarnessError(f"this needs `harness {name}`, which no plugin brings; see `harness plugins list`")
    names = ctx.help_option_names  # a command keeps those that it is first asked with
    step.main(list(arguments), f"harness {name}", standalone_mode=False, obj=context, help_option_names=names)
