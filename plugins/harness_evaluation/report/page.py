"""The report as one HTML file: verdicts first, then what they rest on, and how to get them again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape

from harness import intervals, pages
from harness.measure.records import Record
from harness.measure.side_by_side import SideBySide
from harness.run import Run
from harness_evaluation import wording
from harness_evaluation.report import charts, forest, items, runs

LIMITS = (
    "An interval speaks of items like these, asked as they were asked here; of other tasks it says nothing.",
    "“Cannot tell apart” is no proof of equality: the difference that could have been seen stands beside it.",
)
STYLE = """\
.warned li { margin: 4px 0; overflow-wrap: anywhere; } .warned { margin: 0; padding-left: 20px; }
.warned .alert { color: var(--worse); }
"""


def report_page(compared: SideBySide, given: Sequence[str], tuned: Sequence[Run], lines: Sequence[str]) -> str:
    """Return the page.

    Args:
        given: the variants as they are typed, for the commands.
        tuned: the runs among the variants, in their order.
        lines: what differs in how the variants were measured, one sentence each.
    """
    others = [rival.name for rival in compared.rivals]
    title = f"{', '.join(others)} compared with {compared.first}"
    samples = "".join(items.before_and_after(run) for run in tuned)
    body = [
        forest.glance(compared),
        forest.forest(compared),
        samples or items.answers(compared),
        items.flipped(compared),
        *(runs.tuned(run) for run in tuned),
        _limits(compared, lines),
        _basis(compared),
        _again(compared, given),
    ]
    style = intervals.STYLE + charts.STYLE + forest.STYLE + items.STYLE + runs.STYLE + STYLE
    return pages.page(title, _lead(compared), "".join(body), style)


def _lead(compared: SideBySide) -> str:
    """Return the summary in a sentence for each variant."""
    sentences = [f"{escape(wording.tally(rival, compared.first))}." for rival in compared.rivals]
    return f"{' '.join(sentences)} All were measured on the same items."


def _limits(compared: SideBySide, lines: Sequence[str]) -> str:
    """Return the warnings of the records, remarks on comparisons, tasks that are not compared, and standing limits."""
    alerts = [*compared.warnings, *lines]
    for rival in compared.rivals:
        alerts += [rival.unapplied] if rival.unapplied else []
        alerts += [f"not compared: {reason}" for reason in rival.refused]
        alerts += [f"{name} was measured for one of {compared.first} and {rival.name} only" for name in rival.alone]
    entries = [f'<li class="alert">{escape(alert)}</li>' for alert in dict.fromkeys(alerts)]
    entries += [f"<li>{escape(line)}</li>" for line in (*compared.aside, *LIMITS, wording.family(compared))]
    return f'<section><h2>Warnings and limits</h2><ul class="warned">{"".join(entries)}</ul></section>'


def _basis(compared: SideBySide) -> str:
    """Return the folded table of how each figure came about, and of the records that it rests on."""
    rows = []
    for rows_of in compared.metrics.values():
        for rival, _, comparison in rows_of:
            name = f"{comparison.task} {comparison.metric}, {rival.name}"
            basis = wording.basis(comparison, compared.first, rival.name)
            rows.append(f"<tr><td>{escape(name)}</td><td>{escape(basis)}</td></tr>")
    records = {record.path: record for rival in compared.rivals for task in rival.tasks for record in task.records}
    measured = "".join(_record(record) for record in records.values())
    head = "".join(
        f"<th>{title}</th>" for title in ("task", "variant", "weights", "template", "dtype", "device", "measured")
    )
    methods = _folded("methods, bootstrap intervals, right and wrong items", "".join(rows))
    measured = _folded(f"{len(records)} records", f"<tr>{head}</tr>{measured}")
    return f"<section><h2>How the figures came about</h2>{methods}{measured}</section>"


def _folded(summary: str, rows: str) -> str:
    return f'<details><summary>{summary}</summary><div class="scroll"><table>{rows}</table></div></details>'


def _record(record: Record) -> str:
    entries = record.entries
    weights, template = entries["weights"], entries["template"]
    hashes = [str(weights[key])[:8] for key in ("model_sha256", "adapter_sha256") if weights.get(key)]
    cells = (
        record.task,
        record.variant,
        " + ".join(hashes) or str(weights.get("model")),
        f"{template.get('name') or 'its own'} {str(template.get('sha256') or '')[:8]}",
        entries.get("dtype") or "–",
        entries.get("device") or "–",
        f"{record.measured[:16].replace('T', ' ')}, {entries.get('seconds', 0):g} s",
    )
    return f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>"


def _again(compared: SideBySide, given: Sequence[str]) -> str:
    """Return the commands that lead to these figures, and the versions that they were measured with."""
    record = next((task.records[-1] for rival in compared.rivals for task in rival.tasks), None)
    names = shlex.join(pages.names_of(list(given)))
    commands = [f"harness {verb} {names}" for verb in ("evaluate", "compare", "report")]
    versions = ""
    if record is not None:
        parts = [f"{name} {version}" for name, version in record.entries["versions"].items()]
        commit = record.entries.get("environment", {}).get("git_commit")
        parts += [f"commit {commit[:12]}"] if commit else []
        versions = f"<p>{escape(', '.join(parts))}</p>"
    return (
        f"<section><h2>How to get them again</h2><pre>{escape(chr(10).join(commands))}</pre>"
        f"<p>A run is tuned again by its recipe above: <code>harness tune recipe.yaml</code>.</p>{versions}</section>"
    )
