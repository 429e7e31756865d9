"""Checks of converted items: that they can be read, and that there is something to learn from them."""

from __future__ import annotations

import json
import math
from typing import Any

from harness.errors import DataError
from harness.nouns import Conversation, DataItem, Message, Preference, messages_of


def check_item(item: DataItem) -> None:
    """Raise DataError for an item that cannot be read or has nothing to train on."""
    check_readable(item)
    check_learnable(item)


def check_readable(item: DataItem) -> None:
    """Raise DataError for an item without messages, with text that is not Unicode, or with a weight that is none."""
    if not 0 < item.weight < math.inf:
        raise DataError(f"the weight is {item.weight}, expected a number above 0")
    if isinstance(item, Preference):
        if not item.prompt:
            raise DataError("the prompt has no messages")
    elif not item.messages:
        raise DataError("the conversation has no messages")
    for index, message in enumerate(messages_of(item), 1):
        _check_text(message.content, "message {} ({})", index, message.role)
        _check_text(message.reasoning, "message {} ({})", index, message.role)
        for call in message.tool_calls:
            _check_text(
                [call.name, call.arguments], "message {} ({}): the call of {!r}", index, message.role, call.name
            )
    for index, tool in enumerate(item.tools, 1):
        _check_text(tool, "tool {}", index)


def _check_text(value: Any, where: str, *about: object) -> None:
    """Raise DataError, beginning with `where`, for text that is not Unicode, and for JSON that is nested too deeply."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        text.encode()
    except UnicodeEncodeError as error:  # JSON can say "\ud83d"; no tokenizer takes it
        problem = f"is not valid Unicode: it holds half of a surrogate pair, {text[error.start]!r}"
        raise DataError(f"{where.format(*about)} {problem}") from None
    except RecursionError:
        raise DataError(f"{where.format(*about)} is nested too deeply") from None


def check_learnable(item: DataItem) -> None:
    """Raise DataError for an item that has nothing to train on; cleaning may have left it out before."""
    if isinstance(item, Conversation):
        _check_conversation(item)
    else:
        _check_preference(item)


def _check_conversation(conversation: Conversation) -> None:
    if not any(message.role == "assistant" for message in conversation.messages):
        raise DataError("no message is the assistant's: a prompt without an answer is nothing to train on")
    if not any(message.is_trained for message in conversation.messages):
        raise DataError("no message is trained on: each of the assistant's is marked so")
    _check_asked(conversation.messages)
    for index, message in enumerate(conversation.messages):
        if message.is_trained and not message.content.strip() and not message.tool_calls:
            raise DataError(f"message {index + 1} (assistant) is empty: there is nothing to learn from it")
        if message.role == "system" and index:
            raise DataError(f"message {index + 1} is a system prompt; only the first message can be one")


def _check_asked(messages: tuple[Message, ...]) -> None:
    """Raise DataError for a question that is empty, where an answer follows it or the messages end with it."""
    for index, (message, after) in enumerate(zip(messages, (*messages[1:], None), strict=True), 1):
        is_answered = after is None or after.role == "assistant"
        if message.role == "user" and is_answered and not message.content.strip():
            raise DataError(f"message {index} (user) is empty: there is nothing to answer")


def _check_preference(preference: Preference) -> None:
    _check_asked(preference.prompt)
    if not preference.chosen and not preference.rejected:
        raise DataError("there is neither a chosen nor a rejected completion")
    for name, turns in (("chosen", preference.chosen), ("rejected", preference.rejected)):
        if turns and not any(message.content.strip() or message.tool_calls for message in turns):
            raise DataError(f"the {name} completion is empty")
    if preference.chosen == preference.rejected:
        raise DataError("chosen and rejected are the same: there is nothing to prefer")
