"""Rows of a prompt and its completion, each text or a list of messages: instructions, questions and answers.

The usual names of the two are read: `prompt`, `question`, `query`, `input` or `instruction` with `completion`,
`response`, `answer` or `output`, after an optional `system` prompt and `history`. An instruction with `output` is a row
of `alpaca`. Other names, such as target, mean different things in different files: map them with `columns`.
"""

from __future__ import annotations

import re
from dataclasses import replace

import harness
from harness.data import take
from harness.nouns import Row
from harness_datasets import turns
from harness_datasets.completions import must_ask, read_completion, read_prompt
from harness_datasets.keys import messages

END = "<|endoftext|>"  # dumps of rendered prompts end a completion with it; it is not part of the text
PROMPTS = ("prompt", "question", "query", "input", "instruction")
COMPLETIONS = ("completion", "response", "answer", "output")
SYSTEMS = ("system", "system_prompt")
_WORKED = re.compile(r"^#### \S", re.MULTILINE)  # GSM8K: the working, and the result in the last line


def convert(row: Row, options: object) -> harness.Conversation:
    """Convert one row to the prompt followed by the completion. Only the completion is trained on."""
    asked = "instruction" if row.get("instruction") else _only(row, PROMPTS)
    answered = _only(row, COMPLETIONS)
    if isinstance(row[answered], str) and asked == "question" and _WORKED.search(row[answered]):
        raise harness.DataError(
            f"{answered!r} has its result after '####': rows with working and result are the dataset 'flan'. "
            f"To train on it as it stands: `columns: {{prompt: {asked}, completion: {answered}}}`"
        )
    if isinstance(row[answered], int | float) and not isinstance(row[answered], bool):
        raise harness.DataError(
            f"the field {answered!r} should be text or a list of messages, found the number {row[answered]}. A task of "
            f"`flan` writes numbers as text: `dataset: flan` with `task: question_answering`"
        )
    system = _only(row, SYSTEMS) if any(row.get(name) for name in SYSTEMS) else "system"
    parts = {"system": row.get(system), "history": row.get("history"), "input": row.get("input")}
    prompt = must_ask(read_prompt({asked if asked == "instruction" else "prompt": row[asked], **parts}))
    untrained = tuple(replace(message, train=False) if message.is_trained else message for message in prompt)
    value = row[answered].removesuffix(END) if isinstance(row[answered], str) else row[answered]
    completion = read_completion(value, answered)
    return harness.Conversation(
        turns.linked(untrained + completion), turns.offered(row.get("tools")), id=str(row.get("id") or ""),
        weight=turns.weight_of(row),
    )  # fmt: skip


def _only(row: Row, names: tuple[str, ...]) -> str:
    """Return the one of the names that the row has. Raises DataError for none and for several."""
    present = [name for name in names if row.get(name) not in (None, "")]
    if not present:
        name = next((name for name in names if name in row), names[0])
        take(row, name, str)
        return name
    if len(present) > 1:
        raise harness.DataError(
            f"{' and '.join(map(repr, present))} may both be meant: leave out the other with `unread: [NAME]`"
        )
    return present[0]


DATASET = harness.Dataset(
    "prompt_completion",
    "a prompt and its completion, a question and its answer: each text or a list of messages",
    convert,
    plain=("prompt", "completion"),
    fields=tuple(
        (
            *(*messages(prompt), *messages(completion), f"{system}?", "history?"),
            *("tools?", "tools.*", "id?", "weight?"),
            *(("input?",) if prompt == "instruction" else ()),
        )
        for prompt in PROMPTS
        for completion in COMPLETIONS
        for system in SYSTEMS
        if (prompt, completion) != ("instruction", "output")
    ),
    yields="conversations",
)
