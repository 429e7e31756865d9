"""Scores of whole documents: a head on the last hidden state of each, in float32. Tuning and scoring both ask here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.contract.batches import Batch
from harness.model.batching import padded
from harness.model.forward import last_hidden
from harness.nouns import Item

if TYPE_CHECKING:
    from harness.model.load import LoadedVariant


def document_scores(model: Any, head: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the head's figure at the last token of each document, float32 [d], with its gradient.

    Args:
        model: a causal LM of transformers, wrapped by PEFT or not.
        head: from hidden states [., h] in float32 to figures [., 1].
    """
    documents = batch.documents
    last = documents.row * batch.input_ids.shape[1] + documents.start + documents.length - 1
    hidden = last_hidden(model, batch).flatten(0, 1)[last]
    with torch.autocast(hidden.device.type, enabled=False):
        scores: Tensor = head(hidden.float())[:, 0]
    return scores


def score_items(loaded: LoadedVariant, items: Sequence[Item], batch_tokens: int) -> Iterator[tuple[int, list[float]]]:
    """Yield the score that a reward model's head gives each example of an item, with the item's number.

    Batches are of like lengths, the longest first.
    """
    assert loaded.head is not None
    order = sorted(range(len(items)), key=lambda index: -_longest(items[index]))
    for batch in _batches(items, order, batch_tokens):
        chosen = [items[index] for index in batch]
        with torch.no_grad():
            padded_rows = padded(chosen, loaded.template.pad_id, loaded.device)
            figures = document_scores(loaded.model, loaded.head, padded_rows).tolist()
        for index, item in zip(batch, chosen, strict=True):
            yield index, [figures.pop(0) for _ in item.examples]


def _longest(item: Item) -> int:
    return max(map(len, item.examples))


def _batches(items: Sequence[Item], order: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield the longest items first, within a budget of tokens with padding, one item at least."""
    batch: list[int] = []
    rows = 0
    for index in order:
        more = len(items[index].examples)
        if batch and (rows + more) * _longest(items[batch[0]]) > batch_tokens:
            yield batch
            batch, rows = [], 0
        batch.append(index)
        rows += more
    if batch:
        yield batch
