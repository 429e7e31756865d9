"""Log-likelihoods of continuations: the sum of their tokens' log-probabilities, each given all before it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.model.batching import rows_with_targets
from harness.model.load import LoadedVariant
from harness.model.logprobs import target_scores

BATCH_TOKENS = 32768


class Likelihood(NamedTuple):
    """The log-probability (natural log) of each token of a continuation, and True where greedy decoding gives it."""

    logprobs: tuple[float, ...]
    is_greedy: tuple[bool, ...]

    @property
    def log_likelihood(self) -> float:
        """The log-likelihood (natural log) of the whole continuation."""
        return math.fsum(self.logprobs)


def likelihoods(
    loaded: LoadedVariant,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    batch_size: int,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[int, Likelihood]]:
    """Yield the likelihood of each (context, continuation), as ids, with its index, as batches finish.

    Batches go by length and content, the longest first; with their padding they have at most `batch_tokens`, or one
    row. Continuations of one token after the same context share a row.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (context, continuation) in enumerate(pairs):
        groups[(*context, *continuation[:-1])].append(index)
    inputs = sorted(groups, key=lambda ids: (-len(ids), ids))
    start = 0
    while start < len(inputs):
        at_once = max(1, min(batch_size, batch_tokens // len(inputs[start])))
        rows = inputs[start : start + at_once]
        start += at_once
        asked = [(row, index) for row, ids in enumerate(rows) for index in groups[ids]]
        targets = [
            (row, column, token)
            for row, index in asked
            for column, token in enumerate(pairs[index][1], len(rows[row]) - len(pairs[index][1]))
        ]
        batch = rows_with_targets([list(ids) for ids in rows], targets, loaded.template.pad_id, loaded.device)
        scores = target_scores(loaded.model, batch)
        lengths = [len(pairs[index][1]) for _, index in asked]
        parts = zip(asked, scores.logprobs.split(lengths), scores.is_greedy.split(lengths), strict=True)
        for (_, index), logprobs, is_greedy in parts:
            yield index, Likelihood(tuple(logprobs.tolist()), tuple(is_greedy.tolist()))
