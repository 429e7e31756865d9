"""Epochs give each process its share of a step, and the shares together are the step, whatever their number."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness_tuning.batching import Sizes, Split, plan_epoch, split_step  # noqa: E402
from harness_tuning.objectives import sft  # noqa: E402
from harness_tuning.sources import Ahead, Epochs  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from harness.model.load import load_model  # noqa: E402
from harness.model.policy import ModelPolicy  # noqa: E402
from harness.nouns import Example, Item  # noqa: E402
from harness.recipe import ModelSpec  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


class Kept(list):
    """Items as the encoder hands them over, in memory."""

    def lengths(self) -> list[int]:
        return [sum(map(len, item.examples)) for item in self]

    def example_counts(self) -> list[int]:
        return [len(item.examples) for item in self]


def items(count: int) -> Kept:
    generator = torch.Generator().manual_seed(0)
    rows = (torch.randint(3, 300, (4 + number % 9,), generator=generator).tolist() for number in range(count))
    return Kept(Item((Example(ids, [at > 1 for at in range(len(ids))]),), ("answer",)) for ids in rows)


def pairs(count: int) -> Kept:
    sides = list(items(2 * count))
    return Kept(
        Item((one.examples[0], other.examples[0]), ("chosen", "rejected"))
        for one, other in zip(sides[::2], sides[1::2], strict=True)
    )


def epochs(of: Any, layout: Any = "padded") -> Epochs:
    return Epochs(of, 0, "cpu", step_tokens=144, split=Split(48), layout=layout, seed=1)


def contents(batches: list[Any]) -> list[tuple[int, ...]]:
    rows = (
        (batch, document) for batch in batches for document in zip(*(c.tolist() for c in (
            batch.documents.row, batch.documents.start, batch.documents.length)), strict=True)
    )  # fmt: skip
    return sorted(tuple(batch.input_ids[row, start : start + length].tolist()) for batch, (row, start, length) in rows)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_all_processes_get_equally_many_batches_and_together_the_whole_step(size, layout):
    source = epochs(items(40), layout)
    for step in range(1, source.total_steps + 1):
        shares = [source.step(step, rank, size) for rank in range(size)]
        assert len({len(share) for share in shares}) == 1
        assert contents([batch for share in shares for batch in share]) == contents(source.step(step))


def test_the_shares_of_two_processes_have_the_gradient_of_one(tiny_model):
    model = load_model(ModelSpec(path=str(tiny_model), dtype="float32"), for_tuning=True)
    source = epochs(items(40))

    def gradient(shares: list[list[Any]]) -> Any:
        """What each process adds, with the units that they have exchanged before the first backward pass."""
        model.zero_grad()
        units = sum(sft.units(batch)["nll"] for share in shares for batch in share)
        for share in shares:
            for batch in share:
                (sft.loss(ModelPolicy(model), batch, sft.SftOptions()).terms["nll"].sum / units).backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    assert len(source.step(1)) > 2 and len(source.step(source.total_steps)) == 1
    for step in (1, source.total_steps):
        one = gradient([source.step(step)])
        assert one.norm() > 0
        torch.testing.assert_close(gradient([source.step(step, rank, 2) for rank in (0, 1)]), one, rtol=1e-5, atol=1e-6)


def test_no_split_and_no_layout_changes_the_gradient_of_a_step(tiny_model):
    """One batch, several, one item each: the same gradient to 1e-6, relative, in float32; and so in packed rows."""
    model = load_model(ModelSpec(path=str(tiny_model), dtype="float32"), for_tuning=True)
    source = epochs(items(40))
    chosen = source.schedule.items_of(1)[1]

    def gradient(layout: Any, split: Split) -> Any:
        other = Epochs(source.items, 0, "cpu", step_tokens=144, layout=layout, seed=1)
        batches = [other.batch(part) for part in split_step(other.sizes, chosen, split)]
        model.zero_grad()
        units = sum(sft.units(batch)["nll"] for batch in batches)
        for batch in batches:
            (sft.loss(ModelPolicy(model), batch, sft.SftOptions()).terms["nll"].sum / units).backward()
        return len(batches), torch.cat([weight.grad.flatten().double() for weight in model.parameters()])

    _, whole = gradient("padded", Split(1000))
    counts = []
    for layout in ("padded", "packed"):
        for split in (Split(1000), Split(60), Split(1), Split(1000, row_tokens=50)):
            count, other = gradient(layout, split)
            counts.append(count)
            assert float((other - whole).norm() / whole.norm()) < 1e-6, (layout, split)
    assert len(set(counts)) >= 3


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 2)), min_size=1, max_size=60))
def test_a_pair_is_never_split_and_its_rows_count_in_the_bound(shape):
    lengths, rows = [length for length, _ in shape], [count for _, count in shape]
    sizes = Sizes([length * count for length, count in shape], rows, lengths)
    steps = plan_epoch(sizes, 96, 0, 0)
    assert sorted(index for step in steps for index in step) == list(range(len(shape)))
    parts = [part for step in steps for part in split_step(sizes, step, Split(48))]
    assert sorted(index for part in parts for index in part.items) == list(range(len(shape)))
    assert all(part.positions <= 48 for part in parts)


def test_what_the_sides_of_a_pair_begin_with_is_there_once_in_packed_rows():
    prompt = list(range(3, 23))
    sides = [Example([*prompt, *more], [False] * 20 + [True] * len(more)) for more in ([30, 31], [40, 41, 42])]
    source = epochs(Kept([Item(tuple(sides), ("chosen", "rejected"))]), "packed")
    (batch,) = source.step(1)
    assert batch.tokens == 25 and sorted(batch.roles) == ["chosen", "prompt", "rejected"]
    assert epochs(source.items).step(1)[0].tokens == 45


def test_both_sides_of_a_pair_are_in_one_batch():
    source = epochs(pairs(12))
    for step in range(1, source.total_steps + 1):
        for batch in source.step(step):
            chosen, rejected = batch.pairs()
            assert len(chosen) == len(rejected) == len(set(batch.groups)) > 0


def ids_of(batches: list[Any]) -> list[Any]:
    return [batch.input_ids.tolist() for batch in batches]


@pytest.fixture
def ahead_of():
    """Return a function that lets a thread make the batches of a source ahead, as on an accelerator."""
    with contextlib.ExitStack() as after:
        yield lambda source: after.enter_context(contextlib.closing(Ahead(source, partial(ThreadPoolExecutor, 1))))


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_batches_made_ahead_by_a_thread_are_those_made_when_asked_for(ahead_of, layout):
    """Over several epochs, while the same source is asked by others; begun anywhere, as a resumed run does."""
    plain, source = epochs(pairs(20), layout), epochs(pairs(20), layout)
    plain.total_steps = source.total_steps = 3 * source.schedule.total_steps(1)
    for first in (1, 4):
        ahead = ahead_of(source)
        for number in range(first, source.total_steps + 1):
            assert ids_of(ahead.step(number)) == ids_of(plain.step(number))
            assert source.progress(number) == plain.progress(number)


def test_batches_made_ahead_are_let_go_where_the_split_was_halved_meanwhile(ahead_of):
    plain, source = epochs(items(40)), epochs(items(40))
    ahead = ahead_of(source)
    before = ids_of(ahead.step(1))
    for one in (plain, source):
        one.halve(1)
    again = ids_of(ahead.step(1))  # the same step in smaller batches
    assert again == ids_of(plain.step(1)) != before
    assert ids_of(ahead.step(2)) == ids_of(plain.step(2))


def fails_in_a_thread(monkeypatch, source: Epochs, error: Exception) -> None:
    batch, main = source.batch, threading.main_thread()

    def of_part(part: Any) -> Any:
        if threading.current_thread() is not main:
            raise error
        return batch(part)

    monkeypatch.setattr(source, "batch", of_part)


def test_what_fails_while_a_step_is_made_ahead_is_raised_when_it_is_asked_for(ahead_of, monkeypatch):
    source = epochs(items(40))
    fails_in_a_thread(monkeypatch, source, OSError("the disk is gone"))
    ahead = ahead_of(source)
    ahead.step(1)
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.step(2)


def test_a_step_that_found_no_memory_ahead_is_made_when_it_is_asked_for(ahead_of, monkeypatch):
    """Beside the step before there may be no room for it; afterwards there is."""
    plain, source = epochs(items(40)), epochs(items(40))
    fails_in_a_thread(monkeypatch, source, torch.OutOfMemoryError("CUDA out of memory"))
    ahead = ahead_of(source)
    ahead.step(1)
    assert ids_of(ahead.step(2)) == ids_of(plain.step(2))


def test_a_thread_ends_when_it_is_closed_and_another_begins_where_a_step_is_asked_for(ahead_of):
    before, source = threading.active_count(), epochs(items(40))
    ahead = ahead_of(source)
    for number in (1, 2):
        ahead.step(number)
        assert threading.active_count() == before + 1
        ahead.close()
        assert threading.active_count() == before
