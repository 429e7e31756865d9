"""The layout of a run's batches: packed rows where they were seen to be the same function of this model, else padded.

Tried on the model at hand with documents of its own data, before any batch is planned: packed, each token must be as
likely as in a row of its own, and changing one document must leave the logits of every other as they were, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from harness.contract.batches import Batch
from harness.errors import HarnessError, first_line
from harness.model.batching import packed, packed_length, padded
from harness.model.forward import causal_lm, plain_logits
from harness.model.logprobs import target_logprobs
from harness.model.varlen import by_document
from harness.nouns import Example, Item
from harness.recipe import TuneSpec
from harness_tuning import batching
from harness_tuning.gates import allowed_difference

TRIED_ITEMS = 3
TRIED_TOKENS = 64  # of each example, at most


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """The layout of a run's batches, how its attention keeps documents apart, and why it is not packed."""

    layout: batching.Layout
    attention: Literal["by document", "by mask"] | None = None
    reason: str | None = None

    def split(self, spec: TuneSpec, sizes: batching.Sizes) -> batching.Split:
        """Return the split of a step into batches: as the recipe says, or in one piece; short rows under a mask."""
        row_tokens = sizes.widest() if self.attention == "by mask" else None  # a mask costs the square of its row
        if spec.microbatch_tokens != "auto":
            return batching.Split(spec.microbatch_tokens, row_tokens)
        return batching.Split.whole(spec.step_tokens, row_tokens)

    def __str__(self) -> str:
        how = f", attention {self.attention}" if self.attention else ""
        return self.layout + how + (f" ({self.reason})" if self.reason else "")


def choose_layout(
    model: Any,
    items: Sequence[Item],
    device: torch.device,
    wanted: Literal["auto", "padded", "packed"],
    begun: Mapping[str, Any] | None = None,
) -> LayoutChoice:
    """Return the layout for a model, which then computes packed rows as the choice says.

    `auto` packs on an accelerator, where attention by document has a kernel of its own. A run that has `begun` with a
    layout goes on with it.

    Raises:
        HarnessError: where packed rows are wanted and the model computes something else with them.
    """
    if begun is not None:
        return _go_on(model, LayoutChoice(**begun))
    if wanted == "padded":
        return LayoutChoice("padded")
    if wanted == "auto" and device.type == "cpu":
        return LayoutChoice("padded", reason="rows of similar length: on a CPU as fast as packed ones")
    some = _some(items)
    lm = causal_lm(model)
    own = lm.config._attn_implementation
    why_not = ""
    for attention in ("by document", "by mask") if wanted == "packed" else ("by document",):
        problem = _switched(lm, own, attention) or why_not_packed(model, some, device)
        if problem is None:
            return LayoutChoice("packed", attention)
        why_not = why_not or problem
        lm.set_attn_implementation(own)
    if wanted == "packed":
        raise HarnessError(f"tune.layout is `packed`, and {type(lm).__name__} cannot: {why_not}. Use `padded`")
    return LayoutChoice("padded", reason=why_not)


def _go_on(model: Any, choice: LayoutChoice) -> LayoutChoice:
    """Make a model compute packed rows as was chosen for it when its run began."""
    lm = causal_lm(model)
    if choice.attention and (problem := _switched(lm, lm.config._attn_implementation, choice.attention)):
        raise HarnessError(f"the run was begun with packed rows, and {type(lm).__name__} cannot go on so: {problem}")
    return choice


def _switched(lm: Any, own: str, attention: str) -> str | None:
    """Let the model compute packed rows with an attention; return why it cannot."""
    if attention == "by mask":
        return None
    try:
        lm.set_attn_implementation(by_document(own))
    except ValueError as error:
        return str(error)
    return None


def why_not_packed(model: Any, items: Sequence[Item], device: torch.device) -> str | None:
    """Return why packed rows are another function of the model than a row for each example; None where they are not."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _first_difference(model, items, device)
    except (HarnessError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        return f"it failed on packed rows: {first_line(error)}"
    finally:
        model.train(was_training)


def _first_difference(model: Any, items: Sequence[Item], device: torch.device) -> str | None:
    rows = packed(items, [range(len(items))], 0, device)
    logits = plain_logits(model, rows)
    ids = causal_lm(model).get_input_embeddings().weight.shape[0]
    for index in range(len(items)):
        changed = [replace(item, examples=_other(item, ids)) if index == at else item for at, item in enumerate(items)]
        after = plain_logits(model, packed(changed, [range(len(items))], 0, device))
        for at, (start, end) in enumerate(_spans(items)):
            if at != index and not torch.equal(logits[0, start:end], after[0, start:end]):
                return "changing a document changes the logits of its neighbours: its layers see past their documents"
    alone, together = (_by_item(model, batch) for batch in (padded(items, 0, device), rows))
    difference = (alone - together).abs().mean().item()
    if not difference <= allowed_difference(model):
        return f"packed, log-probabilities differ by {difference:.3g} nats from those of rows of their own"
    return None


def _by_item(model: Any, batch: Batch) -> torch.Tensor:
    """Return the mean log-probability of each document with targets, in the order of groups and roles."""
    sums, counts = (batch.by_document(figures) for figures in _figures(model, batch))
    order = sorted((g, role, n) for n, (g, role) in enumerate(zip(batch.groups, batch.roles, strict=True)))
    numbers = [number for _, _, number in order if counts[number] > 0]
    return (sums / counts.clamp_min(1))[numbers]


def _figures(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    logprobs = target_logprobs(model, batch)
    return logprobs, torch.ones_like(logprobs)


def _spans(items: Sequence[Item]) -> Iterator[tuple[int, int]]:
    """Yield where each item begins and ends in a row of all."""
    start = 0
    for item in items:
        length = packed_length(item.examples)
        yield start, start + length
        start += length


def _some(items: Sequence[Item]) -> list[Item]:
    """Return a few items, cut short; each example is trained on from where the item's examples part, or all of it."""
    chosen = [items[index] for index in range(0, len(items), max(1, len(items) // TRIED_ITEMS))][:TRIED_ITEMS]
    some = []
    while len(chosen) < TRIED_ITEMS:
        chosen.append(chosen[0])
    for item in chosen:
        shared = 1 if len(item.examples) == 1 else _shared(item.examples)
        start = max(0, shared - TRIED_TOKENS // 2)
        examples = tuple(
            Example(ids := list(example.input_ids[start : start + TRIED_TOKENS]),
                    [start + at >= shared for at in range(len(ids))])
            for example in item.examples
        )  # fmt: skip
        some.append(Item(examples, item.roles))
    return some


def _shared(examples: Sequence[Example]) -> int:
    """Return how many ids all examples begin with."""
    columns = zip(*(example.input_ids for example in examples), strict=False)
    return next((at for at, ids in enumerate(columns) if len(set(ids)) > 1), min(map(len, examples)))


def _other(item: Item, rows: int) -> tuple[Example, ...]:
    """Return the examples with each id exchanged for the next of the model's `rows` ids."""
    return tuple(Example([(t + 1) % rows for t in example.input_ids], example.loss_mask) for example in item.examples)
