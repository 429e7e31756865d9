"""A decoder layer's norms, rotary embeddings and SwiGLU as single functions, where they are seen to be the model's own.

transformers computes each by several functions that pass over memory and keep tensors for the backward pass. Here each
is one kernel forward and one backward (harness/model/kernels.py), which keep what goes in. Modules are chosen by what
they consist of, and tried: in bfloat16, output and gradients must be the model's own but for rare roundings. Modules
for which that does not hold, and calls with other tensors, are computed as before.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import RunError
from harness.model import kernels
from harness.model.forward import causal_lm

NOT_HERE = "for bfloat16, on the device"
TRIED_ROWS, TRIED_SCALES = 8, (1.0, 1e-3)  # small numbers, so that the norm's epsilon shows


@dataclass(frozen=True, slots=True)
class FusedLayers:
    """The number of norms and SwiGLUs of a model, and of modules with rotary embeddings, that are fused; why none."""

    norms: int = 0
    swiglus: int = 0
    rotaries: int = 0
    reason: str | None = None

    def __str__(self) -> str:
        counts = {"norms": self.norms, "SwiGLUs": self.swiglus, "rotary embeddings": self.rotaries}
        some = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return some or f"none{f' ({self.reason})' if self.reason else ''}"


class RmsNorm(torch.autograd.Function):  # type: ignore[misc]
    """scale * x / rms(x), x [n, h], with the scale frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float, early: bool) -> Tensor:
        out, inverse = kernels.rms_norm(x, scale, eps, early)
        ctx.early = early
        ctx.save_for_backward(x, scale, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return kernels.rms_norm_backward(grad.contiguous(), *ctx.saved_tensors, ctx.early), None, None, None


class SwiGlu(torch.autograd.Function):  # type: ignore[misc]
    """silu(gate) * up, both [n, h]."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return kernels.swiglu(gate, up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return kernels.swiglu_backward(grad.contiguous(), *ctx.saved_tensors)


class Rotary(torch.autograd.Function):  # type: ignore[misc]
    """x [b, s, heads, d] rotated by the angles [1 or b, s, d] of its positions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return kernels.rotary(x, cos, sin, False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return kernels.rotary(grad.contiguous(), *ctx.saved_tensors, True), None, None


def fuse_layers(model: nn.Module) -> FusedLayers:
    """Let a model's norms, SwiGLUs and rotary embeddings compute fused where that is what they compute; count them."""
    weight = causal_lm(model).get_input_embeddings().weight
    if weight.dtype != torch.bfloat16:
        return FusedLayers(reason=NOT_HERE)
    if (reason := kernels.why_not(weight.device)) is not None:
        return FusedLayers(reason=reason)
    norms = sum(_fuse_norm(module) for module in model.modules())
    swiglus = sum(_fuse_swiglu(module, weight.device) for module in model.modules())
    names = sorted({type(module).__module__ for module in model.modules()})
    rotaries = sum(_fuse_rotary(name, weight.device) for name in names)
    return FusedLayers(norms, swiglus, rotaries)


def go_on_as(begun: Mapping[str, Any] | None) -> None:
    """Compute with the kernels, or without them as a run did that goes on; `begun` is what was fused in it."""
    without = begun is not None and begun.get("reason") is not None
    kernels.leave_out("the run was begun without the kernels" if without else None)


def check_as_begun(fused: FusedLayers, begun: Mapping[str, Any] | None) -> str | None:
    """Return a warning where a run that goes on computes with other functions than it began with, as was asked for.

    Raises:
        RunError: where nobody has asked for that.
    """
    if begun is None or begun.get("reason") is not None:
        return None
    before = FusedLayers(**begun)
    if fused == before:
        return None
    change = f"the run was begun with other functions than this machine computes with: {before} fused, now {fused}"
    if os.environ.get(kernels.SWITCH) == "0":
        return f"{change}. It goes on with those of torch, and its result will be another by rare roundings"
    raise RunError(
        f"{change}, so that its result would not be that of a run which never stopped. Go on where it was begun, or "
        f"set {kernels.SWITCH}=0 to go on all the same, with torch's functions"
    )


@dataclass(frozen=True, slots=True)
class NormForm:
    """A way to scale: by w or by 1 + w, and whether the quotient is rounded before."""

    adds_one: bool
    early: bool

    def scale(self, weight: Tensor) -> Tensor:
        """Return what the quotient is multiplied by, float32 [h]."""
        return weight.float() + 1.0 if self.adds_one else weight.float()


NORM_FORMS = (NormForm(adds_one=False, early=True), NormForm(adds_one=True, early=False), NormForm(False, False))


def _fuse_norm(module: Any) -> bool:
    """Fuse a module that has a vector of weights, an epsilon, and nothing else, where it computes one of the forms."""
    names = [name for name, _ in module.named_parameters()]
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if names != ["weight"] or not isinstance(eps, float) or [*module.children(), *module.buffers()]:
        return False
    weight = module.weight
    if weight.ndim != 1 or weight.dtype != torch.bfloat16 or weight.requires_grad or module._forward_hooks:
        return False
    random = torch.Generator().manual_seed(0)
    drawn = (1 + torch.randn(len(weight), generator=random) / 4).to(weight)
    inputs = [_draw(random, TRIED_ROWS, len(weight)).to(weight.device) * scale for scale in TRIED_SCALES]

    def own(x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, {"weight": drawn}, (x,))
        return out

    for form in NORM_FORMS:
        fused = functools.partial(_scaled, form.scale(drawn), eps, form.early)
        if all(_is_same(fused, own, x) for x in inputs):
            module.forward = functools.partial(_norm, module, module.forward, form, eps)
            return True
    return False


def _scaled(scale: Tensor, eps: float, early: bool, x: Tensor) -> Tensor:
    out: Tensor = RmsNorm.apply(x.contiguous().view(-1, x.shape[-1]), scale, eps, early)
    return out.view(x.shape)


def _norm(module: Any, plain: Callable[..., Tensor], form: NormForm, eps: float, x: Tensor) -> Tensor:
    weight = module.weight
    if not kernels.compiled(x) or not kernels.compiled(weight) or weight.requires_grad or x.shape[-1] != len(weight):
        return plain(x)
    return _scaled(form.scale(weight), eps, form.early, x)


def _fuse_swiglu(module: Any, device: torch.device) -> bool:
    """Fuse a module that goes down from silu(gate) * up, with gate and up in two layers or in one."""
    children = dict(module.named_children())
    linear = {"gate_up_proj", "down_proj"} if "gate_up_proj" in children else {"gate_proj", "up_proj", "down_proj"}
    others = [child for name, child in children.items() if name not in linear]
    if not linear <= children.keys() or len(others) != 1 or list(others[0].parameters()) or module._forward_hooks:
        return False
    inside = getattr(children[min(linear - {"down_proj"})], "in_features", None)
    plain = module.forward
    fused = functools.partial(_swiglu, module, plain)
    if not isinstance(inside, int):
        return False
    if not _is_same(fused, plain, _draw(torch.Generator().manual_seed(0), 2, TRIED_ROWS, inside).to(device)):
        return False
    module.forward = fused
    return True


def _swiglu(module: Any, plain: Callable[..., Tensor], x: Tensor) -> Tensor:
    if not kernels.compiled(x) or x.ndim < 2:
        return plain(x)
    if hasattr(module, "gate_up_proj"):
        gate, up = module.gate_up_proj(x).chunk(2, dim=-1)
    else:
        gate, up = module.gate_proj(x), module.up_proj(x)
    size = gate.shape[-1]
    gate, up = (part.flatten(0, -2) for part in (gate, up))
    if not all(kernels.compiled(part) and part.stride(-1) == 1 for part in (gate, up)):
        return plain(x)
    out = SwiGlu.apply(gate, up).view(*x.shape[:-1], size)
    down: Tensor = module.down_proj(out)
    return down


ROTATE = "apply_rotary_pos_emb"  # the function that transformers' attention layers call by this name


class FusedRotary:
    """The function of a module of transformers that rotates queries and keys, computed fused where it can be."""

    def __init__(self, plain: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self.plain = plain

    def __call__(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return queries and keys, [b, heads, s, d], rotated by [1 or b, s, d]."""
        if args or kwargs or not all(_rotates(x, cos, sin) for x in (q, k)):
            return self.plain(q, k, cos, sin, *args, **kwargs)
        cos, sin = cos.contiguous(), sin.contiguous()
        return tuple(Rotary.apply(x.transpose(1, 2).contiguous(), cos, sin).transpose(1, 2) for x in (q, k))


def _rotates(x: Tensor, cos: Tensor, sin: Tensor) -> bool:
    if not all(map(kernels.compiled, (x, cos, sin))) or x.ndim != 4 or cos.shape != sin.shape or cos.ndim != 3:
        return False
    rows, s, d = cos.shape
    return x.shape[2:] == (s, d) and rows in (1, len(x)) and d % 2 == 0


def _fuse_rotary(name: str, device: torch.device) -> bool:
    """Fuse the rotary embedding of a module of transformers, where it rotates the two halves of a head."""
    module = sys.modules[name]
    plain = getattr(module, ROTATE, None)
    if isinstance(plain, FusedRotary):
        return True
    if plain is None or not name.startswith("transformers.models."):
        return False
    random = torch.Generator().manual_seed(0)
    angles = _draw(random, 2, 1, TRIED_ROWS, 16).to(device)
    fused = FusedRotary(plain)

    def of(rotate: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.cat(rotate(x[:, :4], x[:, 4:], angles[0].cos(), angles[1].sin()), 1)

    if not _is_same(of(fused), of(plain), _draw(random, 2, 6, TRIED_ROWS, 16).to(device)):
        return False
    setattr(module, ROTATE, fused)
    return True


def _draw(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=random).to(torch.bfloat16)


def _is_same(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Return True where two functions have the same output and gradient at x, but for rare roundings."""
    try:
        pairs = zip(*map(list, (_results(function, x) for function in (one, other))), strict=True)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):  # a module that takes something else
        return False
    return all(float((a - b).float().norm()) <= kernels.LARGEST_DIFFERENCE * float(b.float().norm()) for a, b in pairs)


def _results(function: Callable[[Tensor], Tensor], x: Tensor) -> Iterator[Tensor]:
    x = x.detach().requires_grad_()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)  # for an adapter's dropout
        out = function(x)
        yield out.detach()
        yield torch.autograd.grad(out, x, _draw(torch.Generator().manual_seed(1), *out.shape).to(out.device))[0]
