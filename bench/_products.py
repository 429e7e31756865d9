"""The matrix products of a step, recorded, and run again alone: the time that a step cannot do without."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

NAMES = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_")


class Operand(NamedTuple):
    """A tensor that a product was given: its place in memory tells it from others of its form."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class Products(TorchDispatchMode):
    """Records each product inside the block: its function, and what it is given.

    Run again, each has operands of its own, as in the step: with one tensor for all operands of a form, the weights of
    every layer would be those of the first, in the cache already, and the products faster than any step can have them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Any, Any, str]] = []
        self.tensors: dict[Operand, torch.Tensor] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.overloadpacket.__name__ in NAMES:
            precision = torch.backends.mkldnn.matmul.fp32_precision
            self.calls.append((function, *tree_map(_operand, (args, kwargs)), precision))
        return function(*args, **kwargs)

    def seconds(self, device: Any) -> float:
        """Return the time of the products one after the other, on tensors that are there already."""
        calls = [
            (function, [self._tensor(value, device) for value in args],
             {name: self._tensor(value, device) for name, value in kwargs.items()}, precision)
            for function, args, kwargs, precision in self.calls
        ]  # fmt: skip
        before = torch.backends.mkldnn.matmul.fp32_precision
        with torch.no_grad():
            wait_for(device)
            began = time.perf_counter()
            for function, args, kwargs, precision in calls:
                torch.backends.mkldnn.matmul.fp32_precision = precision
                function(*args, **kwargs)
            wait_for(device)
            seconds = time.perf_counter() - began
        torch.backends.mkldnn.matmul.fp32_precision = before
        return seconds

    def _tensor(self, value: Any, device: Any) -> Any:
        if not isinstance(value, Operand):
            return value
        if value not in self.tensors:
            tensor = torch.empty_strided(value.shape, value.strides, dtype=value.dtype, device=device)
            self.tensors[value] = tensor.normal_(std=0.01)
        return self.tensors[value]


def large_flops_per_s(device: Any, size: int = 4096) -> float:
    """Measure a plain large bf16 product here: [size, size] by [size, size], the best of three."""
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        wait_for(device)
        began = time.perf_counter()
        a @ b.t()
        wait_for(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def _operand(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return Operand(value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)


def wait_for(device: Any) -> None:
    """Return when the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
