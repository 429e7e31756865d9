"""Seed tasks of self-instruct: an instruction with one or more instances {input, output}.

Wang et al. 2022 (arXiv:2212.10560): its seed tasks and its user-oriented instructions are files of this kind.
"""

from collections.abc import Iterator

import harness
from harness.data import take
from harness.nouns import Row
from harness_datasets import alpaca
from harness_datasets.natural_instructions import pair


def convert(row: Row, options: object) -> Iterator[harness.Conversation]:
    """Yield a conversation for each instance of a task and each of its outputs."""
    instruction, name = take(row, "instruction", str), row.get("id")
    pairs = []
    for number, instance in enumerate(take(row, "instances", list), 1):
        text, outputs = pair(instance, f"instance {number}")
        if not outputs:
            raise harness.DataError(f"instance {number} has no output")
        pairs += [(text, output) for output in outputs]
    for number, (text, output) in enumerate(pairs, 1):
        part = f".{number}" if len(pairs) > 1 else ""
        messages = alpaca.convert({"instruction": instruction, "input": text, "output": output}, options).messages
        yield harness.Conversation(messages, id=f"{name}{part}" if name else "")


DATASET = harness.Dataset(
    "seed_tasks",
    "self-instruct's tasks: an instruction with instances of input and output",
    convert,
    fields=(
        ("instruction", "instances.input", "instances.output", "id?", "-name", "-is_classification"),
        ("instruction", "instances.input", "instances.output", "id?", "-motivation_app"),
    ),
    yields="conversations",
)
