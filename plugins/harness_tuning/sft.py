"""Supervised fine-tuning: cross-entropy on the tokens that the loss mask marks, and no logits anywhere else.

With a vocabulary of V and n supervised tokens out of b*s, the logits are n*V instead of b*s*V, and only one chunk of
them exists at a time: its gradient is taken on the spot and the chunk is let go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import harness
from harness.options import Options

# 4 MiB in float32 on a CPU, which its cache holds; 512 MiB on an accelerator, which wants larger products.
LOGITS_AT_ONCE = {"cpu": 2**20, "other": 2**27}


class SftOptions(Options):
    """SFT has no settings of its own."""


def sft_loss(model: Any, input_ids: Any, loss_mask: Any, options: SftOptions) -> Any:
    """Sum of the cross-entropy over the supervised tokens.

    Args:
        model: a causal LM of transformers, wrapped by PEFT or not.
        input_ids: int64 [b, s], right-padded. No attention mask is needed: causal attention never looks right.
        loss_mask: bool [b, s], True where a token is something to learn.

    Returns:
        A float32 scalar.
    """
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = decoder_of(causal_lm)(input_ids=input_ids, use_cache=False).last_hidden_state  # [b, s, h]
    learnt = loss_mask[:, 1:]
    return cross_entropy_sum(
        hidden[:, :-1][learnt], input_ids[:, 1:][learnt], output_head(causal_lm), causal_lm.get_output_embeddings()
    )


def decoder_of(causal_lm: Any) -> Any:
    """The part of a model that ends in hidden states. Raises ModelError where it has none of its own."""
    for decoder in (causal_lm.get_decoder(), causal_lm.base_model, getattr(causal_lm, "model", None)):
        if decoder is not None and decoder is not causal_lm:
            return decoder
    raise harness.ModelError(f"{type(causal_lm).__name__} has no decoder apart from its output head")


def output_head(causal_lm: Any) -> Callable[[Any], Any]:
    """From hidden states [n, h] to logits [n, v], with what some architectures do to their logits.

    `check_output_head` proves it for the model at hand.
    """
    config, head = causal_lm.config.get_text_config(), causal_lm.get_output_embeddings()
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    scale = getattr(config, "logit_scale", None)  # Cohere
    divisor = getattr(config, "logits_scaling", None)  # Granite

    def logits(hidden: Any) -> Any:
        out = head(hidden.to(head.weight.dtype))  # Mamba's residual stream is float32
        if divisor:
            out = out / divisor
        if scale:
            out = out * scale
        return cap * (out / cap).tanh() if cap else out

    return logits


def check_output_head(model: Any, input_ids: Any) -> None:
    """Raise ModelError where `output_head` does not give the model's own logits for `input_ids` [1, s]."""
    import torch

    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    ids = input_ids[:, :16]
    with torch.no_grad():
        expected = causal_lm(input_ids=ids, use_cache=False).logits[0]
        found = output_head(causal_lm)(decoder_of(causal_lm)(input_ids=ids, use_cache=False).last_hidden_state[0])
    found, expected = found.float(), expected.float()
    if not torch.allclose(found, expected, rtol=1e-2, atol=1e-2):
        raise harness.ModelError(
            f"{type(causal_lm).__name__} changes its logits in a way the objective `sft` does not know (largest difference "
            f"{(found - expected).abs().max().item():.3g}); please report the architecture"
        )


# Relative, of the hidden states of a token: experts that are given other tokens beside it may round otherwise.
LARGEST_LEAK = {"float32": 1e-4, "other": 1e-2}


def check_causal(model: Any, input_ids: Any) -> None:
    """Raise ModelError where a token changes what the model computes for those before it: batches are padded on the right.

    Two sequences of one shape differ in their second half. input_ids: int64 [1, s].
    """
    import torch

    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    first = input_ids[:, :16]
    both = [torch.cat((first, last), 1) for last in (first, first.roll(1).flip(1))]
    with torch.no_grad():
        one, other = (
            decoder_of(causal_lm)(input_ids=ids, use_cache=False).last_hidden_state[0, : first.shape[1]].float()
            for ids in both
        )
    leak = ((one - other).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-9)).median().item()
    dtype = str(causal_lm.get_input_embeddings().weight.dtype).removeprefix("torch.")
    if leak > LARGEST_LEAK.get(dtype, LARGEST_LEAK["other"]):
        raise harness.ModelError(
            f"{type(causal_lm).__name__} is no causal language model: what it computes for a token depends on the tokens after it "
            f"(by {leak:.1%}), so it would learn from what it is to predict"
        )


def check_model(model: Any, input_ids: Any) -> None:
    """Raise ModelError where the model cannot be tuned rightly with this loss; input_ids: int64 [1, s]."""
    check_output_head(model, input_ids)
    check_causal(model, input_ids)


def cross_entropy_sum(hidden: Any, targets: Any, logits: Callable[[Any], Any], head: Any) -> Any:
    """Sum of the cross-entropy of `targets` [n] under `logits(hidden)`, hidden being [n, h], chunk by chunk."""
    import torch

    vocabulary = head.weight.shape[0]
    chunk = max(1, LOGITS_AT_ONCE["cpu" if hidden.device.type == "cpu" else "other"] // vocabulary)
    if not torch.is_grad_enabled():
        parts = [_chunk_loss(logits, h, t) for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)]
        return torch.stack(parts).sum() if parts else hidden.new_zeros((), dtype=torch.float32)
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    return _chunked_function().apply(hidden, targets, logits, chunk, *trained)


def _chunk_loss(logits: Callable[[Any], Any], hidden: Any, targets: Any) -> Any:
    import torch.nn.functional as F

    return F.cross_entropy(logits(hidden).float(), targets, reduction="sum")


_FUNCTION: list[Any] = []


def _chunked_function() -> Any:
    """The autograd function, made when torch is first needed (loading this module must not import torch)."""
    if _FUNCTION:
        return _FUNCTION[0]
    import torch

    class ChunkedCrossEntropy(torch.autograd.Function):
        """Takes each chunk's gradient in the forward pass, so that no chunk's logits live to the backward pass."""

        @staticmethod
        def forward(ctx: Any, hidden: Any, targets: Any, logits: Any, chunk: int, *trained: Any) -> Any:
            grad_hidden = torch.empty_like(hidden)
            grad_trained = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
            total = hidden.new_zeros((), dtype=torch.float32)
            for start in range(0, len(hidden), chunk):
                part = hidden[start : start + chunk].detach().requires_grad_()
                with torch.enable_grad():
                    loss = _chunk_loss(logits, part, targets[start : start + chunk])
                total += loss.detach()
                grad, *rest = torch.autograd.grad(loss, (part, *trained))
                grad_hidden[start : start + chunk] = grad
                for accumulated, more in zip(grad_trained, rest, strict=True):
                    accumulated += more
            ctx.save_for_backward(grad_hidden, *(g.to(p.dtype) for g, p in zip(grad_trained, trained, strict=True)))
            return total

        @staticmethod
        def backward(ctx: Any, grad_output: Any) -> Any:
            grad_hidden, *grad_trained = ctx.saved_tensors
            return grad_hidden * grad_output, None, None, None, *(grad * grad_output for grad in grad_trained)

    _FUNCTION.append(ChunkedCrossEntropy)
    return ChunkedCrossEntropy


OBJECTIVE = harness.Objective(
    "sft", "cross-entropy on the assistant's words and stop tokens", SftOptions, sft_loss, check_model, default=True
)
