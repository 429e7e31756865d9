"""Shared code of the formats with turns: tools, calls written as JSON, and the links from results to calls.

Tools become OpenAI's form, `{"type": "function", "function": {...}}`, which templates and served endpoints take. A row
may have that form, the bare function, or Anthropic's `input_schema`.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import harness
from harness.data import is_true_or_false, shown, take
from harness.data.read.jsontext import loads
from harness.errors import nearest
from harness_datasets.keys import MARKS, SPANS

# The speakers as ShareGPT dumps and later formats name them. `call` is the assistant calling tools.
SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "call",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
}
# Ways to write a call, or code to run, into the assistant's text. Only the dataset `tools` searches texts for them.
CALL_IN_TEXT = re.compile(r"<tool_call>|<functioncall>|<execute>|```(?:python|py)\b")


_THINK_TAGS = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


class ThinkTags(harness.Options):
    """`think_tags` reads `<think>...</think>` at the start of an answer as its thoughts, and not as its text."""

    think_tags: bool = False


def read_think_tags(messages: list[harness.Message], options: object) -> list[harness.Message]:
    """Return the messages; where it is asked, thoughts in tags at the start of an answer become its reasoning."""
    return list(map(_without_tags, messages)) if getattr(options, "think_tags", False) else messages


def _without_tags(message: harness.Message) -> harness.Message:
    match = _THINK_TAGS.match(message.content) if message.role == "assistant" and not message.reasoning else None
    if match is None:
        return message
    return replace(message, content=message.content[match.end() :], reasoning=match[1].strip())


def speaker_of(name: Any, number: int, known: Mapping[str, str] = SPEAKERS) -> str:
    """Return `system`, `user`, `assistant`, `tool` or `call` for the `from` of a turn. Raises DataError if unknown."""
    speaker = known.get(name.replace("-", "_").lower()) if isinstance(name, str) else None
    if speaker is None:
        raise harness.DataError(
            f"turn {number} is from {shown(name)}.{nearest(str(name), known)} Known are: {', '.join(known)}"
        )
    return speaker


def text_of(turn: Mapping[str, Any], name: str, number: int) -> str:
    """Return the text of a turn. Raises DataError, with the turn's number, if it is missing or not text."""
    try:
        return take(turn, name, str)
    except harness.DataError as error:
        raise harness.DataError(f"turn {number}: {error}") from None


def trained(turn: Mapping[str, Any], role: harness.Role, where: str) -> bool | None:
    """Return the turn's mark that says if the loss sees it (see `MARKS`) as a bool; None if the turn has none.

    Raises:
        DataError: for a mark that is neither 0 nor 1, false nor true, for two that contradict each other, and for marks
            on parts of a message.
    """
    if len(turn) == 2:  # the common case: a role and a text
        return None
    if span := next((name for name in SPANS if turn.get(name)), None):
        raise harness.DataError(
            f"{where}: {span!r} marks parts of the message, and a message is trained on as a whole or not at all. Mark "
            f"the whole of it with `train: false`, or leave such rows out with `on_bad_row: drop`"
        )
    marks = {name: _mark(turn[name]) for name in MARKS if turn.get(name) is not None}
    for name, mark in marks.items():
        if isinstance(mark, str | list | Mapping) or mark not in (0, 1):
            raise harness.DataError(
                f"{where}: the {name} should be 0 or 1, found {shown(mark)}: a message is trained on or it is not"
            )
    if len({bool(mark) for mark in marks.values()}) > 1:
        listed = " and ".join(f"{name} {shown(mark)}" for name, mark in marks.items())
        raise harness.DataError(f"{where}: {listed} contradict each other")
    if role != "assistant" or not marks:
        return None
    return bool(next(iter(marks.values())))


def _mark(value: Any) -> Any:
    """Return true or false for these words, which a CSV has instead; any other value as it is."""
    return value.strip().lower() == "true" if is_true_or_false(value) and isinstance(value, str) else value


def weight_of(row: Mapping[str, Any]) -> float:
    """Return the `weight` by which a row counts, 1 where it has none. Raises DataError unless it is above 0."""
    value = row.get("weight")
    if value is None or value == "":
        return 1.0
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 < weight < math.inf:
        hint = ". A row that is not to count is left out of the file" if weight == 0 else ""
        raise harness.DataError(f"the field 'weight' should be a number above 0, found {shown(value)}{hint}")
    return weight


def with_system(system: str, messages: Sequence[harness.Message]) -> tuple[harness.Message, ...]:
    """Return the messages after the row's system prompt. Raises DataError if they begin with a different one."""
    if not system or (messages and messages[0].role == "system" and messages[0].content == system):
        return tuple(messages)
    if messages and messages[0].role == "system":
        raise harness.DataError(
            f"there are two system prompts: {shown(system)} in the field 'system', "
            f"{shown(messages[0].content)} in message 1"
        )
    return (harness.Message("system", system), *messages)


# Tools and calls


def offered(value: Any, name: str = "tools") -> tuple[Mapping[str, Any], ...]:
    """Return the tools of a row: a list, one object, or the JSON text of either. Null or blank text means no tools."""
    if isinstance(value, str):
        written = value.strip()
        value = decoded(written, f"the field {name!r}") if written[:1] in ("[", "{") else written or None
    if value is None:
        return ()
    tools = [value] if isinstance(value, Mapping) else value
    if not isinstance(tools, list | tuple):
        raise harness.DataError(f"the field {name!r} should be a list, found {shown(value)}")
    return tuple(_tool(tool, number) for number, tool in enumerate(tools, 1))


def _tool(raw: Any, number: int) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise harness.DataError(f"tool {number} should be an object, found {shown(raw)}")
    function = raw.get("function", raw)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise harness.DataError(
            f"tool {number} has no name: expected {{type: function, function: {{name, description, parameters}}}}, "
            f"found {shown(raw)}"
        )
    if "function" in raw:
        return raw
    if "input_schema" in raw:
        raw = {key: value for key, value in raw.items() if key != "input_schema"} | {"parameters": raw["input_schema"]}
    return {"type": "function", "function": dict(raw)}


def list_of(row: Mapping[str, Any], name: str) -> list[Any]:
    """Return the list in a field; CSV and some Parquet files have it as text, in JSON or as Python writes it."""
    value = row.get(name)
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        value = decoded(value, f"the field {name!r}")
        row = {**row, name: value}
    return take(row, name, list)


def decoded(text: str, where: str) -> Any:
    """Parse JSON text.

    Two other forms, which published files have in its place, are read as well: a Python literal, and JSON whose
    `arguments` are quoted once more (`"arguments": '{"city": "Rome"}'`).

    Raises:
        DataError: with `where` and the error of the JSON parser.
    """
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error)
    if quoted := re.fullmatch(r"(\s*\{.*\"arguments\"\s*:\s*)'(.*)'(\s*\}\s*)", text, re.DOTALL):
        before, arguments, after = quoted.groups()
        try:
            return json.loads(before + arguments.replace("\\'", "'") + after)
        except (ValueError, RecursionError):
            pass
    if text.lstrip()[:1] in ("{", "["):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about escapes such as "\\d" in the text, which do not matter here
                return json.loads(json.dumps(ast.literal_eval(text.strip())))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            pass
    raise harness.DataError(f"{where} is not valid JSON: {reason}: {shown(text)}")


def calls(value: Any, where: str) -> tuple[harness.ToolCall, ...]:
    """Read one call {name, arguments} or a list of parallel calls, as data or as JSON text."""
    if isinstance(value, str):
        value = decoded(value, f"{where}: the call")
    return tuple(call(one, where) for one in (value if isinstance(value, list) else [value]))


def call(raw: Any, where: str) -> harness.ToolCall:
    """Read one call: {name, arguments}, or OpenAI's {id, type, function: {name, arguments}}."""
    if not isinstance(raw, Mapping):
        raise harness.DataError(f"{where}: a tool 'call' should be an object, found {shown(raw)}")
    try:
        function = take(raw, "function", dict) if "function" in raw else raw
        name, id = take(function, "name", str), take(raw, "id", str, "") or None
    except harness.DataError as error:
        raise harness.DataError(f"{where}: in a tool call, {error}") from None
    if not name:
        raise harness.DataError(f"{where}: a tool call has no name")
    twice = [key for key in ("name", "arguments", "parameters") if function is not raw and raw.get(key)]
    twice += ["parameters"] if function.get("arguments") and function.get("parameters") else []
    if twice:
        raise harness.DataError(f"{where}: a tool call has {twice[0]!r} beside the one that is read: {shown(raw)}")
    return harness.ToolCall(name, arguments_of(function, where), id)


def arguments_of(function: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the arguments of a call, from `arguments` or Llama's `parameters`. Blank text means no arguments."""
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str) and arguments.strip():
        try:
            arguments = loads(arguments)
            if isinstance(arguments, str) and arguments.lstrip().startswith("{"):  # encoded twice
                arguments = loads(arguments)
        except (ValueError, RecursionError) as error:
            raise harness.DataError(f"{where}: the arguments of a tool call are not valid JSON: {error}") from None
    elif arguments is None or isinstance(arguments, str):
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise harness.DataError(f"{where}: the arguments of a tool call should be an object, found {shown(arguments)}")
    return arguments


def linked(messages: Sequence[harness.Message], names: Mapping[int, str] | None = None) -> tuple[harness.Message, ...]:
    """Return the messages with the id of its call on each tool result.

    A result without an id answers the oldest unanswered call of the assistant's message before it. If `names` (index of
    the message -> the tool's name) has its tool, it answers the oldest unanswered call of that tool. A call without an
    id gets one when it is answered. A single result that is a JSON list with one item a call is split. A result without
    a matching call stays unchanged: cleaning counts it.
    """
    if not any(message.role == "tool" for message in messages):
        return tuple(messages)
    taken = {one.id for message in messages for one in message.tool_calls}
    out: list[harness.Message] = []
    caller, waiting = 0, []  # where in `out` the calls were made; the indices of those not yet answered
    for index, message in enumerate(messages):
        if message.role != "tool":
            out.append(message)
            caller, waiting = len(out) - 1, list(range(len(message.tool_calls)))
            continue
        asked = out[caller].tool_calls if waiting else ()
        if message.tool_call_id is not None:
            waiting = [one for one in waiting if asked[one].id != message.tool_call_id]
            out.append(message)
            continue
        name = (names or {}).get(index)
        alone = len(waiting) == len(asked) > 1 and not any(
            after.role == "tool" for after in messages[index + 1 : index + 2]
        )
        for part in _apart(message, len(asked)) if alone else [message]:
            if not waiting:
                out.append(part)
                continue
            answered = next((one for one in waiting if asked[one].name == name), waiting[0])
            waiting.remove(answered)
            out[caller] = _with_id(out[caller], answered, taken)
            out.append(replace(part, tool_call_id=out[caller].tool_calls[answered].id))
            asked = out[caller].tool_calls
    return tuple(out)


def _apart(message: harness.Message, count: int) -> list[harness.Message]:
    """Split a result that is a JSON list of `count` results into as many messages; return any other unchanged."""
    try:
        parts = json.loads(message.content)
    except (ValueError, RecursionError):
        return [message]
    if not isinstance(parts, list) or len(parts) != count:
        return [message]
    texts = [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in parts]
    return [replace(message, content=text) for text in texts]


def _with_id(message: harness.Message, index: int, taken: set[str | None]) -> harness.Message:
    """Return the message with an id on its call at `index`: nine letters and digits, as Mistral's templates require."""
    if message.tool_calls[index].id is not None:
        return message
    number = len(taken)
    while (id := f"call{number:05d}") in taken:
        number += 1
    taken.add(id)
    return replace(
        message,
        tool_calls=tuple(replace(one, id=id) if at == index else one for at, one in enumerate(message.tool_calls)),
    )
