"""Gates before the first step: the model, its method and its objective are what they claim to be, on a small batch.

Nothing is trained: gradients and random state are put back by `without_trace`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import harness
from harness.checks.objectives import check_shift, check_sums
from harness.contract.batches import Batch
from harness.contract.objectives import value_at_start
from harness.errors import listed
from harness.files import read_json
from harness.model.forward import causal_lm, plain_logits
from harness_tuning.checkpoint import random_state, restore_random
from harness_tuning.learner import Learner
from harness_tuning.precision import in_float32
from harness_tuning.probes import mean_difference, measure_probes

# Mean absolute difference of log-probabilities in nats, both computed in float32.
LARGEST_DIFFERENCE = 1e-3
ROUNDING = {"float32": 1e-3, "other": 0.05}  # the same where each is computed in the model's own dtype
LARGEST_DIFFERENCE_AT_START = 1e-4  # of the loss, relative to its value where that is above 1


@dataclass(frozen=True, slots=True)
class Gate:
    """Figures of the gates that were passed: of a batch of `supervised` tokens, over `layers` that are trained.

    `difference` is of the fast log-probabilities and the plain ones, in nats; `at_start` the loss where the objective
    knows it. `unseen` are experts that no token of the batch reached.
    """

    supervised: int
    layers: int
    difference: float
    at_start: float | None
    unseen: tuple[str, ...]


@contextmanager
def without_trace(learner: Learner) -> Iterator[None]:
    """Put random state, gradients and mode back as they were."""
    random = random_state()
    try:
        yield
    finally:
        learner.model.zero_grad(set_to_none=True)
        learner.optimizer.adamw.zero_grad(set_to_none=True)
        learner.model.train()
        restore_random(random)


def check_start(learner: Learner, batch: Batch, halves: Sequence[Batch] = ()) -> Gate:
    """Run all gates on a batch with something to learn, in `without_trace`. Raises HarnessError or ModelError.

    Args:
        halves: the items of the batch in two others, if it has several.
    """
    if not batch.supervised:
        raise harness.HarnessError(
            "the first batch has no supervised token, so that training on it would change nothing: "
            "`harness template show` prints what the loss mask marks"
        )
    learner.model.eval()  # without dropout, so that two passes can be compared
    with in_float32():
        (exact,) = learner.observed([learner.prepared(batch)])
    difference, at_start = check_fast_loss(learner, exact), check_value_at_start(learner, exact)
    check_objective(learner, exact, halves)
    (batch,) = learner.observed([learner.prepared(batch)])
    layers, unseen = check_gradients(learner, batch) if learner.is_adapter else (0, ())
    return Gate(batch.supervised, layers, difference, at_start, unseen)


def check_fast_loss(learner: Learner, batch: Batch) -> float:
    """Return how far the log-probabilities that tuning computes are from those of the model's own logits, in nats.

    Raises ModelError where that is more than rounding.
    """
    with in_float32():
        fast, plain = learner.policy.logprobs(batch), plain_logprobs(learner.model, batch)
    difference = float((fast - plain).abs().mean())
    if not difference <= LARGEST_DIFFERENCE:
        raise harness.ModelError(
            f"{type(causal_lm(learner.model)).__name__}: the log-probabilities that tuning computes differ from those "
            f"of the model's own logits by {difference:.3g} nats on average, expected at most "
            f"{LARGEST_DIFFERENCE:g} in float32; please report the architecture"
        )
    return difference


def check_value_at_start(learner: Learner, batch: Batch) -> float | None:
    """Return the loss where the objective knows it at step 0. Raises HarnessError where the loss is another."""
    objective = learner.objective
    with in_float32(), torch.no_grad():
        start = value_at_start(objective, learner.options, lambda: learner.loss(batch), batch)
    if start is None:
        return None
    value, expected = start
    if not abs(value - expected) <= LARGEST_DIFFERENCE_AT_START * max(1.0, abs(expected)):
        raise harness.HarnessError(
            f"the objective {objective.name!r} begins with a loss of {value:.4f}, expected {expected:.4f} within "
            f"{LARGEST_DIFFERENCE_AT_START:g} (its `value_at_start`): the policy is not in its starting state, or the "
            f"loss is not what it claims to be"
        )
    return value


def check_objective(learner: Learner, batch: Batch, halves: Sequence[Batch]) -> None:
    """Raise HarnessError for a loss that is no sum over its units, or that depends on what predicts nothing.

    A head reads the last token of each document, which is then no token that predicts nothing.
    """
    name = learner.objective.name
    with in_float32(), torch.no_grad():
        if halves and learner.objective.observe is None:  # whose figures are of a whole step
            check_sums(name, learner.loss, batch, [learner.prepared(half) for half in halves])
        if learner.objective.head is None:
            check_shift(name, learner.loss, batch)


def check_gradients(learner: Learner, batch: Batch) -> tuple[int, tuple[str, ...]]:
    """Return the number of trained layers, and the experts that no token of the batch reached.

    Of a layer with LoRA it is B that needs a gradient: with B = 0, A has none yet. The experts of a layer count
    together. Raises HarnessError for a layer without a gradient, or with one that is not finite.
    """
    learner.value(batch).backward()
    norms: dict[str, float] = defaultdict(float)
    experts: dict[str, float] = defaultdict(float)
    moving = {
        name: 0.0 if master.grad is None else float(master.grad.norm())
        for name, master in learner.optimizer.masters.items()
    }
    with_b = {adapted_layer(name) for name in moving if ".lora_B." in name}
    for name, norm in moving.items():
        layer = adapted_layer(name)
        counts = layer not in with_b or ".lora_B." in name or not math.isfinite(norm)
        norms[layer] += norm if counts else 0.0
        if expert := _expert(name):
            experts[expert] += norm
    if broken := [layer for layer, norm in norms.items() if not math.isfinite(norm)]:
        raise harness.HarnessError(
            f"the gradient is not finite before the first step, in {len(broken)} of {len(norms)} trained layers: "
            f"{listed(broken[:3])}. Use model.dtype: bfloat16 or float32"
        )
    if idle := [layer for layer, norm in norms.items() if norm == 0.0]:
        raise harness.HarnessError(
            f"{len(idle)} of {len(norms)} trained layers get no gradient from a batch of {batch.supervised} supervised "
            f"tokens: {listed(idle[:3])}. The model computes without what was put on them, or the objective does not "
            f"depend on it: leave them out of tune.method.target_modules"
        )
    return len(norms), tuple(expert for expert, norm in experts.items() if norm == 0.0)


def _expert(parameter: str) -> str | None:
    """Return the expert that a trained parameter belongs to, if it belongs to one alone."""
    match = re.match(r"(?:base_model\.model\.)?(.*\bexperts\.\d+)\b", parameter)
    return match[1] if match else None


def check_unchanged(before: list[list[float]], after: list[list[float]], method: str) -> None:
    """Raise HarnessError where a method changed the model before step 1 (log-probabilities, in nats)."""
    difference = mean_difference(before, after)
    if not difference <= LARGEST_DIFFERENCE:
        raise harness.HarnessError(
            f"the method {method!r} changes what the model says before anything is trained: log-probabilities differ "
            f"by {difference:.3g} nats on average, expected at most {LARGEST_DIFFERENCE:g} in float32. An adapter "
            f"begins with a difference of zero (in LoRA, B = 0)"
        )


def check_goes_on(saved: Mapping[str, Any], now: list[list[float]], model: Any, run: str) -> None:
    """Raise HarnessError where a model with a run's adapter does not say what it said when that run ended.

    Args:
        saved: the run's probes.json.
        now: the log-probabilities of its probes, measured now.
    """
    difference = mean_difference([probe["tuned"] for probe in saved["probes"]], now)
    allowed = allowed_difference(model) if saved["dtype"] == _dtype_of(model) else ROUNDING["other"]
    if not difference <= allowed:
        raise harness.HarnessError(
            f"the adapter of {run} does not give what it gave when that run ended: log-probabilities of its probes "
            f"differ by {difference:.3g} nats on average, expected at most {allowed:g}. Its files have changed"
        )


def allowed_difference(model: Any) -> float:
    """Return the largest mean difference of log-probabilities that rounding in a model's dtype explains, in nats."""
    return ROUNDING.get(_dtype_of(model), ROUNDING["other"])


def _dtype_of(model: Any) -> str:
    """Return the dtype of a model's embeddings, as recipes name it."""
    return str(causal_lm(model).get_input_embeddings().weight.dtype).removeprefix("torch.")


def plain_logprobs(model: Any, batch: Batch) -> Tensor:
    """Return the log-probability of each target from the model's own full logits in float32, [n]: the reference."""
    logits = plain_logits(model, batch).flatten(0, 1)[batch.targets.source].float()
    return logits.log_softmax(-1).gather(1, batch.targets.token_id[:, None])[:, 0]


def adapted_layer(parameter: str) -> str:
    """Return the layer that a trained parameter belongs to, experts of one layer together."""
    layer = re.split(r"\.(?:lora_|modules_to_save)", parameter)[0].removesuffix(".weight").removesuffix(".bias")
    return re.sub(r"\bexperts\.\d+\b", "experts.*", layer.removeprefix("base_model.model."))


def check_applied(
    model: Any, method: str, before: list[list[float]], probes: list[dict[str, Any]], start: Path | None
) -> None:
    """Raise HarnessError where the model does not say what it said before, or what the run it starts from says.

    Args:
        before: what it said of the first probe, computed in float32.
        start: the adapter's folder of that run, if it starts from one.
    """
    if start is None:
        with in_float32():
            check_unchanged(before, measure_probes(model, probes[:1]), method)
    elif (path := start.parent / "probes.json").is_file():
        saved = read_json(path)
        check_goes_on(saved, measure_probes(model, saved["probes"]), model, start.parent.name)
