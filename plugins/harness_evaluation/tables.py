"""Tables of figures on a console of any width: titles fold, figures never do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.cli.context import Context
    from harness.measure.records import Record
    from harness.variants import Variant


def print_figures(console: Console, table: Table, labels: int, *, words_last: bool = False) -> None:
    """Print a table. In columns after the first `labels`, cells are on one line and whole, and long titles fold.

    Args:
        words_last: the last column has words, which fold too.
    """
    from rich.cells import cell_len
    from rich.text import Text

    for column in table.columns[labels : len(table.columns) - words_last]:
        column.overflow = "fold"
        column.min_width = max((cell_len(Text.from_markup(str(cell)).plain) for cell in column.cells), default=1)
    console.print(table, crop=False)  # a terminal wraps what is wider still; rich would leave it out


def print_table(context: Context, variants: Sequence[Variant], records: Sequence[Record]) -> None:
    """Print the scores of all variants side by side, and what readers of them should know."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("task", overflow="fold")
    table.add_column("metric", overflow="fold")
    for variant in variants:
        table.add_column(escape(variant.name), justify="right")
    table.add_column("n", justify="right")
    rows: dict[tuple[str, str], dict[str, Record]] = {}  # an evaluation may be named twice, with other options
    for record in records:
        rows.setdefault((record.task, json.dumps(record.entries["options"])), {})[record.variant] = record
    for (task, _), measured in rows.items():
        shown_task = task
        for metric, score in next(iter(measured.values())).scores.items():
            _, slash, category = metric.partition("/")
            cells = [shown(measured[v.name].scores.get(metric)) if v.name in measured else "" for v in variants]
            arrow = "" if slash else (" ↑" if score.higher_is_better else " ↓")
            name = f"  [dim]{escape(category)}[/dim]" if slash else f"{escape(metric)}{arrow}"
            style = "dim" if slash else ""
            table.add_row(
                escape(shown_task), name, *(f"[{style}]{c}[/{style}]" if style else c for c in cells), str(score.n)
            )
            shown_task = ""
    print_figures(context.console, table, labels=2)
    dtypes = ", ".join(dict.fromkeys(_weights(variant) for variant in variants))
    context.console.print(
        f"\n[dim]value (95% interval) of right or wrong items, else ± standard error; ↑ more is better, "
        f"↓ less is better; weights in {dtypes}[/dim]"
    )
    for style, lines in (
        ("yellow", sentences((record, record.unverified) for record in records if record.unverified)),
        ("dim", sentences((record, record.noise) for record in records if record.noise)),
        ("yellow", sentences((record, warning) for record in records for warning in record.warnings)),
    ):
        for line in lines:
            context.console.print(f"[{style}]{escape(line)}[/{style}]")


def sentences(of: Iterable[tuple[Record, str]]) -> list[str]:
    """Return each sentence once for a variant, with the tasks that it is about."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for record, sentence in of:
        tasks.setdefault((record.variant, sentence), []).append(record.task)
    return [f"{variant}, {', '.join(its)}: {sentence}" for (variant, sentence), its in tasks.items()]


def _weights(variant: Variant) -> str:
    return variant.model.dtype if variant.remote is None else "an endpoint's own type"


def shown(score: Any) -> str:
    """Return a score for people: a share of right items with its interval, anything else ± its standard error."""
    if score is None or score.value is None:
        return "–"
    if score.interval is not None:
        return f"{score.value:.3f} ({score.interval[0]:.2f}–{score.interval[1]:.2f})"
    return f"{score.value:.3f}" + (f" ± {score.stderr:.3f}" if score.stderr is not None else "")
