"""`harness compare`: paired differences of variants, with intervals, verdicts and the items that changed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError
from harness_evaluation.tables import print_figures

if TYPE_CHECKING:
    from rich.table import Table

    from harness.measure.comparison import Comparison, Flip, TaskComparison
    from harness.measure.side_by_side import Rival, SideBySide

COLOURS = {None: "", "a": "red", "b": "green"}


@click.command(name="compare")
@click.argument("variants", nargs=-1, required=True, metavar="A B [C...]")
@click.option("--task", metavar="NAME", help="Only this task.")
@click.option("--metric", metavar="NAME", help="Only this metric.")
@click.option(
    "--examples",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="How many changed items to show each way.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw the differences to a .png, .svg or .pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout and nothing else.")
@click.pass_obj
def command(
    context: Context,
    variants: tuple[str, ...],
    task: str | None,
    metric: str | None,
    examples: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Compare evaluated variants item by item with the first of them.

    0/1 metrics get Newcombe's interval for paired proportions and the exact McNemar test, others Student's paired t;
    items that come in groups are clustered. A variant is better or worse where its 95% interval excludes zero and p,
    corrected for all that is compared, is below 0.05.

    \b
    harness compare demo@base demo
    harness compare demo@base demo other-run --task seedling_qa --plot demo.png
    """
    from rich.markup import escape

    if plot is not None and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise HarnessError(f"--plot {plot}: the name should end in .png, .svg or .pdf")
    compared = compared_variants(context, variants, task, metric)
    if plot is not None:
        from harness_evaluation.plot import draw_differences

        draw_differences(compared, plot)
    if as_json:
        click.echo(json.dumps(_as_json(compared, examples), indent=2, ensure_ascii=False, default=str))
        return
    _print(context, compared, examples)
    for warning in compared.warnings:
        context.console.print(f"\n[yellow]{escape(warning)}[/yellow]")
    for left in compared.aside:
        context.console.print(f"[dim]{escape(left)}[/dim]", soft_wrap=True)
    if plot is not None:
        context.console.print(f"\n[dim]drawn to[/dim] {plot}")


def compared_variants(
    context: Context,
    variants: tuple[str, ...],
    task: str | None = None,
    metric: str | None = None,
    *,
    refuse: bool = True,
) -> SideBySide:
    """Return the comparison of variants by the records that are on disk under their names.

    Raises:
        HarnessError: for fewer than two variants, and as `side_by_side` does.
    """
    from harness.measure.records import find_records
    from harness.measure.side_by_side import side_by_side
    from harness.measure.weights import weights_of
    from harness.variants import resolve_variants

    if len(variants) < 2:
        raise HarnessError(f"only {variants[0]} is named; name another to compare with it: harness compare A B")
    resolved = resolve_variants(variants, context.runs_folder, context.plugins)
    records = [find_records(variant, context.runs_folder, weights_of(variant)) for variant in resolved]
    return side_by_side([variant.name for variant in resolved], variants, records, task, metric, refuse=refuse)


def _print(context: Context, compared: SideBySide, examples: int) -> None:
    """Print one table of everything, then how each figure came about, then the items that changed."""
    from rich.markup import escape

    from harness_evaluation import wording

    say = context.console.print
    first = escape(compared.first)
    others = ", ".join(f"[bold]{escape(rival.name)}[/bold]" for rival in compared.rivals)
    say(f"{others} compared with [bold]{first}[/bold] on the same items")
    say(
        f"[dim]difference = variant − {first}; ↑ more is better, ↓ less is better; "
        f"value of right or wrong items with its 95% interval, else ± standard error[/dim]\n"
    )
    print_figures(context.console, _table(compared), labels=2, words_last=True)
    say(f"\n[dim]{escape(wording.family(compared))} --task and --metric narrow the family.[/dim]")
    for rival in compared.rivals:
        for task in rival.tasks:
            _print_basis(context, compared.first, rival, task)
        for name in rival.alone:
            say(f"[yellow]{escape(name)} was measured for one of {first} and {escape(rival.name)} only[/yellow]")
        if rival.unapplied:
            say(f"[yellow]{escape(rival.unapplied)}[/yellow]")
    for rival in compared.rivals:
        for task in rival.tasks:
            _print_changed(context, compared.first, rival, task, examples)


def _table(compared: SideBySide) -> Table:
    """Return the table: of each metric the first variant, and below it the others with difference and verdict."""
    from rich.markup import escape
    from rich.table import Table

    from harness_evaluation import wording

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("metric", overflow="fold")
    table.add_column("variant", overflow="fold")
    for title in ("value", "difference", "95% interval", "p (Holm)"):
        table.add_column(title, justify="right")
    table.add_column("verdict")
    task_name = ""
    for (name, metric), rows in compared.metrics.items():
        if name != task_name:
            table.add_row(f"[bold]{escape(name)}[/bold]")
            task_name = name
        one = rows[0][2]
        label = f"{escape(metric)} {wording.ARROWS[one.higher_is_better]}"
        table.add_row(label, escape(compared.first), wording.value_with_error(one, one.paired.a), "", "", "", "")
        for rival, task, comparison in rows:
            table.add_row("", *_cells(comparison, rival.name), style=COLOURS[comparison.better])
            for of in task.comparisons if len(compared.rivals) == 1 else ():
                if of.category and of.metric == metric:
                    style = f"dim {COLOURS[of.better]}".strip()
                    table.add_row(f"  {escape(of.category)}", *_cells(of, rival.name), style=style)
    return table


def _cells(comparison: Comparison, name: str) -> tuple[str, ...]:
    from rich.markup import escape

    from harness_evaluation import wording

    return (
        escape(name),
        wording.value_with_error(comparison, comparison.paired.b),
        wording.difference(comparison),
        wording.interval(comparison),
        wording.p_value(comparison.adjusted),
        wording.verdict(comparison),
    )


def _print_basis(context: Context, first: str, rival: Rival, task: TaskComparison) -> None:
    """Print how the figures of one task came about, remarks on it, and the settings that differ."""
    from rich.markup import escape

    from harness_evaluation import wording

    say = context.console.print
    for comparison in task.wholes:
        about = f"{task.task} {comparison.metric}, {rival.name}: {wording.basis(comparison, first, rival.name)}"
        say(f"[dim]{escape(about)}[/dim]")
    if not task.comparisons:
        figures = escape(", ".join(task.unpaired_metrics))
        say(f"{escape(task.task)}: its figures ({figures}) are of all items together: nothing to pair")
    for remark in task.remarks:
        say(f"[yellow]{escape(task.task)}: {escape(remark)}[/yellow]")
    for line in measured_unlike(first, rival, task):
        say(f"[yellow]{escape(line)}[/yellow]")


def measured_unlike(first: str, rival: Rival, task: TaskComparison) -> list[str]:
    """Return a sentence for each setting in which the two sides differ; the remarks speak of the template."""
    return [
        f"{task.task} was measured unlike: {key} was {in_a} for {first}, {in_b} for {rival.name}"
        for key, (in_a, in_b) in task.unlike.items()
        if not key.startswith("template.")
    ]


def _print_changed(context: Context, first: str, rival: Rival, task: TaskComparison, examples: int) -> None:
    """Print a few items that became worse and better, with both answers; a loss has none to show."""
    from rich.markup import escape

    if not examples or not any(a.response or b.response for a, b in task.pairs):
        return
    for title, flips in zip(("worse", "better"), task.flips(), strict=True):
        if flips:
            such = ", such as" if len(flips) > examples else ""
            plural = "s" * (len(flips) > 1)
            about = f"{task.task}: {len(flips)} item{plural} became {title} with {rival.name}{such}:"
            context.console.print(f"\n[dim]{escape(about)}[/dim]")
        for flip in flips[:examples]:
            _print_flip(context, flip, (first, rival.name), len(task.wholes) > 1)


def _print_flip(context: Context, flip: Flip, names: Sequence[str], several: bool) -> None:
    """Print one item: the question, and below it both answers and the target, each wrapped in a column of its own."""
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    answers = Table.grid("", "", padding=(0, 2, 0, 0))
    answers.columns[0].max_width, answers.columns[0].overflow = 20, "fold"
    for label, text in ((names[0], flip.a.response), (names[1], flip.b.response), ("target", flip.a.target)):
        answers.add_row(f"[dim]{escape(label)}[/dim]", escape(_line(text)))
    metric = f" [dim]{escape(flip.metric)}[/dim]" if several else ""
    context.console.print(Padding(f"[bold]{escape(_line(flip.a.prompt))}[/bold]{metric}", (0, 0, 0, 2)))
    context.console.print(Padding(answers, (0, 0, 0, 4), expand=False))


def _line(text: str, limit: int = 160) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def _as_json(compared: SideBySide, examples: int) -> dict[str, Any]:
    tasks = [(rival, task) for rival in compared.rivals for task in rival.tasks]
    changed = []
    for rival, task in tasks:
        for direction, flips in zip(("worse", "better"), task.flips(), strict=True):
            changed += [
                {"task": task.task, "variant": rival.name, "direction": direction, "metric": flip.metric}
                | {"a": dataclasses.asdict(flip.a), "b": dataclasses.asdict(flip.b)}
                for flip in flips[:examples]
            ]
    return {
        "first": compared.first,
        "variants": compared.names,
        "difference": "variant - first",
        "confidence": 0.95,
        "family": compared.family,
        "comparisons": [comparison_json(c, rival.name) for rival, task in tasks for c in task.comparisons],
        "remarks": [f"{rival.name}, {task.task}: {line}" for rival, task in tasks for line in task.remarks]
        + [rival.unapplied for rival in compared.rivals if rival.unapplied],
        "measured_unlike": [
            {"task": task.task, "variant": rival.name, "settings": task.unlike} for rival, task in tasks if task.unlike
        ],
        "changed": changed,
        "only_one_measured": {rival.name: rival.alone for rival in compared.rivals if rival.alone},
        "left_aside": compared.aside,
        "warnings": compared.warnings,
    }


def comparison_json(comparison: Comparison, name: str) -> dict[str, Any]:
    """Return one comparison of the variant `name` with the first as plain data."""
    from harness_evaluation import wording

    paired = comparison.paired
    return {
        "task": comparison.task,
        "variant": name,
        "metric": comparison.metric,
        "category": comparison.category or None,
        "higher_is_better": comparison.higher_is_better,
        "a": paired.a._asdict(),
        "b": paired.b._asdict(),
        "difference": paired.difference,
        "interval": paired.interval,
        "bootstrap_interval": comparison.bootstrap,
        "p_value": paired.p_value,
        "adjusted_p_value": comparison.adjusted,
        "detectable": comparison.detectable,
        "method": paired.method,
        "clusters": paired.clusters,
        "discordance": paired.table._asdict() if paired.table else None,
        "noise": [None if noise is None else dataclasses.asdict(noise) | {"rate": noise.rate}
                  for noise in comparison.noise],
        "verdict": wording.verdict(comparison),
    }  # fmt: skip
