"""A run's adapter merged into its base: in float32, rounded once to the model's own type, with what that changes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from harness.errors import ModelError
from harness.extras import require
from harness.files import read_json, replacing, write_json
from harness.hashing import sha256_of_files
from harness.model.load import load_model
from harness.model.logprobs import sequence_logprobs
from harness.variants import Variant

RECORD = "merged.json"
LARGEST_ROUNDING = 1e-3  # in nats, on average: adapter on and merged are the same function in float32


@dataclass(frozen=True, slots=True)
class Merged:
    """The change by merging: the mean absolute difference of log-probabilities of the run's probes, in nats.

    `merging` is between base with adapter and merged weights, both in float32; `rounding` between these and the same
    weights in `dtype`, as they are saved; `largest` is the largest difference of a token by that.
    """

    dtype: str
    merging: float
    rounding: float
    largest: float
    tokens: int


def merge(variant: Variant, probes: Sequence[Sequence[int]], target: Path) -> Merged:
    """Write the merged model of a run into the folder `target`, whole or not at all, and return what that changed.

    Args:
        probes: token ids of texts to compare on.

    Raises:
        ModelError: where the variant has no adapter, or merging is not the same function in float32.
    """
    if variant.adapter is None or variant.chat_folder is None:
        raise ModelError(f"{variant.name}: there is no adapter to merge: the run saved a whole model already")
    dtype = variant.model.dtype
    peft = require("peft", "tuning")
    base = load_model(variant.model.model_copy(update={"dtype": "float32"}), added_ids=variant.added_ids)
    model = peft.PeftModel.from_pretrained(base, str(variant.adapter), autocast_adapter_dtype=False).eval()
    tuned = _measured(model, probes)
    model = model.merge_and_unload(safe_merge=True).eval()
    merged = _measured(model, probes)
    if not _mean(tuned, merged) <= LARGEST_ROUNDING:
        raise ModelError(
            f"{variant.name}: the merged weights are another function than base and adapter: log-probabilities differ "
            f"by {_mean(tuned, merged):.3g} nats on average in float32, expected at most {LARGEST_ROUNDING:g}"
        )
    model = model.to(getattr(torch, dtype))
    saved = _measured(model, probes)
    differences = [abs(one - other) for one, other in zip(merged, saved, strict=True)]
    changed = Merged(dtype, _mean(tuned, merged), _mean(merged, saved), max(differences, default=0.0), len(saved))
    with replacing(target) as temporary:
        temporary.mkdir()
        _save(model, variant, temporary, changed)
    return changed


def _save(model: Any, variant: Variant, folder: Path, changed: Merged) -> None:
    assert variant.adapter is not None and variant.chat_folder is not None
    model.config.use_cache = True
    model.generation_config = GenerationConfig()  # the run's own takes its place
    model.save_pretrained(str(folder), safe_serialization=True)
    for path in variant.chat_folder.iterdir():  # tokenizer, chat template and generation defaults
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    adapter = sha256_of_files(variant.adapter, "*.safetensors")
    write_json(
        folder / RECORD,
        {"run": variant.name, "base": variant.model.path, "adapter_sha256": adapter, "changed_nats": asdict(changed)},
    )


def merged_from(folder: Path, adapter: Path) -> bool:
    """Return whether the merged model in `folder` is of the adapter that is there now."""
    path = folder / RECORD
    return path.is_file() and read_json(path).get("adapter_sha256") == sha256_of_files(adapter, "*.safetensors")


def _measured(model: Any, probes: Sequence[Sequence[int]]) -> list[float]:
    return [logprob for ids in probes for logprob in sequence_logprobs(model, ids)]


def _mean(some: Sequence[float], others: Sequence[float]) -> float:
    differences = [abs(one - other) for one, other in zip(some, others, strict=True)]
    return sum(differences) / max(len(differences), 1)
