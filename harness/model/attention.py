"""Choice of a model's attention: the fastest that computes the model's own function, else the model's own.

A model's definition is its `eager` attention. `sdpa` is several times faster and silently leaves out what it does not
know: a soft-cap of the scores (Gemma 2), sinks. So it is not looked up in a list of names but tried on the model at
hand, on a few tokens.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.model import block_attention

TOKENS = 8
# Scores of a real text can be large while those of these few tokens are small: a cap of 50 must show all the same.
SCORE_SPREADS = (None, 20.0)
LARGEST_DIFFERENCE = 1e-3  # relative, in float32
LARGEST_DIFFERENCE_OF_LOGITS = 0.05  # relative, in the model's own dtype


@dataclass
class _Trial:
    """Calls of `sdpa` that were compared with the model's own attention."""

    compared: int = 0
    largest: float = 0.0
    arguments: set[str] = field(default_factory=set)  # those of calls that differ and that `sdpa` has no name for


def why_not_sdpa(model: Any) -> str | None:
    """Return why a model loaded with `sdpa` must compute with its `eager` attention, or None where the two agree.

    Each attention layer is called with its own queries, keys and values of a few tokens, as they are and scaled up, in
    float32. A model whose layers do not call the function by its name is compared by its logits.
    """
    if model.config._attn_implementation != "sdpa":
        return None
    device = next(model.parameters()).device
    ids = torch.arange(TOKENS, device=device)[None] % model.get_input_embeddings().weight.shape[0]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
            with _comparing("sdpa", sdpa, go_on_with=sdpa) as trial:
                logits = model(input_ids=ids, use_cache=False).logits
            if trial.largest > LARGEST_DIFFERENCE:
                return _reason(trial)
            return None if trial.compared else _compare_logits(model, ids, logits)
    finally:
        model.train(was_training)


def compute_by_blocks(model: Any) -> bool:
    """Let a model on a CPU compute its `sdpa` by blocks of plain products; return True where it does.

    It does in bfloat16, on a processor that multiplies it, if a trial shows that it is the model's own function.
    """
    weight = next(model.parameters())
    if model.config._attn_implementation != "sdpa" or not model._can_set_attn_implementation():
        return False
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not block_attention.has_bfloat16_products():
        return False
    ids = torch.arange(TOKENS)[None] % model.get_input_embeddings().weight.shape[0]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits
            model.set_attn_implementation(block_attention.NAME)
            sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
            with _comparing(block_attention.NAME, block_attention.by_blocks, go_on_with=sdpa) as trial:
                logits = model(input_ids=ids, use_cache=False).logits
    finally:
        model.train(was_training)
    # The same bits: a model that does otherwise under another name than sdpa is left alone.
    if trial.compared and trial.largest <= LARGEST_DIFFERENCE and torch.equal(logits, expected):
        return True
    model.set_attn_implementation("sdpa")
    return False


def _reason(trial: _Trial) -> str:
    if "softcap" in trial.arguments:
        return "the model soft-caps its attention, which sdpa drops"
    named = f" ({', '.join(sorted(trial.arguments))})" if trial.arguments else ""
    return f"sdpa differs from the model's own attention by {trial.largest:.1%}{named}"


def _compare_logits(model: Any, ids: Any, logits: Any) -> str | None:
    if not model._can_set_attn_implementation():
        return None  # it has classes of its own for each, and chose its sdpa itself
    model.set_attn_implementation("eager")
    try:
        own = model(input_ids=ids, use_cache=False).logits.float()
    finally:
        model.set_attn_implementation("sdpa")
    difference = float((logits.float() - own).norm() / own.norm())
    if difference <= LARGEST_DIFFERENCE_OF_LOGITS:
        return None
    return f"its logits under sdpa differ from its own by {difference:.1%}"


@contextmanager
def _comparing(name: str, function: Callable[..., Any], *, go_on_with: Callable[..., Any]) -> Iterator[_Trial]:
    """Compare `function` with the model's own attention, at every call of the attention `name` inside the block.

    The model computes on with the result of `go_on_with`.
    """
    functions, trial = ALL_ATTENTION_FUNCTIONS, _Trial()

    def both(module: Any, *args: Any, **kwargs: Any) -> Any:
        own = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        if own is not None:
            for spread in SCORE_SPREADS:
                difference = _difference(function, own, spread, module, *args, **kwargs)
                trial.compared += 1
                trial.largest = max(trial.largest, difference)
                if difference > LARGEST_DIFFERENCE:
                    trial.arguments |= _unnamed(function, kwargs)
        return go_on_with(module, *args, **kwargs)

    functions[name] = both
    try:
        yield trial
    finally:
        del functions[name]


def _difference(
    function: Callable[..., Any], own: Callable[..., Any], spread: float | None,
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, **kwargs: Any,
) -> float:  # fmt: skip
    """Return the largest difference of the two attentions, relative to the largest output.

    query, key, value: [b, heads, s, d].
    """
    query, key, value = query.float(), key.float(), value.float()
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    if spread is not None:
        groups = query.shape[1] // key.shape[1]
        scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scaling
        query = query * (spread / scores.std().clamp_min(1e-9))
    mask = attention_mask
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    fused = function(module, query, key, value, mask, **kwargs)[0]
    plain = own(module, query, key, value, _additive(mask, query, key, module, kwargs), **kwargs)[0]
    difference = float((fused - plain).abs().max() / plain.abs().max().clamp_min(1e-9))
    return difference if math.isfinite(difference) else math.inf


def _additive(mask: Any, query: Any, key: Any, module: Any, kwargs: dict[str, Any]) -> Any:
    """Return the mask as a plain attention adds it to its scores: [1 or b, 1, s, s] in float32."""
    if mask is None:
        is_causal = kwargs.get("is_causal")
        if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
            return None
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()[None, None]
    if mask.dtype == torch.bool:
        return block_attention.additive(mask)
    return mask


def _unnamed(function: Callable[..., Any], kwargs: dict[str, Any]) -> set[str]:
    """Return the arguments that were given a value and that the function only swallows."""
    plain = {
        "sliding_window",
        "output_attentions",
        "position_ids",
        "use_cache",
        "cache_position",
        "position_embeddings",
    }
    known = {*inspect.signature(function).parameters, *plain}
    return {name for name, value in kwargs.items() if value is not None and name not in known}
