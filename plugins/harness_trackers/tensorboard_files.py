"""The tracker `tensorboard`: event files in the run's folder, for `tensorboard --logdir runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import harness
from harness.contract.events import Artefact, Evaluated, Event, Finished, Samples, Started, Step, Validation
from harness.extras import require
from harness.options import Options
from harness_trackers.values import EXTRA, figures, scores, transcript


class TensorBoardOptions(Options):
    """`folder` is where each run gets a folder of its name; without it, `tensorboard/` inside the run's folder."""

    folder: Path | None = None


class TensorBoard:
    """Writes event files. A resumed run goes on in the same folder, where steps that are done again are replaced."""

    def __init__(self, options: TensorBoardOptions) -> None:
        require("tensorboard", EXTRA)
        self.options = options
        self.writer: Any = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._open(event.run, event.folder, first_step=event.step + 1 if event.step else None)
            recipe = json.dumps(event.recipe, default=dict, indent=2)
            self.writer.add_text("recipe", "".join(f"    {line}\n" for line in recipe.splitlines()), event.step)
        elif isinstance(event, Step | Validation):
            for name, value in figures(event.metrics).items():
                self.writer.add_scalar(name, value, event.step)
        elif isinstance(event, Artefact):
            self.writer.add_text(f"artefact/{event.what}", str(event.path))
        elif isinstance(event, Finished):
            self.writer.add_text("outcome", event.outcome)
            self._close()
        elif event.folder is not None and event.run is not None:  # measured: while it is tuned, or afterwards
            self._measured(event, event.run, event.folder)

    def _measured(self, event: Samples | Evaluated, run: str, folder: Path) -> None:
        is_tuned_now = self.writer is not None
        if not is_tuned_now:
            self._open(run, folder)
        if isinstance(event, Samples):
            self.writer.add_text(f"{event.task}/{event.variant}", transcript(event), event.step or 0)
        else:
            for name, value in scores(event).items():
                self.writer.add_scalar(name, value, 0)
        if not is_tuned_now:
            self._close()

    def _open(self, run: str, folder: Path, first_step: int | None = None) -> None:
        place = folder / "tensorboard" if self.options.folder is None else self.options.folder / run
        writers = require("torch.utils.tensorboard", "tuning")
        self.writer = writers.SummaryWriter(str(place), purge_step=first_step, flush_secs=10)

    def _close(self) -> None:
        self.writer.close()
        self.writer = None


TRACKER = harness.Tracker("tensorboard", "event files for TensorBoard", TensorBoardOptions, TensorBoard)
