"""`harness report`: the comparison of variants as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.context import Context
from harness_evaluation.compare_command import compared_variants, measured_unlike


@click.command(name="report")
@click.argument("variants", nargs=-1, required=True, metavar="RUN | A B [C...]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="Where to write it.",
)
@click.pass_obj
def command(context: Context, variants: tuple[str, ...], out: Path) -> None:
    """Write one HTML file on evaluated variants: what got better, what got worse, and what it rests on.

    RUN alone is compared with its base. The file loads nothing and runs no script: it opens from disk, offline.

    \b
    harness report demo
    harness report demo@base demo other-run --out report.html
    """
    from rich.markup import escape

    from harness.files import write_output
    from harness.variants import resolve_variants
    from harness_evaluation import wording
    from harness_evaluation.report.page import report_page

    if len(variants) == 1:
        variants = (f"{variants[0]}@base", variants[0])
    compared = compared_variants(context, variants, refuse=False)
    resolved = resolve_variants(variants, context.runs_folder, context.plugins)
    tuned = {variant.run.folder: variant.run for variant in resolved if variant.run is not None and variant.is_tuned}
    lines = [
        line
        for rival in compared.rivals
        for task in rival.tasks
        for line in (*(f"{task.task}: {remark}" for remark in task.remarks),
                     *measured_unlike(compared.first, rival, task))
    ]  # fmt: skip
    write_output(out, report_page(compared, variants, list(tuned.values()), lines))
    say = context.console.print
    for rival in compared.rivals:
        say(escape(wording.tally(rival, compared.first)))
    say(f"[dim]written to[/dim] {escape(str(out))}", soft_wrap=True)
