"""Events of a run, as trackers receive them: frozen data, each sent from one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.nouns import Result, Sample

MOST_SAMPLES = 8  # of a result that one `Samples` carries


@dataclass(frozen=True, slots=True)
class Started:
    """A run begins, or resumes at `step`. Its folder, recipe and manifest exist; this session has not trained yet.

    `recipe` is the resolved recipe as plain data. `total_steps` is None for a source of batches without an end.
    """

    run: str
    folder: Path
    recipe: Mapping[str, Any]
    step: int
    total_steps: int | None


@dataclass(frozen=True, slots=True)
class Step:
    """An optimizer step is done. `metrics` is the line that went to metrics.jsonl."""

    run: str
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Validation:
    """The loss on held-out data was measured after `step` steps. `metrics` is the line that went to metrics.jsonl."""

    run: str
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Samples:
    """A variant answered: the first few items of the evaluation `task`, with question, answer and metrics.

    `run` and its `folder` are None if the variant does not belong to a run. `Evaluated` follows when all tasks are
    measured. While a run is tuned, `step` says after how many steps it answered, and `task` is `tune.samples`.
    """

    run: str | None
    variant: str
    task: str
    samples: tuple[Sample, ...]
    folder: Path | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A variant was evaluated. `run` and its `folder` are None if the variant does not belong to a run."""

    run: str | None
    variant: str
    results: tuple[Result, ...]
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file or folder of a run is complete on disk: its `adapter`, `model` or `checkpoint`."""

    run: str
    what: str
    path: Path


@dataclass(frozen=True, slots=True)
class Finished:
    """A run ended with `outcome` `finished`, `interrupted` or `failed`; its manifest says so already."""

    run: str
    folder: Path
    outcome: str


Event = Started | Step | Validation | Samples | Evaluated | Artefact | Finished


def frozen(value: Any) -> Any:
    """Return a copy that is read-only all the way down: mappings, lists (as tuples), sets and dataclasses."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: frozen(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    if isinstance(value, set | frozenset):
        return frozenset(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: frozen(getattr(value, field.name)) for field in fields(value)})
    return value
