"""Which examples go into which batch: of similar length, within a budget of tokens, in an order fixed by the seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import harness

# Examples are sorted by length within windows of this many batches, so that padding is small and order still random.
WINDOW_BATCHES = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one forward pass.

    input_ids: int64 [b, s], right-padded. loss_mask: bool [b, s]. tokens: how many of b*s are no padding.
    """

    input_ids: Any
    loss_mask: Any
    tokens: int
    supervised: int


def plan_epoch(lengths: Sequence[int], batch_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of example indices; every index is in exactly one. b*s of a batch is at most `batch_tokens`.

    Raises:
        HarnessError: where an example alone is longer than `batch_tokens`.
    """
    if (longest := max(lengths)) > batch_tokens:
        raise harness.HarnessError(
            f"tune.batch_tokens = {batch_tokens} is less than the longest example ({longest} tokens): raise it, or lower data.max_tokens"
        )
    order = list(range(len(lengths)))
    rng = random.Random(f"{seed}/{epoch}")
    rng.shuffle(order)
    window = max(1, round(WINDOW_BATCHES * batch_tokens * len(lengths) / sum(lengths)))
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        current: list[int] = []
        for index in sorted(order[start : start + window], key=lambda i: lengths[i]):  # stable: ties stay shuffled
            if current and lengths[index] * (len(current) + 1) > batch_tokens:
                batches.append(current)
                current = []
            current.append(index)
        batches.append(current)
    rng.shuffle(batches)
    return batches


def padded_tokens(lengths: Sequence[int], batch: Sequence[int]) -> int:
    """The tokens of a batch of example indices, with padding: b*s."""
    return len(batch) * max(lengths[index] for index in batch)


class Schedule:
    """Which batches make up which optimizer step, over as many epochs as are asked for."""

    def __init__(self, lengths: Sequence[int], batch_tokens: int, accumulate: int, seed: int) -> None:
        self.lengths, self.batch_tokens, self.accumulate, self.seed = lengths, batch_tokens, accumulate, seed
        self._steps_in: list[int] = []  # of each epoch so far: another shuffle can cut a batch more or less
        self._plan: tuple[int, list[list[int]]] = (-1, [])

    def total_steps(self, epochs: float) -> int:
        """The optimizer steps in `epochs` epochs; part of an epoch is rounded to whole steps, at least one."""
        whole = int(epochs)
        steps = sum(self._steps_in_epoch(epoch) for epoch in range(whole))
        return max(1, steps + (round((epochs - whole) * self._steps_in_epoch(whole)) if epochs > whole else 0))

    def batches_of(self, step: int) -> tuple[float, list[list[int]]]:
        """How many epochs are done after `step` (1, 2, ...), and the example indices of its batches.

        The last step of an epoch can have fewer than `accumulate` batches.
        """
        epoch, position = 0, step - 1
        while position >= self._steps_in_epoch(epoch):
            position -= self._steps_in_epoch(epoch)
            epoch += 1
        start = position * self.accumulate
        batches = self._epoch(epoch)[start : start + self.accumulate]
        return epoch + (position + 1) / self._steps_in_epoch(epoch), batches

    def _steps_in_epoch(self, epoch: int) -> int:
        while len(self._steps_in) <= epoch:
            self._steps_in.append(math.ceil(len(self._epoch(len(self._steps_in))) / self.accumulate))
        return self._steps_in[epoch]

    def _epoch(self, epoch: int) -> list[list[int]]:
        if self._plan[0] != epoch:
            self._plan = (epoch, plan_epoch(self.lengths, self.batch_tokens, self.seed, epoch))
        return self._plan[1]


def collate(examples: Sequence[harness.Example], pad_id: int, device: Any) -> Batch:
    """Pad examples on the right to the longest of them."""
    import torch

    width = max(map(len, examples))
    input_ids = torch.full((len(examples), width), pad_id, dtype=torch.long)
    loss_mask = torch.zeros((len(examples), width), dtype=torch.bool)
    for row, example in enumerate(examples):
        input_ids[row, : len(example)] = torch.tensor(example.input_ids)
        loss_mask[row, : len(example)] = torch.tensor(example.loss_mask)
    return Batch(
        input_ids.to(device, non_blocking=True),
        loss_mask.to(device, non_blocking=True),
        tokens=sum(map(len, examples)),
        supervised=sum(example.supervised for example in examples),
    )
