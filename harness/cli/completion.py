"""Shell completion: of commands and options by click, and of the names of what is here.

Names are completed by the parameter that takes them, of any plugin's command: runs for RUN and VARIANT, recipes for
RECIPE, and so on. Only what is cheap is read: folders, and the plugins' registrations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from harness.cli.context import Context

COMPLETING = "_HARNESS_COMPLETE"  # click's variable, set by the shell's function while it completes
Names = Callable[[Context, click.Context], Iterable[str]]
SHELLS = {
    "bash": ("~/.bashrc", f'eval "$({COMPLETING}=bash_source harness)"'),
    "zsh": ("~/.zshrc", f'eval "$({COMPLETING}=zsh_source harness)"'),
    "fish": ("~/.config/fish/completions/harness.fish", f"{COMPLETING}=fish_source harness | source"),
}


def _runs(context: Context, ctx: click.Context) -> list[str]:
    return sorted(path.parent.name for path in context.runs_folder.glob("*/manifest.json"))


def _variants(context: Context, ctx: click.Context) -> list[str]:
    models = sorted(str(path.parent) for path in Path(".models").glob("*/config.json"))
    return [name for run in _runs(context, ctx) for name in (run, f"{run}@base")] + models


def _registered(plural: str) -> Names:
    return lambda context, ctx: list(context.plugins.registry(plural))


def _of_kind(context: Context, ctx: click.Context) -> list[str]:
    """Return the names of the kind that was typed before, as in `plugins show dataset NAME`."""
    kind = ctx.params.get("kind")
    return list(context.plugins.registry(f"{kind}s")) if kind else []


# By a word of the parameter's metavar, or by its name.
NAMES: dict[str, Names] = {
    "RUN": _runs,
    "VARIANT": _variants,
    "variants": _variants,
    "resume": _runs,
    "dataset": _registered("datasets"),
    "template": _registered("templates"),
}
UNDER: dict[tuple[str, str], Names] = {("plugins show", "name"): _of_kind}


class Completed(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.3
    """A parameter's own type, completed with names, and with files where it takes a path."""

    def __init__(self, own: Any, names: Names, takes_path: bool) -> None:
        self.own, self.names, self.takes_path, self.name = own, names, takes_path, own.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert as the parameter's own type does."""
        return self.own.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so, and what the own type completes."""
        context = ctx.find_root().obj
        names = self.names(context, ctx) if isinstance(context, Context) else ()
        items = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        if self.takes_path and not items:
            items.append(CompletionItem(incomplete, type="file"))
        items += self.own.shell_complete(ctx, param, incomplete)
        return items


def complete_names(command: click.Command, path: str) -> None:
    """Let the parameters of a command complete the names that they take; `path` is the command's, as in `runs show`."""
    for parameter in command.params:
        words = (*re.findall("[A-Z]+", parameter.metavar or ""), str(parameter.name))
        names = UNDER.get((path, str(parameter.name))) or next((NAMES[word] for word in words if word in NAMES), None)
        if names is not None and not isinstance(parameter.type, Completed):
            parameter.type = Completed(parameter.type, names, takes_path=names in (_variants, _runs))


@click.command(name="completion")
@click.argument("shell", type=click.Choice(list(SHELLS)), required=False)
def command(shell: str | None) -> None:
    """Print the line that completes commands and names in SHELL, or the lines of all and where each goes."""
    if shell is not None:
        click.echo(SHELLS[shell][1])
        return
    for name, (file, line) in SHELLS.items():
        click.echo(f"{name}: put this into {file}\n  {line}")
