"""The tracker `wandb`: Weights & Biases, offline unless asked; `wandb sync` sends what is in the run's folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import harness
from harness.contract.events import Artefact, Evaluated, Event, Finished, Samples, Started, Step, Validation
from harness.errors import HarnessError
from harness.extras import require
from harness.options import Options
from harness.run import id_of
from harness_trackers.values import EXTRA, figures, opened, scores


class WandbOptions(Options):
    """`offline` keeps everything in the run's folder; `online` needs the key of an account."""

    project: str = "instruct-harness"
    entity: str | None = None
    mode: Literal["offline", "online"] = "offline"


class Wandb:
    """Logs to one W&B run a harness run: the same after a resume, and for what is measured afterwards."""

    def __init__(self, options: WandbOptions) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
        self.wandb = require("wandb", EXTRA)
        if options.mode == "online" and not (self.wandb.api.api_key or os.environ.get("WANDB_API_KEY")):
            raise HarnessError("mode: online needs a key, and nobody is asked for one: `wandb login`, or WANDB_API_KEY")
        self.options = options
        self.run: Any = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.open(event.run, event.folder, json.loads(json.dumps(event.recipe, default=dict)))
        elif isinstance(event, Step | Validation):
            self.run.log(figures(event.metrics), step=event.step)
        elif isinstance(event, Artefact):
            self.run.summary[f"artefact/{event.what}"] = str(event.path)
        elif isinstance(event, Finished):
            self.run.summary["outcome"] = event.outcome
            self.close(0 if event.outcome == "finished" else 1)
        elif event.folder is not None and event.run is not None:
            with opened(self, event.run, event.folder):
                self._measured(event)

    def _measured(self, event: Samples | Evaluated) -> None:
        if isinstance(event, Samples):
            columns = ["id", "prompt", "response", "target", "metrics"]
            rows = [
                [sample.id, sample.prompt, sample.response, sample.target, json.dumps(dict(sample.metrics))]
                for sample in event.samples
            ]
            table = self.wandb.Table(columns=columns, data=rows)
            self.run.log({f"{event.task}/{event.variant}": table}, step=event.step)
        else:
            self.run.summary.update(scores(event))

    def open(self, run: str, folder: Path, recipe: dict[str, Any] | None = None) -> None:
        """Open the one of the harness run, which is found again after a resume."""
        settings = self.wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True,
            x_save_requirements=False,
        )  # fmt: skip
        self.run = self.wandb.init(
            project=self.options.project, entity=self.options.entity, mode=self.options.mode, dir=str(folder), name=run,
            id=id_of(folder), resume="allow", config=recipe, settings=settings,
        )  # fmt: skip

    def close(self, exit_code: int = 0) -> None:
        """Finish W&B's run."""
        self.run.finish(exit_code=exit_code)
        self.run = None


TRACKER = harness.Tracker("wandb", "Weights & Biases, offline unless asked", WandbOptions, Wandb)
