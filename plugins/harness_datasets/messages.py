"""OpenAI-style rows: a `messages` list of role and content, with tool calls, tool results and a per-message weight."""

import json
from collections.abc import Mapping
from typing import Any

import harness
from harness.data import take
from harness.nouns import ROLES, Row


def convert(row: Row) -> harness.Conversation:
    """One row of messages as a conversation."""
    messages = take(row, "messages", list)
    tools = take(row, "tools", list, [])
    for number, tool in enumerate(tools, 1):
        if not isinstance(tool, Mapping):
            raise harness.DataError(f"tool {number} should be an object, found {tool!r}")
    return harness.Conversation(
        tuple(_message(message, number) for number, message in enumerate(messages, 1)),
        tuple(tools),
        id=str(row.get("id") or ""),
    )


def _message(raw: Any, number: int) -> harness.Message:
    if not isinstance(raw, Mapping):
        raise harness.DataError(f"message {number} should be an object with role and content, found {raw!r}")
    role = raw.get("role")
    if role not in ROLES:
        hint = {"human": "user", "gpt": "assistant", "ai": "assistant", "function": "tool", "developer": "system"}.get(
            str(role)
        )
        told = f" Use {hint!r}" if hint else f" Roles: {', '.join(ROLES)}"
        raise harness.DataError(f"message {number} has the role {role!r}.{told}")
    weight = raw.get("weight")
    if weight is not None and weight not in (0, 1):
        raise harness.DataError(f"message {number}: the weight should be 0 or 1, found {weight!r}")
    return harness.Message(
        role,
        _text(raw.get("content"), number),
        tuple(_tool_call(call, number) for call in take(raw, "tool_calls", list, [])),
        take(raw, "tool_call_id", str, "") or None,
        train=bool(weight) if weight is not None and role == "assistant" else None,
    )


def _text(content: Any, number: int) -> str:
    """The content as text; a list of text parts is joined, as OpenAI's endpoints do it."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "".join(take(part, "text", str) for part in content)
    raise harness.DataError(f"message {number}: content should be text or a list of text parts, found {content!r}")


def _tool_call(raw: Any, number: int) -> harness.ToolCall:
    function = take(take({"call": raw}, "call", dict), "function", dict)
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError as error:
            raise harness.DataError(
                f"message {number}: the arguments of a tool call are not valid JSON: {error}"
            ) from None
    if not isinstance(arguments, Mapping):
        raise harness.DataError(
            f"message {number}: the arguments of a tool call should be an object, found {arguments!r}"
        )
    return harness.ToolCall(take(function, "name", str), arguments, take(raw, "id", str, "") or None)


DATASET = harness.Dataset(
    "messages",
    "OpenAI-style messages with role and content, tools, and weight",
    convert,
    fields=(("messages", "tools?", "id?"),),
)
