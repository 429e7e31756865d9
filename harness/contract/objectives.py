"""Objectives: the losses that tuning minimises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.contract.checking import require_functions, require_options, require_texts

if TYPE_CHECKING:
    import torch

    from harness.options import Options


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss. `loss(model, input_ids, loss_mask, options)` returns its *sum* over the supervised tokens.

    input_ids: int64 [b, s], right-padded. loss_mask: bool [b, s], True for supervised tokens.
    The loop divides by the number of supervised tokens of the whole optimizer step, so that the split into batches
    does not change the gradient. `check(model, input_ids)` is called once before training, with one example as [1, s];
    it raises ModelError for a model that the objective cannot train correctly.
    `default` selects it in recipes that name none; first-party only.
    """

    name: str
    description: str
    options: type[Options]
    loss: Callable[[Any, torch.Tensor, torch.Tensor, Any], torch.Tensor]
    check: Callable[[Any, torch.Tensor], None] | None = None
    default: bool = False


def check_objective(objective: Objective) -> None:
    """Raise PluginError for a declaration that would fail when a recipe uses it."""
    require_functions(objective, loss="model, input_ids, loss_mask, options")
    require_options(objective)
    require_texts(objective, "description")
