"""Alpaca rows: instruction, input, output; optionally system, and history as [[question, answer], ...]."""

import harness
from harness.data import shown, take
from harness.nouns import Row
from harness_datasets.turns import weight_of

_PREAMBLE = "Below is an instruction that describes a task"  # with it the column `text` begins, which repeats the rest


def convert(row: Row, options: object) -> harness.Conversation:
    """Convert one alpaca row: its history first, then the instruction with its input below it."""
    turns: list[tuple[harness.Role, str]] = []
    if system := take(row, "system", str, ""):
        turns.append(("system", system))
    for number, pair in enumerate(take(row, "history", list, []), 1):
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise harness.DataError(f"history entry {number} should be [question, answer], found {pair!r}")
        turns += [("user", pair[0]), ("assistant", pair[1])]
    instruction, extra = take(row, "instruction", str), take(row, "input", str, "")
    prompt = "\n\n".join(part for part in (instruction, extra) if part)
    turns += [("user", prompt), ("assistant", take(row, "output", str))]
    if rendered := take(row, "text", str, ""):
        parts = (_PREAMBLE, instruction, extra, turns[-1][1])
        if not all(part in rendered for part in parts):
            raise harness.DataError(
                f"the column 'text' would be lost: it is not the row rendered as Alpaca's own file has it, "
                f"found {shown(rendered)}. To train without it: `unread: [text]`"
            )
    return harness.Conversation.of(*turns, weight=weight_of(row))


DATASET = harness.Dataset(
    "alpaca",
    "instruction, input, output; optional system and history",
    convert,
    fields=(("instruction", "input?", "output", "system?", "history?", "text?", "weight?"),),
    metadata=("id", "lang", "language"),
    yields="conversations",
)
