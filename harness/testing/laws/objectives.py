"""Laws of objectives, tried on a tiny model with an adapter: sums, the shift, the value at the start, the gradient."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import peft
import torch

from harness.checks.objectives import check_shift, check_sums
from harness.contract.batches import Batch
from harness.contract.kinds import Kind
from harness.contract.objectives import Loss, value_at_start
from harness.data.encode.items import items_of, sequences_of
from harness.errors import HarnessError
from harness.model.batching import padded
from harness.model.load import load_model
from harness.model.policy import ModelPolicy
from harness.nouns import Item
from harness.plugins.registry import Entry
from harness.recipe import ModelSpec
from harness.template import bind
from harness.testing.laws.items import conversations, preferences
from harness.testing.laws.law import Doubtful, Kit, NotTried
from harness.testing.models import tiny_model, tiny_tokenizer

LARGEST_DIFFERENCE = 1e-4
STEP, LARGEST_SLOPE_DIFFERENCE = 1e-2, 0.02  # of finite differences along the gradient, relative
LONGEST = 128


@dataclass(slots=True)
class Subject:
    """An objective with the policy, the options and the items that it is tried on, in float32."""

    objective: Any
    options: Any
    policy: ModelPolicy
    items: Sequence[Item]

    def batch(self, items: Sequence[Item]) -> Batch:
        """Return a batch with the figures that the objective prepares and observes."""
        batch = padded(items, 0, "cpu")
        if self.objective.beside is not None:
            everything = list(self.items)
            others = [self.objective.beside(everything, everything.index(item), self.options) for item in items]
            batch = replace(batch, observed=(padded(others, 0, "cpu"),))
        with torch.no_grad():
            batch = replace(
                self._with(batch, self._prepared(batch)),
                observed=tuple(self._with(one, self._prepared(one)) for one in batch.observed),
            )
            if self.objective.observe is not None:
                seen = self.objective.observe(self.policy, [batch], self.options)
                means = {name: float(one.sum) / (float(one.count) or 1.0) for name, one in seen.items()}
                figures = {name: torch.full((len(batch.roles),), mean) for name, mean in means.items()}
                batch = self._with(batch, figures)
        return batch

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of a batch."""
        loss: Loss = self.objective.loss(self.policy, batch, self.options)
        return loss

    def mean(self, batch: Batch) -> torch.Tensor:
        """Return the sum of the terms, each by its weight and divided by its units."""
        loss, units = self.loss(batch), self.objective.units(batch)
        if loss.terms.keys() != units.keys():
            raise HarnessError(f"its loss has the terms {', '.join(loss.terms)}; its units are of {', '.join(units)}")
        return loss.mean(units)

    def _prepared(self, batch: Batch) -> Mapping[str, torch.Tensor]:
        if self.objective.prepare is None:
            return {}
        figures: Mapping[str, torch.Tensor] = self.objective.prepare(self.policy, batch, self.options)
        return figures

    @staticmethod
    def _with(batch: Batch, figures: Mapping[str, torch.Tensor]) -> Batch:
        return replace(batch, extras={**batch.extras, **figures})


def begins_at_its_value(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require the loss that the objective says it begins with."""
    subject = _subject(kit, kind, entry)
    with torch.no_grad():
        batch = subject.batch(subject.items)
        start = value_at_start(subject.objective, subject.options, lambda: subject.loss(batch), batch)
    if start is None:
        raise NotTried("it has no `value_at_start`")
    value, expected = start
    if not abs(value - expected) <= LARGEST_DIFFERENCE * max(1.0, abs(expected)):
        raise HarnessError(f"it begins with a loss of {value:.6g}, and `value_at_start` says {expected:.6g}")


def terms_are_sums(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require that the terms of two halves add up to those of the whole."""
    subject = _subject(kit, kind, entry)
    if subject.objective.observe is not None:
        raise NotTried("it observes a whole step")
    middle = len(subject.items) // 2
    with torch.no_grad():
        halves = [subject.batch(items) for items in (subject.items[:middle], subject.items[middle:])]
        check_sums(entry.name, subject.loss, subject.batch(subject.items), halves)


def sees_no_further(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require a loss that does not change with the last tokens, which predict nothing."""
    subject = _subject(kit, kind, entry)
    if subject.objective.head is not None:
        raise NotTried("its head reads the last token")
    with torch.no_grad():
        check_shift(entry.name, subject.loss, subject.batch(subject.items))


def gradient_is_of_its_value(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require a gradient above zero that agrees with finite differences of the loss along it."""
    subject = _subject(kit, kind, entry)
    batch = subject.batch(subject.items)
    weights = [weight for weight in subject.policy.model.parameters() if weight.requires_grad]
    weights += list(subject.policy.head.parameters()) if subject.policy.head is not None else []
    subject.mean(batch).backward()
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in weights]
    norm = float(torch.sqrt(sum((one.double() ** 2).sum() for one in gradients)))
    if not 0 < norm < float("inf"):
        raise HarnessError(f"its gradient has the norm {norm:g}: nothing would be trained")
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight += sign * STEP * gradient / norm
            values.append(float(subject.mean(batch).double()))
    slope = (values[0] - values[1]) / (2 * STEP)
    if not abs(slope - norm) <= LARGEST_SLOPE_DIFFERENCE * norm:
        raise Doubtful(
            f"along its gradient the loss rises by {slope:.5g} per unit, and the gradient says {norm:.5g}: a part "
            f"of it is detached, or computed without a gradient. That may be meant"
        )


LAWS = {
    "it begins at its value": begins_at_its_value,
    "terms are sums": terms_are_sums,
    "it sees no further than its predictions": sees_no_further,
    "its gradient is that of its value": gradient_is_of_its_value,
}


@functools.lru_cache(maxsize=1)
def _template() -> Any:
    """Return a chat template on the tiny tokenizer, with the harness's own registry."""
    from harness.testing.command import plugins

    return bind(plugins(first_party=True).templates["chatml"], tiny_tokenizer())


def _subject(kit: Kit, kind: Kind, entry: Entry[Any]) -> Subject:
    objective, options = entry.item, kit.options(kind, entry)
    folder = kit.folder / "model"
    if not folder.is_dir():
        tiny_model(folder, spread=0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = load_model(ModelSpec(path=str(folder), dtype="float32"))
        lora = peft.LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.0)
        model = peft.get_peft_model(base, lora, autocast_adapter_dtype=False).eval()
        head = None if objective.head is None else objective.head(model.config.hidden_size)
    given = conversations() if objective.reads == "conversations" else preferences()
    sequences = [one for item in given for one in sequences_of(item)]
    encoded = items_of(given, [(one,) for one in _template().encode_batch(sequences)])
    if objective.encode is not None:
        encoded = [one for item in encoded for one in objective.encode(item, _template(), LONGEST, options)]
    if not encoded:
        raise HarnessError("its `encode` leaves nothing of the items that it is given")
    return Subject(objective, options, ModelPolicy(model, head), encoded)
