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
from concurrent.futures import ThreadPoolExecutor
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
SWITCH = "HARNESS_KERNELS"  # an environment variable: 0 turns them off
ON_GPU = ("rms_norm", "rms_norm_backward", "swiglu", "swiglu_backward", "rotary", "target_logprobs")
LARGEST_DIFFERENCE = 2e-4  # relative, of all numbers together: below what one more rounding to bfloat16 makes (1e-3)

CPU = torch.device("cpu")

_operators = torch.library.Library("harness", "DEF")
_left_out: list[str] = []  # why this process computes without them, where it could


def leave_out(reason: str | None) -> None:
    """Compute without the kernels from here on, for a reason; with them again where there is none."""
    _left_out[:] = [] if reason is None else [reason]


def why_not(device: torch.device = CPU) -> str | None:
    """Return why this process computes without the kernels on a device; None where it has them.

    Compiles them at the first call.
    """
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0 turns the kernels off"
    if device.type not in ("cpu", "cuda"):
        return f"written for CPUs and CUDA, and this is {device.type}"
    return _left_out[0] if _left_out else (_why_not_here() if device.type == "cpu" else _why_not_on_gpu())


@functools.cache
def _why_not_here() -> str | None:
    """Return why this machine has no kernels; None where they are compiled and are torch's functions."""
    if not sys.platform.startswith("linux"):
        return f"written for Linux, and this is {platform.system()}"
    if shutil.which(_compiler()) is None:
        return f"there is no C compiler {_compiler()!r} here: install gcc"
    try:
        return _why_not_same(torch.device("cpu"))
    except subprocess.CalledProcessError as error:
        return f"{_compiler()} cannot compile them: {_first_complaint(error)}"
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return f"they cannot be compiled: {first_line(error)}"


@functools.cache
def _why_not_on_gpu() -> str | None:
    """Return why the GPU has no kernels; None where they are compiled and are torch's functions."""
    if importlib.util.find_spec("triton") is None:
        return "there is no Triton here, which comes with PyTorch's builds for GPUs"
    try:
        on_gpu = importlib.import_module("harness.model.triton_kernels")
        for name in ON_GPU:
            _operators.impl(name, getattr(on_gpu, name), "CUDA")
        return _why_not_same(torch.device("cuda"))
    except Exception as error:  # whatever Triton says where it has no compiler, or does not know the GPU
        return f"Triton cannot compile them: {first_line(error)}"


def _why_not_same(device: torch.device) -> str | None:
    """Return which kernel of a device is another function than torch's; None where none is."""
    with ThreadPoolExecutor(1) as apart:  # modes are of a thread: some change every function of torch
        differences = apart.submit(_differences, device).result()
    name, worst = max(differences.items(), key=lambda pair: pair[1])
    return None if worst <= LARGEST_DIFFERENCE else f"{name} differs from torch by {worst:.2g}"


def compiled(x: Tensor) -> bool:
    """Return True for a tensor that the kernels compute with: no part of one that is spread over processes."""
    return x.dtype == torch.bfloat16 and not hasattr(x, "device_mesh") and why_not(x.device) is None


def _first_complaint(error: subprocess.CalledProcessError) -> str:
    lines = error.stderr.decode(errors="replace").splitlines()
    return next((line.strip() for line in lines if line.strip()), f"exit code {error.returncode}")


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


# What each kernel takes before the number of threads: pointers to bfloat16 (b), to rows of it that may lie apart (r),
# to float32 (f) and int64 (l), 64-bit integers (i), floats (x) and truths (t).
SIGNATURES = {
    "rms_norm": "bfbfiixt",
    "rms_norm_backward": "bbffbiit",
    "swiglu": "rrbiiii",
    "swiglu_backward": "brrbbiiii",
    "rotary": "bbbbiiiit",
    "causal_softmax": "fbiiii",
    "target_logprobs": "blfbii",
}
POINTERS = {"b": torch.bfloat16, "r": torch.bfloat16, "f": torch.float32, "l": torch.int64}
NUMBERS: dict[str, Callable[[Any], Any]] = {"i": ctypes.c_int64, "x": ctypes.c_float, "t": ctypes.c_int}


def _call(name: str, *args: Tensor | float) -> None:
    """Call a kernel with as many threads as torch has. Raises ValueError for a tensor that it would read wrongly."""
    values = [_as_c(name, kind, value) for kind, value in zip(SIGNATURES[name], args, strict=True)]
    getattr(_library(), name)(*values, ctypes.c_int(torch.get_num_threads()))


def _as_c(name: str, kind: str, value: Tensor | float) -> Any:
    if not isinstance(value, Tensor):
        return NUMBERS[kind](value)
    whole = value.stride(-1) == 1 or value.numel() <= 1 if kind == "r" else value.is_contiguous()
    if value.dtype != POINTERS[kind] or not whole:
        raise ValueError(
            f"{name}: {value.dtype} {[*value.shape]} with strides {value.stride()}, where it takes {kind!r}"
        )
    return ctypes.c_void_p(value.data_ptr())


def _expect(name: str, is_right: bool, *tensors: Tensor) -> None:
    """Raise ValueError, with the shapes, where tensors do not go together."""
    if not is_right:
        raise ValueError(f"{name}: tensors of {' and '.join(str(list(tensor.shape)) for tensor in tensors)}")


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
    _expect("rms_norm", x.ndim == 2 and scale.shape == x.shape[1:], x, scale)
    out, inverse = _norm_results(x, scale, eps, early)
    _call("rms_norm", x, scale, out, inverse, *x.shape, eps, early)
    return out, inverse


def _like_first(first: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(first)


@_operator("(Tensor grad, Tensor x, Tensor scale, Tensor inverse, bool early) -> Tensor", _like_first)
def rms_norm_backward(grad: Tensor, x: Tensor, scale: Tensor, inverse: Tensor, early: bool) -> Tensor:
    """Return the gradient of x, [n, h]."""
    _expect("rms_norm_backward", grad.shape == x.shape and scale.shape == x.shape[1:], grad, x, scale)
    out = torch.empty_like(grad)
    _call("rms_norm_backward", grad, x, scale, inverse, out, *x.shape, early)
    return out


def _contiguous_like(first: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(first, memory_format=torch.contiguous_format)


@_operator("(Tensor gate, Tensor up) -> Tensor", _contiguous_like)
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up, [n, h]; the rows of both may lie apart."""
    _expect("swiglu", gate.ndim == 2 and gate.shape == up.shape, gate, up)
    out = _contiguous_like(gate)
    _call("swiglu", gate, up, out, *gate.shape, gate.stride(0), up.stride(0))
    return out


def _two_like(grad: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad), torch.empty_like(grad)


@_operator("(Tensor grad, Tensor gate, Tensor up) -> (Tensor, Tensor)", _two_like)
def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of gate and up, [n, h]."""
    _expect("swiglu_backward", grad.shape == gate.shape == up.shape, grad, gate, up)
    of_gate, of_up = _two_like(grad)
    _call("swiglu_backward", grad, gate, up, of_gate, of_up, *grad.shape, gate.stride(0), up.stride(0))
    return of_gate, of_up


@_operator("(Tensor x, Tensor cos, Tensor sin, bool back) -> Tensor", _like_first)
def rotary(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    """Return x [b, s, heads, d] with its halves rotated by the angles [1 or b, s, d]; or, `back`, its gradient."""
    b, s, heads, d = x.shape
    _expect("rotary", cos.shape == sin.shape and cos.shape in ((1, s, d), (b, s, d)) and d % 2 == 0, x, cos, sin)
    out = torch.empty_like(x)
    _call("rotary", x, cos, sin, out, b * s, len(cos) * s, heads, d, back)
    return out


@_operator("(Tensor(a!) scores, Tensor(b!) out, int queries, int first) -> ()", lambda *args: None)
def causal_softmax(scores: Tensor, out: Tensor, queries: int, first: int) -> None:
    """Write the softmax of scores float32 [., q, keys] into `out`; the scores are used up.

    Query i sees `first + i % queries + 1` keys, the first ones.
    """
    rows, keys = math.prod(scores.shape[:-1]), scores.shape[-1]
    _expect("causal_softmax", scores.shape == out.shape and first + queries <= keys, scores, out)
    _call("causal_softmax", scores, out, rows, keys, queries, first)


def _logprobs_result(logits: Tensor, target: Tensor, minus: Tensor) -> Tensor:
    return logits.new_empty(len(logits), dtype=torch.float32)


@_operator("(Tensor logits, Tensor target, Tensor(a!) minus) -> Tensor", _logprobs_result)
def target_logprobs(logits: Tensor, target: Tensor, minus: Tensor) -> Tensor:
    """Return log softmax(logits [n, h])[target], float32 [n], and write minus its gradient into `minus` [n, h].

    Raises:
        IndexError: for a target that there is no logit for.
    """
    _expect("target_logprobs", logits.shape == minus.shape and target.shape == logits.shape[:1], logits, target, minus)
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < logits.shape[1]:
        raise IndexError(f"targets from {target.min()} to {target.max()}, and logits of {logits.shape[1]} tokens")
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
