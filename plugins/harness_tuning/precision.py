"""Float32 for a block, whatever a model's weights are kept in: checks that compare two ways to compute use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

HALVES = (torch.bfloat16, torch.float16)


class _Upcast(TorchFunctionMode):  # type: ignore[misc]  # torch declares no type for it
    """Every function of torch gets float32 for what is half of it: tensors, and the types that are asked for.

    A weight is upcast where it is used and let go again, so that no second copy of the model is needed.
    """

    pauses = False  # while weights are gathered

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _Upcast.pauses:
            return func(*args, **(kwargs or {}))
        return func(*tree_map(_upcast, args), **tree_map(_upcast, kwargs or {}))


def _upcast(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in HALVES else value
    return torch.float32 if value in HALVES else value


def leave_to_itself(module: torch.nn.Module) -> None:
    """Let the hooks that a module has around its forward pass, which gather and free its weights, see them as kept."""

    def pause(*_: Any) -> None:
        _Upcast.pauses = True

    def go_on(*_: Any) -> None:
        _Upcast.pauses = False

    module.register_forward_pre_hook(pause, prepend=True)
    module.register_forward_pre_hook(go_on)
    module.register_forward_hook(pause, prepend=True)
    module.register_forward_hook(go_on)


@contextmanager
def in_float32() -> Iterator[None]:
    """Compute in float32 without TF32 for the block, and without a gradient."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    _Upcast.pauses = False
    try:
        with torch.no_grad(), _Upcast():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
