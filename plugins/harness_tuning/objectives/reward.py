"""A reward model: a head on the last hidden state that scores the chosen completion above the rejected one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

import harness
from harness.contract.batches import Batch
from harness.contract.objectives import Policy
from harness.model.heads import score_head
from harness.options import Options
from harness_tuning.objectives.pairs import Pairs, log_sigmoid, pair_units

if TYPE_CHECKING:
    from torch import Tensor


class RewardOptions(Options):
    """Bradley-Terry (Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, equation 1).

    With `margins`, pairs whose data have a margin are to be apart by it (Touvron et al. 2023,
    https://arxiv.org/abs/2307.09288, equation 2). `center` keeps the scores of both near 0 (Eisenstein et al. 2023,
    https://arxiv.org/abs/2312.09244).
    """

    margins: bool = True
    center: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


def loss(policy: Policy, batch: Batch, options: RewardOptions) -> harness.Loss:
    """Return the sum over the pairs."""
    pairs, scores = Pairs.of(batch), policy.scores(batch)
    chosen, rejected = pairs.both(scores)
    margin, _ = pairs.both(batch.figures("margin", 0.0))
    losses = pair_losses(chosen, rejected, margin if options.margins else 0 * margin, options.center)
    long, short = pairs.both(batch.targets_by_document())
    watched = pairs.rewards(chosen, rejected) | pairs.metrics(length_chosen=long, length_rejected=short)
    return harness.Loss({"pairs": pairs.term(losses)}, watched)


def pair_losses(chosen: Tensor, rejected: Tensor, margin: Tensor, center: float) -> Tensor:
    """Return the loss of each pair, [p], from its scores and the margin that they are to be apart."""
    return -log_sigmoid(chosen - rejected - margin) + center * (chosen + rejected) ** 2


def units(batch: Batch) -> dict[str, float]:
    """Count the pairs, each by its weight."""
    return {"pairs": pair_units(batch)}


def head(hidden_size: int) -> Any:
    """Return a fresh head, drawn from torch's random state."""
    return score_head(hidden_size)


OBJECTIVE = harness.Objective(
    "reward",
    "a reward model: Bradley-Terry on pairs; `harness score` asks it",
    RewardOptions,
    loss,
    units,
    reads="pairs",
    head=head,
)
