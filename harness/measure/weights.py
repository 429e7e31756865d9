"""Identity of what was measured: weights, adapter and their configurations by the hashes of their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.hashing import sha256_of_files
from harness.model.folders import folder_of

if TYPE_CHECKING:
    from harness.variants import Variant

_HASHES = ("model_sha256", "model_config_sha256", "adapter_sha256", "adapter_config_sha256")
_STRETCHED = "rope_scaling"


def weights_of(variant: Variant) -> dict[str, Any]:
    """Return the model by path or hub id; model and adapter, with their configurations, by hash; the run's recipe.

    A model of the hub is hashed in the hub's cache; one that is not there has no hash.
    """
    weights: dict[str, Any] = {"model": variant.model.path, "revision": variant.model.revision}
    if (folder := folder_of(variant.model)) is not None:
        weights |= hashes_of_model(folder)
    if variant.model.rope_scaling is not None:
        weights[_STRETCHED] = variant.model.rope_scaling.model_dump()
    if variant.adapter is not None:
        weights["adapter_sha256"] = sha256_of_files(variant.adapter, "*.safetensors")
        weights["adapter_config_sha256"] = sha256_of_files(variant.adapter, "adapter_config.json")
    if variant.run is not None:
        weights |= {"run": variant.run.name, "recipe_sha256": variant.run.manifest.get("recipe_sha256")}
    return weights


def hashes_of_model(folder: Path) -> dict[str, str]:
    """Return the hashes of a model's weights and of their configuration, by their names in a record."""
    return {
        "model_sha256": sha256_of_files(folder, "*.safetensors"),
        "model_config_sha256": sha256_of_files(folder, "config.json"),
    }


def identity(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `weights_of` that identifies the weights: hashes, or the hub id where there are none."""
    hashes = {key: weights[key] for key in (*_HASHES, _STRETCHED) if key in weights}
    return hashes if "model_sha256" in hashes else hashes | {key: weights[key] for key in ("model", "revision")}


def are_same(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return True if two of `weights_of` are of the same weights; records of older versions have fewer hashes."""
    if ("adapter_sha256" in recorded) != ("adapter_sha256" in now) or recorded.get(_STRETCHED) != now.get(_STRETCHED):
        return False
    both = [key for key in _HASHES if key in recorded and key in now]
    if "model_sha256" not in both and any(recorded[key] != now[key] for key in ("model", "revision")):
        return False
    return all(recorded[key] == now[key] for key in both)
