"""Direct preference optimisation: more likely chosen, less likely rejected, measured from the starting state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

import harness
from harness.contract.batches import Batch
from harness.contract.objectives import Policy
from harness.options import Options
from harness_tuning.objectives.pairs import (
    REFERENCE,
    Pairs,
    chosen_nll,
    chosen_tokens,
    drift,
    means,
    pair_units,
    reference,
    smoothed,
)

if TYPE_CHECKING:
    from torch import Tensor


class DpoOptions(Options):
    """DPO (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290) and two that follow it.

    `ipo` is Azar et al. 2023 (https://arxiv.org/abs/2310.12036), with mean log-probabilities a token as its authors
    used them; `robust` is Chowdhury et al. 2024 (https://arxiv.org/abs/2403.00409). `label_smoothing` is the share of
    labels that are taken to be wrong (Mitchell 2023, https://ericmitchell.ai/cdpo.pdf). With an `nll_weight` the chosen
    completion is trained on too (Pang et al. 2024, https://arxiv.org/abs/2404.19733): without it both completions often
    become less likely, and what nobody chose or rejected more likely.
    """

    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    loss: Literal["sigmoid", "ipo", "robust"] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    nll_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _smooths_what_it_can(self) -> Self:
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError("label_smoothing is for the losses sigmoid and robust: ipo has none. Leave it out")
        return self


def loss(policy: Policy, batch: Batch, options: DpoOptions) -> harness.Loss:
    """Return the term `pairs`, and `nll` of the chosen completions' tokens."""
    pairs, (of_targets, entropy) = Pairs.of(batch), policy.predictions(batch)
    logprobs = batch.by_document(of_targets)
    ratios = logprobs - batch.figures(REFERENCE)  # of the policy to the reference, in nats
    chosen, rejected = pairs.both(options.beta * ratios)
    losses = pair_losses(*pairs.both(means(batch, ratios) if options.loss == "ipo" else ratios), options)
    watched = pairs.rewards(chosen, rejected) | pairs.completions(batch, logprobs, entropy) | drift(batch, ratios)
    terms = {"pairs": pairs.term(losses), "nll": chosen_nll(batch, of_targets, options.nll_weight)}
    return harness.Loss(terms, watched)


def pair_losses(chosen: Tensor, rejected: Tensor, options: DpoOptions) -> Tensor:
    """Return the loss of each pair, [p], from the log-ratios of its completions: sums, or means a token for `ipo`."""
    margin, smoothing = chosen - rejected, options.label_smoothing
    if options.loss == "ipo":
        return (margin - 1 / (2 * options.beta)) ** 2  # equation 17
    if options.loss == "sigmoid":
        return smoothed(options.beta * margin, smoothing)
    right, wrong = smoothed(options.beta * margin, 0.0), smoothed(-options.beta * margin, 0.0)
    return ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)


def units(batch: Batch) -> dict[str, float]:
    """Count the pairs and the tokens of the chosen completions, each by its weight."""
    return {"pairs": pair_units(batch), "nll": chosen_tokens(batch)}


def value_at_start(options: DpoOptions) -> dict[str, float]:
    """Return the loss of the pairs for a policy that is its own reference."""
    return {"pairs": 1 / (4 * options.beta**2) if options.loss == "ipo" else math.log(2)}


OBJECTIVE = harness.Objective(
    "dpo",
    "direct preference optimisation: sigmoid, IPO or robust; the reference is the starting state",
    DpoOptions,
    loss,
    units,
    reads="pairs",
    value_at_start=value_at_start,
    prepare=reference,
)
