"""Steps keep the recipe's tokens, lose no example, and depend on nothing but the seed; a split keeps to its bound."""

from __future__ import annotations

import random

import pytest
from harness_tuning.batching import Layout, Schedule, Sizes, Split, best_fit, level, plan_epoch, split_step
from hypothesis import given
from hypothesis import strategies as st

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=200)
LAYOUT = st.sampled_from(["padded", "packed"])


def single(lengths: list[int], layout: Layout = "padded") -> Sizes:
    """Sizes of items that are one example each."""
    return Sizes(lengths, [1] * len(lengths), lengths, layout)


@given(lengths=LENGTHS, layout=LAYOUT, epoch=st.integers(0, 5), seed=st.integers(0, 9), step=st.sampled_from([40, 200]))
def test_every_item_is_in_one_step_and_none_has_more_than_the_recipes_tokens(lengths, layout, epoch, seed, step):
    steps = plan_epoch(single(lengths, layout), step, seed, epoch)
    assert sorted(index for items in steps for index in items) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in items) <= step or len(items) == 1 for items in steps)


@given(
    lengths=LENGTHS, layout=LAYOUT, positions=st.integers(8, 300), processes=st.integers(1, 3),
    row_tokens=st.none() | st.integers(16, 128),
)  # fmt: skip
def test_a_split_has_each_item_once_and_keeps_its_bound(lengths, layout, positions, processes, row_tokens):
    sizes = single(lengths, layout)
    parts = split_step(sizes, range(len(lengths)), Split(positions, row_tokens), processes)
    assert sorted(index for part in parts for index in part.items) == list(range(len(lengths)))
    assert all(part.positions <= positions or len(part.items) == 1 for part in parts)
    assert [part.positions for part in parts] == sorted((part.positions for part in parts), reverse=True)


@given(lengths=LENGTHS, layout=LAYOUT, epochs=st.integers(1, 3))
def test_whole_epochs_see_every_item_that_often(lengths, layout, epochs):
    schedule = Schedule(single(lengths, layout), 64, seed=1)
    seen: list[int] = []
    for step in range(1, schedule.total_steps(epochs) + 1):
        done, items = schedule.items_of(step)
        seen += items
    assert done == pytest.approx(epochs)
    assert sorted(seen) == sorted(list(range(len(lengths))) * epochs)


def test_a_step_can_be_asked_for_without_the_steps_before_it():
    sizes = single([3 + number % 17 for number in range(500)])
    forward = Schedule(sizes, 64, seed=4)
    in_order = [forward.items_of(step) for step in range(1, forward.total_steps(3) + 1)]
    assert Schedule(sizes, 64, seed=4).items_of(len(in_order)) == in_order[-1]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_epochs_and_seeds_differ_in_order_only(layout):
    sizes = single([3 + number % 17 for number in range(500)], layout)
    assert plan_epoch(sizes, 64, 0, 0) == plan_epoch(sizes, 64, 0, 0)
    assert plan_epoch(sizes, 64, 0, 0) != plan_epoch(sizes, 64, 0, 1) != plan_epoch(sizes, 64, 1, 1)


def lengths_of_answers(count: int) -> list[int]:
    """Lengths as instruction data have them: log-normal, from 20 to 2,048 tokens."""
    rng = random.Random(0)
    return [min(2048, max(20, round(rng.lognormvariate(5.3, 0.8)))) for _ in range(count)]


def test_padding_stays_small():
    sizes = single(lengths_of_answers(2000))
    parts = [part for items in plan_epoch(sizes, 16384, 0, 0) for part in split_step(sizes, items, Split(16384))]
    assert sum(sizes.tokens) / sum(part.positions for part in parts) > 0.95


@pytest.mark.parametrize("step_tokens", [4096, 16384])
def test_packed_steps_and_rows_are_98_percent_full(step_tokens):
    """Steps of the recipe's tokens, of which each batch is one row; rows are level where a mask keeps them apart."""
    sizes = single(lengths_of_answers(3000), "packed")
    steps = plan_epoch(sizes, step_tokens, 0, 0)
    assert sum(sizes.tokens) / (len(steps) * step_tokens) > 0.98
    for split, full in ((Split(step_tokens), 1.0), (Split.whole(step_tokens, max(sizes.tokens)), 0.97)):
        parts = [part for items in steps for part in split_step(sizes, items, split)]
        assert sum(sizes.tokens) / sum(part.positions for part in parts) >= full


def test_an_item_longer_than_a_step_is_one_of_its_own_and_the_others_are_packed_as_without_it():
    lengths = lengths_of_answers(500)
    sizes = single([*lengths, 9000], "packed")
    steps = plan_epoch(sizes, 4096, 0, 0)
    assert [500] in steps
    assert sum(lengths) / ((len(steps) - 1) * 4096) > 0.97
    parts = split_step(sizes, [*range(20), 500], Split(4096), 2)
    assert len(parts) % 2 == 0 and [part.positions for part in parts if 500 in part.items] == [9000]


def test_best_fit_fills_the_fullest_bin_that_has_room():
    assert best_fit([6, 5, 4, 5], range(4), 10) == [[0, 2], [1, 3]]
    assert best_fit([12, 3], range(2), 10) == [[0], [1]]


def test_bins_are_level_and_a_multiple_of_the_processes():
    bins = level([5, 5, 4, 4, 3, 3], range(6), 24, multiple=2)
    assert [sum([5, 5, 4, 4, 3, 3][index] for index in some) for some in bins] == [12, 12]
