"""The tracker `mlflow`: a database beside the runs, which `mlflow ui` shows, or a server."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from pathlib import Path
from typing import Any

import harness
from harness.contract.events import Artefact, Evaluated, Event, Finished, Samples, Started, Step, Validation
from harness.extras import require
from harness.options import Options, leaves
from harness.run import id_of
from harness_trackers.values import EXTRA, figures, scores, transcript

STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
ID_TAG = "harness.id"
WRITE_EVERY_S = 2.0
LONGEST_PARAM = 500


class MlflowOptions(Options):
    """`uri` is a tracking server or database; without it MLFLOW_TRACKING_URI, or else mlflow.db beside the runs."""

    project: str = "instruct-harness"
    uri: str | None = None


class Mlflow:
    """Logs to one MLflow run a harness run, found again by its tag after a resume."""

    def __init__(self, options: MlflowOptions) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
        os.environ.setdefault("DO_NOT_TRACK", "true")
        self.mlflow = require("mlflow", EXTRA)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.options = options
        self.client: Any = None
        self.run_id = ""
        self.is_tuned_now = False
        self.waiting: list[Any] = []
        self.written = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.is_tuned_now = True
            self._open(event.run, event.folder)
            self.client.update_run(self.run_id, status="RUNNING")
            known = self.client.get_run(self.run_id).data.params  # which MLflow never changes
            entities = self.mlflow.entities
            new = [
                entities.Param(_name(key), str(value)[:LONGEST_PARAM])
                for key, value in leaves(event.recipe)
                if _name(key) not in known
            ]
            for start in range(0, len(new), 100):  # as many as MLflow takes at once
                self.client.log_batch(self.run_id, params=new[start : start + 100])
        elif isinstance(event, Step | Validation):
            self._log(figures(event.metrics), event.step)
        elif isinstance(event, Artefact):
            self.client.set_tag(self.run_id, f"artefact.{event.what}", str(event.path))
        elif isinstance(event, Finished):
            self._write()
            self.client.set_tag(self.run_id, "outcome", event.outcome)
            self.client.set_terminated(self.run_id, STATUS.get(event.outcome, "FAILED"))
            self.is_tuned_now = False
        elif event.folder is not None and event.run is not None:
            self._measured(event, event.run, event.folder)

    def _measured(self, event: Samples | Evaluated, run: str, folder: Path) -> None:
        if not self.is_tuned_now:
            self._open(run, folder)
        if isinstance(event, Samples):
            when = "" if event.step is None else f"-step-{event.step}"
            self.client.log_text(self.run_id, transcript(event), _name(f"{event.task}/{event.variant}{when}.md"))
        else:
            self._log(scores(event), 0)
            self._write()

    def _open(self, run: str, folder: Path) -> None:
        if self.client is None:
            here = f"sqlite:///{folder.resolve().parent / 'mlflow.db'}"
            uri = self.options.uri or os.environ.get("MLFLOW_TRACKING_URI") or here
            self.client = self.mlflow.tracking.MlflowClient(tracking_uri=uri)
        project = self._experiment(folder)
        known = self.client.search_runs([project], f"tags.`{ID_TAG}` = '{id_of(folder)}'", max_results=1)
        if not known:
            known = [self.client.create_run(project, run_name=run, tags={ID_TAG: id_of(folder)})]
        self.run_id = known[0].info.run_id

    def _experiment(self, folder: Path) -> str:
        name, at_home = self.options.project, str(folder.resolve().parent / "mlflow-artefacts")
        if (there := self.client.get_experiment_by_name(name)) is None:
            is_local = str(self.client.tracking_uri).startswith("sqlite:")  # a server keeps artefacts itself
            with contextlib.suppress(self.mlflow.exceptions.MlflowException):  # another process was quicker
                return str(self.client.create_experiment(name, at_home if is_local else None))
            there = self.client.get_experiment_by_name(name)
        return str(there.experiment_id)

    def _log(self, values: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self.waiting += [self.mlflow.entities.Metric(_name(name), value, now, step) for name, value in values.items()]
        if time.monotonic() - self.written > WRITE_EVERY_S:
            self._write()

    def _write(self) -> None:
        for start in range(0, len(self.waiting), 1000):  # as many as MLflow takes at once
            self.client.log_batch(self.run_id, metrics=self.waiting[start : start + 1000])
        self.waiting, self.written = [], time.monotonic()


def _name(name: str) -> str:
    """Return the name with the characters that MLflow has names of."""
    return re.sub(r"[^\w\-. /:]", "_", name)


TRACKER = harness.Tracker("mlflow", "an MLflow database beside the runs, or a server", MlflowOptions, Mlflow)
