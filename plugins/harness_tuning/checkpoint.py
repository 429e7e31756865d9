"""Checkpoints: what an exact resume needs, as safetensors, each written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import harness
from harness.errors import listed
from harness.files import replacing
from harness.hashing import read_sha256
from harness.run import Run

RANDOM = "rng/"
KEPT = 2  # the newest ones; the older of them is there in case the disk lost the newer


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run. `metrics_bytes` is the length of metrics.jsonl, `source` the state of its BatchSource."""

    step: int = 0
    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0
    source: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(run: Run, progress: Progress, tensors: dict[str, torch.Tensor], data_sha256: str) -> Path:
    """Write checkpoints/step-N and forget all but the newest few."""
    folder = run.checkpoints_folder / f"step-{progress.step:07d}"
    if folder.exists():
        return folder
    with replacing(folder) as temporary:
        temporary.mkdir()
        save_file(
            {name: tensor.contiguous() for name, tensor in (tensors | random_state()).items()},
            temporary / "state.safetensors",
        )
        about = {"data_sha256": data_sha256, "state_sha256": read_sha256(temporary / "state.safetensors")}
        (temporary / "progress.json").write_text(json.dumps(asdict(progress) | about))
    for old in checkpoints(run)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def load_checkpoint(run: Run, data_sha256: str) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """Return the newest whole checkpoint and its tensors, and restore torch's random state; None where there is none.

    One that the disk has damaged is reported and removed, and the one before it is taken.

    Raises:
        RunError: where the data has changed since, so that going on would not be the same run.
    """
    for folder in reversed(checkpoints(run)):
        try:
            saved = json.loads((folder / "progress.json").read_text())
            if saved.pop("state_sha256") != read_sha256(folder / "state.safetensors"):
                raise ValueError("state.safetensors is not as it was written")
            data_before, progress = saved.pop("data_sha256"), Progress(**saved)
            tensors = load_file(folder / "state.safetensors")
            break
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            click.echo(f"warning: the checkpoint {folder} is damaged ({error}); going back to the one before", err=True)
            shutil.rmtree(folder, ignore_errors=True)
    else:
        return None
    if data_before != data_sha256:
        sources = listed({source.path or source.dataset for source in run.recipe.data.train})
        raise harness.RunError(
            f"{run.folder}: the training data ({sources}), or how its dataset plugin reads it, is not what it was when "
            f"this run began; an exact resume is not possible. Put it back, or start a new run: "
            f"`harness tune {run.folder / 'recipe.yaml'} --run NAME`"
        )
    restore_random({name: tensors.pop(name) for name in list(tensors) if name.startswith(RANDOM)})
    return progress, tensors


def random_state() -> dict[str, torch.Tensor]:
    """Return torch's random state, by device."""
    state = {RANDOM + "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state[RANDOM + "cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random(state: Mapping[str, torch.Tensor]) -> None:
    """Put back what `random_state` returned; of a device that is gone, nothing."""
    torch.set_rng_state(state[RANDOM + "cpu"])
    if RANDOM + "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[RANDOM + "cuda"])


def checkpoints(run: Run) -> list[Path]:
    """Return the run's checkpoint folders, oldest first."""
    return sorted(run.checkpoints_folder.glob("step-*"))
