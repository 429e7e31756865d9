"""Groups whose commands are imported when they are asked for, so that one command does not wait for the others."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from harness.errors import nearest

if TYPE_CHECKING:
    from harness.plugins.registry import Claim

RESOLVED = f"{__name__}.resolved"  # in a context's `meta`: a function that gets each command and its path


class Place(NamedTuple):
    """The place of a command, `package.module:object`, and its line in the list where that is not to import it."""

    target: str
    help: str = ""


class LazyGroup(click.Group):
    """A group of the commands at `places`, by name."""

    def __init__(self, *arguments: Any, places: Mapping[str, Place], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.places, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.commands and name in self.places:
            self.add_command(resolve_name(self.places[name].target), name)
        return super().get_command(ctx, name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Resolve a command; an unknown one is answered with the nearest, lazy ones and plugins' included."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = nearest(args[0], self.list_commands(ctx))
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx) from error
        if command is not None and (resolved := ctx.meta.get(RESOLVED)):
            resolved(command, " ".join((*ctx.command_path.split()[1:], str(name))))
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        limit = formatter.width - 6 - max(map(len, names))
        rows = [(name, self._line(ctx, name, limit)) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _line(self, ctx: click.Context, name: str, limit: int) -> str:
        if line := self.line_of(ctx, name):
            return line
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit) if command else ""

    def line_of(self, ctx: click.Context, name: str) -> str:
        """Return a command's line in the list, where it is known without the command."""
        return self.places[name].help if name in self.places else ""


class OpenGroup(LazyGroup):
    """A group of the core that plugins add to: `register(command, under="runs")`."""

    def __init__(self, *arguments: Any, places: Mapping[str, Place] | None = None, **settings: Any) -> None:
        super().__init__(*arguments, places=places or {}, **settings)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._plugged(ctx)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if (own := super().get_command(ctx, name)) is not None:
            return own
        commands = ctx.obj.plugins.commands
        claim = self._plugged(ctx).get(name) or (self._plugged(ctx).get(name) if commands.load(None) else None)
        return commands[claim.qualified] if claim else None

    def line_of(self, ctx: click.Context, name: str) -> str:
        claim = None if name in self.commands else self._plugged(ctx).get(name)
        return super().line_of(ctx, name) or (claim.summary if claim else "")

    def _plugged(self, ctx: click.Context) -> dict[str, Claim]:
        """Return the plugins' commands under this group; of two with one name, the second as `owner:name`."""
        claims: dict[str, Claim] = {}
        for claim in ctx.obj.plugins.commands.claims:
            if claim.under == self.name:
                name = claim.name.removeprefix(f"{claim.under} ")
                is_taken = name in claims or name in self.commands
                claims[f"{claim.plugin.owner}:{name}" if is_taken else name] = claim
        return claims
