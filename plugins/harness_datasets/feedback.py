"""Binary feedback (KTO): one completion a row, labelled good or bad.

The Preference has one side: `chosen` if the completion is good, `rejected` if it is bad.
"""

from __future__ import annotations

import harness
from harness.data import is_true_or_false, shown, take
from harness.nouns import Row
from harness_datasets.completions import Messages, must_ask, read_completion, read_prompt, read_turns
from harness_datasets.keys import messages
from harness_datasets.turns import offered, weight_of, with_system

# fmt: off
_GOOD = ("true", "1", "+1", "good", "yes", "up", "thumbs_up", "thumbs up", "👍", "chosen", "desirable", "positive")
_BAD = (
    "false", "0", "-1", "bad", "no", "down", "thumbs_down", "thumbs down", "👎",
    "rejected", "undesirable", "negative",
)
_COMPLETIONS = ("completion", "response", "output")
# fmt: on


def convert(row: Row, options: object) -> harness.Preference:
    """Convert one row to a one-sided Preference. In a whole conversation, the label is about the last turn."""
    good = _is_good(row)
    if (name := next((name for name in _COMPLETIONS if row.get(name) is not None), None)) is not None:
        if name == "output" and row.get("kto_tag") is None and not is_true_or_false(row["label"]):
            raise harness.DataError(
                f"the field 'label' beside 'output' should be true or false, found {shown(row['label'])}: it may "
                f"be a class. If it says how good the answer is: "
                f"`columns: {{prompt: instruction, completion: output}}`"
            )
        prompt, completion = read_prompt(row), read_completion(row[name], name)
    else:
        prompt, completion = _last_turn(row)
    return harness.Preference(
        must_ask(prompt),
        completion if good else (),
        () if good else completion,
        tools=offered(row.get("tools")),
        id=str(row.get("id") or ""),
        source=str(row.get("source") or ""),
        weight=weight_of(row),
    )


def _is_good(row: Row) -> bool:
    """Read the label: true or false, 1 or 0 (or -1), or a word such as good or bad, thumbs_up or thumbs_down."""
    name = next((name for name in ("label", "kto_tag") if row.get(name) is not None), None)
    if name is None and (null := next((name for name in ("label", "kto_tag") if name in row), None)):
        raise harness.DataError(f"the field {null!r} is null")
    if name is None:
        raise harness.DataError(f"the field 'label' is missing. The row has: {', '.join(map(str, row)) or 'nothing'}")
    label = row[name]
    if isinstance(label, bool | int | float) and label in (1, 0, -1):
        return label == 1
    word = label.strip().lower() if isinstance(label, str) else ""
    if word not in _GOOD + _BAD:
        raise harness.DataError(
            f"the field {name!r} should say whether the completion is good: true or false, 1 or 0, good or bad, "
            f"thumbs_up or thumbs_down; found {shown(label)}"
        )
    return word in _GOOD


def _last_turn(row: Row) -> tuple[Messages, Messages]:
    """Split a whole conversation into its prompt and its last message, which must be the assistant's."""
    name = next((name for name in ("messages", "conversations") if isinstance(row.get(name), list)), None)
    if name is None:
        raise harness.DataError(
            f"there is no completion: expected prompt and completion, or messages that end with the assistant's. "
            f"The row has: {', '.join(map(str, row))}"
        )
    turns = read_turns(row[name], name, "user")
    if turns[-1].role != "assistant":
        raise harness.DataError(
            f"{name}: message {len(turns)}, the last, is the {turns[-1].role}'s; "
            f"the label is about an answer of the assistant's"
        )
    return with_system(take(row, "system", str, ""), turns[:-1]), turns[-1:]


_ALWAYS = ("system?", "tools?", "tools.*", "id?", "source?", "weight?")

DATASET = harness.Dataset(
    "feedback",
    "a prompt, a completion and whether it is good (KTO); or messages whose last turn the label is about",
    convert,
    fields=(
        (*messages("prompt"), *messages("completion"), "label", "history?", *_ALWAYS),
        (*messages("prompt"), *messages("response"), "label", "history?", *_ALWAYS),
        ("instruction", "input?", "output", "label", "history?", *_ALWAYS),
        ("instruction", "input?", "output", "kto_tag", "history?", *_ALWAYS),
        (*messages("messages"), "label", *_ALWAYS),
        (*messages("conversations"), "label", *_ALWAYS),
        (*messages("conversations"), "kto_tag", *_ALWAYS),
    ),
    yields="preferences",
    label="label",
)
