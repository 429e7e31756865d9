"""Kahneman-Tversky optimisation: completions judged good or bad, each alone, measured from the starting state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import harness
from harness.contract.batches import Batch
from harness.contract.objectives import Policy
from harness.nouns import Example, Item
from harness.options import Options
from harness_tuning.objectives.pairs import REFERENCE, drift, reference
from harness_tuning.objectives.sft import entropies

if TYPE_CHECKING:
    from torch import Tensor

KL = "kl"


class KtoOptions(Options):
    """KTO (Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306).

    With many more of one kind than of the other, its weight should be lower: the paper wants
    desirable_weight * good over undesirable_weight * bad in 1 to 4/3.
    """

    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    desirable_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    undesirable_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


def beside(items: Sequence[Item], index: int, options: KtoOptions) -> Item:
    """Return the item's prompt with the completions of the next item that has another prompt.

    Paired in the data, not in a batch, so that neither the split of a step nor the number of processes changes the KL.
    A completion is cut where the sequence would be longer than both that it is made of.

    Raises HarnessError where all items have the same prompt.
    """
    prompt, _ = _parts(items[index].examples[0])
    for step in range(1, len(items)):
        others = [_parts(example) for example in items[(index + step) % len(items)].examples]
        if list(others[0][0].input_ids) != list(prompt.input_ids):
            break
    else:
        raise harness.HarnessError(
            "the objective 'kto' needs data with at least two different prompts: it measures how far the policy has "
            "moved on prompts with completions of others"
        )
    own = items[index]
    examples = tuple(
        _joined(prompt, *others[number % len(others)], longest=max(len(example), *map(_length, others)))
        for number, example in enumerate(own.examples)
    )
    return replace(own, examples=examples)


def observe(policy: Policy, batches: Sequence[Batch], options: KtoOptions) -> dict[str, harness.Metric]:
    """Return the KL of the policy from the reference (a sum, and how many sequences it is of), at least 0 as a mean."""
    ratios = [_ratios(policy, observed).sum() for batch in batches for observed in batch.observed]
    count = sum(len(observed.roles) for batch in batches for observed in batch.observed)
    return {KL: harness.Metric(sum(ratios[1:], ratios[0]), count)} if ratios else {KL: harness.Metric(0.0, 0)}


def loss(policy: Policy, batch: Batch, options: KtoOptions) -> harness.Loss:
    """Return the sum over the completions."""
    of_targets, entropy = policy.predictions(batch)
    logprobs = batch.by_document(of_targets)
    ratios = logprobs - batch.figures(REFERENCE)
    kl = batch.figures(KL).clamp(min=0)
    good, bad = batch.index("chosen"), batch.index("rejected")
    weight, lengths = batch.figures("weight", 1.0), batch.targets_by_document()
    desirable = desirable_losses(ratios[good], kl[good], options) * weight[good]
    undesirable = undesirable_losses(ratios[bad], kl[bad], options) * weight[bad]
    watched = {KL: harness.Metric(kl.sum(), len(kl))} | drift(batch, ratios) | entropies(entropy)
    for role, documents in (("chosen", good), ("rejected", bad)):
        for name, figures in (("rewards", options.beta * ratios), ("logprobs", logprobs), ("length", lengths)):
            watched[f"{name}_{role}"] = harness.Metric(figures[documents].detach().sum(), len(documents))
    return harness.Loss({"completions": harness.Term(desirable.sum() + undesirable.sum())}, watched)


def desirable_losses(ratios: Tensor, kl: Tensor, options: KtoOptions) -> Tensor:
    """Return the loss of each good completion, from its log-ratio to the reference: equation 8."""
    return options.desirable_weight * (1 - (options.beta * (ratios - kl)).sigmoid())


def undesirable_losses(ratios: Tensor, kl: Tensor, options: KtoOptions) -> Tensor:
    """Return the loss of each bad completion, from its log-ratio to the reference: equation 8."""
    return options.undesirable_weight * (1 - (options.beta * (kl - ratios)).sigmoid())


def units(batch: Batch) -> dict[str, float]:
    """Count the completions, each by the weight of its item."""
    return {"completions": sum(batch.weights[n] for role in ("chosen", "rejected") for n in batch.of_role(role))}


def value_at_start(options: KtoOptions) -> float | None:
    """Return half the weight of a completion, where good and bad ones have the same."""
    return options.desirable_weight / 2 if options.desirable_weight == options.undesirable_weight else None


def _ratios(policy: Policy, batch: Batch) -> Tensor:
    return batch.by_document(policy.logprobs(batch)) - batch.figures(REFERENCE)


def _parts(example: Example) -> tuple[Example, Example]:
    """Return an example's prompt, and its completion from the first supervised token on."""
    start = list(example.loss_mask).index(True)
    ids, mask = example.input_ids, example.loss_mask
    return replace(example, input_ids=ids[:start], loss_mask=mask[:start]), replace(
        example, input_ids=ids[start:], loss_mask=mask[start:]
    )


def _length(parts: tuple[Example, Example]) -> int:
    return sum(map(len, parts))


def _joined(prompt: Example, _: Example, completion: Example, *, longest: int) -> Example:
    ids, mask = [*prompt.input_ids, *completion.input_ids], [*prompt.loss_mask, *completion.loss_mask]
    return replace(prompt, input_ids=ids[:longest], loss_mask=mask[:longest])


OBJECTIVE = harness.Objective(
    "kto",
    "Kahneman-Tversky optimisation: completions judged good or bad; the reference is the starting state",
    KtoOptions,
    loss,
    units,
    reads="preferences",
    value_at_start=value_at_start,
    prepare=reference,
    beside=beside,
    observe=observe,
)
