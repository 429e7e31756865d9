"""Functions of a decoder layer on bfloat16: each makes one pass over memory where torch makes several.

On a CPU they are those of kernels.c: the machine's C compiler makes a library of them at their first use, which is kept
in the cache folder. On a GPU they are those of triton_kernels.py. SwiGLU, softmax and log-probabilities are compared
with torch's own functions at the first use; norms and rotary embeddings with the model's, by those who put them there.
`why_not` says why a device computes without them. They are torch operators, so that profilers see them and empty
tensors run through them.

Shapes: n rows, h numbers of a row; all contiguous, where nothing else is said.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import first_line
from harness.files import cache_folder

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
COMPILE_S = 120
SWITCH = "HARNESS_KERNELS"  # an environment variable: off until every batch of every objective agrees with torch
ON_GPU = ("rms_norm", "rms_norm_backward", "swiglu", "swiglu_backward", "rotary", "target_logprobs")
LARGEST_DIFFERENCE = 2e-4  # relative, of all numbers together: below what one more rounding to bfloat16 makes (1e-3)

_operators = torch.library.Library("harness", "DEF")


@functools.cache
def why_not() -> str | None:
    """Return why this machine computes without the kernels; None where it has them. Compiles them at the first call."""
    if os.environ.get(SWITCH) != "1":
        return f"they are on trial: {SWITCH}=1 turns them on"
    if not sys.platform.startswith("linux"):
        return f"written for Linux, and this is {platform.system()}"
    if shutil.which(_compiler()) is None:
        return f"there is no C compiler {_compiler()!r} here: install gcc"
    try:
        worst = max(_differences(torch.device("cpu")).items(), key=lambda pair: pair[1])
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return f"{_compiler()} cannot compile them: {first_line(error)}"
    return None if worst[1] <= LARGEST_DIFFERENCE else f"{worst[0]} differs from torch by {worst[1]:.2g}"


@functools.cache
def why_not_on_gpu() -> str | None:
    """Return why the GPU computes without the kernels; None where it has them. Compiles them at the first call."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0 turns them off"
    if importlib.util.find_spec("triton") is None:
        return "there is no Triton here, which comes with PyTorch's builds for GPUs"
    try:
        kernels = importlib.import_module("harness.model.triton_kernels")
        for name in ON_GPU:
            _operators.impl(name, getattr(kernels, name), "CUDA")
        worst = max(_differences(torch.device("cuda")).items(), key=lambda pair: pair[1])
    except Exception as error:  # no compiler that Triton needs, no driver that it knows: whatever it says
        return f"Triton cannot compile them: {first_line(error)}"
    return None if worst[1] <= LARGEST_DIFFERENCE else f"{worst[0]} differs from torch by {worst[1]:.2g}"


def why_not_on(device: torch.device) -> str | None:
    """Return why a device computes without the kernels; None where it has them."""
    if device.type not in ("cpu", "cuda"):
        return f"written for CPUs and GPUs, and this is {device.type}"
    return why_not() if device.type == "cpu" else why_not_on_gpu()


def compiled(x: Tensor) -> bool:
    """Return True for a tensor that the kernels compute with."""
    return x.dtype == torch.bfloat16 and why_not_on(x.device) is None


def _compiler() -> str:
    return os.environ.get("CC") or "cc"


@functools.cache
def _library() -> ctypes.CDLL:
    """Return the compiled kernels, from the cache folder or made now."""
    compiler = _compiler()
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=COMPILE_S).stdout
    about = [SOURCE.read_bytes(), " ".join(FLAGS).encode(), version, _processor()]
    path = cache_folder() / "kernels" / f"{hashlib.sha256(b'|'.join(about)).hexdigest()[:16]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            command = [compiler, *FLAGS, str(SOURCE), "-o", f"{temporary}/kernels.so", "-lm"]
            subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_S)
            Path(temporary, "kernels.so").replace(path)
    return ctypes.CDLL(str(path))


def _processor() -> bytes:
    """Return what tells processors apart that `-march=native` compiles for: machines may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.processor().encode()
    return b"".join(sorted({line for line in lines if line.startswith((b"model name", b"flags", b"Features"))}))


def _call(name: str, *args: Tensor | int | float | bool) -> None:
    """Call a kernel with pointers to tensors, 64-bit integers, floats, and truths as integers."""
    getattr(_library(), name)(*map(_as_c, args))


def _as_c(value: Tensor | int | float | bool) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, bool):
        return ctypes.c_int(value)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


def _operator(schema: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make a torch operator of a function; `fake` makes its results without contents."""

    def register(function: Callable[..., Any]) -> Any:
        name = _operators.define(f"{function.__name__}{schema}")
        _operators.impl(name, function, "CPU")
        torch.library.register_fake(f"harness::{name}", fake, lib=_operators)
        return getattr(torch.ops.harness, name).default

    return register


def _norm_results(x: Tensor, scale: Tensor, eps: float, early: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(len(x), dtype=torch.float32)


@_operator("(Tensor x, Tensor scale, float eps, bool early) -> (Tensor, Tensor)", _norm_results)
def rms_norm(x: Tensor, scale: Tensor, eps: float, early: bool) -> tuple[Tensor, Tensor]:
    """Return scale * x / rms(x), [n, h], and 1 / rms(x), [n]; with `early` the quotient is rounded before it is scaled.

    scale: float32 [h].
    """
    out, inverse = _norm_results(x, scale, eps, early)
    _call("rms_norm", x, scale, out, inverse, *x.shape, float(eps), early)
    return out, inverse


def _like_first(first: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(first)


@_operator("(Tensor grad, Tensor x, Tensor scale, Tensor inverse, bool early) -> Tensor", _like_first)
def rms_norm_backward(grad: Tensor, x: Tensor, scale: Tensor, inverse: Tensor, early: bool) -> Tensor:
    """Return the gradient of x, [n, h]."""
    out = torch.empty_like(grad)
    _call("rms_norm_backward", grad, x, scale, inverse, out, *x.shape, early)
    return out


def _contiguous_like(first: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(first, memory_format=torch.contiguous_format)


@_operator("(Tensor gate, Tensor up) -> Tensor", _contiguous_like)
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up, [n, h]; the rows of both may lie apart."""
    out = _contiguous_like(gate)
    _call("swiglu", gate, up, out, *gate.shape, gate.stride(0), up.stride(0))
    return out


def _two_like(grad: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad), torch.empty_like(grad)


@_operator("(Tensor grad, Tensor gate, Tensor up) -> (Tensor, Tensor)", _two_like)
def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of gate and up, [n, h]."""
    of_gate, of_up = _two_like(grad)
    _call("swiglu_backward", grad, gate, up, of_gate, of_up, *grad.shape, gate.stride(0), up.stride(0))
    return of_gate, of_up


@_operator("(Tensor x, Tensor cos, Tensor sin, bool back) -> Tensor", _like_first)
def rotary(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    """Return x [b, s, heads, d] with its halves rotated by the angles [1 or b, s, d]; or, `back`, its gradient."""
    out = torch.empty_like(x)
    b, s, heads, d = x.shape
    _call("rotary", x, cos, sin, out, b * s, len(cos) * s, heads, d, back)
    return out


@_operator("(Tensor(a!) scores, Tensor(b!) out, int queries, int first) -> ()", lambda *args: None)
def causal_softmax(scores: Tensor, out: Tensor, queries: int, first: int) -> None:
    """Write the softmax of scores float32 [., q, keys] into `out`; the scores are used up.

    Query i sees `first + i % queries + 1` keys, the first ones.
    """
    _call("causal_softmax", scores, out, math.prod(scores.shape[:-1]), scores.shape[-1], queries, first)


def _logprobs_result(logits: Tensor, target: Tensor, minus: Tensor) -> Tensor:
    return logits.new_empty(len(logits), dtype=torch.float32)


@_operator("(Tensor logits, Tensor target, Tensor(a!) minus) -> Tensor", _logprobs_result)
def target_logprobs(logits: Tensor, target: Tensor, minus: Tensor) -> Tensor:
    """Return log softmax(logits [n, h])[target], float32 [n], and write minus its gradient into `minus` [n, h]."""
    out = _logprobs_result(logits, target, minus)
    _call("target_logprobs", logits, target.contiguous(), out, minus, *logits.shape)  # targets are a column of a batch
    return out


def _differences(device: torch.device) -> dict[str, float]:
    """Return how far each kernel is from torch's functions on a few random numbers, by name."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, torch.bfloat16)

    differences: dict[str, float] = {}

    def compare(name: str, ours: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
        pairs = zip(ours, expected, strict=True)
        differences[name] = max(float((one - other).float().norm() / other.float().norm()) for one, other in pairs)

    gate, up, grad = (draw(7, 50).requires_grad_() for _ in range(3))
    with torch.enable_grad():
        expected = F.silu(gate) * up
    compare("swiglu", (swiglu(gate.detach(), up.detach()),), (expected.detach(),))
    compare(
        "swiglu_backward",
        swiglu_backward(grad.detach(), gate.detach(), up.detach()),
        torch.autograd.grad(expected, (gate, up), grad.detach()),
    )
    if device.type == "cpu":  # a GPU has attention of its own
        scores = torch.randn(3, 6, 9, generator=random)
        unseen = torch.ones(2, 9, dtype=torch.bool).triu(5).repeat(3, 1)
        out = torch.empty(scores.shape, dtype=torch.bfloat16)
        softmax = scores.masked_fill(unseen, -math.inf).softmax(-1).to(torch.bfloat16)
        causal_softmax(scores.clone(), out, 2, 4)
        compare("causal_softmax", (out,), (softmax,))
    logits, target = draw(7, 50), torch.arange(7, device=device)
    logs, minus = logits.float().log_softmax(-1), torch.empty_like(logits)
    chosen = target_logprobs(logits, target, minus)
    compare("target_logprobs", (chosen, minus), (logs[target, target], (logs.exp() - F.one_hot(target, 50)).bfloat16()))
    return differences
