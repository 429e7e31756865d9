"""Sources of batches: epochs over encoded items, and a thread that makes the next step's while one is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from harness.contract.batches import Batch
from harness.contract.objectives import Policy
from harness.data.encode.storage import Items
from harness.errors import HarnessError
from harness.model.batching import nothing, packed, padded
from harness.nouns import Item
from harness_tuning.batching import Layout, Part, Schedule, Sizes, Split, split_step
from harness_tuning.learner import OutOfMemory, is_out_of_memory
from harness_tuning.prepared import OBSERVED, Prepared


class Epochs:
    """A BatchSource over encoded items, each once an epoch, in an order fixed by the seed.

    A step has the same items however it is split into batches, and however many processes share them.
    """

    def __init__(
        self,
        items: Items,
        pad_id: int,
        device: torch.device | str,
        *,
        step_tokens: int,
        split: Split | None = None,
        layout: Layout = "padded",
        seed: int = 0,
        epochs: float = 1.0,
        steps: int | None = None,
        beside: Sequence[Item] | None = None,
    ) -> None:
        self.items, self.pad_id, self.device = items, pad_id, device
        self.beside = beside
        self.prepared: Prepared | None = None
        self.sizes, self.split = Sizes.of(items, layout), split or Split.whole(step_tokens)
        self.schedule = Schedule(self.sizes, step_tokens, seed)
        self.total_steps: int = steps or self.schedule.total_steps(epochs)

    def step(self, number: int, rank: int = 0, size: int = 1) -> list[Batch]:
        """Return the batches of a step for process `rank` of `size`: every `size`-th, or one without documents."""
        parts = self.parts(number, size)
        mine = [self.batch(part) for part in parts[rank::size]]
        most = len(parts[0::size])
        return mine + [nothing(self.pad_id, self.device)] * (most - len(mine))

    def items_of(self, number: int) -> list[int]:
        """Return the places of a step's items, over all processes."""
        return list(self.schedule.items_of(number)[1])

    def parts(self, number: int, size: int = 1) -> list[Part]:
        """Return the plan of the batches of a step that `size` processes share, the largest first."""
        return split_step(self.sizes, self.schedule.items_of(number)[1], self.split, size)

    def part(self, items: Sequence[int]) -> Part:
        """Return the plan of one batch of these items."""
        rows = (tuple(items),) if self.sizes.layout == "packed" else tuple((index,) for index in items)
        return Part(rows, self.sizes.positions(rows))

    def batch(self, part: Part) -> Batch:
        """Return the batch of a part; what is observed beside it is padded."""
        items = [self._item(self.items, index) for index in part.items]
        if self.sizes.layout == "padded":
            batch = padded(items, self.pad_id, self.device)
        else:
            numbers = iter(range(len(items)))
            batch = packed(items, [[next(numbers) for _ in row] for row in part.rows], self.pad_id, self.device)
        if self.beside is None:
            return batch
        others = [self._item(self.beside, index, OBSERVED) for index in part.items]
        parts = split_step(Sizes.of_items(others), range(len(others)), self.split)
        rows = ([others[index] for index in part.items] for part in parts)
        return replace(batch, observed=tuple(padded(some, self.pad_id, self.device) for some in rows))

    def progress(self, number: int) -> dict[str, float]:
        """Return how many epochs are done after a step."""
        return {"epoch": round(self.schedule.items_of(number)[0], 4)}

    def halve(self, step: int) -> str:
        """Split steps into batches of half as many positions, after `step` took too much memory. Return what to say.

        Raises:
            HarnessError: where the largest item allows no smaller batches.
        """
        before, least = self.split.positions, self.sizes.widest()
        if before <= least:
            raise HarnessError(
                f"step {step}: out of memory with batches of {before:,} positions, and the largest item has {least:,}: "
                f"lower data.max_tokens, or set tune.gradient_checkpointing: true"
            )
        self.split = replace(self.split, positions=max(before // 2, least))
        return (
            f"step {step}: out of memory with batches of {before:,} positions. It is done again in batches of "
            f"{self.split.positions:,}, and so are the steps after it; the gradient is the same"
        )

    def too_large(self, step: int) -> OutOfMemory:
        """Return the error of a step that took too much memory in the middle of a pass that all processes share.

        Raises:
            HarnessError: where the largest item allows no smaller batches.
        """
        before = self.split.positions
        self.halve(step)
        error = OutOfMemory(
            f"step {step}: out of memory with batches of {before:,} positions. Begin again from the last checkpoint, "
            f"in batches of {self.split.positions:,} (tune.microbatch_tokens); the gradient is the same"
        )
        error.positions = self.split.positions
        return error

    def at_most(self, positions: float) -> None:
        """Split steps into batches of at most so many positions."""
        self.split = replace(self.split, positions=int(min(self.split.positions, positions)))

    def _item(self, items: Sequence[Item], index: int, prefix: str = "") -> Item:
        return items[index] if self.prepared is None else self.prepared.item(items, index, prefix)

    def state(self) -> dict[str, Any]:
        """Return the split: a step's batches follow from its number and that."""
        return {"split": asdict(self.split)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Split steps as they were."""
        if "split" in state:  # 0.1 had none
            self.split = Split(**state["split"])

    def refresh(self, policy: Policy) -> None:
        """Do nothing: the data do not depend on the policy."""


class Ahead:
    """Batches of the steps of a source, in one process; those of the next step are made while one is computed.

    What is made ahead is no part of a run's state: a step's batches follow from its number and the split. Batches of a
    split that was halved meanwhile are let go. Without a thread each step's batches are made when they are asked for.
    """

    def __init__(
        self, source: Epochs, begin_thread: Callable[[], ThreadPoolExecutor] | None, rank: int = 0, size: int = 1
    ) -> None:
        self.source, self.rank, self.size = source, rank, size
        self._begin_thread = begin_thread
        self._thread: ThreadPoolExecutor | None = None
        self._next: tuple[tuple[int, Split], Future[list[Batch]]] | None = None

    def step(self, number: int) -> list[Batch]:
        """Return the batches of a step, and let those of the next one be made."""
        ahead, self._next = self._next, None
        batches = self._made(ahead[1]) if ahead is not None and ahead[0] == (number, self.source.split) else None
        if batches is None:
            batches = self.source.step(number, self.rank, self.size)
        if self._begin_thread is not None and number < self.source.total_steps:
            self._thread = self._thread or self._begin_thread()
            following = self._thread.submit(self.source.step, number + 1, self.rank, self.size)
            self._next = (number + 1, self.source.split), following
        return batches

    def close(self) -> None:
        """End the thread, and let go what it has made. The next step that is asked for begins another."""
        thread, self._thread, self._next = self._thread, None, None
        if thread is not None:
            thread.shutdown(cancel_futures=True)

    @staticmethod
    def _made(batches: Future[list[Batch]]) -> list[Batch] | None:
        """Return batches that were made ahead; None where there was no memory for them beside the step before."""
        try:
            return batches.result()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None


def thread_for(device: torch.device) -> Callable[[], ThreadPoolExecutor] | None:
    """Return what begins a thread that makes batches on this process's accelerator; None on a CPU: its cores work."""
    if device.type == "cpu":
        return None
    here = torch.accelerator.current_device_index()  # a thread begins on the first one
    return partial(ThreadPoolExecutor, 1, "batches", torch.accelerator.set_device_index, (here,))
