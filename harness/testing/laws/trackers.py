"""Laws of trackers: they receive every event of a run, and of an evaluation, without failing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.contract.events import (
    Artefact,
    Evaluated,
    Event,
    Finished,
    Samples,
    Started,
    Step,
    Validation,
    frozen,
)
from harness.contract.kinds import Kind
from harness.errors import HarnessError
from harness.nouns import Result, Sample, Score
from harness.plugins.registry import Entry
from harness.testing.laws.law import Kit


def receives_every_event(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require that a run's events, those of an evaluation after it, and one of a failed run are taken."""
    folder = kit.folder / "run"
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(kit.folder):  # where a file of its default name is nobody's
        receive = entry.item.create(kit.options(kind, entry))
        if not callable(receive):
            raise HarnessError(f"create returned {receive!r:.80}, expected a function that takes an event")
        for event in events(folder):
            try:
                receive(frozen(event))
            except Exception as error:
                error.add_note(f"at the event {type(event).__name__}")
                raise


LAWS = {"every event is received": receives_every_event}


def events(folder: Path, run: str = "demo") -> Iterator[Event]:
    """Yield the events of a run that finishes, of an evaluation of it and of a model, and of a run that fails."""
    recipe = {"name": run, "model": {"path": "model"}, "tune": {"method": {"name": "lora"}}}
    sample = Sample("1", {"exact": 1.0}, prompt="Who keeps the key?", response="The heron.")
    result = Result("quiz", {"exact": Score(1.0, None, 1)}, (sample,))
    yield Started(run, folder, recipe, 0, 2)
    yield Validation(run, 0, {"step": 0, "validation_loss": 2.0})
    for step in (1, 2):
        yield Step(run, step, {"step": step, "loss": 2.0 / step, "learning_rate": 1e-3})
    yield Artefact(run, "checkpoint", folder)
    yield Samples(run, run, "tune.samples", (sample,), folder, 2)
    yield Artefact(run, "adapter", folder)
    yield Finished(run, folder, "finished")
    yield Samples(run, run, "quiz", (sample,), folder)
    yield Evaluated(run, run, (result,), folder)
    yield Evaluated(None, "model", (result,))
    yield Started("other", folder, recipe, 0, None)
    yield Finished("other", folder, "failed")
