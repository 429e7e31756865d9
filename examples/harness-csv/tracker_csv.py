"""A tracker in one file: metrics as a CSV table in the run's folder, for a spreadsheet.

harness --plugin examples/harness-csv/tracker_csv.py tune RECIPE --set "track=[{tracker: csv}]"
"""

import csv
from collections.abc import Callable
from pathlib import Path

import harness
from harness.contract.events import Event, Started, Step, Validation


class CsvOptions(harness.Options):
    """`name` is the file's, in the run's folder."""

    name: str = "metrics.csv"


def create(options: CsvOptions) -> Callable[[Event], None]:
    """Return a function that writes a row for each figure: step, name, value."""
    table = Path()

    def receive(event: Event) -> None:
        nonlocal table
        if isinstance(event, Started):
            table = event.folder / options.name
            kept = _rows(table, event.step) if event.step else []  # steps after it are done again
            with table.open("w", newline="") as file:
                csv.writer(file).writerows([["step", "name", "value"], *kept])
        elif isinstance(event, Step | Validation):
            with table.open("a", newline="") as file:
                csv.writer(file).writerows(
                    [event.step, name, value] for name, value in event.metrics.items() if name != "step"
                )

    return receive


def _rows(table: Path, step: int) -> list[list[str]]:
    with table.open(newline="") as file:
        return [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]


@harness.hookimpl
def register_trackers(register: Callable[[harness.Tracker], None]) -> None:
    register(harness.Tracker("csv", "metrics as a CSV table in the run's folder", CsvOptions, create))
