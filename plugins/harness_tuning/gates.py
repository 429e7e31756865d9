"""Gates before the first step: the model, its method and its objective are what they claim to be, on a small batch.

Nothing is trained: gradients and random state are put back by `without_trace`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import harness
from harness.contract.batches import Batch
from harness.errors import listed
from harness.files import read_json
from harness.model.forward import causal_lm, plain_logits
from harness_tuning.checkpoint import random_state, restore_random
from harness_tuning.learner import Learner
from harness_tuning.probes import measure_probes

# Mean absolute difference of log-probabilities, in nats: products of other shapes round otherwise.
LARGEST_DIFFERENCE = {"float32": 1e-3, "other": 0.05}
LARGEST_DIFFERENCE_AT_START = 0.02  # of the loss, relative to its value where that is above 1


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


def check_start(learner: Learner, batch: Batch) -> None:
    """Run all gates on a batch with something to learn, in `without_trace`. Raises HarnessError or ModelError."""
    learner.model.eval()  # without dropout, so that two passes can be compared
    (batch,) = learner.observed([learner.prepared(batch)])
    check_fast_loss(learner, batch)
    check_value_at_start(learner, batch)
    if learner.is_adapter:
        check_gradients(learner, batch)


def check_fast_loss(learner: Learner, batch: Batch) -> None:
    """Raise ModelError where the log-probabilities that tuning computes are not those of the model's own logits."""
    with torch.no_grad():
        fast, plain = learner.policy.logprobs(batch), plain_logprobs(learner.model, batch)
    difference = (fast - plain).abs().mean().item() if len(fast) else 0.0
    if not difference <= allowed_difference(learner.model):
        raise harness.ModelError(
            f"{type(causal_lm(learner.model)).__name__}: the log-probabilities that tuning computes differ from those "
            f"of the model's own logits by {difference:.3g} nats on average, expected at most "
            f"{allowed_difference(learner.model):g}; please report the architecture"
        )


def check_value_at_start(learner: Learner, batch: Batch) -> None:
    """Raise HarnessError where the objective knows its loss at step 0 and the loss is another."""
    objective = learner.objective
    if objective.value_at_start is None:
        return
    if (expected := objective.value_at_start(learner.options)) is None:
        return
    with torch.no_grad():
        value = float(learner.mean(learner.loss(batch), objective.units(batch)))
    if not abs(value - expected) <= LARGEST_DIFFERENCE_AT_START * max(1.0, abs(expected)):
        raise harness.HarnessError(
            f"the objective {objective.name!r} begins with a loss of {value:.4f}, expected {expected:.4f} (its "
            f"`value_at_start`): the policy is not in its starting state, or the loss is not what it claims to be"
        )


def check_gradients(learner: Learner, batch: Batch) -> None:
    """Raise HarnessError where an adapted layer gets no gradient, or one that is not finite.

    A layer's matrices count together: with B = 0, A has none yet. So do the experts of a layer, some of which no token
    of a small batch may reach.
    """
    learner.mean(learner.loss(batch), learner.objective.units(batch)).backward()
    norms: dict[str, float] = defaultdict(float)
    for name, master in learner.optimizer.masters.items():
        norms[adapted_layer(name)] += 0.0 if master.grad is None else float(master.grad.norm())
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


def check_unchanged(before: list[list[float]], after: list[list[float]], model: Any, method: str) -> None:
    """Raise HarnessError where a method changed the model before step 1 (log-probabilities, in nats)."""
    pairs = [pair for one, other in zip(before, after, strict=True) for pair in zip(one, other, strict=True)]
    difference = sum(abs(one - other) for one, other in pairs) / max(len(pairs), 1)
    if not difference <= allowed_difference(model):
        raise harness.HarnessError(
            f"the method {method!r} changes what the model says before anything is trained: log-probabilities differ "
            f"by {difference:.3g} nats on average, expected at most {allowed_difference(model):g}. An adapter begins "
            f"with a difference of zero (in LoRA, B = 0)"
        )


def check_goes_on(saved: Mapping[str, Any], now: list[list[float]], model: Any, run: str) -> None:
    """Raise HarnessError where a model with a run's adapter does not say what it said when that run ended.

    Args:
        saved: the run's probes.json.
        now: the log-probabilities of its probes, measured now.
    """
    expected = [probe["tuned"] for probe in saved["probes"]]
    pairs = [pair for one, other in zip(expected, now, strict=True) for pair in zip(one, other, strict=True)]
    difference = sum(abs(one - other) for one, other in pairs) / max(len(pairs), 1)
    dtype = str(causal_lm(model).get_input_embeddings().weight.dtype).removeprefix("torch.")
    allowed = allowed_difference(model) if saved["dtype"] == dtype else LARGEST_DIFFERENCE["other"]
    if not difference <= allowed:
        raise harness.HarnessError(
            f"the adapter of {run} does not give what it gave when that run ended: log-probabilities of its probes "
            f"differ by {difference:.3g} nats on average, expected at most {allowed:g}. Its files have changed"
        )


def plain_logprobs(model: Any, batch: Batch) -> Tensor:
    """Return the log-probability of each target from the model's own full logits in float32, [n]: the reference."""
    logits = plain_logits(model, batch).flatten(0, 1)[batch.targets.source].float()
    return logits.log_softmax(-1).gather(1, batch.targets.token_id[:, None])[:, 0]


def allowed_difference(model: Any) -> float:
    """Return the largest mean difference of log-probabilities that rounding explains, in nats."""
    dtype = str(causal_lm(model).get_input_embeddings().weight.dtype).removeprefix("torch.")
    return LARGEST_DIFFERENCE.get(dtype, LARGEST_DIFFERENCE["other"])


def adapted_layer(parameter: str) -> str:
    """Return the layer that a trained parameter belongs to, experts of one layer together."""
    layer = re.split(r"\.(?:lora_|modules_to_save)", parameter)[0].removesuffix(".weight").removesuffix(".bias")
    return re.sub(r"\bexperts\.\d+\b", "experts.*", layer.removeprefix("base_model.model."))


def check_applied(
    model: Any, method: str, before: list[list[float]], probes: list[dict[str, Any]], start: Path | None
) -> None:
    """Raise HarnessError where the model does not say what it said before, or what the run it starts from says.

    Args:
        start: the adapter's folder of that run, if it starts from one.
    """
    if start is None:
        check_unchanged(before[:1], measure_probes(model, probes[:1]), model, method)
    elif (path := start.parent / "probes.json").is_file():
        saved = read_json(path)
        check_goes_on(saved, measure_probes(model, saved["probes"]), model, start.parent.name)
