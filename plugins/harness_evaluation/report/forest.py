"""The verdicts of a report: what got better and worse at a glance, and the forest plot of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from harness.intervals import Scale, interval_svg
from harness.measure.comparison import Comparison
from harness.measure.side_by_side import Rival, SideBySide
from harness_evaluation import wording
from harness_evaluation.report.charts import axis_svg

STYLE = """\
.glance { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 12px; }
.glance section { margin: 0; border-top: 4px solid var(--soft); }
.glance .better { border-top-color: var(--better); } .glance .worse { border-top-color: var(--worse); }
.glance h2 b { font-size: 1.5rem; margin-right: 6px; }
.better h2 b, b.better { color: var(--better); } .worse h2 b, b.worse { color: var(--worse); }
.glance ul { list-style: none; margin: 0; padding: 0; }
.glance li { padding: 6px 0; border-top: 1px solid var(--line); }
.glance li:first-child { border-top: 0; }
.glance li span { display: block; font-size: .85rem; color: var(--soft); font-variant-numeric: tabular-nums; }
.glance .by span { display: flex; justify-content: space-between; gap: 12px; padding: 2px 0; }
.glance .by i { font-style: normal; white-space: nowrap; }
.rival { margin: 18px 0 8px; }
.forest { margin-top: 16px; }
.panel { margin: 14px 0 0; } .panel h3 { margin: 0 0 2px; }
.line { display: grid; grid-template-columns: minmax(130px, 24%) 1fr minmax(190px, 26%); gap: 4px 16px;
  align-items: center; padding: 4px 0; }
.line .name { overflow-wrap: anywhere; font-size: .9rem; } .line .name small { display: block; color: var(--soft); }
.line .result { font-size: .85rem; color: var(--soft); font-variant-numeric: tabular-nums; }
.line .result b { font-weight: 600; } b.unclear { color: var(--ink); }
.of-category { padding: 1px 0; } .of-category .name { padding-left: 14px; color: var(--soft); }
h3 { font-size: .85rem; font-weight: 600; color: var(--soft); }
@media (max-width: 640px) {
  .line { grid-template-columns: 1fr; padding: 8px 0; } .line .result { order: 2; } .line .draw { order: 3; }
  .line.axis .name { display: none; } .of-category .name { padding-left: 0; }
}
"""
LOOKS = {"b": "better", "a": "worse", None: "unclear"}
NO_BREAK = "\u00a0"
CARDS = (("worse", "Worse", "a"), ("better", "Better", "b"), ("", "Cannot tell apart", None))
SIGNS = {"b": "▲", "a": "▼", None: "●"}


def glance(compared: SideBySide) -> str:
    """Return the cards of what is better, worse and not told apart; for each variant where there are several."""
    parts = []
    for rival in compared.rivals:
        if len(compared.rivals) > 1:
            parts.append(f'<h2 class="rival">{escape(rival.name)}, compared with {escape(compared.first)}</h2>')
        every = [*rival.wholes, *rival.categories]
        by_side = {side: [comparison for comparison in every if comparison.better == side] for side in ("a", "b", None)}
        worse, better, unclear = CARDS
        order = CARDS if by_side["a"] else (better, worse, unclear)
        cards = [_card(kind, title, by_side[side]) for kind, title, side in order]
        parts.append(f'<div class="glance">{"".join(cards)}</div>')
    return "".join(parts)


def _card(kind: str, title: str, comparisons: Sequence[Comparison]) -> str:
    """Return one card: metrics one by one, then the categories of each task."""
    wholes = [comparison for comparison in comparisons if not comparison.category]
    entries = [_entry(comparison) for comparison in wholes]
    of_tasks: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        if comparison.category:
            of_tasks.setdefault((comparison.task, comparison.metric), []).append(comparison)
    for (task, metric), categories in of_tasks.items():
        lines = "".join(f"<span>{escape(c.category)}<i>{escape(_means(c))}</i></span>" for c in categories)
        entries.append(f'{escape(task)} {escape(metric)}, by category<div class="by">{lines}</div>')
    body = f"<ul>{''.join(f'<li>{entry}</li>' for entry in entries)}</ul>" if entries else "<p>nothing</p>"
    return f'<section class="{kind}"><h2><b>{len(wholes)}</b>{title}</h2>{body}</section>'


def _entry(comparison: Comparison) -> str:
    name = _name(comparison)
    unit = " points" if comparison.is_share else ""
    change = f"{_means(comparison)} ({wording.difference(comparison)}{unit}; {wording.interval(comparison)})"
    if comparison.better is None:
        change += f"; {wording.verdict(comparison).partition('(')[2].removesuffix(')')}"
    return f"{name}<span>{escape(change)}</span>"


def _name(comparison: Comparison) -> str:
    """Return task and metric, of a category its name too."""
    name = f"<b>{escape(comparison.task)}</b> {escape(comparison.metric)}"
    return f"{name} · {escape(comparison.category)}" if comparison.category else name


def _means(comparison: Comparison) -> str:
    a, b = comparison.paired.a, comparison.paired.b
    parts = (wording.value(comparison, of) for of in (a, b))
    return " → ".join(part.replace(" ", NO_BREAK) for part in parts)


def forest(compared: SideBySide) -> str:
    """Return the forest plot: the shares of right items on one axis, each other metric on one of its own."""
    shares: list[list[tuple[Rival, Comparison]]] = []
    others: list[list[tuple[Rival, Comparison]]] = []
    for rows in compared.metrics.values():
        lines = []
        for rival, task, whole in rows:
            lines.append((rival, whole))
            if len(compared.rivals) == 1:
                lines += [(rival, c) for c in task.comparisons if c.category and c.metric == whole.metric]
        (shares if rows[0][2].is_share else others).append(lines)
    panels = []
    if shares:
        title = "right or wrong items: difference in percentage points"
        panels.append(_panel(title, [row for rows in shares for row in rows], 100.0, compared))
    panels += [_panel(_title(rows[0][1]), rows, 1.0, compared) for rows in others]
    if not panels:
        return ""
    lead = (
        f"Each mark is the difference to {escape(compared.first)}, each line its 95 % interval, paired item by item. "
        f"{escape(wording.family(compared))}"
    )
    return f'<section class="forest"><h2>Every comparison</h2><p>{lead}</p>{"".join(panels)}</section>'


def _title(comparison: Comparison) -> str:
    towards = "more" if comparison.higher_is_better else "less"
    return f"{comparison.task} {comparison.metric}: difference in its own unit, {towards} is better"


def _panel(title: str, rows: Sequence[tuple[Rival, Comparison]], unit: float, compared: SideBySide) -> str:
    limits = [limit for _, of in rows for limit in (of.paired.difference, *(of.paired.interval or ()))]
    scale = Scale.around(limits)
    lines = []
    for rival, comparison in rows:
        look = LOOKS[comparison.better]
        words = wording.verdict(comparison)
        label = f"{comparison.task} {comparison.metric}, {rival.name}: {wording.difference(comparison)}, {words}"
        who = f"<small>{escape(rival.name)}</small>" if len(compared.rivals) > 1 else ""
        down = "" if comparison.higher_is_better else " <small>less is better</small>" if unit != 1 else ""
        result = (
            f'<b class="{look}">{SIGNS[comparison.better]} {escape(words.partition(" (")[0])}</b> '
            f"{escape(_means(comparison))}<br>{escape(wording.difference(comparison))} "
            f"({escape(wording.interval(comparison))}), p {wording.p_value(comparison.adjusted)}"
        )
        kind = "line of-category" if comparison.category else "line"
        name = escape(comparison.category) or f"{_name(comparison)}{who}{down}"
        paired = comparison.paired
        drawn = interval_svg(scale, paired.difference, paired.interval, look, label, scale.ticks())
        lines.append(
            f'<div class="{kind}"><div class="name">{name}</div><div class="draw">{drawn}</div>'
            f'<div class="result">{result}</div></div>'
        )
    axis = f'<div class="line axis"><div class="name"></div><div class="draw">{axis_svg(scale, unit)}</div></div>'
    return f'<div class="panel"><h3>{escape(title)}</h3>{"".join(lines)}{axis}</div>'
