"""Preferences: a prompt with a chosen and a rejected completion, in several formats.

The formats are those of TRL, LLaMA-Factory, OpenAI, Orca and UltraFeedback (binarized, and its original form, which has
several completions with scores: the best is chosen and the worst is rejected). If chosen and rejected are whole
conversations, they are split after the last turn that they share.
"""

from __future__ import annotations

import harness
from harness.data import LeftOut, shown, take, within
from harness.nouns import Row
from harness_datasets.completions import (
    Messages,
    must_ask,
    part,
    read_completion,
    read_number,
    read_prompt,
    read_turns,
)
from harness_datasets.keys import MESSAGE, messages
from harness_datasets.turns import offered, weight_of, with_system

# Fields with the scores of the two completions; the margin is their difference.
_SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
)


def convert(row: Row, options: object) -> harness.Preference | LeftOut:
    """Convert one row to a Preference. `margin` is the row's own, or the difference of its scores."""
    normalised = row if row.get("chosen") is not None else _normalised(row)
    if isinstance(normalised, LeftOut):
        return normalised
    row = normalised
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise harness.DataError(
                f"the field {name!r} is missing. The row has: {', '.join(map(str, row)) or 'nothing'}"
            )
    prompt, chosen, rejected = read_prompt(row), row["chosen"], row["rejected"]
    if _is_whole(chosen) or _is_whole(rejected):
        prompt, good, bad = _parted(row, prompt)
    elif not prompt and isinstance(chosen, str):
        hint = " Transcripts of Human: and Assistant: are the dataset 'hh'" if "\n\nHuman:" in chosen else ""
        raise harness.DataError(f"there is no prompt: 'chosen' is text, found {shown(chosen)}.{hint}")
    else:
        good, bad = read_completion(chosen, "chosen"), read_completion(rejected, "rejected")
    if row.get("messages") is not None and row.get("prompt") is not None:
        _check_repeated(row, (*prompt, *good))
    tools, id = offered(row.get("tools")), str(row.get("id") or "")
    source = str(row.get("source") or "")
    return harness.Preference(must_ask(prompt), good, bad, _margin(row), weight_of(row), tools, id, source)


def _check_repeated(row: Row, messages: Messages) -> None:
    """Raise DataError if `messages` is not the prompt with the chosen completion, which UltraFeedback has there."""
    repeated = {message.content.strip() for message in read_turns(row["messages"], "messages", "user")}
    if not repeated <= {message.content.strip() for message in messages}:
        raise harness.DataError("the column 'messages' would be lost: it is not the prompt and the chosen completion")


def _normalised(row: Row) -> Row | LeftOut:
    """Return a row with `chosen` and `rejected`, made from UltraFeedback's original form or OpenAI's form.

    Any other row is returned unchanged.
    """
    if isinstance(row.get("completions"), list):
        if len(scored := _scored(row)) < 2 or scored[0][0] == scored[-1][0]:
            return LeftOut("no two completions with different scores")
        (high, best), (low, worst) = scored[0], scored[-1]
        return {**row, "chosen": best, "rejected": worst, "score_chosen": high, "score_rejected": low}
    if "preferred_output" in row and "non_preferred_output" in row:
        prompt = take(row, "input", dict)
        completions = {"chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}
        return {"messages": take(prompt, "messages", list), "tools": prompt.get("tools"), **completions}
    return row


def _scored(row: Row) -> list[tuple[float, str]]:
    """Return UltraFeedback's completions of one instruction with their `overall_score`, the best first."""
    scored = []
    for number, one in enumerate(row["completions"], 1):
        if not isinstance(one, dict):
            raise harness.DataError(f"completion {number} should be an object with its response, found {shown(one)}")
        if (score := read_number(one, "overall_score")) is not None:
            scored.append((score, take(one, "response", str)))
    return sorted(scored, key=lambda pair: -pair[0])


def _is_whole(value: object) -> bool:
    """Return True if a completion is a whole conversation, with the prompt in it."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and (first.get("role") or first.get("from")) in ("system", "user", "human")


def _parted(row: Row, prompt: Messages) -> tuple[Messages, Messages, Messages]:
    """Split two whole conversations into their common prompt and the two completions."""
    chosen, rejected = read_turns(row["chosen"], "chosen", "user"), read_turns(row["rejected"], "rejected", "user")
    shared, good, bad = part(chosen, rejected)
    if not good and not bad:
        raise harness.DataError("chosen and rejected are the same: there is nothing to prefer")
    for name, rest in (("chosen", good), ("rejected", bad)):
        if not rest:
            raise harness.DataError(f"{name} ends with message {len(shared)}, which both share: it has no completion")
        for number, message in ((len(shared) + 1, rest[0]), (len(shared) + len(rest), rest[-1])):
            if message.role != "assistant":
                raise harness.DataError(
                    f"{name}: chosen and rejected part at message {len(shared) + 1}, "
                    f"and message {number} is the {message.role}'s; a completion begins and ends with the assistant's"
                )
    shared_texts = [message.content.strip() for message in shared]
    asked = (message.content for message in prompt if message.role != "system")
    if (lost := next((text for text in asked if text.strip() not in shared_texts), None)) is not None:
        raise harness.DataError(
            f"chosen and rejected are whole conversations that do not hold the prompt {shown(lost)} "
            f"in the {len(shared)} messages they share"
        )
    system = prompt[0].content if prompt and prompt[0].role == "system" else take(row, "system", str, "")
    return with_system(system, shared), good, bad


def _margin(row: Row) -> float | None:
    """Return the row's `margin`, or the difference of its two scores. Raises DataError if it is negative."""
    margin = read_number(row, "margin")
    for better, worse in _SCORES:
        high, low = read_number(row, better), read_number(row, worse)
        if margin is None and high is not None and low is not None:
            if high < low:
                raise harness.DataError(
                    f"the chosen completion scores lower than the rejected: {better} {high:g}, {worse} {low:g}"
                )
            margin = high - low
    if margin is not None and margin < 0:
        raise harness.DataError(f"the margin is {margin:g}: the rejected completion would be the better one")
    return margin


_PAIR = (*messages("chosen"), *messages("rejected"), "tools?", "tools.*", "id?", "system?", "weight?")
_ULTRAFEEDBACK = (
    "response", "overall_score", "-annotations", "-critique", "-custom_system_prompt", "-fine-grained_score", "-model",
    "-principle",
)  # fmt: skip

DATASET = harness.Dataset(
    "preferences",
    "a prompt with a chosen and a rejected completion, as text or messages; optional scores or margin",
    convert,
    fields=(
        (
            *messages("prompt"), *_PAIR, "system?", "history?", "margin?", "source?", "score_chosen?",
            "score_rejected?", "chosen_score?", "rejected_score?", "chosen_rating?", "rejected_rating?",
        ),
        (*messages("prompt"), *_PAIR, "-prompt_id", *messages("messages?"), "score_chosen", "score_rejected"),
        (
            *messages("prompt"), *_PAIR, "source?", "chosen-rating", "rejected-rating", "-chosen-model",
            "-rejected-model",
        ),
        (*messages("question"), *_PAIR, "system?", "history?", "margin?"),
        ("instruction", "input?", *_PAIR, "system?", "history?"),
        (*messages("conversations"), *_PAIR, "margin?"),
        (*messages("messages"), *_PAIR, "margin?"),
        (*_PAIR, "margin?", "score_chosen?", "score_rejected?"),
        (
            "instruction", "completions", *within("completions", _ULTRAFEEDBACK), "-source",
            "-models", "-correct_answers", "-incorrect_answers",
        ),
        ("input", *within("input.messages", MESSAGE), "input.tools.*", "-input.parallel_tool_calls",
         *messages("preferred_output"), *messages("non_preferred_output")),
    ),
    yields="preferences",
)  # fmt: skip
