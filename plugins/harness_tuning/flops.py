"""Model-FLOPs use: the arithmetic that a step needs by its formula, and what the device does at most, measured.

A matrix takes 2 operations a weight and token forward, 2 for the gradient of its input, and 2 for its own where it is
trained (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361). What is computed twice to save memory is not counted.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import Any

import torch

from harness.model.forward import causal_lm

PRODUCT_SIZE = {"cpu": 1024, "other": 8192}
LEAST_PRODUCTS, MEASURED_S = 3, 0.1


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
    count = next((n for key in ("num_local_experts", "num_experts", "n_routed_experts") if (n := getattr(config, key, 0))), 0)
    chosen = getattr(config, "num_experts_per_tok", None) or getattr(config, "moe_top_k", None) or count
    return chosen / count if count else 1.0


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second of a large product of two matrices in `dtype`, the best of a few."""
    size = PRODUCT_SIZE["cpu" if device.type == "cpu" else "other"]
    one, other = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best, began, count = math.inf, time.perf_counter(), 0
    while count < LEAST_PRODUCTS or time.perf_counter() - began < MEASURED_S:
        _wait_for(device)
        start = time.perf_counter()
        torch.mm(one, other)
        _wait_for(device)
        best, count = min(best, time.perf_counter() - start), count + 1
    return 2 * size**3 / best


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
