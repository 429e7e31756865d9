"""The `harness` command: its root, and how a user's mistakes and ours are told apart."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import CORE_COMMANDS
from harness.cli.context import Context
from harness.cli.lazy import RESOLVED, LazyGroup
from harness.cli.terminal import accept_any_text, without_colour
from harness.errors import Ended, HarnessError
from harness.extras import OPENMP_SPINS

if TYPE_CHECKING:
    from harness.plugins.registry import Claim


class HarnessGroup(LazyGroup):
    """The group of the core's commands and the plugins'."""

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        with _interruptible():  # `--help` loads plugins here already
            ctx = super().make_context(*arguments, **settings)
        if ctx.resilient_parsing:  # a shell completes, and no callback is run
            from harness.cli.completion import complete_names

            _context(ctx)
            ctx.meta[RESOLVED] = complete_names
        return ctx

    def invoke(self, ctx: click.Context) -> Any:
        with _interruptible():
            try:
                return super().invoke(ctx)
            except click.NoSuchOption as error:
                if not any(error.option_name in parameter.opts for parameter in self.params):
                    raise
                before = f"{ctx.command_path} {error.option_name} … {ctx.invoked_subcommand}"
                raise click.UsageError(f"{error.option_name} stands before the command: {before}", ctx) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._plugged(ctx)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return super().get_command(ctx, name) or _context(ctx).plugins.commands.get(name)

    def line_of(self, ctx: click.Context, name: str) -> str:
        claim = self._plugged(ctx).get(name)
        return super().line_of(ctx, name) or (claim.summary if claim else "")

    def _plugged(self, ctx: click.Context) -> dict[str, Claim]:
        """Return the plugins' commands that are in no group."""
        return {name: claim for name, claim in _context(ctx).plugins.commands.named() if not claim.under}


NOT_ON_WINDOWS = (
    "error: the harness runs on Linux and macOS: it locks files and stops processes as Windows does not. "
    "On Windows, install it inside WSL 2 (https://learn.microsoft.com/windows/wsl/install)"
)


@contextmanager
def _interruptible() -> Iterator[None]:
    """End the command on Ctrl-C as on any other signal; click would make it a status of 1, as of a mistake."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Aborted!", err=True)
        raise Ended(signal.SIGINT) from None


def _context(ctx: click.Context) -> Context:
    """Return the shared context; `--help` asks for the commands before the root's own callback has run."""
    if not isinstance(ctx.obj, Context):
        ctx.obj = Context(
            runs_folder=Path(ctx.params.get("runs") or "runs"),
            plugin_files=tuple(ctx.params.get("plugin") or ()),
        )
    return ctx.obj


@click.group(
    cls=HarnessGroup,
    places=CORE_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="instruct-harness", message="instruct-harness %(version)s")
@click.option(
    "--plugin",
    type=click.Path(path_type=Path),
    multiple=True,
    is_eager=True,
    metavar="FILE",
    help="Load a single-file plugin. Can be given several times.",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    is_eager=True,
    envvar="HARNESS_RUNS",
    metavar="DIR",
    help="Where run directories are.",
)
@click.pass_context
def cli(ctx: click.Context, plugin: tuple[Path, ...], runs: Path) -> None:
    """Tune language models to follow instructions, measure the variants, serve and compare them.

    \b
    A first look, on any machine:      harness demo
    From a recipe:                     harness tune RECIPE
                                       harness evaluate RUN@base RUN
                                       harness compare RUN@base RUN
                                       harness serve RUN
    """
    _context(ctx)
    if without_colour():
        ctx.color = False


def main(arguments: list[str] | None = None) -> Any:
    """Run the command. A user's mistake prints one message and exits 1; ours shows its traceback.

    Args:
        arguments: the words after `harness`. [default: this process's]
    """
    if sys.platform == "win32":
        click.echo(NOT_ON_WINDOWS, err=True)
        sys.exit(1)
    os.environ.setdefault(*OPENMP_SPINS)
    accept_any_text()
    ours = threading.current_thread() is threading.main_thread()  # others may not handle signals
    before = signal.signal(signal.SIGTERM, _end) if ours else None
    try:
        return cli.main(args=arguments, prog_name="harness", standalone_mode=True)
    except HarnessError as error:
        _say_error(str(error))
        sys.exit(1)
    except BrokenPipeError:
        _leave_output()
        sys.exit(141)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _say_error("no space is left where the output goes, or a file that is written")
        _leave_output()
        sys.exit(1)
    except Ended as ended:
        sys.exit(128 + ended.number)
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


def _leave_output() -> None:
    """Let what could not be written go, which Python would try again at its end, and complain of."""
    out = sys.__stdout__
    if out is not None and sys.stdout is out:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def _say_error(message: str) -> None:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True, color=False if without_colour() else None)
    click.echo(message, err=True)


def _end(number: int, frame: object) -> None:
    """End the command as Ctrl-C does, with what it began to write taken away."""
    raise Ended(number)
