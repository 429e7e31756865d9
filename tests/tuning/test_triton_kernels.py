"""The kernels for a GPU compute what torch does: on a GPU, or by Triton's interpreter (TRITON_INTERPRET=1)."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="Triton comes with PyTorch's builds for GPUs")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU here, and TRITON_INTERPRET is not 1", allow_module_level=True)

import torch.nn.functional as F  # noqa: E402

from harness.model import triton_kernels  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ALLOWED = 2e-4 if DEVICE == "cuda" else 2e-2  # relative; the interpreter cuts numbers off where a GPU rounds them


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE, torch.bfloat16)


def assert_close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    assert ours.shape == expected.shape and ours.dtype == expected.dtype
    assert float((ours - expected).float().norm()) <= ALLOWED * float(expected.float().norm())


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(("n", "h"), [(4, 9), (37, 16), (5, 128), (3, 100), (2, 2560), (2, 5000)])
def test_rms_norm(n, h, early):
    x, scale, grad = drawn(n, h).requires_grad_(), drawn(h + 1)[1:].float() + 1, drawn(n, h)
    wide = x.float()
    quotient = wide * (wide.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
    expected = (quotient.to(x.dtype) * scale.to(x.dtype)) if early else (quotient * scale).to(x.dtype)
    rounded = scale.to(x.dtype).float() if early else scale
    out, inverse = triton_kernels.rms_norm(x.detach(), rounded, 1e-6, early)
    assert_close(out, expected.detach())
    (wanted,) = torch.autograd.grad(expected, x, grad)
    assert_close(triton_kernels.rms_norm_backward(grad, x.detach(), rounded, inverse, early), wanted)


@pytest.mark.parametrize(("n", "h"), [(1, 3), (6, 2048), (3, 5000)])
def test_swiglu_of_parts_of_wider_rows(n, h):
    both, grad = drawn(n, 2 * h).requires_grad_(), drawn(n, h)
    gate, up = both.chunk(2, -1)
    expected = F.silu(gate) * up
    assert_close(triton_kernels.swiglu(gate.detach(), up.detach()), expected.detach())
    for ours, wanted in zip(
        triton_kernels.swiglu_backward(grad, gate.detach(), up.detach()),
        torch.autograd.grad(expected, (gate, up), grad), strict=True,
    ):  # fmt: skip
        assert_close(ours, wanted)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(("heads", "d"), [(1, 2), (6, 64), (40, 128), (3, 80)])
def test_rotary(rows, heads, d):
    x, grad, (cos, sin) = drawn(2, 5, heads, d).requires_grad_(), drawn(2, 5, heads, d), drawn(2, rows, 5, d)
    turned = torch.cat((-x[..., d // 2 :], x[..., : d // 2]), -1)
    expected = x * cos[:, :, None] + turned * sin[:, :, None]
    assert_close(triton_kernels.rotary(x.detach(), cos.contiguous(), sin.contiguous(), False), expected.detach())
    (wanted,) = torch.autograd.grad(expected, x, grad)
    assert_close(triton_kernels.rotary(grad, cos.contiguous(), sin.contiguous(), True), wanted)


@pytest.mark.parametrize(("n", "v"), [(1, 2), (6, 4096), (5, 10001)])
def test_log_probabilities_of_targets_that_lie_apart(n, v):
    logits = 4 * drawn(n, v)
    logits[0, 1] = -torch.inf
    target = torch.randint(0, v, (n, 3), generator=torch.Generator().manual_seed(0)).to(DEVICE)[:, 1]
    target[0] = 0
    minus = torch.full_like(logits, torch.nan)
    logprobs = triton_kernels.target_logprobs(logits, target, minus)
    expected = logits.float().log_softmax(-1)
    assert torch.allclose(logprobs, expected.gather(1, target[:, None])[:, 0], atol=1e-5)
    assert_close(minus, (expected.exp() - F.one_hot(target, v)).to(minus.dtype))


def test_what_is_not_finite_stays_so():
    logits, target = torch.ones(3, 40, dtype=torch.bfloat16, device=DEVICE), torch.zeros(3, dtype=torch.long).to(DEVICE)
    logits[0, 3], logits[1, 3] = torch.nan, torch.inf
    logprobs = triton_kernels.target_logprobs(logits, target, torch.empty_like(logits))
    assert logprobs.isfinite().tolist() == [False, False, True]
