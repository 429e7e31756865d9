"""Objectives: what is learnt."""

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
    """What the loss is. `loss(model, input_ids, loss_mask, options)` returns the *sum* over the supervised tokens.

    input_ids: int64 [b, s], right-padded. loss_mask: bool [b, s], True where a token is something to learn.
    The loop divides by the number of supervised tokens of the whole optimizer step, so that the split into batches
    does not change the gradient. `check(model, input_ids)` is called once, before anything is learnt, with one example
    as [1, s]; it raises ModelError for a model that the objective cannot train rightly.
    `default` makes it the one of recipes that name none; first-party only.
    """

    name: str
    description: str
    options: type[Options]
    loss: Callable[[Any, torch.Tensor, torch.Tensor, Any], torch.Tensor]
    check: Callable[[Any, torch.Tensor], None] | None = None
    default: bool = False


def check_objective(objective: Objective) -> None:
    """Refuse a declaration that would break where a recipe uses it. Raises PluginError."""
    require_functions(objective, loss="model, input_ids, loss_mask, options")
    require_options(objective)
    require_texts(objective, "description")
