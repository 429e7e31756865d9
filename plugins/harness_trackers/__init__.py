"""First-party trackers: the loss curve as a picture, and the services that people follow their runs with."""

from __future__ import annotations

from collections.abc import Callable

import harness


@harness.hookimpl
def register_trackers(register: Callable[[harness.Tracker], None]) -> None:
    from harness_trackers import loss_plot, mlflow_runs, tensorboard_files, trackio_runs, wandb_runs

    for module in (loss_plot, tensorboard_files, wandb_runs, mlflow_runs, trackio_runs):
        register(module.TRACKER)
