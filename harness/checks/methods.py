"""Checks of a method, for `harness tune` and `harness plugins check`: the model it returns, and the files it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError, known_names

FILES = {"adapter": "adapter_config.json", "model": "config.json"}


def require_model(model: Any, method: str) -> None:
    """Raise HarnessError where `apply` returned no model, or one of which no weight is trained."""
    if not isinstance(model, torch.nn.Module):
        raise HarnessError(f"the method {method!r}: apply returned {model!r:.80}, expected the model")
    if not any(weight.requires_grad for weight in model.parameters()):
        raise HarnessError(
            f"the method {method!r}: no weight of the model that apply returned is trained (`requires_grad`)"
        )


def require_saved(folder: Path, produces: str, method: str) -> None:
    """Raise HarnessError where the files that `save` wrote are not those of what the method produces."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if FILES[produces] in names and any(name.endswith(".safetensors") for name in names):
        return
    other = {"adapter": "model", "model": "adapter"}[produces]
    raise HarnessError(
        f"the method {method!r}: save wrote {known_names(names)}, and `produces` says {produces!r}: expected "
        f"{FILES[produces]} and safetensors{f'. That looks like a {other}' if FILES[other] in names else ''}"
    )
