"""The hooks a plugin may implement. Registration hooks are callbacks; lifecycle hooks only watch.

Arguments may be added to a hook, never removed; an implementation names only those it wants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from harness.declarations import Dataset, Engine, Evaluation, Filter, Method, Objective, Template, Tracker
    from harness.nouns import Result
    from harness.run import Run

hookspec = pluggy.HookspecMarker("harness")


@hookspec
def register_datasets(register: Callable[[Dataset], None]) -> None:
    """Call `register(Dataset(...))` for each data set."""


@hookspec
def register_filters(register: Callable[[Filter], None]) -> None:
    """Call `register(Filter(...))` for each cleaning step that `data.clean` can name."""


@hookspec
def register_templates(register: Callable[[Template], None]) -> None:
    """Call `register(Template(...))` for each chat template."""


@hookspec
def register_objectives(register: Callable[[Objective], None]) -> None:
    """Call `register(Objective(...))` for each loss."""


@hookspec
def register_methods(register: Callable[[Method], None]) -> None:
    """Call `register(Method(...))` for each way of choosing the weights that move."""


@hookspec
def register_evaluations(register: Callable[[Evaluation], None]) -> None:
    """Call `register(Evaluation(...))` for each evaluation."""


@hookspec
def register_engines(register: Callable[[Engine], None]) -> None:
    """Call `register(Engine(...))` for each serving engine."""


@hookspec
def register_trackers(register: Callable[[Tracker], None]) -> None:
    """Call `register(Tracker(...))` for each tracker that a recipe can switch on by name."""


@hookspec
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Call `register(command)` with each click command to add to `harness`."""


@hookspec
def run_started(run: Run) -> None:
    """A run begins or goes on: its directory, recipe and manifest are there, nothing is learnt yet."""


@hookspec
def step_finished(run: Run, step: int, metrics: Mapping[str, float]) -> None:
    """An optimizer step is done. `metrics` is the line that went to metrics.jsonl."""


@hookspec
def evaluation_finished(variant: str, results: tuple[Result, ...]) -> None:
    """A variant was evaluated."""


@hookspec
def run_finished(run: Run, outcome: str) -> None:
    """A run ended: `finished`, `interrupted` or `failed`. What it leaves is on disk."""
