"""The page of `harness data stats --html`."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from harness.data.prepare.data_statistics import round_width
from harness.pages import figures, names_of, page
from harness_commands.data.measured import Measured, lengths_of, shares_of, summary_of

if TYPE_CHECKING:
    from harness.data.prepare.data_statistics import Bin, Lengths

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 210, 50, 26, 24  # of a plot, in its own units
WIDEST = 60  # a bar

STYLE = """\
:root { --bar: var(--accent); --far: var(--warm); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font: 13px system-ui, sans-serif; }
.bar { fill: var(--bar); } .beyond { fill: var(--far); } .grid { stroke: var(--line); }
.limit { stroke: var(--far); stroke-dasharray: 5 4; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child { overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.meter { display: inline-block; vertical-align: middle; height: 6px; min-width: 2px; border-radius: 3px; }
.meter { background: var(--bar); }
tr:last-child td { border-bottom: 0; } td:last-child, th:last-child { padding-right: 0; }
.shares { table-layout: fixed; } .shares .n { width: 22%; } .shares td:last-child { width: 34%; }
.plots section { margin: 0; } .wide { margin-top: 16px; }
@media (max-width: 560px) {
  svg text { font-size: 17px; } .shares .n { width: 21%; } .shares td:last-child { width: 22%; }
  .wide tr:first-child { display: none; }
  .wide td, .wide tr { display: block; border: 0; padding: 0; text-align: left; }
  .wide tr + tr + tr { margin-top: 12px; }
  td[data-what]::before { content: attr(data-what) " "; color: var(--soft); } td:empty { display: none; }
}
"""


def statistics_page(measured: Measured) -> str:
    """Return the statistics as an HTML page."""
    lead = "What these data hold, as counted by <code>harness data stats</code>."
    if measured.template:
        lead += f" Tokens are those of the template {escape(measured.template)}."
    if measured.no_languages:
        lead += f" Languages are not counted: {escape(measured.no_languages)}."
    plots = [_plot(name, lengths, measured.max_tokens) for name, lengths in lengths_of(measured)]
    shares = [_shares(name, counts) for name, counts in shares_of(measured)]
    body = f'{figures(summary_of(measured))}<div class="plots">\n{"".join(plots + shares)}</div>\n{_files(measured)}'
    return page(measured.title, lead, body, STYLE)


def _plot(name: str, lengths: Lengths, max_tokens: int | None) -> str:
    summary = (
        f"median {lengths.quantile(0.5):,}, mean {lengths.mean:,.1f}, 90 % up to {lengths.quantile(0.9):,}, "
        f"99 % up to {lengths.quantile(0.99):,}, the longest {max(lengths.counts):,}"
    )
    bins = lengths.bins()
    limit = max_tokens if max_tokens and name.startswith("tokens") else None
    return f"<section><h2>{escape(name)}</h2>{_histogram(name, bins, limit)}<p>{summary}</p></section>\n"


def _histogram(name: str, bins: list[Bin], limit: int | None) -> str:
    """Draw bars over bins of equal width; what is beyond the 99th percentile is the last, in another colour."""
    highest = max(bin.count for bin in bins)
    step = (WIDTH - LEFT - 8) / len(bins)
    thick = min(step - 2, WIDEST)
    floor = HEIGHT - BOTTOM
    parts = []
    for count in range(0, highest + 1, round_width(highest / 4)):
        y = floor - count / highest * (floor - TOP)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(count)}</text>')
    every = max(1, -(-len(bins) // 6))
    for index, bin in enumerate(bins):
        x, height = LEFT + 4 + index * step, bin.count / highest * (floor - TOP)
        height = max(height, 1.5) if bin.count else 0
        parts.append(
            f'<rect class="{"beyond" if bin.beyond else "bar"}" x="{x + (step - 2 - thick) / 2:.1f}" '
            f'y="{floor - height:.1f}" '
            f'width="{thick:.1f}" height="{height:.1f}" rx="2"><title>{bin}: {bin.count:,}</title></rect>'
        )
        label = f"{_short(bin.low)}+" if bin.beyond else _short(bin.low)
        if bin.beyond or (index % every == 0 and len(bins) - index > every * bins[-1].beyond):
            at, anchor = (WIDTH, "end") if bin.beyond else (x + step / 2 - 1, "middle")
            parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{label}</text>')
    last = bins[-1]
    if limit is not None and bins[0].low <= limit < last.low + (0 if last.beyond else 1):
        width = bins[0].high - bins[0].low + 1
        x = LEFT + 4 + (limit - bins[0].low) / width * step
        anchor = "start" if x < WIDTH * 0.2 else "end" if x > WIDTH * 0.8 else "middle"  # all of the label is inside
        parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor}"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP - 8}" text-anchor="{anchor}">max_tokens {limit:,}</text>')
    label = f"Histogram of {escape(name)}"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _shares(name: str, counts: dict[str, int], most: int = 12) -> str:
    total = sum(counts.values())
    rows = "".join(
        f'<tr><td>{escape(key)}</td><td class="n">{count:,}</td><td class="n">{count / total:.1%}</td>'
        f'<td><span class="meter" style="width:{count / max(counts.values()):.1%}"></span></td></tr>'
        for key, count in list(counts.items())[:most]
    )
    more = f"<p>and {len(counts) - most} more</p>" if len(counts) > most else ""
    return f'<section><h2>{escape(name)}</h2><table class="shares">{rows}</table>{more}</section>\n'


def _files(measured: Measured) -> str:
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td data-what="read as">{escape(report.source)}</td><td class="n" '
        f'data-what="rows">{report.rows:,}</td>'
        f'<td class="n" data-what="kept">{report.kept:,}</td><td data-what="left '
        f'out">{escape("; ".join(f"{count:,}: {reason}" for reason, count in report.left_out.items()))}</td></tr>'
        for name, report in zip(names_of([report.path for report in measured.reports]), measured.reports, strict=True)
    )
    wrong = (
        f"<p>{len(measured.problems):,} rows are wrong and not counted; <code>harness data validate</code> shows "
        "them.</p>"
        if measured.problems
        else ""
    )
    return (
        '<section class="wide"><h2>files</h2><div class="scroll"><table><tr><th>file</th><th>read as</th><th '
        'class="n">rows</th>'
        f'<th class="n">kept</th><th>left out</th></tr>{rows}</table></div>{wrong}</section>\n'
    )


def _short(figure: float) -> str:
    """Return a figure for an axis: 950, 1.5k, 20k, 3M."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if figure >= size:
            return f"{figure / size:.3g}{letter}"
    return f"{figure:.3g}"
