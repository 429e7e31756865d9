"""Chosen and rejected transcripts of `\\n\\nHuman: ...\\n\\nAssistant: ...`, the format of Anthropic's HH data.

A transcript has no escapes. If the assistant wrote "\\n\\nAssistant:" itself, its consecutive turns are read as one.
"""

from __future__ import annotations

import itertools
import re

import harness
from harness.data import LeftOut, shown, take
from harness.nouns import Row
from harness_datasets.completions import Messages, is_empty, part

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES: dict[str, harness.Role] = {"Human": "user", "Assistant": "assistant"}


def convert(row: Row, options: object) -> harness.Preference | LeftOut:
    """Convert one row to a Preference. The prompt is the beginning that both transcripts share.

    A row that does not say which answer is better is left out: the transcripts are equal, share no beginning or first
    differ in a human's turn, or an answer is missing or empty.
    """
    chosen, rejected = (transcript(take(row, name, str), name) for name in ("chosen", "rejected"))
    prompt, good, bad = part(chosen, rejected)
    if chosen == rejected:
        return LeftOut("both are the same")
    if not prompt:
        return LeftOut("they share no beginning")
    for rest in (good, bad):
        if not rest or is_empty(rest[-1:]):
            return LeftOut("an answer is missing or empty")
        if {rest[0].role, rest[-1].role} != {"assistant"}:
            return LeftOut("they part at what the human says")
    return harness.Preference(prompt, good, bad)


def transcript(text: str, name: str) -> Messages:
    """Return the messages of a transcript. Consecutive turns of one role are joined, and outer white space is cut."""
    before, *parts = _TURN.split("\n\n" + text.lstrip())
    if before.strip() or parts[:1] != ["Human"]:
        raise harness.DataError(f"{name} should begin with 'Human:', found {shown(text)}")
    turns = itertools.groupby(zip(parts[::2], parts[1::2], strict=True), key=lambda turn: turn[0])
    return tuple(
        harness.Message(_ROLES[role], "\n\n".join(words.strip() for _, words in same).strip()) for role, same in turns
    )


DATASET = harness.Dataset(
    "hh",
    "transcripts of Human: and Assistant:, chosen and rejected, split after the last turn they share",
    convert,
    fields=(("chosen", "rejected"),),
    yields="preferences",
)
