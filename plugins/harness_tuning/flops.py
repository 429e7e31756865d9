"""Model-FLOPs use: the arithmetic that a step needs by its formula, and what the device does at most, measured.

A matrix takes 2 operations a weight and token forward, 2 for the gradient of its input, and 2 for its own where it is
trained (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361). What is computed twice to save memory is not counted.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import torch

from harness.model.forward import causal_lm

SIZES = {"cpu": (256, 512, 1024), "other": (1024, 2048, 4096, 8192)}
PRODUCTS, LONG_S = 3, 0.02


@dataclass(frozen=True, slots=True)
class Work:
    """Operations, forward and backward: of a token, of a supervised token's logits, and of a pair of positions."""

    token: float
    supervised: float
    pair: float

    @classmethod
    def of(cls, model: Any) -> Work:
        """Count the work of a causal LM with the weights that its method trains.

        Of a layer's experts those count that a token is sent to. Attention counts for every layer and all that a token
        may look back on; windows and recurrent layers do less.
        """
        lm = causal_lm(model)
        config = lm.config.get_text_config()
        embeddings, head = lm.get_input_embeddings(), lm.get_output_embeddings()
        apart = {id(module.weight) for module in (embeddings, head)}
        token = sum(
            weight.numel() * _operations(weight.requires_grad) * _share_of_experts(name, config)
            for name, weight in lm.named_parameters()
            if weight.ndim >= 2 and id(weight) not in apart
        )
        heads = getattr(config, "num_attention_heads", 0)
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1))
        # Forward: scores and values, 2 operations each; backward: twice that; of the square, the half is seen.
        pair = 12 * width * config.num_hidden_layers / 2
        return cls(token, head.weight.numel() * _operations(head.weight.requires_grad), pair)

    def flops(self, tokens: float, supervised: float, pairs: float) -> float:
        """Return the operations of so many tokens, `pairs` being the sum of their documents' squared lengths."""
        return tokens * self.token + supervised * self.supervised + pairs * self.pair


def _operations(is_trained: bool) -> int:
    return 6 if is_trained else 4


def _share_of_experts(name: str, config: Any) -> float:
    """Return the share of tokens that a weight sees: all, or those that are sent to one of a layer's experts."""
    if not re.search(r"\bexperts\b", name):
        return 1.0
    keys = ("num_local_experts", "num_experts", "n_routed_experts")
    count = next((n for key in keys if (n := getattr(config, key, 0))), 0)
    chosen = getattr(config, "num_experts_per_tok", None) or getattr(config, "moe_top_k", None) or count
    return chosen / count if count else 1.0


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second of a product of two large matrices in `dtype`, the best of a few.

    Larger and larger ones, until a product takes long: some types have no fast kernel on some CPUs.
    """
    best = 0.0
    for size in SIZES["cpu" if device.type == "cpu" else "other"]:
        one, other = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
        for _ in range(PRODUCTS):
            _wait_for(device)
            began = time.perf_counter()
            torch.mm(one, other)
            _wait_for(device)
            seconds = time.perf_counter() - began
            best = max(best, 2 * size**3 / max(seconds, 1e-9))
        if seconds > LONG_S:
            break
    return best


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
