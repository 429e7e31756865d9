"""The tracker `trackio`: Trackio's local database, which `trackio show` draws."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import harness
from harness.contract.events import Artefact, Evaluated, Event, Finished, Samples, Started, Step, Validation
from harness.errors import HarnessError
from harness.extras import require
from harness.options import Options
from harness.run import id_of
from harness_trackers.values import EXTRA, figures, opened, scores


class TrackioOptions(Options):
    """`folder` is where Trackio's database is; without it, TRACKIO_DIR or Trackio's own place in the user's cache."""

    project: str = "instruct-harness"
    folder: Path | None = None


class Trackio:
    """Logs to one Trackio run a harness run; Trackio knows a run by its name, so that the name ends with the run's id.

    The database is local, unless the environment names a Space or a server for Trackio itself.
    """

    def __init__(self, options: TrackioOptions) -> None:
        if options.folder is not None:
            os.environ["TRACKIO_DIR"] = str(options.folder)  # read when trackio is imported
        self.trackio = require("trackio", EXTRA)
        if options.folder is not None and options.folder != (now := self.trackio.utils.TRACKIO_DIR):
            raise HarnessError(f"folder: {options.folder}: Trackio was imported before, and writes to {now}")
        self.options = options
        self.run: Any = None

    def __call__(self, event: Event) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it says where its files are, on the run's output
            self._receive(event)

    def _receive(self, event: Event) -> None:
        if isinstance(event, Started):
            self.open(event.run, event.folder, json.loads(json.dumps(event.recipe, default=dict)))
        elif isinstance(event, Step | Validation):
            self.run.log(figures(event.metrics), step=event.step)
        elif isinstance(event, Artefact):
            self.run.log({f"artefact/{event.what}": str(event.path)})
        elif isinstance(event, Finished):
            self.run.log({"outcome": event.outcome})
            self.close()
        elif event.folder is not None and event.run is not None:
            with opened(self, event.run, event.folder):
                self._measured(event)

    def _measured(self, event: Samples | Evaluated) -> None:
        if isinstance(event, Samples):
            rows = [[s.id, s.prompt, s.response, s.target] for s in event.samples]
            table = self.trackio.Table(columns=["id", "prompt", "response", "target"], data=rows)
            self.run.log({f"{event.task}/{event.variant}": table}, step=event.step)
        else:
            self.run.log(scores(event))

    def open(self, run: str, folder: Path, recipe: dict[str, Any] | None = None) -> None:
        """Open the one of the harness run, which is found again after a resume."""
        self.run = self.trackio.init(
            project=self.options.project, name=f"{run}-{id_of(folder)}", config=recipe, resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def close(self) -> None:
        """Close what is written to."""
        self.trackio.finish()
        self.run = None


TRACKER = harness.Tracker("trackio", "Trackio's local database", TrackioOptions, Trackio)
