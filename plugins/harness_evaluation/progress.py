"""The progress of an evaluation: on stderr, and only on a terminal; stdout is for results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """One bar. Work is announced with `expect` and done with `advance`."""

    def __init__(self, progress: Any, label: str) -> None:
        self._progress, self._total, self._done, self._began = progress, 0, 0, time.monotonic()
        self.task = progress.add_task(label, total=None, rate="")

    def expect(self, n: int) -> None:
        """Add n items to those that are to be done."""
        self._total += n
        self._progress.update(self.task, total=self._total)

    def advance(self, n: int) -> None:
        """Count n items as done."""
        self._done += n
        rate = self._done / max(time.monotonic() - self._began, 1e-3)
        self._progress.update(self.task, advance=n, rate=f"{rate:.3g}/s")

    def count(self, expected: int, answered: int) -> None:
        """Count the requests that begin, and those that are answered."""
        if expected:
            self.expect(expected)
        if answered:
            self.advance(answered)


_shown: list[Any] = []  # the display that is on the screen: there is room for one


@contextmanager
def progress_bar(label: str) -> Iterator[Bar]:
    """Show a bar with its rate and the time left, which vanishes when its block ends; one more where one is shown."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if _shown:
        bar = Bar(_shown[0], label)
        try:
            yield bar
        finally:
            _shown[0].remove_task(bar.task)
        return
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        _shown.append(progress)
        try:
            yield Bar(progress, label)
        finally:
            _shown.clear()


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Show what is waited for: a line that changes on a terminal, a line on stderr for each change elsewhere."""
    import click
    from rich.console import Console

    console, began = Console(stderr=True), time.monotonic()
    if console.is_terminal:
        with console.status(f"waiting for {what}") as status:
            yield lambda step: status.update(f"{time.monotonic() - began:.0f} s  waiting for {step}")
        return
    yield lambda step: click.echo(f"{time.monotonic() - began:5.0f} s  waiting for {step}", err=True)
