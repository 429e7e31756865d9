"""The rows that `harness generate` writes, as conversations: alpaca's fields, and `generator`, which says what made them."""

import harness
from harness.data import take
from harness.nouns import Row


def convert(row: Row, options: object) -> harness.Conversation:
    """One generated row as a conversation: the instruction with its input below it, and the output."""
    take(row, "generator", dict)
    instruction, text, output = take(row, "instruction", str), take(row, "input", str, ""), take(row, "output", str)
    asked = f"{instruction}\n\n{text}" if text else instruction
    return harness.Conversation.of(("user", asked), ("assistant", output), id=take(row, "id", str, ""))


DATASET = harness.Dataset(
    "self_instruct",
    "what `harness generate` writes: instruction, input, output, and the generator",
    convert,
    licence="that of the model which wrote the rows: its terms may limit what may be trained on them",
    fields=(("id?", "instruction", "input?", "output", "is_classification?", "generator"),),
)
