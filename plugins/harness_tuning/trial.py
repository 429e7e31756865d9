"""A few batches tried before the first step, for the time and memory that the run will take.

Nothing is learnt: gradients are let go, the random state is put back, and the optimizer is timed on copies. The trial ends
after a small share of the run's time, so that a long run says early how long it is and a short one stays short.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_tuning.batches import padded_tokens, plan_epoch
from harness_tuning.optimizer import MasterAdamW

if TYPE_CHECKING:
    from harness_tuning.loop import Tuner

SMALL_TOKENS = 256
SHARE = 0.02  # of the run's time, for batches beyond the first
LEAST_S = 0.5  # so much is spent in any case
MOST_S = 10.0  # so much may be spent on the widest batch alone, whatever its share
MOST_BATCHES = 8
COPIED_WEIGHTS = 5_000_000
ADAM_BYTES = 8  # a trained weight has two moments in float32


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the rest of a run will take. `peak_bytes` is None where the widest batch was too long to be tried."""

    seconds: float
    step_seconds: float
    tokens_per_s: float  # without padding
    peak_bytes: int | None
    free_bytes: int | None  # of the accelerator or the machine, what this process has taken included
    widest_tokens: int  # with padding
    trial_seconds: float


def estimate(tuner: Tuner) -> Estimate:
    """Run a few batches of the plan forward and backward, leave no trace of them, and return what the run will take."""
    began = time.perf_counter()
    with _without_trace(tuner):
        return _estimate(tuner, began)


def _estimate(tuner: Tuner, began: float) -> Estimate:
    lengths = tuner.data.train.examples.lengths()
    batches = _first_batches(tuner)
    left = tuner.total_steps - tuner.progress.step
    padded = sum(padded_tokens(lengths, batch) for step in batches for batch in step) / len(batches) * left
    tokens = sum(lengths[index] for step in batches for batch in step for index in batch) / len(batches) * left
    every = [batch for step in batches for batch in step]
    widest = max(every, key=lambda batch: (padded_tokens(lengths, batch), lengths[batch[-1]]))

    small = _part(lengths, every[0], SMALL_TOKENS)
    _timed(tuner, small[:1])  # whatever is made when it is first used
    small_s, small_tokens = _timed(tuner, small), padded_tokens(lengths, small)
    forward_share = _timed(tuner, small, backward=False) / small_s
    per_token = small_s / small_tokens
    optimizer_s = _optimizer_seconds(tuner)

    peak = None
    if padded_tokens(lengths, widest) * per_token <= max(MOST_S, SHARE * padded * per_token):
        tried, seconds = padded_tokens(lengths, widest), _timed(tuner, widest)
        peak = _peak_bytes(tuner)
        per_token = seconds / tried
        for batch in _spread(every, MOST_BATCHES):
            spent = time.perf_counter() - began
            if spent + padded_tokens(lengths, batch) * per_token > max(LEAST_S, SHARE * padded * per_token):
                break
            seconds += _timed(tuner, batch)
            tried += padded_tokens(lengths, batch)
            per_token = seconds / tried
    step_s = padded / left * per_token + optimizer_s
    return Estimate(
        seconds=left * step_s + _forward_only_tokens(tuner) * per_token * forward_share,
        step_seconds=step_s,
        tokens_per_s=tokens / left / step_s,
        peak_bytes=peak,
        free_bytes=free_memory_bytes(tuner.device),
        widest_tokens=padded_tokens(lengths, widest),
        trial_seconds=time.perf_counter() - began,
    )


@contextmanager
def _without_trace(tuner: Tuner) -> Iterator[None]:
    """Put random state, gradients and mode back as they were."""
    import torch

    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        tuner.model.zero_grad(set_to_none=True)
        tuner.optimizer.adamw.zero_grad(set_to_none=True)
        tuner.model.train()
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)


def _first_batches(tuner: Tuner) -> list[list[list[int]]]:
    """The batches of each step that is left, at most an epoch of them: the next epochs are like it."""
    first, last = tuner.progress.step + 1, tuner.total_steps
    last = min(last, first + tuner.schedule.total_steps(1) - 1)
    return [tuner.schedule.batches_of(step)[1] for step in range(first, last + 1)]


def _part(lengths: Any, batch: list[int], most_tokens: int) -> list[int]:
    """The first rows of a batch, as many as have at most `most_tokens` with padding, at least one."""
    rows = batch[:1]
    for index in batch[1:]:
        if padded_tokens(lengths, [*rows, index]) > most_tokens:
            break
        rows.append(index)
    return rows


def _spread(batches: list[list[int]], count: int) -> list[list[int]]:
    return batches[:: max(1, len(batches) // count)][:count]


def _timed(tuner: Tuner, indices: list[int], backward: bool = True) -> float:
    """Seconds of one batch, from the examples to the gradients, or to the loss alone."""
    import torch

    began = time.perf_counter()
    batch = tuner.collate([tuner.data.train.examples[index] for index in indices])
    with torch.set_grad_enabled(backward):
        loss = tuner.objective.loss(tuner.model, batch.input_ids, batch.loss_mask, tuner.spec)
        if backward:
            (loss / batch.supervised).backward()
    float(loss.detach())  # waits for an accelerator
    return time.perf_counter() - began


def _optimizer_seconds(tuner: Tuner) -> float:
    """Seconds of one optimizer step, timed on copies of the weights, or of some where they are many."""
    import torch

    copies = torch.nn.ParameterDict()
    copied = 0
    for number, weight in enumerate(tuner.optimizer.weights.values()):
        if copied and copied + weight.numel() > COPIED_WEIGHTS:
            continue
        copies[str(number)] = torch.nn.Parameter(weight.detach().clone())
        copied += weight.numel()
    optimizer = MasterAdamW(copies, tuner.spec)

    def step() -> float:
        for master in optimizer.masters.values():
            master.grad = torch.zeros_like(master)
        began = time.perf_counter()
        optimizer.step(tuner.spec.learning_rate, tuner.spec.max_grad_norm)  # returns a float: waits for an accelerator
        return time.perf_counter() - began

    step()
    return step() * tuner.trainable / copied


def _forward_only_tokens(tuner: Tuner) -> int:
    """The tokens, with padding, of the validation passes that are left."""
    if tuner.data.validation is None:
        return 0
    lengths = tuner.data.validation.examples.lengths()
    one = sum(padded_tokens(lengths, batch) for batch in plan_epoch(lengths, tuner.validation_budget(), 0, 0))
    done, every = tuner.progress.step, tuner.spec.validate_every
    passes = {tuner.total_steps} | ({0} if done == 0 else set())
    if every:
        passes |= set(range((done // every + 1) * every, tuner.total_steps, every))
    return one * len(passes)


def _peak_bytes(tuner: Tuner) -> int:
    """The most memory that was taken so far, and what the optimizer will take beside it."""
    moments = 0 if tuner.optimizer.adamw.state else ADAM_BYTES * tuner.trainable
    return peak_memory_bytes(tuner.device) + moments


def peak_memory_bytes(device: Any) -> int:
    """The most memory that was taken: of the accelerator, or of this process on a CPU."""
    import resource

    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def free_memory_bytes(device: Any) -> int | None:
    """The memory that this process may take in all; None where the system does not say."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    taken = _kib(Path("/proc/self/status"), "VmRSS:")
    free = _kib(Path("/proc/meminfo"), "MemAvailable:")
    if taken is None or free is None:
        return None
    limit = _text(Path("/sys/fs/cgroup/memory.max")).strip()
    machine = (free + taken) * 1024
    return min(machine, int(limit)) if limit.isdigit() else machine


def _kib(path: Path, name: str) -> int | None:
    values = (line.split()[1] for line in _text(path).splitlines() if line.startswith(name))
    return next(map(int, values), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
