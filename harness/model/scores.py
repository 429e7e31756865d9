"""Scores of whole documents: a head on the last hidden state of each, in float32. Tuning and scoring both ask here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.contract.batches import Batch
from harness.model.forward import last_hidden


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
