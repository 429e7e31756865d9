"""Attention of packed rows: each document sees its own tokens and its ancestors', and no kernel sees anything else.

On a GPU it is PyTorch's variable-length flash attention, elsewhere a call of `scaled_dot_product_attention` a document.
Its name joins the model's own attention, which goes on computing whatever is no packed row. It knows sliding windows;
anything else that a model wants of its attention (a soft-cap, sinks, a bias) is refused, never dropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.contract.batches import Sequences

SUFFIX = "_of_documents"
KNOWS_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters  # torch 2.11 takes fewer keys unasked
# What models pass beside the tensors and changes nothing here.
IGNORED = {"position_ids", "use_cache", "cache_position", "output_attentions", "position_embeddings", "is_causal"}


def is_by_document(attention: str) -> bool:
    """Return whether the attention of this name computes packed rows by document."""
    return attention.endswith(SUFFIX)


def by_document(own: str) -> str:
    """Return the name of an attention that computes packed rows by document, and all else with the attention `own`.

    Raises ValueError where `own` is inside the model, so that nothing can stand in for it.
    """
    if is_by_document(own):
        return own
    if own not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        raise ValueError(f"the model computes with its own {own} attention, which takes no packed rows by document")
    ALL_ATTENTION_FUNCTIONS.register(own + SUFFIX, _joined(ALL_ATTENTION_FUNCTIONS[own]))
    if own in ALL_MASK_ATTENTION_FUNCTIONS.valid_keys():
        ALL_MASK_ATTENTION_FUNCTIONS.register(own + SUFFIX, ALL_MASK_ATTENTION_FUNCTIONS[own])
    return own + SUFFIX


def _joined(own: Callable[..., Any]) -> Callable[..., Any]:
    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *,
        sequences: Sequences | None = None, **kwargs: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        if sequences is None:
            out: tuple[Tensor, None] = own(module, query, key, value, attention_mask, **kwargs)
            return out
        return documents_attention(query, key, value, sequences, **kwargs), None

    return attention


def documents_attention(
    query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, *,
    scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None, **others: Any,
) -> Tensor:  # fmt: skip
    """Return the attention of packed rows, [b, s, h, d]; 0 for padding.

    Args:
        query: [b, h, s, d].
        key: [b, kv, s, d], `h` a multiple of `kv`.
        value: as `key`.
    """
    wanted = {name for name, value in others.items() if value is not None and name not in IGNORED}
    if wanted or dropout:
        names = ", ".join(sorted(wanted) or ["attention dropout"])
        raise ValueError(f"attention by document does not know {names}")
    b, h, s, d = query.shape
    flat = (tensor.transpose(1, 2).reshape(b * s, -1, d) for tensor in (query, key, value))
    queries, keys, values = flat  # [b*s, heads, d]
    if not sequences.is_whole:
        queries, keys, values = queries[sequences.query], keys[sequences.key], values[sequences.key]
    scale = d**-0.5 if scaling is None else scaling
    is_half = query.dtype in (torch.bfloat16, torch.float16)  # flash attention knows no other
    kernel = _flash if query.is_cuda and is_half else _one_by_one
    answers = kernel(queries, keys, values, sequences, scale, sliding_window)
    if sequences.is_whole:
        return answers.view(b, s, h, d)
    return query.new_zeros(b * s, h, d).index_copy(0, sequences.query, answers).view(b, s, h, d)


def _flash(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float, window: int | None) -> Tensor:
    grouped = {"enable_gqa": query.shape[1] != key.shape[1]} if KNOWS_GROUPS else {}
    out: Tensor = varlen_attn(
        query, key, value, sequences.query_ends, sequences.key_ends,
        max(sequences.query_lengths), max(sequences.key_lengths),
        scale=scale, window_size=(-1 if window is None else window - 1, 0), **grouped,
    )  # fmt: skip
    return out


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float, window: int | None
) -> Tensor:
    parts = []
    repeats = query.shape[1] // key.shape[1]
    for q, k, v in zip(
        query.split(sequences.query_lengths), key.split(sequences.key_lengths), value.split(sequences.key_lengths),
        strict=True,
    ):  # fmt: skip
        if not len(q):
            continue
        q, k, v = (tensor.transpose(0, 1)[None] for tensor in (q, k, v))  # [1, heads, tokens, d]
        k, v = (tensor.repeat_interleave(repeats, 1) if repeats > 1 else tensor for tensor in (k, v))
        asks, seen = q.shape[2], k.shape[2]
        is_plain = asks == seen and (window is None or window >= seen)
        mask = None if is_plain else _mask(asks, seen, window, q.device)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_plain, scale=scale)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts) if parts else query


def _mask(asks: int, seen: int, window: int | None, device: torch.device) -> Tensor:
    """Return what the last `asks` of `seen` tokens may look at, bool [asks, seen]."""
    distance = torch.arange(seen - asks, seen, device=device)[:, None] - torch.arange(seen, device=device)
    return (distance >= 0) & (distance < (seen if window is None else window))
