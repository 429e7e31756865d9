"""The harness's own votes: what people said about two answers, as `harness serve` keeps it in votes.db.

The path is that SQLite file, or its rows as JSONL. A vote is a Preference whose prompt is what both sides share; where a
conversation went on, each side's own turns since then belong to its completion.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import harness
from harness.data import LeftOut, shown, take
from harness.nouns import Row
from harness.options import Options
from harness_datasets.completions import Messages, is_empty, must_ask, part, read_turns
from harness_datasets.turns import with_system


class VotesOptions(Options):
    """What becomes of the verdict "both bad": left out, or both answers rejected, each with half a vote's weight.

    A rejected answer without a chosen one is for objectives that learn from single answers, such as KTO.
    """

    both_bad: Literal["leave_out", "reject"] = "leave_out"


def convert(row: Row, options: VotesOptions) -> list[harness.Preference] | LeftOut:
    """One vote as Preferences. Left out are ties, two equal answers, and an answer that is empty."""
    verdict = take(row, "verdict", str)
    if verdict not in ("left", "right", "tie", "both_bad"):
        raise harness.DataError(f"the verdict is {shown(verdict)}, expected left, right, tie or both_bad")
    left, right = _side(row, "left"), _side(row, "right")
    prompt, *answers = part(left, right)
    if left == right:
        return LeftOut("two equal answers")
    if any(is_empty(side[-1:]) for side in (left, right)):
        return LeftOut("an answer is empty")
    if not prompt or any(not answer or answer[0].role != "assistant" for answer in answers):
        raise harness.DataError(f"the two sides were asked different things from message {len(prompt) + 1} on")
    id = f"vote-{row['id']}" if row.get("id") is not None else ""
    if verdict in ("left", "right"):
        chosen, rejected = answers if verdict == "left" else reversed(answers)
        return [harness.Preference(prompt, chosen, rejected, id=id)]
    if verdict == "tie" or options.both_bad == "leave_out":
        return LeftOut("a tie" if verdict == "tie" else "both bad")
    return [
        harness.Preference(prompt, (), answer, weight=0.5, id=f"{id}.{side}" if id else "")
        for side, answer in zip(("left", "right"), answers, strict=True)
    ]


def _side(row: Row, side: str) -> Messages:
    """One side's conversation, its system prompt first and its answer last."""
    name = f"{side}_messages"
    turns: Any = row.get(name)
    if isinstance(turns, str):  # as a table without a JSON type writes it
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError) as error:
            raise harness.DataError(f"the field {name!r} is not valid JSON: {error}") from None
    before = read_turns(take({name: turns}, name, list), name, "user")
    answer = harness.Message("assistant", take(row, f"{side}_answer", str))
    return (*with_system(take(row, "system_prompt", str, ""), must_ask(before)), answer)


_SIDES = tuple(
    f"{side}_{name}" for side in ("left", "right") for name in ("variant?", "recipe_sha256?", "messages", "answer")
)

DATASET = harness.Dataset(
    "votes",
    "the harness's own votes (votes.db): the better answer as chosen; ties are left out",
    convert,
    licence="yours: what people said to your models",
    options=VotesOptions,
    fields=(("id?", "created_at?", *_SIDES, "system_prompt?", "sampling?", "verdict"),),
)
