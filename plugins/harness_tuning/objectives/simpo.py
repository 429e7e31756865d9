"""Simple preference optimisation: mean log-probabilities a token as rewards, apart by a margin, without a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import harness
from harness.contract.batches import Batch
from harness.contract.objectives import Policy
from harness.options import Options
from harness_tuning.objectives.pairs import Pairs, chosen_nll, chosen_tokens, means, pair_units, smoothed

if TYPE_CHECKING:
    from torch import Tensor


class SimpoOptions(Options):
    """SimPO (Meng et al. 2024, https://arxiv.org/abs/2405.14734).

    `gamma_beta_ratio` is the margin wanted between the two rewards, as a share of `beta`. With an `nll_weight` the
    chosen completion is trained on too, as in CPO-SimPO.
    """

    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    gamma_beta_ratio: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    nll_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


def loss(policy: Policy, batch: Batch, options: SimpoOptions) -> harness.Loss:
    """Return the term `pairs`, and `nll` of the chosen completions' tokens."""
    pairs, (of_targets, entropy) = Pairs.of(batch), policy.predictions(batch)
    logprobs = batch.by_document(of_targets)
    chosen, rejected = pairs.both(means(batch, logprobs))
    watched = pairs.rewards(options.beta * chosen, options.beta * rejected) | pairs.completions(
        batch, logprobs, entropy
    )
    return harness.Loss(
        {
            "pairs": pairs.term(pair_losses(chosen, rejected, options)),
            "nll": chosen_nll(batch, of_targets, options.nll_weight),
        },
        watched,
    )


def pair_losses(chosen: Tensor, rejected: Tensor, options: SimpoOptions) -> Tensor:
    """Return the loss of each pair, [p], from mean log-probabilities a token: equation 6."""
    return smoothed(options.beta * (chosen - rejected - options.gamma_beta_ratio), options.label_smoothing)


def units(batch: Batch) -> dict[str, float]:
    """Count the pairs and the tokens of the chosen completions, each by its weight."""
    return {"pairs": pair_units(batch), "nll": chosen_tokens(batch)}


OBJECTIVE = harness.Objective(
    "simpo",
    "simple preference optimisation: rewards are mean log-probabilities, without a reference",
    SimpoOptions,
    loss,
    units,
    reads="pairs",
)
