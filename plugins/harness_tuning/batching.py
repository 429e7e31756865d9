"""Plans of steps and their batches.

The recipe fixes the items of a step: their tokens are at most `tune.step_tokens`, in an order fixed by the seed. A
split makes batches of a step, each with at most so many positions; it is memory's affair and changes no gradient.
"""

from __future__ import annotations

import bisect
import heapq
import math
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.data.encode.storage import Items
from harness.model.batching import packed_length
from harness.nouns import Item

Layout = Literal["padded", "packed"]

WINDOW_STEPS = 64  # items are sorted by length, or fitted together, among so many steps' worth: order is random still
ALIKE_TOKENS = 4096  # in padded rows, so many tokens of one step are of similar length; a larger step has several such
LEAST_FILL = 0.93  # of padded rows: where longer ones would lower it, a batch is closed,
SMALLEST_TOKENS = 1024  # unless it would be smaller than this


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the items, for planning: their tokens in a layout, their rows when padded, and their longest example."""

    tokens: Sequence[int]
    rows: Sequence[int]
    longest: Sequence[int]
    layout: Layout = "padded"

    @classmethod
    def of(cls, items: Items, layout: Layout = "padded") -> Sizes:
        """Return the sizes of encoded items. Where each is one example, none is read for that."""
        tokens, rows = items.lengths(), items.example_counts()
        if max(rows) == 1:
            return cls(tokens, rows, tokens, layout)
        longest = [max(map(len, item.examples)) for item in items]
        return cls(
            [packed_length(item.examples) for item in items] if layout == "packed" else tokens, rows, longest, layout
        )

    @classmethod
    def of_items(cls, items: Sequence[Item]) -> Sizes:
        """Return the sizes of padded items, each of which is looked at."""
        longest, rows = [max(map(len, item.examples)) for item in items], [len(item.examples) for item in items]
        return cls([sum(map(len, item.examples)) for item in items], rows, longest)

    def positions(self, rows: Sequence[Sequence[int]]) -> int:
        """Return the positions of a batch, b*s: padded, each example is a row; packed, each of `rows` is one."""
        if self.layout == "packed":
            return len(rows) * max(sum(self.tokens[index] for index in row) for row in rows)
        items = [index for row in rows for index in row]
        return sum(self.rows[index] for index in items) * max(self.longest[index] for index in items)

    def widest(self) -> int:
        """Return the positions of the largest item alone."""
        if self.layout == "packed":
            return max(self.tokens)
        return max(length * rows for length, rows in zip(self.longest, self.rows, strict=True))


@dataclass(frozen=True, slots=True)
class Split:
    """A way to make batches of a step: at most `positions` in each.

    An item that is larger has a batch of its own. A packed batch is one row, or rows of about `row_tokens`.
    """

    positions: int
    row_tokens: int | None = None

    @classmethod
    def whole(cls, step_tokens: int, row_tokens: int | None = None) -> Split:
        """Return the split that leaves a step of so many tokens in one piece, some padding included."""
        return cls(math.ceil(step_tokens / LEAST_FILL), row_tokens)


@dataclass(frozen=True, slots=True)
class Part:
    """One batch of a step: its items row by row, and its positions with padding."""

    rows: tuple[tuple[int, ...], ...]
    positions: int

    @property
    def items(self) -> list[int]:
        """Return the items of all rows."""
        return [index for row in self.rows for index in row]


def plan_epoch(sizes: Sizes, step_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the items of each step of an epoch; every item is in exactly one.

    The tokens of a step are at most `step_tokens`; an item that has more is a step of its own.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(sizes.tokens)))
    rng.shuffle(order)
    if sizes.layout == "packed":
        steps = _fitted(sizes.tokens, order, step_tokens)
        rng.shuffle(steps)
        return steps
    pieces = max(1, math.ceil(step_tokens / ALIKE_TOKENS))
    alike = _alike(sizes, order, step_tokens // pieces)
    rng.shuffle(alike)
    steps, total = [], step_tokens + 1
    for piece in alike:
        tokens = sum(sizes.tokens[index] for index in piece)
        if total + tokens > step_tokens:
            steps.append([])
            total = 0
        steps[-1] += piece
        total += tokens
    return steps


def _alike(sizes: Sizes, order: Sequence[int], tokens: int) -> list[list[int]]:
    """Return lists of items of similar length, of at most `tokens` together: windows of the order, sorted and cut."""
    mean = sum(sizes.tokens) / len(order)
    window = max(1, round(WINDOW_STEPS * tokens / mean))
    pieces: list[list[int]] = []
    for start in range(0, len(order), window):
        pieces.append([])
        total = 0
        for index in sorted(order[start : start + window], key=lambda i: sizes.longest[i]):  # stable: ties are shuffled
            if pieces[-1] and total + sizes.tokens[index] > tokens:
                pieces.append([])
                total = 0
            pieces[-1].append(index)
            total += sizes.tokens[index]
    return pieces


def _fitted(lengths: Sequence[int], order: Sequence[int], capacity: int) -> list[list[int]]:
    """Return bins of at most `capacity` by best fit, within windows of the order.

    The least full bin of a window goes on into the next, so that one bin of all is left unfilled.
    """
    window = max(1, round(WINDOW_STEPS * capacity * len(order) / sum(lengths)))
    bins: list[list[int]] = []
    carried: list[int] = []
    for start in range(0, len(order), window):
        fitted = best_fit(lengths, [*carried, *order[start : start + window]], capacity)
        carried = min(fitted, key=lambda some: sum(lengths[index] for index in some))
        fitted.remove(carried)
        bins += fitted
    return [*bins, carried]


def best_fit(lengths: Sequence[int], items: Sequence[int], capacity: int) -> list[list[int]]:
    """Return bins of at most `capacity`: each item, in this order, goes where it leaves the least room.

    A longer one than `capacity` has a bin of its own. Sorted by length, long items would share bins with long ones.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room, bin), sorted
    for index in items:
        at = bisect.bisect_left(rooms, (lengths[index], -1))
        if at == len(rooms):
            bins.append([index])
            bisect.insort(rooms, (capacity - lengths[index], len(bins) - 1))
            continue
        room, number = rooms.pop(at)
        bins[number].append(index)
        bisect.insort(rooms, (room - lengths[index], number))
    return bins


def split_step(sizes: Sizes, items: Sequence[int], split: Split, processes: int = 1) -> list[Part]:
    """Return the batches of a step, the largest first, at least one for each process where there are items enough."""
    if sizes.layout == "padded":
        budget = split.positions
        if processes > 1:
            budget = min(budget, math.ceil(sum(sizes.tokens[index] for index in items) / LEAST_FILL / processes))
        batches = [[[index] for index in batch] for batch in _padded(sizes, items, budget)]
    else:
        rows = level(sizes.tokens, items, split.positions, split.row_tokens, processes)
        width = max(sum(sizes.tokens[index] for index in row) for row in rows)
        at_once = 1 if split.row_tokens is None else max(1, min(split.positions // width, len(rows) // processes))
        batches = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
    parts = [Part(tuple(map(tuple, rows)), sizes.positions(rows)) for rows in batches]
    return sorted(parts, key=lambda part: -part.positions)  # stable


def _padded(sizes: Sizes, items: Sequence[int], budget: int) -> list[list[int]]:
    """Return batches of items by length, the longest first, of at most `budget` positions and little padding."""
    batches: list[list[int]] = []
    rows = width = tokens = 0
    for index in sorted(items, key=lambda i: -sizes.longest[i]):
        more, real = rows + sizes.rows[index], tokens + sizes.tokens[index]
        is_sparse = rows * width >= SMALLEST_TOKENS and real < LEAST_FILL * more * width
        if not batches or more * width > budget or is_sparse:
            batches.append([])
            rows, width, tokens = 0, sizes.longest[index], 0
        batches[-1].append(index)
        rows += sizes.rows[index]
        tokens += sizes.tokens[index]
    return batches


def level(
    lengths: Sequence[int], items: Sequence[int], capacity: int, wished: int | None = None, multiple: int = 1
) -> list[list[int]]:
    """Return as few bins of at most `capacity` as hold the items, equally full, their number a multiple of `multiple`.

    With `wished`, bins of about so many. Each item, the longest first, goes into the emptiest bin (Graham 1969,
    https://doi.org/10.1137/0117039). A longer one than `capacity` is alone in its bin. With fewer items than `multiple`
    there are fewer bins.
    """
    order = sorted(items, key=lambda i: -lengths[i])
    long = [[index] for index in order if lengths[index] > capacity]
    order = order[len(long) :]
    count = math.ceil(sum(lengths[index] for index in order) / min(capacity, wished or capacity))
    count = max(1, math.ceil((count + len(long)) / multiple) * multiple - len(long)) if order else 0
    while order:
        bins: list[list[int]] = [[] for _ in range(min(count, len(order)))]
        heap = [(0, number) for number in range(len(bins))]
        for index in order:
            total, number = heapq.heappop(heap)
            bins[number].append(index)
            heapq.heappush(heap, (total + lengths[index], number))
        if max(heap)[0] <= capacity:
            return long + sorted(bins, key=lambda some: -sum(lengths[index] for index in some))
        count += multiple
    return long


class Schedule:
    """The items of each optimizer step, over as many epochs as are asked for."""

    def __init__(self, sizes: Sizes, step_tokens: int, seed: int) -> None:
        self.sizes, self.step_tokens, self.seed = sizes, step_tokens, seed
        self._steps_in: list[int] = []  # of each epoch so far: another shuffle can cut a step more or less
        self._plans: dict[int, list[list[int]]] = {}  # of the last two epochs: a thread may be at the next step
        self._lock = threading.Lock()

    def total_steps(self, epochs: float) -> int:
        """Return the optimizer steps in `epochs` epochs; part of an epoch is rounded to whole steps, at least one."""
        whole = int(epochs)
        with self._lock:
            steps = sum(self._steps_in_epoch(epoch) for epoch in range(whole))
            return max(1, steps + (round((epochs - whole) * self._steps_in_epoch(whole)) if epochs > whole else 0))

    def items_of(self, step: int) -> tuple[float, list[int]]:
        """Return how many epochs are done after `step` (1, 2, ...), and its items."""
        epoch, position = 0, step - 1
        with self._lock:
            while position >= self._steps_in_epoch(epoch):
                position -= self._steps_in_epoch(epoch)
                epoch += 1
            return epoch + (position + 1) / self._steps_in_epoch(epoch), self._epoch(epoch)[position]

    def _steps_in_epoch(self, epoch: int) -> int:
        while len(self._steps_in) <= epoch:
            self._steps_in.append(len(self._epoch(len(self._steps_in))))
        return self._steps_in[epoch]

    def _epoch(self, epoch: int) -> list[list[int]]:
        if epoch not in self._plans:
            self._plans = {at: plan for at, plan in self._plans.items() if abs(at - epoch) == 1}
            self._plans[epoch] = plan_epoch(self.sizes, self.step_tokens, self.seed, epoch)
        return self._plans[epoch]
