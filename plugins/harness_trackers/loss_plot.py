"""The tracker `loss_plot`: the loss curve as a picture to send to a colleague, drawn when a run has finished."""

from __future__ import annotations

from pathlib import Path

import harness
from harness.contract.events import Event, Finished, Started
from harness.files import replacing
from harness.options import Options
from harness.run.facts import curve_of, metrics_of

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

    curve = curve_of(metrics_of(metrics))

    figure = Figure(figsize=(8, 5), dpi=144, layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    loss.plot(curve.steps, curve.losses, color=PALE_BLUE, linewidth=0.8, label="training, each step")
    loss.plot(curve.steps, curve.smoothed, color=BLUE, linewidth=2, label="training, smoothed")
    if validation := curve.validation:
        loss.plot(
            *zip(*validation, strict=True), color=RED, marker="o", markersize=4, linewidth=1.5, label="validation"
        )
        for step, value in (validation[0], validation[-1]):
            loss.annotate(
                f"{value:.3f}", (step, value), xytext=(0, 6), textcoords="offset points",
                ha="left" if step == 0 else "right", color=RED, fontsize=9,
            )  # fmt: skip
    rate.plot(curve.steps, curve.rates, color=GREY, linewidth=1.2)
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
