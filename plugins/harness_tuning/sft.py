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
    hidden = causal_lm.get_decoder()(input_ids=input_ids, use_cache=False).last_hidden_state  # [b, s, h]
    learnt = loss_mask[:, 1:]
    return cross_entropy_sum(
        hidden[:, :-1][learnt], input_ids[:, 1:][learnt], output_head(causal_lm), causal_lm.get_output_embeddings()
    )


def output_head(causal_lm: Any) -> Callable[[Any], Any]:
    """From hidden states [n, h] to logits [n, v], with what some architectures do to their logits.

    `check_output_head` proves it for the model at hand.
    """
    config, head = causal_lm.config.get_text_config(), causal_lm.get_output_embeddings()
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    scale = getattr(config, "logit_scale", None)  # Cohere
    divisor = getattr(config, "logits_scaling", None)  # Granite

    def logits(hidden: Any) -> Any:
        out = head(hidden)
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
        found = output_head(causal_lm)(causal_lm.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0])
    if not torch.allclose(found, expected, rtol=1e-2, atol=1e-2):
        raise harness.ModelError(
            f"{type(causal_lm).__name__} changes its logits in a way the objective `sft` does not know (largest difference "
            f"{(found - expected).abs().max().item():.3g}); please report the architecture"
        )


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
    "sft",
    "cross-entropy on the assistant's words and stop tokens",
    SftOptions,
    sft_loss,
    check_output_head,
    default=True,
)
