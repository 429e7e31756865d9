"""A console for what is no terminal: a table's rows stay lines, as wide as they are, for the program that reads."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

WIDEST = 10_000  # columns of a table


class UntornConsole(Console):
    """Prints tables without folding their cells and without the blanks that fill their last column."""

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print as a Console does, but for tables, alone or padded."""
        if not any(isinstance(_inside(one), Table) for one in objects):
            super().print(*objects, **settings)
            return
        before, self.width = self.width, WIDEST
        try:
            with self.capture() as captured:
                super().print(*objects, **settings)
        finally:
            self.width = before
        self.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
        self.file.flush()


def _inside(renderable: Any) -> Any:
    return renderable.renderable if isinstance(renderable, Padding) else renderable
