"""Sources of batches: epochs over encoded items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from harness.contract.batches import Batch
from harness.contract.objectives import Policy
from harness.data.encode.storage import Items
from harness.model.batching import nothing, padded
from harness.nouns import Item
from harness_tuning.batching import Schedule, Sizes
from harness_tuning.prepared import OBSERVED, Prepared


class Epochs:
    """A BatchSource over encoded items, each once an epoch, in an order fixed by the seed.

    A step is `accumulate` batches (fewer at the end of an epoch), however many processes share them.
    """

    def __init__(
        self,
        items: Items,
        pad_id: int,
        device: torch.device | str,
        *,
        batch_tokens: int,
        accumulate: int = 1,
        seed: int = 0,
        epochs: float = 1.0,
        steps: int | None = None,
        beside: Sequence[Item] | None = None,
    ) -> None:
        self.items, self.pad_id, self.device = items, pad_id, device
        self.beside = beside
        self.prepared: Prepared | None = None
        self.sizes = Sizes.of(items)
        self.schedule = Schedule(self.sizes, batch_tokens, accumulate, seed)
        self.total_steps: int = steps or self.schedule.total_steps(epochs)

    def step(self, number: int, rank: int = 0, size: int = 1) -> list[Batch]:
        """Return the batches of a step for process `rank` of `size`: every `size`-th, or one without documents."""
        _, batches = self.schedule.batches_of(number)
        mine = [self.batch(indices) for indices in batches[rank::size]]
        most = len(batches[0::size])
        return mine + [nothing(self.pad_id, self.device)] * (most - len(mine))

    def items_of(self, number: int) -> list[int]:
        """Return the places of a step's items, over all processes."""
        return [index for indices in self.schedule.batches_of(number)[1] for index in indices]

    def progress(self, number: int) -> dict[str, float]:
        """Return how many epochs are done after a step."""
        return {"epoch": round(self.schedule.batches_of(number)[0], 4)}

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return the batch of these items."""
        batch = padded([self._item(self.items, index) for index in indices], self.pad_id, self.device)
        if self.beside is None:
            return batch
        others = [self._item(self.beside, index, OBSERVED) for index in indices]
        return replace(batch, observed=padded(others, self.pad_id, self.device))

    def _item(self, items: Sequence[Item], index: int, prefix: str = "") -> Item:
        return items[index] if self.prepared is None else self.prepared.item(items, index, prefix)

    def state(self) -> dict[str, Any]:
        """Return nothing: a step's batches follow from its number."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Do nothing: a step's batches follow from its number."""

    def refresh(self, policy: Policy) -> None:
        """Do nothing: the data do not depend on the policy."""
