"""The picture of a comparison: a forest plot of paired differences with their intervals, to put on a slide.

The report draws the same rows in HTML (`report/forest.py`), for screens of any width and both colour schemes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.extras import require
from harness.files import replacing
from harness.measure.comparison import Comparison
from harness.measure.side_by_side import SideBySide
from harness.pages import PALETTE
from harness_evaluation import wording

INK, FAINT, GRID = "#1f2933", "#5f6b78", "#e4e7eb"
# The shape of a mark says what its colour says.
LOOKS = {"b": (PALETTE["better"][0], "^"), "a": (PALETTE["worse"][0], "v"), None: (FAINT, "o")}
MEANINGS = {"b": "better", "a": "worse", None: "cannot tell apart"}


def draw_differences(compared: SideBySide, path: Path) -> None:
    """Write one panel for each task and metric (they differ in unit), with a row for each variant beside the first.

    With one variant a row for each category follows. The axis is the variant minus the first.
    """
    require("matplotlib", "evaluation")
    # The object-oriented interface: no display is looked for, and nobody's pyplot state is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = {key: _rows(compared, key) for key in compared.metrics}
    counts = [len(panel) for panel in panels.values()]
    height = 1.1 + sum(0.36 * count + 1.15 for count in counts)
    layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.15)
    figure = Figure(figsize=(9.6, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[count + 1.6 for count in counts])[:, 0]
    title = f"{', '.join(rival.name for rival in compared.rivals)} compared with {compared.first}"
    figure.suptitle(title, x=0.02, ha="left", fontsize=14, fontweight="bold", color=INK)
    _draw_legend(figure, compared)
    for axis, ((task, metric), panel) in zip(axes, panels.items(), strict=True):
        _draw_panel(axis, task, metric, panel, compared.first)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160, format=path.suffix.lower().removeprefix("."))


def _rows(compared: SideBySide, key: tuple[str, str]) -> list[tuple[str, Comparison]]:
    rows = []
    for rival, task, comparison in compared.metrics[key]:
        rows.append((rival.name, comparison))
        if len(compared.rivals) == 1:
            rows += [(c.category, c) for c in task.comparisons if c.category and c.metric == comparison.metric]
    return rows


def _draw_legend(figure: Any, compared: SideBySide) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=LOOKS[side][0], lw=3, marker=LOOKS[side][1], ms=8, mec="white", label=meaning)
        for side, meaning in MEANINGS.items()
    ]
    corrected = f", p below 0.05 after Holm for {compared.family} comparisons" if compared.family > 1 else ""
    figure.legend(
        handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=9, labelcolor=INK,
        title=f"than {compared.first}{corrected}", title_fontsize=9, alignment="left",
    )  # fmt: skip


def _draw_panel(axis: Any, task: str, metric: str, panel: Sequence[tuple[str, Comparison]], first: str) -> None:
    one = panel[0][1]
    unit = 100.0 if one.is_share else 1.0
    for row, (_, comparison) in enumerate(panel):
        paired, is_whole = comparison.paired, not comparison.category
        colour, mark = LOOKS[comparison.better]
        if paired.interval:
            low, high = (limit * unit for limit in paired.interval)
            width = 3.2 if is_whole else 2.0
            axis.plot([low, high], [row, row], color=colour, lw=width, solid_capstyle="round", zorder=3)
        size, edge = (10, 1.2) if is_whole else (7, 0.8)
        axis.plot(paired.difference * unit, row, mark, ms=size, mfc=colour, mec="white", mew=edge, zorder=4)
        means = f"{_plain(comparison, paired.a.value)} → {_plain(comparison, paired.b.value)}"
        axis.annotate(
            f"{means}   {MEANINGS[comparison.better]}", (1.015, row), xycoords=("axes fraction", "data"), va="center",
            fontsize=8.5, color=INK if is_whole else FAINT, annotation_clip=False,
        )  # fmt: skip
    axis.axvline(0, color=INK, lw=1, zorder=2)
    axis.set_ylim(len(panel) - 0.4, -0.6)
    low, high = axis.get_xlim()
    room = 0.04 * (max(high, 0) - min(low, 0) or 1)
    axis.set_xlim(min(low, 0) - room, max(high, 0) + room)
    axis.set_yticks(range(len(panel)), [name for name, _ in panel], fontsize=9.5, color=INK)
    for label, (_, comparison) in zip(axis.get_yticklabels(), panel, strict=True):
        label.set_fontweight("normal" if comparison.category else "bold")
    towards = "more" if one.higher_is_better else "less"
    axis.set_title(f"{task} · {metric}", loc="left", fontsize=10.5, color=INK, pad=8, fontweight="bold")
    axis.set_title(f"{towards} is better, n={one.paired.a.n}", loc="right", fontsize=8.5, color=FAINT, pad=8)
    points = "percentage points, " if one.is_share else ""
    axis.set_xlabel(f"difference to {first} ({points}95% interval, paired)", fontsize=8.5, color=FAINT)
    axis.tick_params(length=0, labelcolor=INK)
    axis.tick_params(axis="x", labelsize=8.5, labelcolor=FAINT)
    axis.grid(axis="x", color=GRID, lw=0.8)
    axis.set_axisbelow(True)
    for side in axis.spines.values():
        side.set_visible(False)


def _plain(comparison: Comparison, number: float) -> str:
    return wording.value(comparison, comparison.paired.a._replace(value=number))
