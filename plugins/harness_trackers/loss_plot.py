"""The tracker `loss_plot`: the loss curve as a picture to send to a colleague, drawn when a run has finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import harness
from harness.contract.events import Event, Finished, Started
from harness.files import replacing
from harness.options import Options

INK, GREY, BLUE, PALE_BLUE, RED = "#24292f", "#8a8f98", "#1f5fa8", "#b9cbe2", "#c8553d"


class LossPlotOptions(Options):
    """The picture has no settings of its own."""


class LossPlot:
    """Draws `loss.png` into the run's folder once the run has finished."""

    def __init__(self, options: LossPlotOptions) -> None:
        self.title = ""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            model, method = event.recipe["model"]["path"], event.recipe["tune"]["method"]["name"]
            self.title = f"{event.run} · {Path(model).name} · {method.rpartition(':')[2]}"
        elif isinstance(event, Finished) and event.outcome == "finished":
            plot_loss(event.folder / "metrics.jsonl", event.folder / "loss.png", self.title)


TRACKER = harness.Tracker(
    "loss_plot", "loss.png in the run's folder: training and validation loss over the steps", LossPlotOptions,
    LossPlot, default=True,
)  # fmt: skip


def plot_loss(metrics: Path, target: Path, title: str) -> None:
    """Draw training loss (raw and smoothed), validation loss and learning rate over the steps of metrics.jsonl."""
    from matplotlib.figure import Figure

    rows: list[dict[str, Any]] = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    steps = [row for row in rows if "loss" in row]
    validation = [(row["step"], row["validation_loss"]) for row in rows if "validation_loss" in row]
    x, y = [row["step"] for row in steps], [row["loss"] for row in steps]

    figure = Figure(figsize=(8, 5), dpi=144, layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    loss.plot(x, y, color=PALE_BLUE, linewidth=0.8, label="training, each step")
    loss.plot(x, _smoothed(y), color=BLUE, linewidth=2, label="training, smoothed")
    if validation:
        loss.plot(
            *zip(*validation, strict=True), color=RED, marker="o", markersize=4, linewidth=1.5, label="validation"
        )
        for step, value in (validation[0], validation[-1]):
            loss.annotate(
                f"{value:.3f}", (step, value), xytext=(0, 6), textcoords="offset points",
                ha="left" if step == 0 else "right", color=RED, fontsize=9,
            )  # fmt: skip
    rate.plot(x, [row["learning_rate"] for row in steps], color=GREY, linewidth=1.2)
    rate.set_ylim(bottom=0)

    loss.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=26)
    loss.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(-0.01, 1.0), borderaxespad=0.2)
    loss.set_ylabel("loss (nats per supervised token)", color=INK, fontsize=9)
    rate.set_ylabel("learning rate", color=GREY, fontsize=9)
    rate.set_xlabel("step", color=INK, fontsize=9)
    for axes in (loss, rate):
        axes.grid(alpha=0.2)
        axes.margins(x=0.01, y=0.12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5, colors=INK)
    with replacing(target) as temporary:
        figure.savefig(temporary, format="png")


def _smoothed(values: list[float], keep: float = 0.9) -> list[float]:
    """Return the exponential moving average, corrected for its start (Kingma & Ba 2015, section 3)."""
    out, average = [], 0.0
    for step, value in enumerate(values, 1):
        average = keep * average + (1 - keep) * value
        out.append(average / (1 - keep**step))
    return out
