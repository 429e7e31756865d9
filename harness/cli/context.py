"""The state that one invocation of `harness` shares: the loaded plugins, the runs folder, the console."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import CORE_COMMANDS
from harness.cli.terminal import is_read_by_a_program
from harness.errors import command
from harness.plugins import Plugins, configured_files

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass
class Context:
    """The shared state, created by the root command and passed to every other command with `@click.pass_obj`."""

    runs_folder: Path = Path("runs")
    plugin_files: tuple[Path, ...] = ()
    json: bool = field(default=False)

    @functools.cached_property
    def plugins(self) -> Plugins:
        """The plugins, loaded when first asked for."""
        return Plugins(self.plugin_files, configured_files(), CORE_COMMANDS)

    @functools.cached_property
    def console(self) -> Console:
        if is_read_by_a_program():
            from harness.cli.untorn import UntornConsole

            return UntornConsole(highlight=False)
        from rich.console import Console

        return Console(highlight=False)

    def typed(self, *words: str) -> str:
        """Return a command as one types it next, with the plugin files and the runs folder that this one was given."""
        plugins = [word for file in self.plugin_files for word in ("--plugin", str(file))]
        is_known = self.runs_folder == Path("runs") or "HARNESS_RUNS" in os.environ
        runs = [] if is_known else ["--runs", str(self.runs_folder)]
        return command(*plugins, *runs, *words)

    def table(self, *columns: str) -> Table:
        """Return an empty table in the look that all commands share."""
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold")
        return table
