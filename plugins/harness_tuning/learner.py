"""The gradient of a step: terms of the loss, each divided by its units over the whole step and all processes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

import harness
from harness.contract.batches import Batch
from harness.contract.objectives import Loss
from harness.model.batching import nothing
from harness.model.load import free_memory
from harness.model.policy import ModelPolicy
from harness_tuning.optimizer import MasterAdamW
from harness_tuning.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a step or of the validation data: the loss, and what is watched beside it, over all processes.

    `metrics` are the objective's own and, where there are several, the loss's terms.
    """

    loss: float
    metrics: Mapping[str, float]
    tokens: int
    supervised: int
    padded: int  # positions, padding included
    pairs: float  # the sum of the documents' squared lengths


@dataclass(frozen=True, slots=True)
class Launched:
    """A step that the device has been given: its figures are still there. `random` is the random state before it."""

    step: int
    figures: Callable[[], Figures]
    norm: Callable[[], list[float]]
    learning_rate: float
    random: Mapping[str, Tensor]


@dataclass(slots=True)
class Learner:
    """A policy, the objective it is trained by, and the optimizer that moves its weights."""

    policy: ModelPolicy
    objective: harness.Objective
    options: Any
    optimizer: MasterAdamW
    device: torch.device
    world: World
    is_adapter: bool  # beside weights that stay, so that each of its layers gets a gradient from any batch
    is_sharded: bool = False  # each process has a part of the weights, so that all compute at once

    @property
    def model(self) -> Any:
        """Return the policy's model."""
        return self.policy.model

    @property
    def trainable(self) -> int:
        """Return the number of weights that move."""
        return sum(weight.numel() for weight in self.optimizer.weights.values())

    def among_peers(self) -> Learner:
        """Return the learner for a trial: without the other processes, unless nothing can be computed without them."""
        return self if self.is_sharded else replace(self, world=World())

    def backward(self, batches: Sequence[Batch]) -> Callable[[], Figures] | None:
        """Add the gradient of the batches' loss to the master weights' gradients.

        Returns a function that reads the step's figures, and waits for the device. Returns None, and leaves no
        gradient, where a process has run out of memory: all of them agree on it.
        """
        batches = self._levelled(batches)
        units = self._units(batches)
        seen = {} if self.objective.observe is None else self._fits(lambda: self._seen(batches))
        sums = None
        if seen is not None:
            sums = self._fits(lambda: self._added(self._with_means(batches, seen), units))
        if sums is None:
            self.optimizer.adamw.zero_grad(set_to_none=True)
            self.model.zero_grad(set_to_none=True)
            free_memory()
            return None
        self.optimizer.add_gradients()
        return self._read_later(units, sums)

    def _fits(self, compute: Callable[[], T]) -> T | None:
        """Return what is computed, None where the memory of any process did not suffice.

        Raises:
            OutOfMemory: where the weights are shared out, so that the others wait in the middle of their pass.
        """
        result: T | None = None
        try:
            result = compute()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if self.is_sharded:
                raise OutOfMemory(str(error)) from error
        return None if self.world.any(result is None, self.device) else result

    def _added(self, batches: Sequence[Batch], units: Mapping[str, float]) -> _Sums:
        """Add this process's share of the gradient, and return its sums."""
        sums = _Sums(self.device)
        scale = gradient_scale(units) if self.optimizer.is_half else 1.0
        for batch in batches:
            loss = self.loss(batch)
            (loss.mean(units) * scale).backward()
            sums.add(batch, loss)
        if scale != 1.0:
            self.optimizer.divide_gradients(scale)
        return sums

    def measure(self, batches: Iterable[Batch]) -> Figures:
        """Return the figures of the batches in the model's mode for evaluation, without a gradient."""
        units: Counter[str] = Counter()
        sums = _Sums(self.device)
        self.model.eval()
        with torch.no_grad():
            for batch in batches if self.objective.observe is None else self.observed(list(batches)):
                sums.add(batch, self.loss(batch))
                units.update(self.objective.units(batch))
        self.model.train()
        return self._read_later(self.world.sum(units, self.device), sums)()

    def loss(self, batch: Batch) -> Loss:
        """Return the objective's loss of a batch. Raises HarnessError where its terms are not those of `units`."""
        loss = self.objective.loss(self.policy, batch, self.options)
        if loss.terms.keys() != (counted := self.objective.units(batch).keys()):
            raise harness.HarnessError(
                f"the objective {self.objective.name!r} returns the terms {', '.join(sorted(loss.terms)) or 'none'}, "
                f"and counts units of {', '.join(sorted(counted)) or 'none'}: expected the same names"
            )
        return loss

    def prepare(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the figures of the batch's documents in the model's state of now, without a gradient."""
        if self.objective.prepare is None:
            return {}
        with torch.no_grad():
            return self.objective.prepare(self.policy, batch, self.options)

    def prepared(self, batch: Batch) -> Batch:
        """Return a batch of the starting state with its figures, for trials before they are computed for all data."""
        observed = tuple(with_extras(one, self.prepare(one)) for one in batch.observed)
        return replace(with_extras(batch, self.prepare(batch)), observed=observed)

    def observed(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """Return the batches of a whole step with what the objective observes in them, over all processes."""
        batches = self._levelled(batches)
        return self._with_means(batches, self._seen(batches))

    def _levelled(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """Return the batches with as many that are observed beside each as other processes have, where all compute."""
        if not self.is_sharded or self.objective.observe is None:
            return batches
        counts = [len(batch.observed) for batch in batches]
        most = [-int(least) for least in self.world.least([-count for count in counts], self.device)]
        return [
            replace(batch, observed=(*batch.observed, *[nothing(0, self.device)] * (wanted - count)))
            for batch, count, wanted in zip(batches, counts, most, strict=True)
        ]

    def _seen(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Return sums and counts of what the objective observes, in this process."""
        if self.objective.observe is None:
            return {}
        was_training = self.model.training
        self.model.eval()  # without dropout
        with torch.no_grad():
            seen = self.objective.observe(self.policy, batches, self.options)
        self.model.train(was_training)
        own = {f"sum/{name}": float(metric.sum) for name, metric in seen.items()}
        return own | {f"count/{name}": float(metric.count) for name, metric in seen.items()}

    def _with_means(self, batches: Sequence[Batch], seen: Mapping[str, float]) -> Sequence[Batch]:
        """Return the batches with the means over all processes of what was seen."""
        if not seen:
            return batches
        every = self.world.sum(seen, self.device)
        names = [name.removeprefix("sum/") for name in seen if name.startswith("sum/")]
        means = {name: every[f"sum/{name}"] / (every[f"count/{name}"] or 1) for name in names}
        return [
            with_extras(
                batch,
                {name: torch.full((len(batch.roles),), mean, device=self.device) for name, mean in means.items()},
            )
            for batch in batches
        ]

    def value(self, batch: Batch) -> Tensor:
        """Return the mean loss of one batch alone, in this process, with its gradient."""
        return self.loss(batch).mean(self.objective.units(batch))

    def _units(self, batches: Sequence[Batch]) -> dict[str, float]:
        counts: Counter[str] = Counter()
        for batch in batches:
            counts.update(self.objective.units(batch))
        return self.world.sum(counts, self.device)

    def _read_later(self, units: Mapping[str, float], sums: _Sums) -> Callable[[], Figures]:
        """Send the sums to the host, behind the work that is queued, and return the function that reads them."""
        tensors = {f"term/{name}": total for name, total in sums.terms.items()}
        tensors |= {f"sum/{name}": total for name, total in sums.metrics.items()}
        tensors |= {"pairs": sums.pairs}
        values = on_its_way(torch.stack([total.double() for total in tensors.values()]))
        return partial(self._figures, units, sums, tuple(tensors), values)

    def _figures(
        self, units: Mapping[str, float], sums: _Sums, names: Sequence[str], values: Callable[[], list[float]]
    ) -> Figures:
        own = dict(zip(names, values(), strict=True))
        own |= {f"count/{name}": float(count) for name, count in sums.counts.items()}
        own |= {"tokens": sums.tokens, "supervised": sums.supervised, "padded": sums.padded}
        every = self.world.sum(own, self.device)
        terms = {name: every[f"term/{name}"] / (units[name] or 1) for name in sums.terms}
        metrics = {name: every[f"sum/{name}"] / (every[f"count/{name}"] or 1) for name in sums.metrics}
        return Figures(
            loss=sum(sums.weights[name] * mean for name, mean in terms.items()),
            metrics=metrics | (terms if len(terms) > 1 else {}),
            tokens=int(every["tokens"]),
            supervised=int(every["supervised"]),
            padded=int(every["padded"]),
            pairs=every["pairs"],
        )


def on_its_way(values: Tensor) -> Callable[[], list[float]]:
    """Begin to copy numbers [n] to the host, and return the function that waits for them and returns them.

    It waits for what was queued before the copy, and not for what is queued behind it.
    """
    if values.device.type == "cpu":
        read: Callable[[], list[float]] = values.tolist
        return read
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.Event(values.device)
    copied.record()

    def wait_and_read() -> list[float]:
        copied.synchronize()
        numbers: list[float] = host.tolist()
        return numbers

    return wait_and_read


class OutOfMemory(harness.HarnessError):
    """A process has run out of memory, and the others cannot go on without it.

    `positions` is the size of a batch with which all may begin again.
    """

    positions: int | None = None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a tensor did not fit into memory: an accelerator's own, or a CPU's."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def gradient_scale(units: Mapping[str, float]) -> float:
    """Return the factor of a float16 model's loss, a power of 2 near its units (their geometric mean over its terms).

    Divided by 20,000 tokens before the backward pass, a token's gradient is below what float16 holds (6e-8). The loss
    is differentiated as a sum, about, and the float32 masters are divided.
    """
    counts = [max(count, 1.0) for count in units.values()]
    return float(2.0 ** round(sum(math.log2(count) for count in counts) / max(len(counts), 1)))


def with_extras(batch: Batch, figures: Mapping[str, Tensor]) -> Batch:
    """Return the batch with figures among its extras."""
    return replace(batch, extras={**batch.extras, **figures}) if figures else batch


class _Sums:
    """Sums over batches, on the device: reading them waits for it, and is done once a step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.terms: dict[str, Tensor] = {}
        self.weights: dict[str, float] = {}
        self.metrics: dict[str, Tensor] = {}
        self.counts: dict[str, float] = defaultdict(float)
        self.tokens = self.supervised = self.padded = 0
        self.pairs = torch.zeros((), device=device, dtype=torch.float64)

    def add(self, batch: Batch, loss: Loss) -> None:
        self.tokens += batch.tokens
        self.supervised += batch.supervised
        self.padded += batch.input_ids.numel()
        self.pairs += batch.documents.length.square().sum()
        for name, term in loss.terms.items():
            self.terms[name] = self.terms.get(name, torch.zeros((), device=self.device)) + term.sum.detach()
            self.weights[name] = term.weight
        for name, metric in loss.metrics.items():
            self.metrics[name] = self.metrics.get(name, torch.zeros((), device=self.device)) + metric.sum.detach()
            self.counts[name] += metric.count
