"""InstructGPT's two kinds of rows: a human demonstration, and several completions of a prompt from best to worst.

Ouyang et al. 2022, arXiv:2203.02155. A ranking of K completions becomes all its ordered pairs, whose weights sum to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import harness
from harness.data import LeftOut, shown, take, within
from harness.nouns import Row
from harness_datasets.completions import Messages, Ranked, must_ask, pairs, read_completion, read_number, read_prompt
from harness_datasets.keys import COMPLETION, METADATA, messages
from harness_datasets.turns import offered

TEXTS = ("text", "completion", "content", "response", "answer", "output")  # the text of a completion that is no message
# The lowest rank is the best, and the highest score.
ORDERS = (("rank", 1), ("score", -1), ("rating", -1), ("reward", -1))
_ENTRY = (*TEXTS, *(name for name, _ in ORDERS))


class InstructGptOptions(harness.Options):
    """Options of `instructgpt`. `ranked` says that completions without ranks or scores are ordered best to worst."""

    ranked: bool = False


def convert(row: Row, options: InstructGptOptions) -> list[harness.Conversation | harness.Preference] | LeftOut:
    """Convert a demonstration to a Conversation and a ranking to Preferences; a row may hold both.

    The order of `completions` is that of their ranks (1 is the best) or scores (the highest is the best), which are
    beside them in a list, `ranks` or `scores`, or in each completion: `{text, rank}`. Two of equal rank are not a pair.

    Raises:
        DataError: for completions of which nothing says which is better.
    """
    prompt, tools, id = must_ask(read_prompt(row)), offered(row.get("tools")), str(row.get("id") or "")
    items: list[harness.Conversation | harness.Preference] = []
    names = [name for name in ("demonstration", "completion") if row.get(name) is not None]
    if len(names) == 2:
        raise harness.DataError("there are a 'demonstration' and a 'completion': a prompt has one demonstration")
    if names:
        items.append(harness.Conversation(prompt + read_completion(row[names[0]], names[0]), tools, id=id))
    elif row.get("completions") is None:
        raise harness.DataError(
            f"there is neither a demonstration nor completions. The row has: {', '.join(map(str, row))}"
        )
    if row.get("completions") is None:
        if order := next((f"{name}s" for name, _ in ORDERS if row.get(f"{name}s")), None):
            raise harness.DataError(f"there are {order!r} and no completions that have them")
        return items
    ranked = pairs(prompt, _ranked(row, id, bool(getattr(options, "ranked", False))), tools)
    return [*items, *ranked] or LeftOut("no two completions of different rank or score")


def _ranked(row: Row, id: str, is_ranked: bool) -> list[Ranked]:
    """Return the completions with their ranks; a score becomes the rank of its negative."""
    completions = take(row, "completions", list)
    if len(completions) < 2:
        raise harness.DataError(
            f"a ranking has two completions or more, found {len(completions)}; one alone is a `demonstration`"
        )
    if row.get("labels") is not None:
        raise harness.DataError("'labels' judge each completion, or step, on its own: they do not rank the completions")
    ranks = [order for name, sign in ORDERS if (order := _order(row, completions, name, sign)) is not None]
    if len(ranks) > 1:
        raise harness.DataError("the completions have ranks and scores: leave one of them out with `unread`")
    if not ranks and not is_ranked:
        raise harness.DataError(
            f"nothing says which of the {len(completions)} completions is better: they have neither ranks nor scores. "
            f"If they are in order from the best to the worst, say so in the source: `ranked: true`"
        )
    order = ranks[0] if ranks else [float(number) for number in range(1, len(completions) + 1)]
    return [
        Ranked(rank, _completion(raw, number), f"{id}.{number}" if id else "")
        for number, (rank, raw) in enumerate(zip(order, completions, strict=True), 1)
    ]


def _order(row: Row, completions: list[Any], name: str, sign: int) -> list[float] | None:
    """Return the ranks (or scores, with their sign turned) of the completions; None if they have none.

    Raises:
        DataError: if some have one and others have none.
    """
    beside = take(row, f"{name}s", list, [])
    if beside and len(beside) != len(completions):
        raise harness.DataError(f"there are {len(completions)} completions and {len(beside)} {name}s: each has one")
    inside = [raw.get(name) if isinstance(raw, Mapping) else None for raw in completions]
    if beside and any(value is not None for value in inside):
        raise harness.DataError(f"the completions have {name}s both inside and beside them: which count?")
    where = f"{name}s, entry" if beside else f"{name} of completion"
    values = [
        read_number({f"{where} {number}": value}, f"{where} {number}")
        for number, value in enumerate(beside or inside, 1)
    ]
    if all(value is None for value in values):
        return None
    if None in values:
        raise harness.DataError(
            f"completion {values.index(None) + 1} has no {name}, others have: all have one, or none"
        )
    return [sign * value for value in values if value is not None]


def _completion(raw: object, number: int) -> Messages:
    name = f"completion {number}"
    if isinstance(raw, Mapping) and "role" not in raw and "from" not in raw:
        if others := [key for key in raw if raw[key] is not None and key not in _ENTRY and f"-{key}" not in METADATA]:
            raise harness.DataError(f"{name} has {others[0]!r} beside its text: is it a message? Then it has a role")
        texts = [raw[key] for key in TEXTS if raw.get(key) is not None]
        if len(texts) != 1:
            raise harness.DataError(
                f"{name} should be text, messages, or an object with one text and a rank; found {shown(raw)}"
            )
        raw = texts[0]
    return read_completion(raw, name)


RANKED = (*COMPLETION, *_ENTRY)  # the keys of a completion
_RANKED = (*within("completions", RANKED), *(f"{name}s?" for name, _ in ORDERS))
_ALWAYS = ("system?", "history?", "tools?", "tools.*", "id?")

DATASET = harness.Dataset(
    "instructgpt",
    "human demonstrations, and ranked or scored completions of a prompt as all ordered pairs that count once",
    convert,
    options=InstructGptOptions,
    # A prompt with a `completion` is read too, but such a row belongs to `prompt_completion`.
    fields=(
        (*messages("prompt"), *messages("demonstration"), *messages("completion?"), "completions?", *_RANKED, *_ALWAYS),
        (*messages("prompt"), "completions", *_RANKED, *_ALWAYS),
    ),
    yields="either",
)
