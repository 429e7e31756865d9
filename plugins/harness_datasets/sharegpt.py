"""ShareGPT rows: `conversations` of from and value, with tool calls and their results; optional `tools` and `system`.

DialogStudio's rows, whose `log` has a question and its answer in each entry, are read too. Empty turns and turns out of
order are left to cleaning. A turn with the HTML of a web page, as in raw dumps, is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import harness
from harness.data import shown, take, within
from harness.nouns import Row
from harness_datasets import turns
from harness_datasets.keys import TURN


def convert(row: Row, options: object) -> harness.Conversation:
    """Convert one row. `function_call` turns become tool calls, which the results after them answer."""
    if "log" in row and "conversations" not in row:
        return _from_log(row)
    messages: list[harness.Message] = []
    for number, turn in enumerate(turns.list_of(row, "conversations"), 1):
        message = _message(turn, number)
        if message.role == "tool" and _calls_in_text(messages):
            raise harness.DataError(
                f"turn {number} answers a call that is written into the text of turn {number - 1}. "
                f"The dataset 'tools' reads those"
            )
        if message.tool_calls and messages and _goes_with(messages[-1], message):
            previous = messages.pop()
            calls = previous.tool_calls + message.tool_calls
            message = harness.Message("assistant", previous.content, calls, train=previous.train)
        messages.append(message)
    messages = turns.read_think_tags(messages, options)
    messages = list(turns.with_system(take(row, "system", str, ""), messages))
    tools, id = turns.offered(row.get("tools")), str(row.get("id") or "")
    return harness.Conversation(turns.linked(messages), tools, id, weight=turns.weight_of(row))


def _message(turn: Any, number: int) -> harness.Message:
    if not isinstance(turn, Mapping):
        raise harness.DataError(f"turn {number} should be an object with from and value, found {shown(turn)}")
    if "from" not in turn and "role" in turn:
        raise harness.DataError(
            f"turn {number} has role and content, not from and value. "
            f"The dataset 'messages' reads that, in `conversations` too"
        )
    speaker = turns.speaker_of(turn.get("from"), number)
    where = f"turn {number}"
    if speaker == "call":
        value = turn.get("value")
        if not value:
            raise harness.DataError(f"{where} is a function_call without a call, found {shown(value)}")
        return harness.Message(
            "assistant", "", turns.calls(value, where), train=turns.trained(turn, "assistant", where)
        )
    text = turns.text_of(turn, "value", number)
    if text.lstrip().startswith(('<div class="', "<!DOCTYPE")):
        raise harness.DataError(f"{where} is a web page's HTML, expected its text: {shown(text)}")
    role: harness.Role = speaker
    return harness.Message(role, text, train=turns.trained(turn, role, where))


def _goes_with(previous: harness.Message, call: harness.Message) -> bool:
    """Return True if a call belongs to the turn before it: the assistant's text, or a parallel call."""
    return previous.role == "assistant" and previous.train == call.train


def _calls_in_text(messages: list[harness.Message]) -> bool:
    last = messages[-1] if messages else None
    return (
        last is not None
        and last.role == "assistant"
        and not last.tool_calls
        and bool(turns.CALL_IN_TEXT.search(last.content))
    )


def _from_log(row: Row) -> harness.Conversation:
    log: list[tuple[harness.Role, str]] = []
    for number, turn in enumerate(take(row, "log", list), 1):
        if not isinstance(turn, Mapping):
            raise harness.DataError(f"log entry {number} should be an object, found {shown(turn)}")
        log.append(("user", turns.text_of(turn, "user utterance", number)))
        log.append(("assistant", turns.text_of(turn, "system response", number)))
    return harness.Conversation.of(*log, id=str(row.get("id") or ""))


DATASET = harness.Dataset(
    "sharegpt",
    "conversations of from and value, with function_call, observation, tools and system",
    convert,
    options=turns.ThinkTags,
    fields=(
        (
            *(*within("conversations", TURN), "tools?", "tools.*", "system?", "id?", "weight?"),
            *("-model", "-source", "-lang"),
        ),
        (
            *("log.user utterance", "log.system response", "-log.turn id", "-log.dialog history", "id?"),
            *("-original dialog id", "-dialog index", "-original dialog info"),
        ),
    ),
    yields="conversations",
)
