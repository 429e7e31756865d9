"""The matrix products of a step, recorded, and run again alone: the time that a step cannot do without."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

NAMES = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_")


class Products(TorchDispatchMode):
    """Records each product inside the block: its function, and shape, strides and dtype of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, str]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.overloadpacket.__name__ in NAMES:
            precision = torch.backends.mkldnn.matmul.fp32_precision
            self.calls.append((function, *tree_map(_meta, (args, kwargs)), precision))
        return function(*args, **kwargs)

    def seconds(self, device: Any) -> float:
        """Return the time of the products one after the other, on tensors that are there already: the best of two."""
        tensors: dict[Any, Any] = {}

        def real(meta: Any, place: int) -> Any:
            if not isinstance(meta, torch.Tensor):
                return meta
            key = (tuple(meta.shape), meta.stride(), meta.dtype, place)
            if key not in tensors:
                tensors[key] = torch.empty_strided(meta.shape, meta.stride(), dtype=meta.dtype, device=device)
                tensors[key].normal_(std=0.01)
            return tensors[key]

        ready = []
        for function, args, kwargs, precision in self.calls:
            args = [real(value, place) for place, value in enumerate(args)]
            kwargs = {name: real(value, len(args)) for name, value in kwargs.items()}
            if function.overloadpacket.__name__.startswith("baddbmm") and "out" in kwargs:
                args[0] = kwargs["out"]
            ready.append((function, args, kwargs, precision))
        best = float("inf")
        before = torch.backends.mkldnn.matmul.fp32_precision
        with torch.no_grad():
            for _ in range(2):
                wait_for(device)
                began = time.perf_counter()
                for function, args, kwargs, precision in ready:
                    torch.backends.mkldnn.matmul.fp32_precision = precision
                    function(*args, **kwargs)
                wait_for(device)
                best = min(best, time.perf_counter() - began)
        torch.backends.mkldnn.matmul.fp32_precision = before
        return best


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


def _meta(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def wait_for(device: Any) -> None:
    """Return when the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
