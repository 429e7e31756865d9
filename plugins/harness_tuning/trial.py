"""A few batches tried before the first step, for the time and memory that the run will take.

Nothing is trained: gradients are let go, the random state is put back, and the optimizer is timed on copies. The trial
ends after a small share of the run's time, so that a long run says early how long it is and a short one stays short.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from harness.contract.batches import Batch
from harness.model.load import free_memory
from harness.recipe import TuneSpec
from harness_tuning.batching import Part
from harness_tuning.device import free_memory_bytes, peak_memory_bytes
from harness_tuning.gates import Gate, check_start, without_trace
from harness_tuning.learner import Learner, is_out_of_memory
from harness_tuning.optimizer import MasterAdamW
from harness_tuning.sources import Epochs
from harness_tuning.world import own_part

SMALL_TOKENS = 256
SHARE = 0.02  # of the run's time, for batches beyond the first
LEAST_S = 0.5  # so much is spent in any case
MOST_S = 10.0  # so much may be spent on the widest batch alone, whatever its share
MOST_BATCHES = 8
COPIED_WEIGHTS = 5_000_000
ADAM_BYTES = 8  # a trained weight has two moments in float32


@dataclass(frozen=True, slots=True)
class Estimate:
    """The time and memory that the rest of a run will take. `peak_bytes` is None where no widest batch was tried."""

    seconds: float
    step_seconds: float
    tokens_per_s: float  # without padding
    peak_bytes: int | None
    free_bytes: int | None  # of the accelerator or the machine, what this process has taken included
    widest_tokens: int  # with padding
    fill: float  # the share of the positions that are no padding
    trial_seconds: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of a run after `step`: the learner, its batches and its validation batches."""

    learner: Learner
    train: Epochs
    validation: Epochs | None
    spec: TuneSpec
    step: int

    @property
    def steps_left(self) -> int:
        """Return the number of steps that are to be done."""
        return self.train.total_steps - self.step


def tried(stretch: Stretch, say: Callable[[str], None]) -> tuple[Gate | None, Estimate]:
    """Pass the gates before step 1, and try some batches for time and memory: smaller ones, where it runs out."""
    learner, source, world = stretch.learner, stretch.train, stretch.learner.world
    while True:
        gate: Gate | None = None
        cost: Estimate | None = None
        try:
            with without_trace(learner):
                if stretch.step == 0:
                    small = small_part(stretch)
                    gate = check_start(learner.among_peers(), source.batch(small), halves_of(source, small))
            with without_trace(learner):
                cost = estimate(stretch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if learner.is_sharded:
                raise source.too_large(stretch.step + 1) from error
        if not world.any(cost is None, learner.device):
            assert cost is not None
            return gate, cost
        free_memory()
        say(source.halve(stretch.step + 1))


def estimate(stretch: Stretch) -> Estimate:
    """Run a few batches of the plan, in `without_trace`, and return what the run will take."""
    began = time.perf_counter()
    sizes, learner, size = stretch.train.sizes, stretch.learner.among_peers(), stretch.learner.world.size
    steps = _first_steps(stretch)
    every = [part for parts in steps for part in parts]
    left = stretch.steps_left
    positions = sum(part.positions for part in every) / len(steps) * left
    tokens = sum(sizes.tokens[index] for part in every for index in part.items) / len(steps) * left
    widest = max(every, key=lambda part: (part.positions, sizes.longest[part.items[0]]))

    def is_long(seconds: float, allowed: float) -> bool:  # for any of those that compute at once
        return learner.world.any(seconds > allowed, learner.device)

    stretch = replace(stretch, learner=learner)
    small = small_part(stretch)
    _timed(stretch, small)  # buffers and kernels of the first use
    small_s = _timed(stretch, small)
    forward_share = _timed(stretch, small, backward=False) / small_s
    per_token = small_s / small.positions
    optimizer_s = _optimizer_seconds(stretch)

    peak = None
    if not is_long(widest.positions * per_token, max(MOST_S, SHARE * positions * per_token)):
        if learner.device.type != "cpu":  # which compiles kernels for its size, and takes memory, the first time
            _timed(stretch, widest)
        tried, seconds = widest.positions, _timed(stretch, widest)
        peak = _peak_bytes(learner)
        per_token = seconds / tried
        for part in _spread(every, MOST_BATCHES):
            spent = time.perf_counter() - began
            if is_long(spent + part.positions * per_token, max(LEAST_S, SHARE * positions * per_token)):
                break
            seconds += _timed(stretch, part)
            tried += part.positions
            per_token = seconds / tried
    per_token /= size  # the batches of a step are shared out
    step_s = positions / left * per_token + optimizer_s
    return Estimate(
        seconds=left * step_s + _forward_only_positions(stretch) * per_token * forward_share,
        step_seconds=step_s,
        tokens_per_s=tokens / left / step_s,
        peak_bytes=peak,
        free_bytes=free_memory_bytes(learner.device),
        widest_tokens=widest.positions,
        fill=tokens / positions,
        trial_seconds=time.perf_counter() - began,
    )


def small_part(stretch: Stretch) -> Part:
    """Return the first items of the next step, as many as have at most SMALL_TOKENS with padding, at least one."""
    source = stretch.train
    first, *rest = source.parts(stretch.step + 1)[-1].items  # the smallest batch
    part = source.part([first])
    for index in rest:
        if (more := source.part([*part.items, index])).positions > SMALL_TOKENS:
            break
        part = more
    return part


def halves_of(source: Epochs, part: Part) -> list[Batch]:
    """Return the items of a part in two batches; none where it has one item."""
    middle = len(part.items) // 2
    return [source.batch(source.part(items)) for items in (part.items[:middle], part.items[middle:])] if middle else []


def _first_steps(stretch: Stretch) -> list[list[Part]]:
    """Return the batches of each step that is left, at most an epoch of them: the next epochs are like it."""
    source = stretch.train
    first, last = stretch.step + 1, source.total_steps
    last = min(last, first + source.schedule.total_steps(1) - 1)
    return [source.parts(step, stretch.learner.world.size) for step in range(first, last + 1)]


def _spread(parts: list[Part], count: int) -> list[Part]:
    return parts[:: max(1, len(parts) // count)][:count]


def _timed(stretch: Stretch, part: Part, backward: bool = True) -> float:
    """Return the seconds of one batch, from the items to the gradients, or to the loss alone."""
    learner = stretch.learner
    batch = stretch.train.batch(part)
    if stretch.train.prepared is None:
        batch = learner.prepared(batch)
    began = time.perf_counter()
    (batch,) = learner.observed([batch])
    with torch.set_grad_enabled(backward):
        mean = learner.value(batch)
        if backward:
            mean.backward()
    float(mean.detach())  # waits for an accelerator
    return time.perf_counter() - began


def _optimizer_seconds(stretch: Stretch) -> float:
    """Return the seconds of one optimizer step, timed on copies of the weights, or of some where they are many."""
    copies = torch.nn.ParameterDict()
    copied = 0
    weights = [own_part(weight) for weight in stretch.learner.optimizer.weights.values()]
    for number, weight in enumerate(weights):
        if copied and copied + weight.numel() > COPIED_WEIGHTS:
            continue
        copies[str(number)] = torch.nn.Parameter(weight.detach().clone())
        copied += weight.numel()
    spec = stretch.spec
    optimizer = MasterAdamW(copies, spec)

    def step() -> float:
        for master in optimizer.masters.values():
            master.grad = torch.zeros_like(master)
        began = time.perf_counter()
        float(optimizer.step(spec.learning_rate, spec.max_grad_norm))  # waits for an accelerator
        return time.perf_counter() - began

    step()
    share: float = sum(weight.numel() for weight in weights) / max(copied, 1)
    return step() * share


def _forward_only_positions(stretch: Stretch) -> int:
    """Return the positions of the validation passes that are left, and of the figures of the starting state."""
    prepare = 0
    if stretch.learner.objective.prepare is not None and stretch.train.prepared is None:
        prepare = _positions_of_an_epoch(stretch.train)
    if stretch.validation is None:
        return prepare
    one = _positions_of_an_epoch(stretch.validation)
    total, every = stretch.train.total_steps, stretch.spec.validate_every
    passes = {total} | ({0} if stretch.step == 0 else set())
    if every:
        passes |= set(range((stretch.step // every + 1) * every, total, every))
    return one * (len(passes) + bool(prepare)) + prepare


def _positions_of_an_epoch(source: Epochs) -> int:
    steps = range(1, source.schedule.total_steps(1) + 1)
    return sum(part.positions for step in steps for part in source.parts(step))


def _peak_bytes(learner: Learner) -> int:
    """Return the most memory that was taken so far, and what the optimizer will take beside it."""
    moments = 0 if learner.optimizer.adamw.state else ADAM_BYTES * learner.trainable
    return peak_memory_bytes(learner.device) + moments
