"""The layers of a model that an adapter can go on: chosen by name, apart from those that it cannot, and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from harness.errors import HarnessError, ModelError
from harness.model.forward import causal_lm, decoder_of

TRIED_TOKENS = 16
HEAD = "the output head"
ALL_LINEAR = "all-linear"
LAYERS = (nn.Linear, Conv1D, nn.Embedding, nn.Conv1d)
# Their fused kernels read this layer's weight past the module, so that an adapter on it would take no part.
# PEFT refuses it too.
MAMBA_TYPES, MAMBA_FUSED = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}, "out_proj"


@dataclass(frozen=True, slots=True)
class Targets:
    """Names of the layers to adapt, and of the weights to adapt that are no layers: a stack of experts is one."""

    layers: tuple[str, ...]
    experts: tuple[str, ...]


def choose(model: Any, wanted: str | Sequence[str], experts: bool) -> Targets:
    """Return the targets of `wanted`: `all-linear`, a regular expression for whole names, or a list of names' ends.

    Raises:
        HarnessError: where a name or pattern fits nothing, with the names that there are.
    """
    if wanted == ALL_LINEAR:
        inside, out = text_prefix(model), left_out(model)
        layers = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and name.startswith(inside) and name not in out
        ]
        return Targets(tuple(layers), tuple(expert_stacks(model)) if experts else ())
    if not wanted:
        raise HarnessError("tune.method.target_modules is empty: name at least one layer, or `all-linear`")
    patterns = [wanted] if isinstance(wanted, str) else [rf"(.*\.)?{re.escape(name)}" for name in wanted]
    layers = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]
    stacks = list(expert_stacks(model))
    for pattern, written in zip(patterns, [wanted] if isinstance(wanted, str) else wanted, strict=True):
        if not any(_fits(pattern, name, written) for name in (*layers, *stacks)):
            ends = sorted({name.rsplit(".", 1)[-1] for name in layers} | {".".join(n.split(".")[-2:]) for n in stacks})
            raise HarnessError(
                f"tune.method.target_modules = {wanted!r}: {written!r} fits no layer. Layers: {', '.join(ends)}; "
                f"`all-linear`, a list of names' ends such as [q_proj, v_proj], or a regular expression for whole "
                f"names, such as '.*layers\\.[0-3]\\..*_proj'"
            )
    chosen = [name for name in layers if any(re.fullmatch(pattern, name) for pattern in patterns)]
    return Targets(tuple(chosen), tuple(name for name in stacks if any(re.fullmatch(p, name) for p in patterns)))


def _fits(pattern: str, name: str, written: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise HarnessError(
            f"tune.method.target_modules: {written!r} is no regular expression: {error}; a list of names' ends is "
            f"written [q_proj, v_proj]"
        ) from None


def text_prefix(model: Any) -> str:
    """Return how the names of the text decoder's modules begin: "" for a model of text alone."""
    lm = causal_lm(model)
    if lm.config.get_text_config() is lm.config:
        return ""
    try:
        decoder = decoder_of(lm)
    except ModelError:
        return ""
    return next(f"{name}." for name, module in lm.named_modules() if module is decoder)


def left_out(model: Any) -> dict[str, str]:
    """Return the linear layers of the text decoder that `all-linear` leaves out, each with the reason."""
    lm, reasons = causal_lm(model), {}
    heads, bypassed = [lm.get_output_embeddings()], _bypassed(lm)
    counts = {stack.shape[0] for stack in expert_stacks(lm).values()}
    for name, module in lm.named_modules():
        if not isinstance(module, nn.Linear | Conv1D):
            continue
        last = name.rsplit(".", 1)[-1]
        if module in heads:
            reasons[name] = HEAD
        elif name in bypassed:
            reasons[name] = "its weight is read past the layer"
        elif lm.config.model_type in MAMBA_TYPES and last == MAMBA_FUSED:
            reasons[name] = "its fused kernel reads past the layer"
        elif type(module).__module__.startswith("transformers.models") and "forward" in vars(type(module)):
            reasons[name] = "it computes in a way of its own"
        elif isinstance(module, nn.Linear) and module.out_features in counts and last in ROUTERS:
            reasons[name] = "a router"
    return reasons


def _bypassed(lm: Any) -> frozenset[str]:
    """Return the linear layers whose weight takes part while they are not called: an adapter on them would not.

    Some Mamba layers compute so. A few tokens are tried, once a model; an expert that none of them reaches is not
    called either, and its weight gets no gradient.
    """
    if (known := getattr(lm, "bypassed_layers", None)) is not None:
        return known  # type: ignore[no-any-return]
    called: set[str] = set()
    linear = {name: module for name, module in lm.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    names = {id(module): name for name, module in linear.items()}
    hooks = [
        module.register_forward_hook(lambda module, *_: called.add(names[id(module)])) for module in linear.values()
    ]
    ids = torch.arange(TRIED_TOKENS, device=lm.device)[None] % lm.get_input_embeddings().weight.shape[0]
    try:
        with torch.no_grad():
            lm(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    bypassed = _with_gradient(lm, ids, {name: module for name, module in linear.items() if name not in called})
    lm.bypassed_layers = bypassed
    return bypassed


def _with_gradient(lm: Any, ids: torch.Tensor, layers: dict[str, Any]) -> frozenset[str]:
    """Return which of the layers' weights the logits of `ids` [1, s] depend on."""
    weights = {name: layer.weight for name, layer in layers.items() if layer.weight.is_floating_point()}
    if not weights:
        return frozenset()
    before = [(weight, weight.requires_grad) for weight in lm.parameters()]
    try:
        lm.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        with torch.enable_grad():
            total = lm(input_ids=ids, use_cache=False).logits.float().square().sum()
        if not total.requires_grad:
            return frozenset()
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    finally:
        for weight, required in before:
            weight.requires_grad_(required)
    return frozenset(name for name, gradient in zip(weights, gradients, strict=True) if gradient is not None)


ROUTERS = ("gate", "router", "layer", "wg")  # the names of linear layers that choose between experts


def expert_stacks(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights, [experts, ., .], that hold all experts of a layer in one tensor, as transformers 5 does."""
    return {
        name: weight
        for name, weight in causal_lm(model).named_parameters()
        if weight.ndim == 3 and name.rpartition(".")[0].rpartition(".")[2] == "experts"
    }


def moving_and_resting(model: Any) -> tuple[Counter[str], Counter[str]]:
    """Count the layers with weights or an adapter that move, and the others, by the last part of their names.

    Norms and biases that stay are left out; towers beside the text decoder (vision, audio) count under their own names.
    """
    lm, tower = causal_lm(model), text_prefix(model).rstrip(".")
    moving, resting = Counter[str](), Counter[str]()
    for name, module in _layers(lm, ""):
        if any(weight.requires_grad for weight in _weights(module)):
            moving[_kind(name, module)] += 1
        elif any(weight.ndim >= 2 for weight in module.parameters(recurse=False)):
            resting[_tower(name, tower) or _kind(name, module)] += 1
    return moving, resting


def _layers(module: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each module with its name; of an adapter's layer itself, and again where it lies on another adapter's."""
    yield name, module
    if hasattr(module, "get_base_layer"):
        if hasattr(module.base_layer, "get_base_layer"):
            yield from _layers(module.base_layer, name)
        return
    for key, child in module.named_children():
        yield from _layers(child, f"{name}.{key}" if name else key)


def _weights(module: Any) -> Iterator[torch.Tensor]:
    """Yield a module's own weights; of an adapter's layer those of the adapter."""
    if not hasattr(module, "get_base_layer"):
        yield from module.parameters(recurse=False)
        return
    for name, weight in module.named_parameters():
        if not name.startswith("base_layer."):
            yield weight


def _kind(name: str, module: Any) -> str:
    last, weight = name.rsplit(".", 1)[-1], getattr(module, "parameter_name", "weight")
    return last if weight == "weight" else f"{last}.{weight}"


def _tower(name: str, text: str) -> str | None:
    """Return the name of the tower beside the text decoder `text` that a layer is in; None for one of the text."""
    parts, own = name.split("."), text.split(".")
    if not text or parts[: len(own)] == own or parts[: len(own) - 1] != own[:-1]:
        return None
    return ".".join(parts[: len(own)])
