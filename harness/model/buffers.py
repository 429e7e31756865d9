"""Memory that is used again on a CPU, where fresh memory costs a page fault for every 4 KiB of it."""

from __future__ import annotations

import math
import os
import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

# oneDNN and PyTorch's layer over it each keep what they compiled for 1,024 shapes of products, 0.27 MiB a shape. The
# layers of a batch share theirs, some 60 forward and backward; other batches have others.
KEPT_SHAPES = 128
SHAPE_BYTES = 2 * 283_000
CAPACITIES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def keep_few_shapes() -> None:
    """Let a CPU keep compiled products of KEPT_SHAPES shapes, where nobody has said otherwise; before the first one."""
    for name in CAPACITIES:
        os.environ.setdefault(name, str(KEPT_SHAPES))


class Buffers(threading.local):
    """Uninitialised tensors by name, each in the memory of the one before it. Accelerators have allocators for that."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, torch.dtype], Tensor] = {}
        self._of_modes: WeakKeyDictionary[Any, dict[tuple[str, torch.dtype], Tensor]] = WeakKeyDictionary()

    def get(self, name: str, dtype: torch.dtype, *shape: int, device: torch.device | str = "cpu") -> Tensor:
        """Return a tensor of the shape, which is another's as soon as the name is asked for again."""
        if torch.device(device).type != "cpu":
            return torch.empty(shape, dtype=dtype, device=device)
        mode = _get_current_dispatch_mode()  # whose tensors may be without contents, so that it has its own
        kept = self._of if mode is None else self._of_modes.setdefault(mode, {})
        size = math.prod(shape)
        buffer = kept.get((name, dtype))
        if buffer is None or len(buffer) < size:
            with torch.inference_mode(False):  # else it could not be written to outside, after an answer was sampled
                buffer = kept[name, dtype] = torch.empty(size, dtype=dtype)
        return buffer[:size].view(shape)
