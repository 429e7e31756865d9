"""Runs: the directory that a recipe leaves behind (`folder`), and who is told what happens in it (`events`)."""

from harness.run.events import Events
from harness.run.folder import Run, environment, list_runs

__all__ = ["Events", "Run", "environment", "list_runs"]
