"""Heads that score whole sequences: made here, kept as safetensors, in float32 whatever the model computes in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError
from harness.extras import require

if TYPE_CHECKING:
    from torch.nn import Module


def score_head(hidden_size: int) -> Module:
    """Return a head from hidden states to one figure, normal with the variance 1 / (hidden_size + 1).

    As in Stiennon et al. 2020, https://arxiv.org/abs/2009.01325. With zeros, nothing below it would get a gradient.
    """
    torch: Any = require("torch", "tuning")
    head = torch.nn.Linear(hidden_size, 1, bias=False, dtype=torch.float32)
    torch.nn.init.normal_(head.weight, std=(hidden_size + 1) ** -0.5)
    return head


def save_head(head: Module, path: Path) -> None:
    """Write the weights of a head."""
    safetensors: Any = require("safetensors.torch", "tuning")
    safetensors.save_file({name: weight.contiguous() for name, weight in head.state_dict().items()}, str(path))


def load_head(path: Path) -> Module:
    """Return the head that `save_head` wrote. Raises ModelError where the file is not that of one."""
    safetensors: Any = require("safetensors.torch", "tuning")
    try:
        weights = safetensors.load_file(str(path))
        head = score_head(weights["weight"].shape[1])
        head.load_state_dict(weights)
    except Exception as error:
        raise ModelError(f"{path}: not the head of a reward model: {error}") from error
    return head
