"""The harness's own votes: verdicts on two to four answers, as `harness serve` keeps them in votes.db.

The path is that SQLite file, or its rows as JSONL. A ballot becomes one Preference for each side that lost against the
best side. Its prompt is the beginning that both sides share; the turns after that belong to each side's completion.
Rows of version 1, one for each pair of sides, are read as ballots of two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import harness
from harness.data import LeftOut, shown, take, within
from harness.nouns import Row
from harness.options import Options
from harness_datasets.completions import Messages, is_empty, must_ask, part, read_turns
from harness_datasets.keys import MESSAGE
from harness_datasets.turns import with_system


class VotesOptions(Options):
    """Options of `votes`: a ballot on which all answers are bad is left out, or all its answers are rejected.

    Rejected answers of one ballot count together as one vote. A rejected answer without a chosen one is for objectives
    that learn from single answers, such as KTO.
    """

    both_bad: Literal["leave_out", "reject"] = "leave_out"


class _Side(NamedTuple):
    turns: Messages  # system prompt first, answer last
    finish: str | None


def convert(row: Row, options: VotesOptions) -> list[harness.Preference] | LeftOut:
    """Convert one ballot. Left out are ties, equal or empty answers, and a best answer cut at the token limit.

    An answer that was cut is never chosen, or tuning would learn to stop in mid-sentence; it can be the rejected one.
    Ballots on which tools were offered are left out, too: a ballot keeps calls as text for people to read, and tuning
    on it would teach that text instead of calls.
    """
    if _decoded(row, "sampling") and take({"sampling": _decoded(row, "sampling")}, "sampling", dict).get("tools"):
        return LeftOut("tools were offered")
    sides = _sides(row)
    best = _best(row, len(sides))
    id = f"vote-{row['id']}" if row.get("id") is not None else ""
    if any(is_empty(side.turns[-1:]) for side in sides):
        return LeftOut("an answer is empty")
    if isinstance(best, int) and sides[best].finish == "length":
        return LeftOut("the better answer was cut at the token limit")
    if all(side.turns == sides[0].turns for side in sides):
        return LeftOut("two equal answers")
    if best == "tie":
        return LeftOut("a tie")
    if best == "bad":
        return _all_rejected(sides, id) if options.both_bad == "reject" else LeftOut("both bad")
    others = [position for position in range(len(sides)) if position != best and sides[position] != sides[best]]
    preferences = []
    for position in others:
        prompt, chosen, rejected = _parted(sides[best].turns, sides[position].turns)
        number = f".{position}" if id and len(sides) > 2 else ""
        preferences.append(harness.Preference(prompt, chosen, rejected, weight=1 / len(others), id=f"{id}{number}"))
    return preferences


def _all_rejected(sides: list[_Side], id: str) -> list[harness.Preference]:
    preferences = []
    for position, side in enumerate(sides):
        prompt, rejected, _ = _parted(side.turns, sides[position - 1].turns)
        weight, number = 1 / len(sides), f"{id}.{position}" if id else ""
        preferences.append(harness.Preference(prompt, (), rejected, weight=weight, id=number))
    return preferences


def _parted(one: Messages, other: Messages) -> tuple[Messages, Messages, Messages]:
    """Split two sides into their common prompt and the completion of each.

    Raises:
        DataError: if the two sides were asked different things.
    """
    prompt, *answers = part(one, other)
    if one != other and (not prompt or any(not answer or answer[0].role != "assistant" for answer in answers)):
        raise harness.DataError(f"two sides were asked different things from message {len(prompt) + 1} on")
    return prompt, answers[0], answers[1]


def _best(row: Row, count: int) -> int | Literal["tie", "bad"]:
    """Return the position of the best side, or `tie` or `bad`."""
    verdict = take(row, "verdict", str)
    if "sides" not in row and verdict in ("left", "right", "both_bad"):
        return {"left": 0, "right": 1, "both_bad": "bad"}[verdict]  # type: ignore[return-value]
    if verdict == "best":
        best = take(row, "best", int)
        if not 0 <= best < count:
            raise harness.DataError(f"the best side is {best}, and there are {count}, counted from 0")
        return best
    if verdict not in ("tie", "bad"):
        expected = "best, tie or bad" if "sides" in row else "left, right, tie or both_bad"
        raise harness.DataError(f"the verdict is {shown(verdict)}, expected {expected}")
    return verdict  # type: ignore[return-value]


def _sides(row: Row) -> list[_Side]:
    system = take(row, "system_prompt", str, "")
    if "sides" not in row:
        return [_side(row, f"{side}_messages", f"{side}_answer", system) for side in ("left", "right")]
    sides = _decoded(row, "sides")
    if not isinstance(sides, list) or len(sides) < 2 or not all(isinstance(side, Mapping) for side in sides):
        raise harness.DataError(f"the field 'sides' should be a list of two or more, found {shown(sides)}")
    return [_side(side, "messages", "answer", system) for side in sides]


def _side(row: Row, messages: str, answer: str, system: str) -> _Side:
    turns = _decoded(row, messages)
    before = read_turns(take({messages: turns}, messages, list), messages, "user")
    reply = harness.Message("assistant", take(row, answer, str))
    return _Side((*with_system(system, must_ask(before)), reply), row.get("finish"))


def _decoded(row: Row, name: str) -> Any:
    """Return a field, parsed from JSON if it is text (SQLite has no JSON type)."""
    value: Any = row.get(name)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise harness.DataError(f"the field {name!r} is not valid JSON: {error}") from None


_SIDE = (*within("messages", MESSAGE), "answer", "finish", "-variant", "-recipe_sha256", "-tokens")
_PAIR = tuple(
    name
    for side in ("left", "right")
    for name in (
        *(f"{side}_messages", *within(f"{side}_messages", MESSAGE), f"{side}_answer"),
        *(f"-{side}_variant", f"-{side}_recipe_sha256"),
    )
)

DATASET = harness.Dataset(
    "votes",
    "the harness's own votes (votes.db): the best answer as chosen; ties are left out",
    convert,
    licence="yours: what people said to your models",
    options=VotesOptions,
    fields=(
        ("id?", "sides", *within("sides", _SIDE), "system_prompt?", "verdict", "best?"),
        ("id?", *_PAIR, "system_prompt?", "verdict", "finish?"),
    ),
    metadata=("created_at", "sampling", "state", "blind", "annotator"),
    yields="preferences",
)
