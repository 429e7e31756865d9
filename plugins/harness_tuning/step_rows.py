"""The rows of a step, with the loss of each alone: what a spike or a loss that is not finite came from."""

from __future__ import annotations

import math

import torch

from harness.contract.batches import Batch
from harness_tuning.learner import Learner
from harness_tuning.sources import Epochs

MOST_ROWS = 5


def rows_of_step(learner: Learner, source: Epochs, step: int) -> str:
    """Name the rows of a step that have the highest losses alone, now and without dropout, those that are NaN first.

    Where each of several is NaN, say that it is not theirs.
    """
    learner = learner.among_peers()
    losses = {
        index: _loss_of(learner, source.batch(source.part([index]))) for index in dict.fromkeys(source.items_of(step))
    }
    if len(losses) > 1 and not any(map(math.isfinite, losses.values())):
        return f"{len(losses)} rows have no finite loss alone, none of them: the steps before moved the weights too far"
    order = sorted(losses, key=lambda index: -losses[index] if math.isfinite(losses[index]) else -math.inf)
    named = ", ".join(f"{source.items[index].examples[0].id} ({losses[index]:.3g})" for index in order[:MOST_ROWS])
    more = f", and {len(order) - MOST_ROWS} more" if len(order) > MOST_ROWS else ""
    return f"rows, by their own loss now: {named}{more}"


def _loss_of(learner: Learner, batch: Batch) -> float:
    was_training = learner.model.training
    learner.model.eval()
    try:
        with torch.no_grad():
            (batch,) = learner.observed([batch])
            return float(learner.value(batch))
    finally:
        learner.model.train(was_training)
