"""Scores of the last tokens of a prompt on a CPU, with the tokens before them read from the prefix cache.

vLLM 0.32 computes a prompt anew wherever `prompt_logprobs` are asked for, since the cache holds no scores: four choices
after one question are four times the question, and examples before it are computed for each item again. Here a request
that says with `vllm_xargs` how many of its last tokens are scored finds the tokens before those in the cache. The
entries of what was found there are zeros.

Imported by the engine's process, like `cpu_lora.py`; elsewhere vLLM passes the argument over and computes everything.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.request import Request

from harness.client.served import SCORED

skips_the_cache = Request.get_skip_reading_prefix_cache
find_in_cache = KVCacheManager.get_computed_blocks
uninitialised = LogprobsTensors.empty_cpu


def get_skip_reading_prefix_cache(request: Any) -> bool:
    """Return False for a request whose first tokens are not scored: it may find those in the cache."""
    return _before_scored(request) is None and bool(skips_the_cache(request))


def get_computed_blocks(manager: Any, request: Any) -> Any:
    """Return what the cache has of a request, without the position that predicts the first scored token."""
    if (before := _before_scored(request)) is None:
        return find_in_cache(manager, request)
    coordinator = manager.coordinator
    find = coordinator.find_longest_cache_hit
    coordinator.find_longest_cache_hit = lambda hashes, longest: find(hashes, min(longest, before - 1))
    try:
        return find_in_cache(manager, request)
    finally:
        del coordinator.find_longest_cache_hit


def empty_cpu(*arguments: Any, **named: Any) -> Any:
    """Return zeros where vLLM returns memory as it is: ids in it need not be in the vocabulary."""
    tensors = uninitialised(*arguments, **named)
    for tensor in (tensors.logprob_token_ids, tensors.logprobs, tensors.selected_token_ranks):
        tensor.zero_()
    return tensors


def _before_scored(request: Any) -> int | None:
    """Return the number of tokens before the scored ones; None where the request does not say."""
    asked = request.sampling_params and request.sampling_params.extra_args
    scored = asked.get(SCORED) if asked else None
    return max(1, request.num_prompt_tokens - int(scored)) if scored else None


Request.get_skip_reading_prefix_cache = get_skip_reading_prefix_cache
KVCacheManager.get_computed_blocks = get_computed_blocks
LogprobsTensors.empty_cpu = staticmethod(empty_cpu)
