"""Pretraining: the negative log-likelihood of every token, of texts as long as they are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import harness
from harness.nouns import Example, Item
from harness_tuning.objectives.sft import SftOptions, loss, units


class PretrainOptions(SftOptions):
    """Options of pretraining, those of `sft`: on conversations it trains on the questions and the markup, too."""


def encode(item: Item, template: Any, longest: int, options: PretrainOptions) -> Sequence[Item]:
    """Return a document in pieces of at most `longest` tokens, every token of it supervised.

    It begins with the token that the tokenizer itself begins texts with, if any, and ends with the end-of-text token. A
    piece begins with the last token of the one before, so that each token is predicted once.
    """
    document = item.examples[-1]  # of one that is an example an answer, the whole
    ids = _whole(list(document.input_ids), template)
    if longest < 2:
        raise harness.DataError("data.max_tokens should be at least 2: a token is predicted from one before it")
    starts = range(0, max(len(ids) - 1, 1), longest - 1)
    return [_piece(item, document, ids[start : start + longest]) for start in starts]


def _whole(ids: list[int], template: Any) -> list[int]:
    """Return the ids of a text with what begins and ends a document."""
    tokenizer, (end, *_) = template.tokenizer, template.stop_ids
    if tokenizer.eos_token_id is not None:
        end = tokenizer.eos_token_id
    first = tokenizer.bos_token_id
    if first is not None and ids[:1] != [first] and tokenizer("")["input_ids"][:1] == [first]:
        ids.insert(0, first)
    ends = {end, *template.stop_ids}
    behind = next((place for place in range(len(ids), 0, -1) if ids[place - 1] in ends), 0)
    is_ended = behind and not template.decoded(ids[behind:]).strip()
    return ids if is_ended else [*ids, end]


def _piece(item: Item, document: Example, ids: list[int]) -> Item:
    example = replace(document, input_ids=array("i", ids), loss_mask=bytes([1]) * len(ids))
    return replace(item, examples=(example,), roles=item.roles[-1:])


OBJECTIVE = harness.Objective(
    "pretrain",
    "cross-entropy on every token of texts, in pieces where they are longer than data.max_tokens",
    PretrainOptions,
    loss,
    units,
    encode=encode,
)
