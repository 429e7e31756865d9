"""Checkpoints: what an exact resume needs, as safetensors, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import save_file

import harness
from harness.errors import command, listed
from harness.files import replacing
from harness.hashing import read_sha256
from harness.model.safetensors_files import read_header
from harness.run import Run
from harness_tuning.watch import Best

RANDOM = "rng/"
KEPT = 2  # the newest ones; the older of them is there in case the disk lost the newer


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run. `metrics_bytes` is the length of metrics.jsonl, `source` the state of its BatchSource.

    `best` is what the validations of trained steps say.
    """

    step: int = 0
    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0
    source: Mapping[str, Any] = field(default_factory=dict)
    best: Best = field(default_factory=Best)


def save_checkpoint(
    run: Run,
    progress: Progress,
    tensors: dict[str, torch.Tensor],
    data_sha256: str,
    random: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write checkpoints/step-N and forget all but the newest few, and the best of each of these.

    `random` is torch's random state, that of now where it is left out.
    """
    folder = _folder(run, progress.step)
    if folder.exists():
        return folder
    saved = {name: tensor.contiguous() for name, tensor in (tensors | dict(random or random_state())).items()}
    with replacing(folder) as temporary:
        temporary.mkdir()
        save_file(saved, temporary / "state.safetensors")
        state_sha256 = read_sha256(temporary / "state.safetensors")
        about = asdict(progress) | {"data_sha256": data_sha256, "state_sha256": state_sha256}
        (temporary / "progress.json").write_text(json.dumps(about | {"own_sha256": _sha256(about)}))
    kept = checkpoints(run)[-KEPT:]
    best = {_folder(run, read_progress(one).best.step) for one in kept}
    for old in checkpoints(run):
        if old not in kept and old not in best:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _folder(run: Run, step: int) -> Path:
    return run.checkpoints_folder / f"step-{step:07d}"


def read_progress(folder: Path) -> Progress:
    """Return the progress of a checkpoint. Raises ValueError, KeyError or TypeError where it is damaged."""
    return _progress(_read(folder))


def _read(folder: Path) -> dict[str, Any]:
    """Return what progress.json holds beside its own hash. Raises ValueError where it is not as it was written."""
    saved: dict[str, Any] = json.loads((folder / "progress.json").read_text())
    if saved.pop("own_sha256", None) not in (None, _sha256(saved)):  # None: of an earlier version
        raise ValueError("progress.json is not as it was written")
    return saved


def _sha256(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _progress(saved: dict[str, Any]) -> Progress:
    best = Best(**saved.pop("best", {}))
    return Progress(**{key: saved[key] for key in Progress.__dataclass_fields__ if key in saved}, best=best)


def _opened(folder: Path) -> tuple[dict[str, Any], StateFile]:
    """Return a checkpoint's progress.json and its tensors.

    Raises OSError, ValueError, KeyError or TypeError where it is damaged.
    """
    saved = _read(folder)
    if saved["state_sha256"] != read_sha256(folder / "state.safetensors"):
        raise ValueError("state.safetensors is not as it was written")
    return saved, StateFile(folder / "state.safetensors")


def load_checkpoint(run: Run, data_sha256: str) -> tuple[Progress, Mapping[str, torch.Tensor]] | None:
    """Return the newest whole checkpoint and its tensors, and restore torch's random state; None where there is none.

    One that the disk has damaged is reported and removed, and the one before it is taken.

    Raises:
        RunError: where the data has changed since, so that going on would not be the same run.
    """
    for folder in reversed(checkpoints(run)):
        try:
            saved, tensors = _opened(folder)
            data_before, progress = saved["data_sha256"], _progress(saved)
            break
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            click.echo(f"warning: the checkpoint {folder} is damaged ({error}); going back to the one before", err=True)
            shutil.rmtree(folder, ignore_errors=True)
    else:
        return None
    if data_before != data_sha256:
        sources = listed({source.path or source.dataset for source in run.recipe.data.train})
        raise harness.RunError(
            f"{run.folder}: the training data ({sources}), or how its dataset plugin reads it, is not what it was when "
            f"this run began; an exact resume is not possible. Put it back, or start a new run: "
            f"`{command('tune', run.folder / 'recipe.yaml', '--run', 'NAME')}`"
        )
    restore_random({name: tensors[name] for name in tensors if name.startswith(RANDOM)})
    return progress, tensors


def best_checkpoint(run: Run, step: int) -> Mapping[str, torch.Tensor]:
    """Return the tensors of the checkpoint of `step`, whole. Raises RunError where it is damaged or gone."""
    folder = _folder(run, step)
    try:
        return _opened(folder)[1]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise harness.RunError(
            f"{folder}: the checkpoint of the lowest validation loss is damaged ({error}). Set tune.keep: last in "
            f"{run.folder / 'recipe.yaml'} to keep the last weights, and `{command('tune', '--resume', run.folder)}`"
        ) from None


DTYPES = {"F32": torch.float32, "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BF16": torch.bfloat16}


class StateFile(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint, each read when it is asked for: all of them at once would take the memory twice."""

    def __init__(self, path: Path) -> None:
        self._path, self._stored = path, read_header(path)

    def __getitem__(self, name: str) -> torch.Tensor:
        stored = self._stored[name]
        tensor = torch.empty(stored.shape, dtype=DTYPES[stored.dtype])
        with self._path.open("rb") as file:
            file.seek(stored.start)
            file.readinto(memoryview(tensor.view(-1).view(torch.uint8).numpy()))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


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
