"""Memory that is used again on a CPU, where fresh memory costs a page fault for every 4 KiB of it."""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode


class Buffers(threading.local):
    """Uninitialised tensors by name, each in the memory of the one before it. Accelerators have allocators for that."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, torch.dtype], Tensor] = {}

    def get(self, name: str, dtype: torch.dtype, *shape: int, device: torch.device | str = "cpu") -> Tensor:
        """Return a tensor of the shape, which is another's as soon as the name is asked for again."""
        if torch.device(device).type != "cpu" or _get_current_dispatch_mode() is not None:  # empty tensors of a mode
            return torch.empty(shape, dtype=dtype, device=device)
        size = math.prod(shape)
        buffer = self._of.get((name, dtype))
        if buffer is None or len(buffer) < size:
            with torch.inference_mode(False):  # else it could not be written to outside, after an answer was sampled
                buffer = self._of[name, dtype] = torch.empty(size, dtype=dtype)
        return buffer[:size].view(shape)
