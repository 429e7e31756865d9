"""Runs: the directory that tuning a recipe writes (`folder`), and the events that trackers receive (`events`)."""

from harness.run.events import Events
from harness.run.folder import Run, environment, id_of, list_runs

__all__ = ["Events", "Run", "environment", "id_of", "list_runs"]
