"""Plans of batches: items of similar length, within a budget of tokens, in an order fixed by the seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import harness
from harness.data.encode.storage import Items
from harness.nouns import Item

# Examples are sorted by length within windows of this many batches, so that padding is small and order still random.
WINDOW_BATCHES = 64


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the items, for planning: how many rows each needs in a batch, and the length of its longest example."""

    lengths: Sequence[int]
    rows: Sequence[int]

    @classmethod
    def of(cls, items: Items) -> Sizes:
        """Return the sizes of encoded items. Where each is one example, none is read for that."""
        rows = items.example_counts()
        if max(rows) == 1:
            return cls(items.lengths(), rows)
        return cls([max(map(len, item.examples)) for item in items], rows)

    @classmethod
    def of_items(cls, items: Sequence[Item]) -> Sizes:
        """Return the sizes of items, each of which is looked at."""
        both = [(max(map(len, item.examples)), len(item.examples)) for item in items]
        return cls([length for length, _ in both], [rows for _, rows in both])

    @classmethod
    def of_single(cls, lengths: Sequence[int]) -> Sizes:
        """Return the sizes of items that are one example each."""
        return cls(lengths, [1] * len(lengths))

    def padded_tokens(self, batch: Sequence[int]) -> int:
        """Return the tokens of a batch of items, with padding: b*s."""
        return sum(self.rows[index] for index in batch) * max(self.lengths[index] for index in batch)

    def total(self) -> int:
        """Return the tokens of all items, each padded for itself alone."""
        return sum(length * rows for length, rows in zip(self.lengths, self.rows, strict=True))

    def widest(self) -> int:
        """Return the tokens of the largest item alone, with padding."""
        return max(length * rows for length, rows in zip(self.lengths, self.rows, strict=True))


def plan_epoch(sizes: Sizes, batch_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """Return batches of item indices; every index is in exactly one. b*s of a batch is at most `batch_tokens`.

    Raises:
        HarnessError: where an item alone is larger than `batch_tokens`.
    """
    if (widest := sizes.widest()) > batch_tokens:
        what = "example" if max(sizes.rows) == 1 else "preference with both its sides"
        raise harness.HarnessError(
            f"tune.batch_tokens = {batch_tokens} is less than the longest {what} ({widest} tokens): "
            f"raise it, or lower data.max_tokens"
        )
    lengths = sizes.lengths
    order = list(range(len(lengths)))
    rng = random.Random(f"{seed}/{epoch}")
    rng.shuffle(order)
    window = max(1, round(WINDOW_BATCHES * batch_tokens * len(lengths) / sizes.total()))
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        batches += batches_within(sizes, order[start : start + window], batch_tokens)
    rng.shuffle(batches)
    return batches


def batches_within(sizes: Sizes, items: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return batches of some items, the shortest first. b*s of a batch is at most `batch_tokens`, or it is one item."""
    lengths, rows = sizes.lengths, sizes.rows
    batches: list[list[int]] = []
    current: list[int] = []
    height = 0
    for index in sorted(items, key=lambda i: lengths[i]):  # stable: ties stay as they are
        if current and lengths[index] * (height + rows[index]) > batch_tokens:
            batches.append(current)
            current, height = [], 0
        current.append(index)
        height += rows[index]
    return [*batches, current]


class Schedule:
    """The batches of each optimizer step, over as many epochs as are asked for."""

    def __init__(self, sizes: Sizes, batch_tokens: int, accumulate: int, seed: int) -> None:
        self.sizes, self.batch_tokens, self.accumulate, self.seed = sizes, batch_tokens, accumulate, seed
        self._steps_in: list[int] = []  # of each epoch so far: another shuffle can cut a batch more or less
        self._plan: tuple[int, list[list[int]]] = (-1, [])

    def total_steps(self, epochs: float) -> int:
        """Return the optimizer steps in `epochs` epochs; part of an epoch is rounded to whole steps, at least one."""
        whole = int(epochs)
        steps = sum(self._steps_in_epoch(epoch) for epoch in range(whole))
        return max(1, steps + (round((epochs - whole) * self._steps_in_epoch(whole)) if epochs > whole else 0))

    def batches_of(self, step: int) -> tuple[float, list[list[int]]]:
        """Return how many epochs are done after `step` (1, 2, ...), and the item indices of its batches.

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
            self._plan = (epoch, plan_epoch(self.sizes, self.batch_tokens, self.seed, epoch))
        return self._plan[1]
