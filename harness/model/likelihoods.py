"""Log-likelihoods of given tokens: the model runs in its own dtype, the softmax in float32.

The head is run only where a token is to be predicted, which is most of the time and memory of a small model.
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from harness.model.load import LoadedVariant

_LOGITS = 1 << 28  # at once, of those that are wanted: 1 GiB in float32


class Likelihood(NamedTuple):
    """The log-likelihood (natural log) of a continuation, and whether greedy decoding gives it."""

    log_likelihood: float
    is_greedy: bool


def logits_at(loaded: LoadedVariant, rows: Sequence[list[int]], positions: Sequence[Sequence[int]]) -> torch.Tensor:
    """The logits, float32 [n, v], at the wanted positions of every row: those of the first row, then of the second.

    The logits at position p predict the token after it. Rows are padded on the right, where nothing looks at it.
    """
    width = max(map(len, rows))
    input_ids = torch.full((len(rows), width), loaded.template.pad_id)
    attention = torch.zeros_like(input_ids)
    wanted = torch.zeros_like(input_ids, dtype=torch.bool)
    for row, (ids, at) in enumerate(zip(rows, positions, strict=True)):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention[row, : len(ids)] = 1
        wanted[row, list(at)] = True
    input_ids, attention, wanted = (tensor.to(loaded.device) for tensor in (input_ids, attention, wanted))
    columns = wanted.any(0).nonzero()[:, 0]
    with torch.inference_mode():
        if "logits_to_keep" in inspect.signature(_causal(loaded.model).forward).parameters:
            logits = loaded.model(
                input_ids=input_ids, attention_mask=attention, use_cache=False, logits_to_keep=columns
            ).logits
        else:
            logits = loaded.model(input_ids=input_ids, attention_mask=attention, use_cache=False).logits[:, columns]
        chosen: torch.Tensor = logits[wanted[:, columns]].float()
    return chosen


def likelihoods(
    loaded: LoadedVariant,
    pairs: Sequence[tuple[list[int], list[int]]],
    batch_size: int,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Likelihood]:
    """The likelihood of each (context, continuation), as ids, in the order given.

    Batches go by length and content, not by that order. Continuations of one token after the same context share a forward pass.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (context, continuation) in enumerate(pairs):
        groups[(*context, *continuation[:-1])].append(index)
    inputs = deque(sorted(groups, key=lambda ids: (-len(ids), ids)))
    vocabulary = loaded.model.config.get_text_config().vocab_size
    found: dict[int, Likelihood] = {}
    while inputs:
        batch: list[tuple[int, ...]] = []
        longest: list[int] = []
        while inputs and len(batch) < batch_size:
            wanted = max(len(pairs[index][1]) for index in groups[inputs[0]])
            if batch and (sum(longest) + wanted) * vocabulary > _LOGITS:
                break
            batch.append(inputs.popleft())
            longest.append(wanted)
        positions = [range(len(ids) - length, len(ids)) for ids, length in zip(batch, longest, strict=True)]
        logprobs = logits_at(loaded, [list(ids) for ids in batch], positions).log_softmax(-1)
        for ids, rows in zip(batch, logprobs.split(longest), strict=True):
            for index in groups[ids]:
                found[index] = _likelihood(rows, pairs[index][1])
            advance(len(groups[ids]))
    return [found[index] for index in range(len(pairs))]


def _likelihood(logprobs: torch.Tensor, continuation: list[int]) -> Likelihood:
    """Of the continuation that ends where `logprobs`, float32 [s, v], ends."""
    rows = logprobs[-len(continuation) :]
    ids = torch.tensor(continuation, device=rows.device)
    each: list[float] = rows.gather(1, ids[:, None])[:, 0].tolist()
    return Likelihood(math.fsum(each), bool((rows.argmax(-1) == ids).all()))


def _causal(model: Any) -> Any:
    """The model whose forward is called: what an adapter is wrapped around, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
