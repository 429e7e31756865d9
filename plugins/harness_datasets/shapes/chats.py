"""Rewriting of chats: providers' own forms of messages, and calls in forms of their own. `logs` has the others.

Each function gets a row with the columns that its record in `table` reads, and returns a row of `messages` or
`sharegpt`, which check roles and texts.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import harness
from harness.data import OtherKindError, shown, take
from harness.nouns import Row
from harness_datasets import turns

ITEM = (  # keys of an item of OpenAI's Responses API
    *(
        "type",
        "role",
        "content",
        "content.type",
        "content.text",
        "-content.annotations",
        "-content.logprobs",
        "call_id",
    ),
    *("name", "arguments.*", "output.*", "summary.type", "summary.text", "-id", "-status", "-encrypted_content"),
)
_TOOLACE_TOOLS = re.compile(r"[^.\n]*\blist of functions in JSON format[^\[]*(?=\[)")
_TOOLACE_CALL = re.compile(r"\s*,?\s*([^\[\](),=]+?)\s*\(")
_TAG = re.compile(r"<tools>|<tool_call>")
_JSON_TYPES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object",
    "tuple": "array", "set": "array",
}  # fmt: skip


def entries(row: Row, name: str, *, optional: bool = False) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (number, entry) of the list in a field. Raises DataError for an entry that is not an object."""
    if optional and not row.get(name):
        return
    for number, entry in enumerate(turns.list_of(row, name), 1):
        if not isinstance(entry, Mapping):
            raise harness.DataError(f"{name}: entry {number} should be an object, found {shown(entry)}")
        yield number, entry


def as_text(value: Any) -> str:
    """Return text as it is, and anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def only_call(name: Any, arguments: Any, id: Any = None) -> dict[str, Any]:
    """Return one call in OpenAI's form."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


# Providers


def gemini(row: Row) -> Row:
    """Rewrite Gemini's `contents` of role and parts, with function calls, their responses and declarations."""
    messages: list[dict[str, Any]] = []
    if row.get("system"):
        system = row["system"]
        parts = system.get("parts") if isinstance(system, Mapping) else [{"text": system}]
        messages.append({"role": "system", "content": "".join(take(part, "text", str) for part in parts or ())})
    for number, content in entries(row, "contents"):
        role = content.get("role", "user")
        if role not in ("user", "model", "function"):
            raise harness.DataError(f"contents: entry {number} has the role {shown(role)}: expected user or model")
        answer: dict[str, Any] = {"role": "assistant" if role == "model" else "user", "content": ""}
        results = []
        for part in take(content, "parts", list):
            kind = _kind(part, ("functionCall", "functionResponse", "text"), f"contents: entry {number}")
            if kind == "functionCall":
                call = part["functionCall"]
                answer.setdefault("tool_calls", []).append(only_call(call.get("name"), call.get("args") or {}))
            elif kind == "functionResponse":
                result = part["functionResponse"]
                results.append({"role": "tool", "name": result["name"], "content": as_text(result["response"])})
            elif take(part, "thought", bool, False):
                answer["reasoning_content"] = answer.get("reasoning_content", "") + take(part, "text", str)
            else:
                answer["content"] += take(part, "text", str)
        messages += results
        if len(answer) > 2 or answer["content"] or not results:
            messages.append(answer)
    tools = [one for _, group in entries(row, "tools", optional=True) for one in group["functionDeclarations"]]
    return {"messages": messages, "tools": tools}


def bedrock(row: Row) -> Row:
    """Rewrite Bedrock's messages, whose content is a list of blocks named by their key."""
    messages = []
    for number, message in entries(row, "messages"):
        if not isinstance(blocks := message.get("content"), list):
            raise OtherKindError(f"message {number}: content should be a list of blocks, found {shown(blocks)}")
        messages.append({"role": message.get("role"), "content": [_block(block, number) for block in blocks]})
    system = [{"type": "text", "text": take(block, "text", str)} for _, block in entries(row, "system", optional=True)]
    tools = [tool["toolSpec"] for tool in row.get("toolConfig", {}).get("tools", ())]
    return {
        "messages": messages,
        "system": system,
        "tools": [
            {key: value for key, value in tool.items() if key != "inputSchema"}
            | {"parameters": tool["inputSchema"]["json"]}
            for tool in tools
        ],
    }


def _block(block: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a block of Bedrock's in the form of Anthropic's."""
    kind = _kind(block, ("toolUse", "toolResult", "reasoningContent", "text"), f"message {number}")
    if kind == "toolUse":
        use = block[kind]
        return {"type": "tool_use", "id": use.get("toolUseId"), "name": use.get("name"), "input": use.get("input")}
    if kind == "toolResult":
        result = block[kind]
        texts = [as_text(part[_kind(part, ("text", "json"), f"message {number}")]) for part in result["content"]]
        return {"type": "tool_result", "tool_use_id": result.get("toolUseId"), "content": "".join(texts)}
    if kind == "reasoningContent":
        return {"type": "thinking", "thinking": block[kind]["reasoningText"]["text"]}
    return {"type": "text", "text": take(block, "text", str)}


def _kind(part: Mapping[str, Any], kinds: tuple[str, ...], where: str) -> str:
    """Return the one key of a part that says what it is. Raises DataError for none, and for several."""
    present = [kind for kind in kinds if part.get(kind) is not None]
    if len(present) != 1:
        raise harness.DataError(f"{where}: a part should have one of {', '.join(kinds)}, found {shown(part)}")
    return present[0]


def cohere(row: Row) -> Row:
    """Rewrite Cohere's roles: System, User, Chatbot and Tool, in any case."""
    messages = []
    for _, message in entries(row, "messages"):
        role = message.get("role")
        low = role.lower() if isinstance(role, str) else role
        messages.append({**message, "role": "assistant" if low == "chatbot" else low})
    return {**row, "messages": messages}


def responses(row: Row) -> Row:
    """Rewrite the input and output items of OpenAI's Responses API. Only what is in `output` is trained on."""
    messages: list[dict[str, Any]] = []
    if instructions := take(row, "instructions", str, ""):
        messages.append({"role": "system", "content": instructions})
    if isinstance(row["input"], str):
        messages.append({"role": "user", "content": row["input"]})
    else:
        messages += _items(row, "input")
    for message in messages:
        if message["role"] == "assistant":
            message["weight"] = 0
    messages += _items(row, "output")
    tools = [
        {key: value for key, value in tool.items() if key != "type"} for _, tool in entries(row, "tools", optional=True)
    ]
    return {"messages": messages, "tools": tools}


# The keys of an item that are read, by its type.
_READ = {
    "reasoning": ("content", "summary"),
    "function_call": ("name", "arguments", "call_id"),
    "function_call_output": ("output", "call_id"),
    "message": ("role", "content"),
}


def _items(row: Row, name: str) -> list[dict[str, Any]]:
    """Return the messages of a list of items. Reasoning and calls belong to the assistant's message beside them."""
    messages: list[dict[str, Any]] = []
    reasoning = ""
    for number, item in entries(row, name):
        kind = item.get("type", "message")
        others = {key for keys in _READ.values() for key in keys}.difference(_READ.get(kind, ()))
        if other := next((key for key in item if key in others and item[key]), None):
            raise harness.DataError(f"{name}: item {number} is a {kind!r}, and its {other!r} would be lost")
        if kind == "reasoning":
            parts = item.get("content") or item.get("summary") or []
            reasoning += "\n\n".join(take(part, "text", str) for part in parts)
        elif kind == "function_call":
            call = only_call(item.get("name"), item.get("arguments"), item.get("call_id"))
            if messages and "tool_calls" in messages[-1]:
                messages[-1]["tool_calls"].append(call)
            else:
                messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif kind == "function_call_output":
            output = as_text(item["output"])
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        elif kind == "message":
            messages.append({"role": item.get("role"), "content": item.get("content")})
        else:
            raise harness.DataError(f"{name}: item {number} is a {kind!r}, which cannot be part of a conversation")
        if reasoning and messages and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"], reasoning = reasoning, ""
    if reasoning:
        raise harness.DataError(f"{name}: the reasoning at its end belongs to no message")
    return messages


# Calls


def swift_tools(row: Row) -> Row:
    """Rewrite ms-swift's roles `tool_call` and `tool_response`."""
    speakers = {"tool_call": "function_call", "tool_response": "observation"}
    conversations = []
    for number, message in entries(row, "messages"):
        marks = {key: value for key, value in message.items() if key not in ("role", "content")}
        role = message.get("role")
        speaker = speakers.get(role, role) if isinstance(role, str) else role
        conversations.append(marks | {"from": speaker, "value": turns.text_of(message, "content", number)})
    if not any(turn["from"] == "function_call" for turn in conversations):
        raise OtherKindError("no message has the role tool_call")
    return {**{key: value for key, value in row.items() if key != "messages"}, "conversations": conversations}


def tagged(row: Row) -> Row:
    """Return a row with the tags of Hermes in its texts. Raises DataError for a row without them."""
    texts = [row.get("system"), *(turn.get("value") for _, turn in entries(row, "conversations"))]
    if not any(isinstance(text, str) and _TAG.search(text) for text in texts):
        raise OtherKindError("no text has <tools> or <tool_call>")
    return row


def xlam(row: Row) -> Row:
    """Rewrite xLAM's rows: a query, the calls that answer it, and tools whose parameters are Python's types."""
    calls = [only_call(call.get("name"), call.get("arguments")) for _, call in entries(row, "answers")]
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    return {
        "messages": [{"role": "user", "content": take(row, "query", str)}, answer],
        "tools": [_with_schema(tool) for _, tool in entries(row, "tools")],
        "id": row.get("id"),
    }


def _with_schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool with its parameters as a JSON schema: `int, optional` is an integer that is not required."""
    parameters = tool.get("parameters") or {}
    if "properties" in parameters:
        return dict(tool)
    properties, required = {}, []
    for name, given in parameters.items():
        written = str(given.get("type", "str"))
        base = re.match(r"[a-z]*", written.lower())
        kind = _JSON_TYPES.get(base.group() if base else "", written)
        properties[name] = {**given, "type": kind}
        if "optional" not in written.lower() and "default" not in given:
            required.append(name)
    return {**tool, "parameters": {"type": "object", "properties": properties, "required": required}}


def toolace(row: Row) -> Row:
    """Rewrite ToolACE's rows: tools as JSON in the system prompt, calls as `[name(argument=value), ...]`.

    The system prompt is kept up to the list of tools; the format of calls that it ends with is the template's to say.
    """
    system = take(row, "system", str)
    if (mark := _TOOLACE_TOOLS.search(system)) is None:
        raise OtherKindError("the system prompt has no `list of functions in JSON format`")
    try:
        tools, _ = json.JSONDecoder().raw_decode(system, mark.end())
    except ValueError as error:
        raise harness.DataError(f"the tools in the system prompt are not valid JSON: {error}") from None
    messages: list[dict[str, Any]] = [{"role": "system", "content": system[: mark.start()].strip()}]
    for number, turn in entries(row, "conversations"):
        speaker, text = turns.speaker_of(turn.get("from"), number), turns.text_of(turn, "value", number)
        if speaker == "assistant" and text.strip().startswith("[") and text.strip().endswith(")]"):
            if (calls := _python_calls(text.strip())) is None:
                raise harness.DataError(f"turn {number}: the calls cannot be read: {shown(text)}")
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        else:
            messages.append({"role": speaker, "content": text})
    return {"messages": messages, "tools": tools}


def _python_calls(text: str) -> list[dict[str, Any]] | None:
    """Return the calls in `[name(argument=value), other()]`; None where one cannot be read."""
    calls, at = [], 1
    while at < len(text) - 1:
        if (head := _TOOLACE_CALL.match(text, at)) is None:
            return None
        end = next((end for end in _closings(text, head.end()) if _arguments(text[head.end() : end]) is not None), None)
        if end is None:
            return None
        calls.append(only_call(head[1], _arguments(text[head.end() : end])))
        at = end + 1
    return calls


def _closings(text: str, begin: int) -> Iterator[int]:
    at = text.find(")", begin)
    while at != -1:
        yield at
        at = text.find(")", at + 1)


def _arguments(written: str) -> dict[str, Any] | None:
    """Return the arguments of a call with literal keyword arguments; None where they are cut off or something else."""
    try:
        call = ast.parse(f"f({written})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            return None
        return {str(keyword.arg): ast.literal_eval(_with_json_names(keyword.value)) for keyword in call.keywords}
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


class _JsonNames(ast.NodeTransformer):
    """JSON's true, false and null as Python's."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        names = {"true": True, "false": False, "null": None}
        return ast.Constant(names[node.id]) if node.id in names else node


def _with_json_names(node: ast.expr) -> ast.expr:
    expression: ast.expr = _JsonNames().visit(node)
    return expression
