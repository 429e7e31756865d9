"""Encoding batches of items while others are read: in threads, and in processes where cores and rows are many.

Tokenizing uses all cores and needs no lock of Python's; rendering and masks do, so they stay in the caller's thread,
which would otherwise wait for the lock. On few cores the two fit beside each other. On many, everything would wait for
the one thread, so each process renders and tokenizes batches of its own on one core.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from array import array
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from harness.data.encode.items import items_of, require_completions, sequences_of
from harness.errors import HarnessError
from harness.nouns import Conversation, DataItem, Example, Item, Preference

if TYPE_CHECKING:
    from harness.template import BoundTemplate, Reasoning, TrainOn
    from harness.template.spans import Rendered

THREADS = 2  # that tokenize: the next batch begins where the one before it leaves a core idle
WAITING = 4  # batches that are rendered and not collected yet
FEW_CORES = 4  # up to here threads are as quick
MOST_PROCESSES = 16  # reading the rows is not quicker than so many encode them
MANY_ROWS = 16_384  # take longer in threads than processes take to start


class Workers:
    """Encode batches, in the order in which they are asked for their results. Leaving the context ends all processes.

    Args:
        processes: how many; 0 for threads only. None: as many as there are cores, once there are many rows.
    """

    def __init__(
        self,
        template: BoundTemplate,
        train_on: TrainOn,
        processes: int | None = None,
        reasoning: Reasoning = "learn",
    ) -> None:
        self._template, self._train_on, self._reasoning = template, train_on, reasoning
        self._rows = self._from_row = 0
        if processes is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            processes, self._from_row = min(cores, MOST_PROCESSES) if cores > FEW_CORES else 0, MANY_ROWS
        self._processes = processes
        self._threads: Executor = ThreadPoolExecutor(THREADS)
        self._pool: Executor | None = None

    def __enter__(self) -> Workers:
        # What is loaded is not garbage. Looking through it again and again as rows come and go takes a fifth of the
        # time.
        gc.freeze()
        return self

    def __exit__(self, *error: object) -> None:
        gc.unfreeze()
        for pool in (self._threads, self._pool):
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    @property
    def batches(self) -> int:
        """The number of batches in flight that keeps all processes busy."""
        return 2 * self._processes if self._pool else WAITING

    def submit(self, batch: Sequence[DataItem]) -> Pending:
        """Begin to encode a batch. Its result raises what `BoundTemplate.encode_batch` and `items_of` raise."""
        self._rows += len(batch)
        if not self._processes or self._rows <= self._from_row:
            return self._submit_to_threads(batch)
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._processes,
                multiprocessing.get_context("spawn"),  # a fork would copy the tokenizer's threads in mid-work
                _become_worker,
                (
                    replace(self._template),
                    self._train_on,
                    self._reasoning,
                ),  # without what it has compiled, which cannot be sent
            )
        return self._pool.submit(_encoded_here, batch)

    def _submit_to_threads(self, batch: Sequence[DataItem]) -> Pending:
        try:
            rendered = self._template.rendered(_sequences(batch), self._train_on, self._reasoning)
        except HarnessError as error:  # raised when its turn comes: a batch before it may have one too
            refused = Future[list[Item]]()
            refused.set_exception(error)
            return refused
        return _Tokenizing(self._template, batch, rendered, self._threads.submit(self._template.tokenized, rendered))


class Pending(Protocol):
    """A batch that is being encoded."""

    def result(self) -> list[Item]:
        """Wait for the items of the batch, and return them in its order. Their ids are int32, their masks bytes."""


class _Tokenizing(NamedTuple):
    template: BoundTemplate
    batch: Sequence[DataItem]
    rendered: list[Rendered]
    tokenized: Future[list[Any]]

    def result(self) -> list[Item]:
        return _encoded(self.template, self.batch, self.rendered, self.tokenized.result())


def encode_here(
    template: BoundTemplate, batch: Sequence[DataItem], train_on: TrainOn, reasoning: Reasoning
) -> list[Item]:
    """Encode a batch in this thread. Raises what `BoundTemplate.encode_batch` and `items_of` raise."""
    rendered = template.rendered(_sequences(batch), train_on, reasoning)
    return _encoded(template, batch, rendered, template.tokenized(rendered))


def _sequences(batch: Sequence[DataItem]) -> list[Conversation]:
    sequences: list[Conversation] = []
    for item in batch:
        if isinstance(item, Preference):
            require_completions(item)
            sequences += sequences_of(item)
        else:
            sequences.append(item)
    return sequences


def _encoded(
    template: BoundTemplate, batch: Sequence[DataItem], rendered: Sequence[Rendered], tokenized: Sequence[Any]
) -> list[Item]:
    return items_of(batch, (tuple(map(_compact, examples)) for examples in template.examples(rendered, tokenized)))


def _compact(example: Example) -> Example:
    return Example(array("i", example.input_ids), example.loss_mask, example.id, example.escaped)


# In a process of its own

_ours: tuple[BoundTemplate, TrainOn, Reasoning]


def _become_worker(template: BoundTemplate, train_on: TrainOn, reasoning: Reasoning) -> None:
    global _ours
    _ours = template, train_on, reasoning
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core has a process already
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, which ends us
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _encoded_here(batch: Sequence[DataItem]) -> list[Item]:
    template, train_on, reasoning = _ours
    return encode_here(template, batch, train_on, reasoning)
