"""The model that is trained, as an objective asks it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from harness.contract.batches import Batch
from harness.errors import HarnessError
from harness.model.forward import causal_lm, last_hidden
from harness.model.logprobs import Predictions, target_logprobs, target_predictions
from harness.model.scores import document_scores


class ModelPolicy:
    """A causal LM with what its method put on it, and the head that its objective put beside it, if it has one."""

    def __init__(self, model: Any, head: torch.nn.Module | None = None) -> None:
        self.model, self.head = model, head

    def logprobs(self, batch: Batch) -> Tensor:
        """Return the log-probability of each target, float32 [n], with its gradient."""
        return target_logprobs(self.model, batch)

    def predictions(self, batch: Batch) -> Predictions:
        """Return the log-probability of each target, with its gradient, and entropies of some of the predictions."""
        return target_predictions(self.model, batch)

    def last_hidden(self, batch: Batch) -> Tensor:
        """Return the last hidden state of each position, [b, s, h], with its gradient."""
        return last_hidden(self.model, batch)

    def scores(self, batch: Batch) -> Tensor:
        """Return the head's figure of each document at its last token, float32 [d], with its gradient."""
        assert self.head is not None
        return document_scores(self.model, self.head, batch)

    @contextlib.contextmanager
    def noisy_embeddings(self, batch: Batch, alpha: float) -> Iterator[None]:
        """Add noise to the embeddings for the block, while the model is in its mode for training.

        Uniform in -1..1, times alpha / sqrt(L * h) for L tokens of a document (NEFTune, Jain et al. 2023,
        https://arxiv.org/abs/2310.05914): neither padding nor the other documents of the batch change its size.
        """
        if not alpha or not self.model.training:
            yield
            return
        scale = _noise_scale(batch, alpha)

        def add_noise(module: torch.nn.Module, args: Any, embeddings: Tensor) -> Tensor:
            noise = torch.empty_like(embeddings, dtype=torch.float32).uniform_(-1, 1)
            noise *= scale[:, :, None] / embeddings.shape[-1] ** 0.5
            return embeddings + noise.to(embeddings.dtype)

        hook = causal_lm(self.model).get_input_embeddings().register_forward_hook(add_noise)
        try:
            yield
        finally:
            hook.remove()

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Answer as before tuning, for the block: the adapter's scale is 0, and what is trained stays so.

        Raises:
            HarnessError: where the model has no adapter, so that its starting state is gone.
        """
        layers = [module for module in self.model.modules() if isinstance(getattr(module, "scaling", None), dict)]
        if not layers:
            raise HarnessError("the model has no adapter to leave out: a method that moves its weights keeps no other")
        before = [dict(layer.scaling) for layer in layers]
        for layer in layers:
            layer.scaling.update(dict.fromkeys(layer.scaling, 0.0))
        try:
            yield
        finally:
            for layer, scaling in zip(layers, before, strict=True):
                layer.scaling.update(scaling)


def _noise_scale(batch: Batch, alpha: float) -> Tensor:
    """Return alpha / sqrt(length of the document) at each position, 0 in the padding, float32 [b, s]."""
    documents, (b, s) = batch.documents, batch.input_ids.shape
    places = torch.arange(b * s, device=batch.input_ids.device)
    if not batch.roles:
        return torch.zeros(b, s, device=places.device)
    begins = documents.row * s + documents.start  # in order
    own = torch.searchsorted(begins, places, right=True) - 1
    is_inside = places < (begins + documents.length)[own]
    return torch.where(is_inside, alpha * documents.length.float().rsqrt()[own], 0.0).view(b, s)
