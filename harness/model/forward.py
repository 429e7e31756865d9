"""The forward pass of a causal LM in two halves: hidden states, and the head that makes logits of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.contract.batches import Batch
from harness.errors import ModelError
from harness.model.batching import attention_mask
from harness.model.varlen import is_by_document


def causal_lm(model: Any) -> Any:
    """Return the causal LM of transformers that `model` is, or that PEFT has wrapped."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def last_hidden(model: Any, batch: Batch) -> Tensor:
    """Return the last hidden state of every position, [b, s, h].

    Padded rows need no attention mask: causal attention never looks right, where the padding is.
    """
    decoder = decoder_of(causal_lm(model))
    return decoder(use_cache=False, **_inputs(decoder, batch)).last_hidden_state


def plain_logits(model: Any, batch: Batch) -> Tensor:
    """Return the model's own logits of every position, [b, s, v]: the reference that fast paths are checked against."""
    lm = causal_lm(model)
    return lm(use_cache=False, **_inputs(lm, batch)).logits


def _inputs(module: Any, batch: Batch) -> dict[str, Any]:
    """Return the arguments of a forward pass; packed rows go with their documents, or with a mask that tells them."""
    if batch.is_padded:
        return {"input_ids": batch.input_ids}
    packed = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    if is_by_document(module.config._attn_implementation):
        # Four dimensions, so that transformers takes it as it is; the attention by document does not look at it.
        return packed | {"attention_mask": batch.input_ids.new_empty((0, 1, 1, 1)), "sequences": batch.sequences}
    return packed | {"attention_mask": attention_mask(batch, next(module.parameters()).dtype)}


def decoder_of(lm: Any) -> Any:
    """Return the part of a causal LM that ends in hidden states. Raises ModelError where it has none of its own."""
    for decoder in (lm.get_decoder(), lm.base_model, getattr(lm, "model", None)):
        if decoder not in (None, lm, lm.get_output_embeddings()):  # some call their output head a decoder
            return decoder
    raise ModelError(f"{type(lm).__name__} has no decoder apart from its output head")


def output_head(model: Any) -> Callable[[Tensor], Tensor]:
    """Return the function from hidden states [n, h] to logits [n, v], with what some architectures do to their logits.

    `check_output_head` proves it for the model at hand.
    """
    lm = causal_lm(model)
    config, head = lm.config.get_text_config(), lm.get_output_embeddings()
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    scale = getattr(config, "logit_scale", None)  # Cohere
    divisor = getattr(config, "logits_scaling", None)  # Granite

    def logits(hidden: Tensor) -> Tensor:
        out = head(hidden.to(head.weight.dtype))  # Mamba's residual stream is float32
        if divisor:
            out = out / divisor
        if scale:
            out = out * scale
        return cap * (out / cap).tanh() if cap else out

    return logits


def check_forward(model: Any, input_ids: Tensor) -> None:
    """Raise ModelError where the two halves are not the model's own forward pass, or a token sees those after it.

    Args:
        input_ids: int64 [1, s], of which the first few are used.
    """
    check_output_head(model, input_ids)
    check_causal(model, input_ids)


def check_output_head(model: Any, input_ids: Tensor) -> None:
    """Raise ModelError where `output_head` does not give the model's own logits for `input_ids` [1, s]."""
    lm = causal_lm(model)
    ids = input_ids[:, :16]
    with torch.no_grad():
        expected = lm(input_ids=ids, use_cache=False).logits[0].float()
        logits = output_head(lm)(decoder_of(lm)(input_ids=ids, use_cache=False).last_hidden_state[0]).float()
    if not torch.allclose(logits, expected, rtol=1e-2, atol=1e-2):
        raise ModelError(
            f"{type(lm).__name__} changes its logits in a way the harness does not know (largest difference "
            f"{(logits - expected).abs().max().item():.3g}); please report the architecture"
        )


# Relative, of the hidden states of a token: experts that are given other tokens beside it may round otherwise.
LARGEST_LEAK = {"float32": 1e-4, "other": 1e-2}


def check_causal(model: Any, input_ids: Tensor) -> None:
    """Raise ModelError where a token changes what the model computes for those before it.

    Batches are padded on the right and have no mask then. Two sequences of one shape differ in their second half.
    input_ids: int64 [1, s].
    """
    lm = causal_lm(model)
    first = input_ids[:, :16]
    both = [torch.cat((first, last), 1) for last in (first, first.roll(1).flip(1))]
    with torch.no_grad():
        one, other = (
            decoder_of(lm)(input_ids=ids, use_cache=False).last_hidden_state[0, : first.shape[1]].float()
            for ids in both
        )
    leak = ((one - other).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-9)).median().item()
    dtype = str(lm.get_input_embeddings().weight.dtype).removeprefix("torch.")
    if leak > LARGEST_LEAK.get(dtype, LARGEST_LEAK["other"]):
        raise ModelError(
            f"{type(lm).__name__} is no causal language model: what it computes for a token depends on the tokens "
            f"after it (by {leak:.1%}), so it would learn from what it is to predict"
        )
