"""Supervised fine-tuning: the negative log-likelihood of the tokens that the loss mask marks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import harness
from harness.contract.batches import Batch
from harness.contract.objectives import Policy
from harness.options import Options

if TYPE_CHECKING:
    from torch import Tensor


class SftOptions(Options):
    """Options of SFT. Each supervised token counts alike, or by the `weight` of its row where the data have one.

    `neftune_alpha` adds noise to the embeddings (Jain et al. 2023, https://arxiv.org/abs/2310.05914): 5 to 15; 0 is
    none.
    """

    neftune_alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


def loss(policy: Policy, batch: Batch, options: SftOptions) -> harness.Loss:
    """Return the sum of the negative log-likelihood over the targets."""
    with policy.noisy_embeddings(batch, options.neftune_alpha):
        logprobs, entropy = policy.predictions(batch)
    if "weight" in batch.extras:
        logprobs = logprobs * batch.extras["weight"][batch.targets.document]
    return harness.Loss({"nll": harness.Term(-logprobs.sum())}, entropies(entropy))


def entropies(figures: Tensor) -> dict[str, harness.Metric]:
    """Return what is watched of the entropies of predictions [m]: their mean, in nats."""
    return {"entropy": harness.Metric(figures.sum(), len(figures))}


def units(batch: Batch) -> dict[str, float]:
    """Count the targets, each by the weight of its row."""
    return {"nll": sum(weight * count for weight, count in zip(batch.weights, batch.target_counts, strict=True))}


OBJECTIVE = harness.Objective(
    "sft", "cross-entropy on the assistant's words and stop tokens", SftOptions, loss, units, default=True
)
