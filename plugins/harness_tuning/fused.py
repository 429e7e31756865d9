"""A layer's frozen product and its adapter's in one autograd function, where PEFT computes a plain LoRA layer.

PEFT's own forward, x W^T + b + (x A^T) B^T * s, makes three tensors of the output's size and passes over them again
for the scale and the sum, forward and backward. Here the adapter's products are added into the base's in place. The
modules, their names and what is saved stay PEFT's; whatever is not plain LoRA takes PEFT's path.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness
from harness.extras import require

TRIED_TOKENS = 8
LARGEST_DIFFERENCE = 1e-5  # relative, in float32, of the output and of each gradient


class LoraProduct(torch.autograd.Function):  # type: ignore[misc]
    """x W^T + bias + scaling (x A^T) B^T, with W and bias frozen.

    x: [n, in]; weight: [out, in]; a: [r, in]; b: [out, r].
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        low = x @ a.t()
        ctx.scaling = scaling
        ctx.save_for_backward(x, low, weight, a, b)
        return F.linear(x, weight, bias).addmm_(low, b.t(), alpha=scaling)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, low, weight, a, b = ctx.saved_tensors
        needs_x, _, _, needs_a, needs_b, _ = ctx.needs_input_grad
        grad_low = (grad @ b).mul_(ctx.scaling)
        grad_x = (grad @ weight).addmm_(grad_low, a) if needs_x else None
        grad_a = grad_low.t() @ x if needs_a else None
        grad_b = (grad.t() @ low).mul_(ctx.scaling) if needs_b else None
        return grad_x, None, None, grad_a, grad_b, None


def fuse_adapters(model: nn.Module) -> int:
    """Let the plain LoRA layers of a model compute by `LoraProduct`; return how many do.

    A layer of each shape is tried on a few tokens first, in float32: output and gradients must be PEFT's.

    Raises:
        ModelError: where they are not.
    """
    lora = require("peft.tuners.lora", "tuning")
    layers = {name: module for name, module in model.named_modules() if type(module) is lora.Linear}
    layers = {name: layer for name, layer in layers.items() if _plain_adapter(layer) is not None}
    tried: set[tuple[Any, ...]] = set()
    for name, layer in layers.items():
        expected = None if (kind := _kind(layer)) in tried else _tried(layer)
        layer.forward = functools.partial(_forward, layer, layer.forward)
        if expected is not None and not (difference := _difference(_tried(layer), expected)) <= LARGEST_DIFFERENCE:
            raise harness.ModelError(
                f"{name}: the fused product differs from PEFT's by {difference:.3g} in float32, expected at most "
                f"{LARGEST_DIFFERENCE:g}; please report the architecture and the versions of torch and peft"
            )
        tried.add(kind)
    return len(layers)


def _forward(layer: Any, plain: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Compute a LoRA layer: fused where the call is a plain one, else as PEFT does (`plain`)."""
    adapter = None if args or kwargs or x.ndim < 2 else _plain_adapter(layer)
    if adapter is None or x.dtype != layer.lora_A[adapter].weight.dtype or torch.is_autocast_enabled(x.device.type):
        return plain(x, *args, **kwargs)
    base, scaling = layer.base_layer, layer.scaling[adapter]
    if scaling == 0:  # the adapter is left out
        out: Tensor = base(x)
        return out
    a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    flat = LoraProduct.apply(x.flatten(0, -2), base.weight, base.bias, a, b, scaling)
    fused: Tensor = flat.view(*x.shape[:-1], flat.shape[-1])
    return fused


def _plain_adapter(layer: Any) -> str | None:
    """Return the name of the one adapter that is plain LoRA on a frozen linear layer of its dtype; None elsewhere."""
    base, active = layer.base_layer, layer.active_adapters
    if type(base) is not nn.Linear or len(active) != 1 or layer.disable_adapters or layer.merged:
        return None
    name: str = active[0]
    if name not in layer.lora_A or layer.lora_variant.get(name) is not None:
        return None
    a, b, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    if isinstance(dropout, nn.Dropout) and dropout.p > 0:
        return None
    if type(a) is not nn.Linear or type(b) is not nn.Linear or b.bias is not None:
        return None
    if any(module._forward_hooks or module._forward_pre_hooks for module in (base, a, b)):
        return None
    if any(parameter.requires_grad for parameter in base.parameters()):
        return None
    return name if base.weight.dtype == a.weight.dtype == b.weight.dtype else None


def _kind(layer: Any) -> tuple[Any, ...]:
    """Return all that decides how a layer computes."""
    (name,) = layer.active_adapters
    base = layer.base_layer
    return *base.weight.shape, base.bias is not None, len(layer.lora_A[name].weight), layer.scaling[name]


def _tried(layer: Any) -> tuple[Tensor, ...]:
    """Return output and gradients of a layer for a few random tokens and random adapter weights, in float32."""
    device = layer.base_layer.weight.device
    random = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=device)

    weights = {name: weight.detach().float() for name, weight in layer.named_parameters()}
    trained = {name: draw(*weight.shape).requires_grad_() for name, weight in weights.items() if "lora_" in name}
    x = draw(2, TRIED_TOKENS, layer.base_layer.in_features).requires_grad_()
    with torch.enable_grad():
        out = torch.func.functional_call(layer, weights | trained, (x,))
        gradients = torch.autograd.grad(out, (x, *trained.values()), draw(*out.shape))
    return out.detach(), *gradients


def _difference(fused: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Return the largest relative difference of two lists of tensors."""
    pairs = zip(fused, expected, strict=True)
    return max(float((one - other).norm() / other.norm().clamp_min(1e-9)) for one, other in pairs)
