"""The page of `harness data stats --html`: one file with everything in it, for a screen of any width, light or dark."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from harness.commands.data.stats import Measured, lengths_of, shares_of, summary_of
from harness.data.prepare.data_statistics import round_width

if TYPE_CHECKING:
    from harness.data.prepare.data_statistics import Bin, Lengths

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 210, 50, 26, 24  # of a plot, in its own units
WIDEST = 60  # a bar

STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --soft: #667085; --line: #d8dde4; --page: #f7f8fa; --card: #ffffff; --bar: #2f6fb3; --far: #c27c2c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #98a2b3; --line: #343b46; --page: #14181e; --card: #1c222b; --bar: #6ea8e6; --far: #e0a35a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 1.6rem; margin: 0 0 4px; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 0 0 8px; }
p { margin: 0 0 20px; color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-bottom: 20px; }
.figures div, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.figures b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; } .figures span { color: var(--soft); font-size: .85rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px; }
section { min-width: 0; } section p { margin: 6px 0 0; font-size: .85rem; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font: 13px system-ui, sans-serif; }
.bar { fill: var(--bar); } .beyond { fill: var(--far); } .grid { stroke: var(--line); } .limit { stroke: var(--far); stroke-dasharray: 5 4; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child { overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; } .n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.meter { display: inline-block; vertical-align: middle; height: 6px; min-width: 2px; border-radius: 3px; background: var(--bar); }
tr:last-child td { border-bottom: 0; } td:last-child, th:last-child { padding-right: 0; }
.shares { table-layout: fixed; } .shares .n { width: 22%; } .shares td:last-child { width: 34%; }
.wide { margin-top: 16px; }
@media (max-width: 560px) {
  svg text { font-size: 17px; } .shares .n { width: 21%; } .shares td:last-child { width: 22%; }
  .wide tr:first-child { display: none; } .wide td, .wide tr { display: block; border: 0; padding: 0; text-align: left; } .wide tr + tr + tr { margin-top: 12px; }
  td[data-what]::before { content: attr(data-what) " "; color: var(--soft); } td:empty { display: none; }
}
"""


def page_of(measured: Measured) -> str:
    """The statistics as an HTML page with nothing outside itself: its styles and plots are in it, and it runs no script."""
    told = f" Tokens are those of the template {escape(measured.template)}." if measured.template else ""
    told += f" Languages were not told: {escape(measured.no_languages)}." if measured.no_languages else ""
    plots = [_plot(name, lengths, measured.max_tokens) for name, lengths in lengths_of(measured)]
    shares = [_shares(name, counts) for name, counts in shares_of(measured)]
    figures = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in summary_of(measured)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(measured.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(measured.title)}</h1>\n<p>What these data hold, as counted by <code>harness data stats</code>.{told}</p>\n"
        f'<div class="figures">{figures}</div>\n<div class="plots">\n{"".join(plots + shares)}</div>\n{_files(measured)}'
        "</main>\n</body>\n</html>\n"
    )  # fmt: skip


def _plot(name: str, lengths: Lengths, max_tokens: int | None) -> str:
    told = (
        f"median {lengths.quantile(0.5):,}, mean {lengths.mean:,.1f}, 90 % up to {lengths.quantile(0.9):,}, "
        f"99 % up to {lengths.quantile(0.99):,}, the longest {max(lengths.counts):,}"
    )
    bins = lengths.bins()
    limit = max_tokens if max_tokens and name.startswith("tokens") else None
    return f"<section><h2>{escape(name)}</h2>{_histogram(name, bins, limit)}<p>{told}</p></section>\n"


def _histogram(name: str, bins: list[Bin], limit: int | None) -> str:
    """Bars over bins of equal width; what is beyond the 99th percentile is the last, in another colour."""
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
            f'<rect class="{"beyond" if bin.beyond else "bar"}" x="{x + (step - 2 - thick) / 2:.1f}" y="{floor - height:.1f}" '
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
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Histogram of {escape(name)}">{"".join(parts)}</svg>'


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
        f'<tr><td>{escape(report.path)}</td><td data-what="read as">{escape(report.source)}</td><td class="n" data-what="rows">{report.rows:,}</td>'
        f'<td class="n" data-what="kept">{report.kept:,}</td><td data-what="left out">{escape("; ".join(f"{count:,}: {reason}" for reason, count in report.left_out.items()))}</td></tr>'
        for report in measured.reports
    )  # fmt: skip
    wrong = f"<p>{len(measured.problems):,} rows are wrong and not counted; <code>harness data validate</code> shows them.</p>" if measured.problems else ""  # fmt: skip
    return (
        f'<section class="wide"><h2>files</h2><div class="scroll"><table><tr><th>file</th><th>read as</th><th class="n">rows</th>'
        f'<th class="n">kept</th><th>left out</th></tr>{rows}</table></div>{wrong}</section>\n'
    )


def _short(figure: float) -> str:
    """A figure for an axis: 950, 1.5k, 20k, 3M."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if figure >= size:
            return f"{figure / size:.3g}{letter}"
    return f"{figure:.3g}"
