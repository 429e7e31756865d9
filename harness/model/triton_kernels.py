"""The functions of kernels.py on an NVIDIA or AMD GPU, as Triton kernels: the same numbers, rounded in the same places.

Triton comes with PyTorch there. A program computes some rows of a norm, a stretch of a row of SwiGLU, the heads of a
position, or the logits of a target.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

AT_ONCE = 2048  # numbers of a program: 16 bytes a thread and load
# A product that is rounded before it is added must not become one with the sum.
AS_WRITTEN = {"enable_fp_fusion": False}


@triton.jit
def _rounded(x):
    return x.to(tl.bfloat16).to(tl.float32)


@triton.jit
def _rms_norm(x, scale, out, inverse, n, h, eps, EARLY: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < n)[:, None] & (column < h)[None]
    place = row.to(tl.int64)[:, None] * h + column[None]
    wide = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(scale + column, mask=column < h, other=0.0)[None]
    r = 1.0 / tl.sqrt(tl.sum(wide * wide, 1) / h + eps)
    scaled = wide * r[:, None]
    if EARLY:
        scaled = _rounded(scaled)
    tl.store(out + place, (scaled * factor).to(tl.bfloat16), mask=inside)
    tl.store(inverse + row, r, mask=row < n)


@triton.jit
def _rms_norm_backward(
    grad, x, scale, inverse, out, n, h, EARLY: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < n)[:, None] & (column < h)[None]
    place = row.to(tl.int64)[:, None] * h + column[None]
    wide = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    scaled = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    scaled *= tl.load(scale + column, mask=column < h, other=0.0)[None]
    if EARLY:
        scaled = _rounded(scaled)
    r = tl.load(inverse + row, mask=row < n, other=0.0)
    back = tl.sum(scaled * wide, 1) * r * r * r / h
    tl.store(out + place, (scaled * r[:, None] - wide * back[:, None]).to(tl.bfloat16), mask=inside)


@triton.jit
def _swiglu(gate, up, out, h, gate_step, up_step, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < h
    z = tl.load(gate + row * gate_step + column, mask=inside).to(tl.float32)
    factor = tl.load(up + row * up_step + column, mask=inside).to(tl.float32)
    tl.store(out + row * h + column, (_rounded(z * tl.sigmoid(z)) * factor).to(tl.bfloat16), mask=inside)


@triton.jit
def _swiglu_backward(grad, gate, up, of_gate, of_up, h, gate_step, up_step, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < h
    g = tl.load(grad + row * h + column, mask=inside).to(tl.float32)
    z = tl.load(gate + row * gate_step + column, mask=inside).to(tl.float32)
    factor = tl.load(up + row * up_step + column, mask=inside).to(tl.float32)
    s = tl.sigmoid(z)
    of_silu = _rounded(g * factor)
    tl.store(of_up + row * h + column, (g * _rounded(z * s)).to(tl.bfloat16), mask=inside)
    tl.store(of_gate + row * h + column, (of_silu * s * (1.0 + z * (1.0 - s))).to(tl.bfloat16), mask=inside)


@triton.jit
def _rotary(x, cosine, sine, out, period, heads, half, BACK: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr):
    position = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    column = tl.arange(0, HALF)
    inside = (head < heads)[:, None] & (column < half)[None]
    place = (position * heads + head[:, None]) * 2 * half + column[None]
    angle = position % period * 2 * half + column
    known = column < half
    a = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x + place + half, mask=inside, other=0.0).to(tl.float32)
    cos_a = tl.load(cosine + angle, mask=known, other=0.0).to(tl.float32)[None]
    cos_b = tl.load(cosine + angle + half, mask=known, other=0.0).to(tl.float32)[None]
    sin_a = tl.load(sine + angle, mask=known, other=0.0).to(tl.float32)[None]
    sin_b = tl.load(sine + angle + half, mask=known, other=0.0).to(tl.float32)[None]
    if BACK:
        across = _rounded(b * sin_b)
        other = -_rounded(a * sin_a)
    else:
        across = -_rounded(b * sin_a)
        other = _rounded(a * sin_b)
    tl.store(out + place, (_rounded(a * cos_a) + across).to(tl.bfloat16), mask=inside)
    tl.store(out + place + half, (_rounded(b * cos_b) + other).to(tl.bfloat16), mask=inside)


@triton.jit
def _target_logprobs(logits, target, out, minus, h, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    start = row * h
    column = tl.arange(0, WIDTH)
    most = tl.full((WIDTH,), -float("inf"), tl.float32)
    total = tl.zeros((WIDTH,), tl.float32)
    for first in range(0, h, WIDTH):
        wide = tl.load(logits + start + first + column, mask=first + column < h, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(most, wide)
        # Two times minus infinity is no number: where nothing was seen yet, nothing is carried on.
        carried = tl.where(most == -float("inf"), 0.0, total * tl.exp(most - higher))
        total = carried + tl.where(wide == -float("inf"), 0.0, tl.exp(wide - higher))
        most = higher
    highest = tl.max(most, 0)
    sum_of_all = tl.sum(tl.where(most == -float("inf"), 0.0, total * tl.exp(most - highest)), 0)
    log_sum = highest + tl.log(sum_of_all)
    chosen = tl.load(target + row)
    tl.store(out + row, tl.load(logits + start + chosen).to(tl.float32) - log_sum)
    for first in range(0, h, WIDTH):
        inside = first + column < h
        wide = tl.load(logits + start + first + column, mask=inside, other=0.0).to(tl.float32)
        share = tl.exp(wide - log_sum) - tl.where(first + column == chosen, 1.0, 0.0)
        tl.store(minus + start + first + column, share.to(tl.bfloat16), mask=inside)


def rms_norm(x: Tensor, scale: Tensor, eps: float, early: bool) -> tuple[Tensor, Tensor]:
    """See kernels.rms_norm."""
    (n, h), out, inverse = x.shape, torch.empty_like(x), x.new_empty(len(x), dtype=torch.float32)
    rows, width = _tile(h)
    _rms_norm[(triton.cdiv(n, rows),)](
        x, scale, out, inverse, n, h, eps, early, rows, width, num_warps=_warps(width), **AS_WRITTEN
    )
    return out, inverse


def rms_norm_backward(grad: Tensor, x: Tensor, scale: Tensor, inverse: Tensor, early: bool) -> Tensor:
    """See kernels.rms_norm_backward."""
    (n, h), out = x.shape, torch.empty_like(grad)
    rows, width = _tile(h)
    grid = (triton.cdiv(n, rows),)
    _rms_norm_backward[grid](
        grad, x, scale, inverse, out, n, h, early, rows, width, num_warps=_warps(width), **AS_WRITTEN
    )
    return out


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """See kernels.swiglu."""
    (n, h), out = gate.shape, torch.empty_like(gate, memory_format=torch.contiguous_format)
    _swiglu[(n, triton.cdiv(h, AT_ONCE))](gate, up, out, h, gate.stride(0), up.stride(0), AT_ONCE, **AS_WRITTEN)
    return out


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """See kernels.swiglu_backward."""
    (n, h), of_gate, of_up = grad.shape, torch.empty_like(grad), torch.empty_like(grad)
    grid = (n, triton.cdiv(h, AT_ONCE))
    _swiglu_backward[grid](grad, gate, up, of_gate, of_up, h, gate.stride(0), up.stride(0), AT_ONCE, **AS_WRITTEN)
    return of_gate, of_up


def rotary(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    """See kernels.rotary."""
    (b, s, heads, d), out = x.shape, torch.empty_like(x)
    half = triton.next_power_of_2(d // 2)
    at_once = min(triton.next_power_of_2(heads), max(1, AT_ONCE // 2 // half))
    grid = (b * s, triton.cdiv(heads, at_once))
    _rotary[grid](x, cos, sin, out, len(cos) * s, heads, d // 2, back, at_once, half, **AS_WRITTEN)
    return out


def target_logprobs(logits: Tensor, target: Tensor, minus: Tensor) -> Tensor:
    """See kernels.target_logprobs."""
    (n, h), out = logits.shape, logits.new_empty(len(logits), dtype=torch.float32)
    _target_logprobs[(n,)](logits, target.contiguous(), out, minus, h, 2 * AT_ONCE, num_warps=8)
    return out


def _tile(h: int) -> tuple[int, int]:
    """Return how many rows of h numbers a program takes, and the power of two that h fits into."""
    width = triton.next_power_of_2(h)
    return max(1, AT_ONCE // width), width


def _warps(width: int) -> int:
    return 4 if width <= AT_ONCE else min(16, width // 512)
