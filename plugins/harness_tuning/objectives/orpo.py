"""Odds ratio preference optimisation: trained on the chosen completion, whose odds rise over the rejected one's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import harness
from harness.contract.batches import Batch
from harness.contract.objectives import Policy
from harness.options import Options
from harness_tuning.objectives.pairs import Pairs, chosen_nll, chosen_tokens, log_sigmoid, means, pair_units

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_MEAN = -1e-6  # nats a token: nearer to 0, the odds p / (1 - p) overflow float32


class OrpoOptions(Options):
    """ORPO (Hong et al. 2024, https://arxiv.org/abs/2403.07691). `beta` is the paper's lambda."""

    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1


def loss(policy: Policy, batch: Batch, options: OrpoOptions) -> harness.Loss:
    """Return two terms: `nll` of the chosen completions' tokens, and `odds` of the pairs."""
    pairs, (of_targets, entropy) = Pairs.of(batch), policy.predictions(batch)
    logprobs = batch.by_document(of_targets)
    chosen, rejected = pairs.both(means(batch, logprobs))
    odds = log_odds(chosen, rejected)
    watched = pairs.rewards(options.beta * chosen, options.beta * rejected) | pairs.completions(
        batch, logprobs, entropy
    )
    return harness.Loss(
        {"nll": chosen_nll(batch, of_targets), "odds": pairs.term(-log_sigmoid(odds), options.beta)},
        watched | pairs.metrics(log_odds=odds),
    )


def log_odds(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return log(odds(chosen) / odds(rejected)), [p], from mean log-probabilities a token: equations 4 and 7."""
    chosen, rejected = chosen.clamp(max=LARGEST_MEAN), rejected.clamp(max=LARGEST_MEAN)
    return (chosen - (-chosen.expm1()).log()) - (rejected - (-rejected.expm1()).log())


def units(batch: Batch) -> dict[str, float]:
    """Count the tokens of the chosen completions and the pairs, each by its weight."""
    return {"nll": chosen_tokens(batch), "odds": pair_units(batch)}


OBJECTIVE = harness.Objective(
    "orpo",
    "odds ratio preference optimisation: supervised tuning and preferences in one, without a reference",
    OrpoOptions,
    loss,
    units,
    reads="pairs",
)
