"""The tracker `tensorboard`: event files in the run's folder, for `tensorboard --logdir runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import harness
from harness.contract.events import Artefact, Evaluated, Event, Finished, Samples, Started, Step, Validation
from harness.extras import require
from harness.options import Options
from harness_trackers.values import EXTRA, figures, opened, scores, transcript


class TensorBoardOptions(Options):
    """`folder` is where each run gets a folder of its name; without it, `tensorboard/` inside the run's folder."""

    folder: Path | None = None


class TensorBoard:
    """Writes event files. A resumed run goes on in the same folder, where steps that are done again are replaced."""

    def __init__(self, options: TensorBoardOptions) -> None:
        require("tensorboard", EXTRA)
        self.options = options
        self.run: Any = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.open(event.run, event.folder, first_step=event.step + 1 if event.step else None)
            recipe = json.dumps(event.recipe, default=dict, indent=2)
            self.run.add_text("recipe", "".join(f"    {line}\n" for line in recipe.splitlines()), event.step)
        elif isinstance(event, Step | Validation):
            for name, value in figures(event.metrics).items():
                self.run.add_scalar(name, value, event.step)
        elif isinstance(event, Artefact):
            self.run.add_text(f"artefact/{event.what}", str(event.path))
        elif isinstance(event, Finished):
            self.run.add_text("outcome", event.outcome)
            self.close()
        elif event.folder is not None and event.run is not None:  # measured: while it is tuned, or afterwards
            with opened(self, event.run, event.folder):
                self._measured(event)

    def _measured(self, event: Samples | Evaluated) -> None:
        if isinstance(event, Samples):
            self.run.add_text(f"{event.task}/{event.variant}", transcript(event), event.step or 0)
        else:
            for name, value in scores(event).items():
                self.run.add_scalar(name, value, 0)

    def open(self, run: str, folder: Path, first_step: int | None = None) -> None:
        """Open the folder of the harness run; steps from the first one on are replaced."""
        place = folder / "tensorboard" if self.options.folder is None else self.options.folder / run
        writers = require("torch.utils.tensorboard", "tuning")
        self.run = writers.SummaryWriter(str(place), purge_step=first_step, flush_secs=10)

    def close(self) -> None:
        """Close what is written to."""
        self.run.close()
        self.run = None


TRACKER = harness.Tracker("tensorboard", "event files for TensorBoard", TensorBoardOptions, TensorBoard)
