"""Checks of an objective on one small batch: sums that add up, and a loss that sees no further than its predictions.

Tuning asks them before the first step, and `harness plugins check` on a tiny model. Compute them in float32, in the
model's mode for evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from harness.contract.batches import Batch
from harness.contract.objectives import Loss
from harness.errors import HarnessError

LARGEST_DIFFERENCE = 1e-3  # of a sum, relative to its value where that is above 1


def check_sums(name: str, loss: Callable[[Batch], Loss], whole: Batch, halves: Sequence[Batch]) -> None:
    """Raise HarnessError where the terms of a batch are not the sums of those of its `halves`: of means, they are not.

    Args:
        name: the objective's.
        loss: the loss of a batch, without a gradient.
        whole: a batch, with its figures.
        halves: the same items in two batches, with theirs.
    """
    together = _sums(name, loss(whole))
    parts = [_sums(name, loss(half)) for half in halves]
    for term, value in together.items():
        added = sum(part.get(term, 0.0) for part in parts)
        if not _alike(value, added):
            raise HarnessError(
                f"the objective {name!r}: the term {term!r} of a batch is {value:.6g}, and the sum of the same items "
                f"in two batches is {added:.6g}: expected the same. A term is a sum over its units, not a mean: the "
                f"loop divides it by `units` over the whole step"
            )


def check_shift(name: str, loss: Callable[[Batch], Loss], batch: Batch) -> None:
    """Raise HarnessError where the loss depends on tokens that no target is predicted from: it forgets the shift.

    What comes behind the last prediction of a document predicts nothing; the loss must not change with it.
    """
    with_others = _with_other_ends(batch)
    if with_others is None:
        return
    before, after = _sums(name, loss(batch)), _sums(name, loss(with_others))
    for term, value in before.items():
        if not _alike(value, after.get(term, 0.0)):
            raise HarnessError(
                f"the objective {name!r}: the term {term!r} changes from {value:.6g} to {after.get(term, 0.0):.6g} "
                f"with the tokens behind the last prediction of each document: position t-1 predicts token t "
                f"(`batch.targets.source`)"
            )


def _sums(name: str, loss: Loss) -> Mapping[str, float]:
    if not isinstance(loss, Loss):
        raise HarnessError(f"the objective {name!r}: loss returned {loss!r:.80}, expected a harness.Loss")
    return {term: float(one.sum.detach()) for term, one in loss.terms.items()}


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= LARGEST_DIFFERENCE * max(1.0, abs(one))


def _with_other_ends(batch: Batch) -> Batch | None:
    """Return the batch with other tokens behind each document's last prediction; None where there are none.

    Those are its last target, and what a template writes behind it.
    """
    documents, width = batch.documents, batch.input_ids.shape[1]
    places: list[int] = []
    for number, (row, start, length) in enumerate(
        zip(documents.row.tolist(), documents.start.tolist(), documents.length.tolist(), strict=True)
    ):
        sources = batch.targets.source[batch.targets.document == number]
        if len(sources):
            places += range(int(sources.max()) + 1, row * width + start + length)
    if not places:
        return None
    ids = batch.input_ids.clone().flatten()
    ids[places] = torch.where(ids[places] == ids[0], ids[1], ids[0])
    return replace(batch, input_ids=ids.view_as(batch.input_ids))
