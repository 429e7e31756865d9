"""Attention on a CPU in bfloat16 by blocks of plain matrix products: the function of `sdpa`, several times faster.

PyTorch's own kernel takes most of its time in the backward pass. Here a block of scores is one product, its softmax in
float32 and another product, all in buffers that stay in the processor's cache. Without a mask the softmax is a kernel
of kernels.py where that is compiled. Shapes: b rows, h heads of queries, n of keys and values (g = h / n queries share
one), s tokens, d numbers a head.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.model import kernels
from harness.model.buffers import Buffers

NAME = "blocks"
# Measured on AVX-512 with bfloat16, 9 heads of 64 and 2,048 tokens, forward and backward: 4.2 times as fast as sdpa in
# rows of 128 tokens, 2.8 of 256, 2.2 of 512, 1.6 of 1,024 and 1.3 of 2,048.
LONGEST = 2048
SCORES_AT_ONCE = 2**22  # 16 MiB in float32
WHOLE = 256  # rows up to here are one block of queries
BLOCK = 128  # queries at once in longer rows, which look at the keys up to their own end only
KEPT = 1024  # rows up to here keep their probabilities for the backward pass


def attention_forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Compute attention by blocks where that is faster, else with transformers' `sdpa`."""
    usual = query.device.type == "cpu" and query.dtype == torch.bfloat16 and 1 < query.shape[2] <= LONGEST
    if usual and has_bfloat16_products() and fits(module, query, key, value, attention_mask, **kwargs):
        return by_blocks(module, query, key, value, attention_mask, **kwargs)
    out: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return out


def has_bfloat16_products() -> bool:
    """Return True where this CPU multiplies bfloat16 matrices natively."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fits(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> bool:
    """Return True for causal or masked attention of a sequence to itself, without dropout and other additions."""
    is_causal = kwargs.get("is_causal")
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    unknown = kwargs.get("dropout") or kwargs.get("position_bias") is not None or kwargs.get("cache") is not None
    plain = query.dtype == key.dtype == value.dtype and query.shape[2] == key.shape[2]
    return plain and not unknown and (is_causal or attention_mask is not None)


def by_blocks(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Return the attention of what `fits`, [b, s, h, d], in the form of transformers' attention functions.

    query: [b, h, s, d]; key: [b, n, s, d]; value: [b, n, s, any]. A sliding window is in the mask, as for `sdpa`.
    """
    scaling = kwargs.get("scaling")
    mask = attention_mask
    if mask is not None:
        mask = mask[..., : key.shape[2]]
        mask = additive(mask) if mask.dtype == torch.bool else mask.float()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return BlockAttention.apply(query, key, value, mask, scale), None


def additive(mask: Tensor) -> Tensor:
    """Return what is added to the scores for a mask that is True where a token may look, in float32."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, torch.finfo(torch.float32).min)


ALL_ATTENTION_FUNCTIONS.register(NAME, attention_forward)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)


_buffers = Buffers()


class BlockAttention(torch.autograd.Function):  # type: ignore[misc]
    """softmax(scale Q K^T + mask) V in blocks of queries, the scores and their softmax in float32.

    mask: added to the scores, [1 or b, 1 or h, s, s] in float32; None for causal attention.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        b, h, s, _ = query.shape
        dtype, heads = query.dtype, key.shape[1]
        keeps = s <= KEPT and any(ctx.needs_input_grad)
        out = query.new_empty(b, s, h, value.shape[-1])
        kept: list[Tensor] = []
        with _exact_products_of(dtype):
            for rows in _parts(b, h, s):
                k = _grouped("k", key[rows], heads, torch.float32)
                v = _grouped("v", value[rows], heads, dtype)
                for block in _blocks(s, mask):
                    q = _grouped("q", query[rows, :, block.queries], heads, torch.float32)
                    probabilities = _probabilities(q, k, heads, _of_rows(mask, rows, heads), block, scale, dtype, keeps)
                    if keeps:
                        kept.append(probabilities)
                    _ungrouped(_product("out", probabilities, v[:, : block.keys]), h, out[rows, block.queries])
        ctx.save_for_backward(query, key, value, mask, *kept)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        query, key, value, mask, *kept = ctx.saved_tensors
        b, h, s, _ = query.shape
        dtype, heads = query.dtype, key.shape[1]
        # As the outputs, [b, s, heads, d]: what computed queries, keys and values goes on from there without a copy.
        grads = [
            torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format) for x in (query, key, value)
        ]
        with _exact_products_of(dtype):
            known = iter(kept)
            for rows in _parts(b, h, s):
                k, v = (_grouped(name, x[rows], heads, dtype) for name, x in (("k", key), ("v", value)))
                if not kept:
                    exact_k = _grouped("k", key[rows], heads, torch.float32)
                some_mask = _of_rows(mask, rows, heads)
                if s > WHOLE:
                    sums = [
                        _buffers.get(f"sum {name}", torch.float32, len(k), s, x.shape[-1]).zero_()
                        for name, x in (("k", k), ("v", v))
                    ]
                for block in _blocks(s, mask):
                    probabilities = next(known, None)
                    if probabilities is None:
                        exact_q = _grouped("q", query[rows, :, block.queries], heads, torch.float32)
                        probabilities = _probabilities(
                            exact_q, exact_k, heads, some_mask, block, ctx.scale, dtype, False
                        )
                    q = _grouped("q", query[rows, :, block.queries], heads, dtype)
                    g = _grouped("g", grad[rows, block.queries].transpose(1, 2), heads, dtype)
                    some_k, some_v = k[:, : block.keys], v[:, : block.keys]
                    of_scores = _softmax_backward(_product("p", g, some_v.transpose(1, 2)), probabilities)
                    of_keys = _product("k", of_scores.transpose(1, 2), q, ctx.scale)
                    of_values = _product("v", probabilities.transpose(1, 2), g)
                    if s > WHOLE:
                        sums[0][:, : block.keys] += of_keys
                        sums[1][:, : block.keys] += of_values
                    else:
                        sums = [of_keys, of_values]
                    _ungrouped(_product("out", of_scores, some_k, ctx.scale), h, grads[0][rows, block.queries])
                _ungrouped(sums[0], heads, grads[1][rows])
                _ungrouped(sums[1], heads, grads[2][rows])
        return *(x.transpose(1, 2) for x in grads), None, None


class _Block(NamedTuple):
    """Some queries, and the number of keys from the first that they may look at."""

    queries: slice
    keys: int


def _blocks(s: int, mask: Tensor | None) -> Iterator[_Block]:
    size = s if s <= WHOLE else BLOCK
    for start in range(0, s, size):
        end = min(s, start + size)
        yield _Block(slice(start, end), end if mask is None else s)


def _parts(b: int, h: int, s: int) -> Iterator[slice]:
    """Yield rows whose scores for a block may exist at once."""
    size = max(1, SCORES_AT_ONCE // (h * s * (s if s <= WHOLE else BLOCK)))
    for start in range(0, b, size):
        yield slice(start, start + size)


def _grouped(name: str, x: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """Return [r, h, s, d] as [r*n, g*s, d], contiguous in a buffer: with the queries of a key beside each other."""
    r, h, s, d = x.shape
    out = _buffers.get(name, dtype, r * heads, h // heads * s, d)
    out.view(r, h, s, d).copy_(x)
    return out


def _ungrouped(x: Tensor, heads: int, out: Tensor) -> None:
    """Write [r*n, g*s, d] into `out` [r, s, h, d]."""
    r, s, _, d = out.shape
    if x.dtype != out.dtype:  # rounded first: at once with the order of the numbers it takes five times as long
        x = _buffers.get("rounded sum", out.dtype, *x.shape).copy_(x)
    out.copy_(x.view(r, heads, s, d).transpose(1, 2))


def _of_rows(mask: Tensor | None, rows: slice, heads: int) -> Tensor | None:
    """Return the mask of some rows as [1 or r, 1 or n, 1 or g, s, s]."""
    if mask is None:
        return None
    some = mask[rows] if len(mask) > 1 else mask
    return some.unflatten(1, (1, 1) if some.shape[1] == 1 else (heads, -1))


def _probabilities(
    q: Tensor, k: Tensor, heads: int, mask: Tensor | None, block: _Block, scale: float, dtype: torch.dtype, keeps: bool
) -> Tensor:
    """Return softmax(scale Q K^T + mask) of a block, in float32 and then rounded to `dtype`, [r*n, g*queries, keys].

    q: [r*n, g*queries, d]; k: [r*n, s, d]; mask: [1 or r, 1 or n, 1 or g, s, s]. It `keeps` them out of the buffers.
    """
    count = block.queries.stop - block.queries.start
    m, g = len(q), q.shape[1] // count
    scores = _buffers.get("scores", torch.float32, m, g * count, block.keys)
    torch.baddbmm(scores, q, k[:, : block.keys].transpose(1, 2), beta=0, alpha=scale, out=scores)
    rounded = torch.empty(scores.shape, dtype=dtype) if keeps else _buffers.get("rounded", dtype, *scores.shape)
    if mask is None and kernels.compiled(rounded):
        kernels.causal_softmax(scores, rounded, count, block.queries.start)
        return rounded
    if mask is None:  # what comes before the block is seen by all of it
        scores.view(m, g, count, block.keys)[..., block.queries] += _triangle()[:count, :count]
    else:
        scores.view(-1, heads, g, count, block.keys).add_(mask[..., block.queries, :])
    return rounded.copy_(torch.softmax(scores, -1, out=_buffers.get("probabilities", torch.float32, *scores.shape)))


@functools.cache
def _triangle() -> Tensor:
    """Return what is added to the scores of WHOLE queries and as many keys, so that none looks right."""
    return additive(torch.ones(WHOLE, WHOLE, dtype=torch.bool).tril())


def _product(name: str, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
    """Return scale * a b, in a buffer of the name."""
    out = _buffers.get(f"product {name}", a.dtype, len(a), a.shape[1], b.shape[2])
    return torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)


def _softmax_backward(grad: Tensor, probabilities: Tensor) -> Tensor:
    """Return P * (grad - sum(P * grad)), computed in float32."""
    out = _buffers.get("gradient of scores", grad.dtype, *grad.shape)
    torch.ops.aten._softmax_backward_data.out(grad, probabilities, -1, grad.dtype, grad_input=out)
    return out


@contextlib.contextmanager
def _exact_products_of(dtype: torch.dtype) -> Iterator[None]:
    """Let products of float32 numbers that are bfloat16 numbers use these: each is exact, and summed in float32."""
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    if dtype == torch.bfloat16:
        settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before
