"""OpenAI-style rows: a `messages` list of role and content, with tool calls, tool results and a per-message weight.

Content is text or a list of parts: OpenAI's text parts (with `text` or `value`), Anthropic's blocks (text, thinking,
tool_use, tool_result; with the system prompt beside the messages), LLaMA-Factory's (reasoning, tool_call). Thoughts
(`reasoning_content`, `reasoning`, `thinking`, or parts of these types) become the message's reasoning; text that begins
with `<think>` is text unless `think_tags` is set. The legacy form of calls, `function_call` and the role `function`, is
read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import harness
from harness.data import shown, take, within
from harness.errors import listed, nearest
from harness.nouns import ROLES, Row
from harness_datasets import turns
from harness_datasets.keys import MESSAGE

_ROLE_ALIASES = {"function": "tool", "developer": "system"}  # OpenAI's old and new words for a role of ours
_HINTS = {"human": "user", "gpt": "assistant", "ai": "assistant", "model": "assistant", "bot": "assistant"}
_TEXT = ("text", "input_text", "output_text")
_REASONING = ("reasoning", "thinking")
_OF_OTHER_PARTS = ("name", "input", "content", "arguments", "parameters", "function", "tool_use_id")
_PARTS = (*_TEXT, *_REASONING, "tool_call", "tool_use", "tool_result")


def convert(row: Row, options: object) -> harness.Conversation:
    """Convert one row of messages to a conversation. A row without `messages` is read from `conversations`."""
    name = "conversations" if "messages" not in row and "conversations" in row else "messages"
    messages: list[harness.Message] = []
    names: dict[int, str] = {}
    for number, raw in enumerate(turns.list_of(row, name), 1):
        for message in _read(raw, number):
            if message.role == "tool" and isinstance(tool := raw.get("name"), str):
                names[len(messages)] = tool
            messages.append(message)
    linked = turns.linked(turns.read_think_tags(messages, options), names)
    prompt = take(row, "prompt", str, "")  # UltraChat has its first question there too
    if prompt and prompt not in (message.content for message in linked):
        raise harness.DataError(f"the column 'prompt' would be lost: no message is {shown(prompt)}")
    if row.get("system"):
        linked = turns.with_system(_text_only(row["system"], "the field 'system'"), linked)
    tools = turns.offered(row.get("tools")) + turns.offered(row.get("functions"), "functions")
    id, source = str(row.get("id") or ""), str(row.get("source") or "")
    return harness.Conversation(linked, tools, id, source, turns.weight_of(row))


def _read(raw: Any, number: int) -> list[harness.Message]:
    """Return the messages of one entry: several if a user's entry also holds tool results (Anthropic), else one."""
    if not isinstance(raw, Mapping):
        raise harness.DataError(f"message {number} should be an object with role and content, found {shown(raw)}")
    if len(raw) == 2 and raw.get("role") in ROLES and isinstance(raw.get("content"), str):
        return [
            harness.Message(raw["role"], raw["content"])
        ]  # the common case: the code below takes five times as long
    role, where = _role(raw, number), f"message {number}"
    if role != "tool" and raw.get("name"):
        raise harness.DataError(
            f"{where}: templates do not render the name {shown(raw['name'])} of the {role}, so that it would be lost"
        )
    train = turns.trained(raw, role, where)
    content = raw.get("content")
    calls = take_calls(raw, where)
    if "content" not in raw and not calls and not any(raw.get(key) for key in ("reasoning_content", *_REASONING)):
        raise harness.DataError(f"{where} has no content.{nearest('content', raw)} It has: {', '.join(map(str, raw))}")
    reasoning = _reasoning(raw, where)
    if role == "assistant":
        text, thoughts, more = _assistant_content(content, reasoning, where)
        return [harness.Message(role, text, calls + more, train=train, reasoning=thoughts)]
    if calls:
        raise harness.DataError(f"{where}: only the assistant can call tools, found tool_calls of the {role}")
    if reasoning:
        raise harness.DataError(f"{where}: only the assistant reasons, found a reasoning of the {role}")
    id = _text_field(raw, "tool_call_id", where)
    if role != "user" or not isinstance(content, list):
        return [harness.Message(role, _text_only(content, where), tool_call_id=id, train=train)]
    read: list[harness.Message] = []
    for part in content:  # results and the user's text become messages of their own, in order
        if isinstance(part, Mapping) and part.get("type") == "tool_result":
            answers = _text_field(part, "tool_use_id", where)
            read.append(harness.Message("tool", _text_only(part.get("content"), where), tool_call_id=answers))
        elif read and read[-1].role == "user":
            read.append(harness.Message("user", read.pop().content + _text_only([part], where)))
        else:
            read.append(harness.Message("user", _text_only([part], where)))
    return read or [harness.Message("user", "")]


def _reasoning(raw: Mapping[str, Any], where: str) -> str:
    """Return the reasoning beside a message's content. Raises DataError for several that differ."""
    given = {key: raw[key] for key in ("reasoning_content", *_REASONING) if raw.get(key)}
    for key, value in given.items():
        if not isinstance(value, str):
            raise harness.DataError(f"{where}: {key!r} should be text, found {shown(value)}")
    if len(set(given.values())) > 1:
        raise harness.DataError(f"{where}: {' and '.join(map(repr, given))} differ: a message has one reasoning")
    return next(iter(given.values()), "")


def _role(raw: Mapping[str, Any], number: int) -> harness.Role:
    name = raw.get("role")
    role = _ROLE_ALIASES.get(name, name) if isinstance(name, str) else name
    if role in ROLES:
        return role
    if name is None and "from" in raw and "value" in raw:
        hint = " It has from and value: the dataset 'sharegpt' reads that"
    elif name is None and "from" in raw:
        keys = listed(key for key, value in raw.items() if key != "from" and value is not None) or "nothing else"
        hint = f" It has from with {keys}: expected role and content (or, for 'sharegpt', from and value)"
    else:
        word = name.lower() if isinstance(name, str) else ""
        meant = word if word in ROLES else _HINTS.get(word)
        hint = f" Use {meant!r}" if meant else f" Roles: {', '.join(ROLES)}"
    raise harness.DataError(f"message {number} has the role {shown(name)}.{hint}")


def take_calls(raw: Mapping[str, Any], where: str) -> tuple[harness.ToolCall, ...]:
    """Return the calls of a message, from `tool_calls` and the legacy `function_call`."""
    calls = raw.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise harness.DataError(f"{where}: 'tool_calls' should be a list, found {shown(calls)}")
    legacy = raw.get("function_call")
    return tuple(turns.call(one, where) for one in [*(calls or ()), *([legacy] if legacy is not None else ())])


def _assistant_content(content: Any, reasoning: str, where: str) -> tuple[str, str, tuple[harness.ToolCall, ...]]:
    """Return the text of the assistant's message, its thoughts and its calls."""
    texts, thoughts, calls = [], [reasoning] if reasoning else [], []
    if isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind in _REASONING:
                thoughts.append(_part_text(part, where))
            elif kind == "tool_call":
                calls += turns.calls(part.get("value", part), where)
            elif kind == "tool_use":
                calls.append(turns.call({**part, "arguments": part.get("input")}, where))
            else:
                texts.append(_text_only([part], where))
    else:
        texts.append(_text_only(content, where))
    return "".join(texts), "\n".join(thoughts).strip("\n"), tuple(calls)


def _text_only(content: Any, where: str) -> str:
    """Return the text of a message's content; text parts are joined as OpenAI's endpoints join them."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise harness.DataError(f"{where}: content should be text or a list of parts, found {shown(content)}")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "redacted_thinking":
            raise harness.DataError(
                f"{where}: redacted thinking is encrypted: there is nothing to learn from it. Leave that part out"
            )
        if kind not in _TEXT:
            misplaced = f"; a {kind} does not belong here" if kind in _PARTS else ""
            raise harness.DataError(
                f"{where}: content should be text or a list of text parts, found {shown(part)}{misplaced}"
            )
        if len(part) > 2 and (other := next((key for key in _OF_OTHER_PARTS if part.get(key)), None)):
            raise harness.DataError(f"{where}: the key {other!r} of a text part would be lost: {shown(part)}")
    return "".join(_part_text(part, where) for part in content)


def _part_text(part: Mapping[str, Any], where: str) -> str:
    """Return the text of a part: from the field named after its type, from `text` or from `value`."""
    texts = {name: part[name] for name in (*_TEXT, *_REASONING, "value") if isinstance(part.get(name), str)}
    read = next((name for name in (part["type"], "text", "value") if name in texts), None)
    if read is not None and len(set(texts.values())) == 1:
        return texts[read]
    if read is not None:
        raise harness.DataError(f"{where}: a {part['type']} part has two texts, found {shown(part)}")
    raise harness.DataError(
        f"{where}: a {part['type']} part should have its text under 'text' or 'value', found {shown(part)}"
    )


def _text_field(raw: Mapping[str, Any], name: str, where: str) -> str | None:
    try:
        return take(raw, name, str, "") or None
    except harness.DataError as error:
        raise harness.DataError(f"{where}: {error}") from None


_SYSTEM = ("system?", "system.type", "system.text", "-system.cache_control", "id?", "source?", "weight?")
_TOOLS = ("tools?", "tools.*", "-parallel_tool_calls")

DATASET = harness.Dataset(
    "messages",
    "OpenAI- or Anthropic-style messages with role and content, tools, thoughts, and weight",
    convert,
    options=turns.ThinkTags,
    fields=(
        (*within("messages", MESSAGE), *_SYSTEM, *_TOOLS, "functions?", "functions.*", "prompt?", "-prompt_id"),
        (*within("conversations", MESSAGE), *_SYSTEM, *_TOOLS),
    ),
    yields="conversations",
)
