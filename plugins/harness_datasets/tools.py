"""Transcripts of tool use with calls written into the text; they become real tool calls, results and tools.

Three formats are read, alone or mixed:

- Glaive: `system` and `chat` (or all of it in `sample`), with `USER:`, `ASSISTANT:`, `<functioncall> {...}` and
  `FUNCTION RESPONSE:`; the tools are the JSON objects in the system prompt.
- Hermes: `conversations` (or `messages`) with `<tools>`, `<tool_call>` and `<tool_response>` in the texts. The
  explanation of these tags in the system prompt is deleted, because each template writes its own; the rest is kept.
- Code that was run: an assistant's turn that has `<execute>...</execute>` or ends in a ```python block, and then a turn
  with its output: from `ipython`, `execution`, `code_output` or `observation`, or from the user, if it begins with
  `Observation:`, `Execution result:` or `Execution output:`. The code becomes a call of the tool `python` with one
  argument, `code`. A block without an output after it stays text.

The text around a call becomes the content of the message with that call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import harness
from harness.data import shown, take, within
from harness.nouns import Row
from harness_datasets import turns
from harness_datasets.keys import MARKS, METADATA

PYTHON: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Runs Python code and returns its output.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}
_SPEAKERS = turns.SPEAKERS | dict.fromkeys(
    ("ipython", "execution", "execution_output", "execution_result", "code_output", "environment"), "output"
)
_GLAIVE = {"SYSTEM": "system", "USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
_END = "<|endoftext|>"
_GLAIVE_TURN = re.compile(r"(?:^|\n|<\|endoftext\|>)\s*(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):")
_GLAIVE_TURN_ANYWHERE = re.compile(r"(?:^|\s)(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):")
_CALL = re.compile(
    r"<tool_call>(?P<hermes>.*?)(?:</tool_call>|(?=<tool_call>)|\Z)"
    r"|<functioncall>(?P<glaive>.*?)(?:</functioncall>|(?=<functioncall>)|\Z)"
    r"|<execute>(?P<code>.*?)(?:</execute>|\Z)",
    re.DOTALL,
)
_LAST_CODE = re.compile(r"(?P<text>.*)```(?:python|py)[ \t]*\n(?P<code>.*?)```\s*", re.DOTALL | re.IGNORECASE)
_RESULT = re.compile(r"<tool_response>(.*?)(?:</tool_response>|(?=<tool_response>)|\Z)", re.DOTALL)
_OUTPUT = re.compile(r"\s*(?:Observation|Execution (?:result|output)):[ \t]*\n?", re.IGNORECASE)
_TOOLS = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)
_BLOCK = re.compile(r"<(tools|tool_call|tool_response|scratch_pad)>.*?</\1>", re.DOTALL)
_ABOUT_TAGS = re.compile(r"[^.!?\n]*(?:\0|['\"]FunctionCall['\"])[^\n]*?(?:[.!?](?=\s)|(?=\n)|\Z)")


class _Turn(NamedTuple):
    number: int
    speaker: str  # system, user, assistant, call, tool, output
    text: Any
    train: bool | None = None


def convert(row: Row, options: object) -> harness.Conversation:
    """Convert one transcript.

    Raises:
        DataError: naming the turn, if a call cannot be read or a result has no call.
    """
    transcript = list(_turns(row))
    tools = turns.offered(row.get("tools"))
    messages: list[harness.Message] = []
    names: dict[int, str] = {}
    for turn in transcript:
        if turn.speaker == "system":
            text, prompt_tools = _prompt(turn)
            tools = tools or prompt_tools
            if text:
                messages.append(harness.Message("system", text))
        elif turn.speaker == "call":
            messages.append(harness.Message("assistant", "", turns.calls(turn.text, _at(turn)), train=turn.train))
        elif turn.speaker == "assistant":
            messages.append(_assistant(turn))
        elif results := _results(turn, messages):
            for name, text in results:
                names[len(messages)] = name
                messages.append(harness.Message("tool", text))
        else:
            messages.append(harness.Message("user", turn.text))
    linked = turns.linked(messages, names)
    if "python" not in _names(tools) and any(
        call.name == "python" for message in linked for call in message.tool_calls
    ):
        tools = (*tools, PYTHON)
    return harness.Conversation(linked, tools, id=str(row.get("id") or ""))


# Reading turns


def _turns(row: Row) -> Iterator[_Turn]:
    present = [name for name in ("chat", "sample", "conversations", "messages") if row.get(name) is not None]
    if len(present) > 1:
        raise harness.DataError(f"there are two transcripts, {present[0]!r} and {present[1]!r}: a row has one")
    field = present[0] if present else "chat"
    system = take(row, "system", str, "").strip()
    if system:
        yield _Turn(0, "system", system.removeprefix("SYSTEM:").strip())
    if field in ("chat", "sample"):
        yield from _glaive(take(row, field, str), field)
        return
    for number, turn in enumerate(take(row, field, list), 1):
        if not isinstance(turn, Mapping):
            raise harness.DataError(f"turn {number} should be an object with from and value, found {shown(turn)}")
        speaker = turns.speaker_of(turn.get("from", turn.get("role")), number, _SPEAKERS)
        name = "value" if "value" in turn or "from" in turn else "content"
        if turn.get("value") and turn.get("content"):
            raise harness.DataError(f"turn {number} has a value and a content: a turn has one text")
        role: harness.Role = "assistant" if speaker in ("assistant", "call") else "user"
        train = turns.trained(turn, role, f"turn {number}")
        if speaker == "call" and not isinstance(turn.get(name), str):
            yield _Turn(number, speaker, turn.get(name), train)
            continue
        yield _Turn(number, speaker, turns.text_of(turn, name, number), train)


def _glaive(text: str, field: str) -> Iterator[_Turn]:
    marks = list(_GLAIVE_TURN.finditer(text))
    if all(mark[1] != "ASSISTANT" for mark in marks):  # some copies have it all on one line
        marks = list(_GLAIVE_TURN_ANYWHERE.finditer(text))
    if not any(mark[1] == "ASSISTANT" for mark in marks):
        raise harness.DataError(
            f"the field {field!r} should hold turns such as USER: and ASSISTANT:, found {shown(text)}"
        )
    if before := text[: marks[0].start()].replace(_END, "").strip():
        raise harness.DataError(f"the field {field!r} begins with text outside of any turn: {shown(before)}")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for number, (mark, end) in enumerate(zip(marks, ends, strict=True), 1):
        yield _Turn(number, _GLAIVE[mark[1]], text[mark.end() : end].replace(_END, "").strip())


# From turns to messages


def _assistant(turn: _Turn) -> harness.Message:
    """Convert an assistant's turn; the calls in its text become tool calls."""
    calls: list[harness.ToolCall] = []
    for match in _CALL.finditer(turn.text):
        if match["code"] is not None:
            calls.append(harness.ToolCall("python", {"code": match["code"].strip("\n")}))
        else:
            written = match["hermes"] if match["hermes"] is not None else match["glaive"]
            calls += turns.calls(
                re.sub(r"^(?:\s|\\n)+|(?:\s|\\n)+$", "", written), _at(turn)
            )  # some have "\n" spelt out
    if not calls:
        return harness.Message("assistant", turn.text, train=turn.train)
    around = [part.strip() for part in _CALL.sub("\0", turn.text).split("\0")]
    return harness.Message("assistant", "\n\n".join(filter(None, around)), tuple(calls), train=turn.train)


def _results(turn: _Turn, messages: list[harness.Message]) -> list[tuple[str, str]]:
    """Return (name, text) of each tool result in a turn; empty for a user's own text.

    If the turn is the output of code, the code at the end of the message before it becomes a call.
    """
    if tagged := [part.strip() for part in _RESULT.findall(turn.text)]:
        _must_answer(turn, messages)
        return [(_name(part), part) for part in tagged]
    if turn.speaker == "user":
        if not (label := _OUTPUT.match(turn.text)) or not (_has_called(messages) or _code_at_end(messages)):
            return []
    else:
        label = _OUTPUT.match(turn.text)
    if not _has_called(messages) and (call := _code_at_end(messages)):
        messages[-1] = call
    _must_answer(turn, messages)
    text = turn.text[label.end() :] if label else turn.text
    return [(_name(text), text.strip("\n"))]


def _must_answer(turn: _Turn, messages: list[harness.Message]) -> None:
    if not _has_called(messages):
        what = "code's output" if turn.speaker == "output" else "tool's result"
        raise harness.DataError(
            f"{_at(turn)} is a {what}, but no call comes before it: expected <tool_call>, <functioncall>, <execute> "
            f"or a ```python block at the end of the assistant's turn, "
            f"found {shown(messages[-1].content) if messages else 'nothing'}"
        )


def _has_called(messages: list[harness.Message]) -> bool:
    """Return True if the last message that is not a tool result makes a call."""
    return bool(next((message.tool_calls for message in reversed(messages) if message.role != "tool"), ()))


def _code_at_end(messages: list[harness.Message]) -> harness.Message | None:
    """Return the last message with its final code block as a call; None if it does not end in a code block."""
    if not messages or messages[-1].role != "assistant" or not (match := _LAST_CODE.fullmatch(messages[-1].content)):
        return None
    call = harness.ToolCall("python", {"code": match["code"].strip("\n")})
    return replace(messages[-1], content=match["text"].strip(), tool_calls=(call,))


def _prompt(turn: _Turn) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    """Split a system prompt into its text without the explanation of the format, and the tools that it offers."""
    text = turn.text
    if lists := [tag for tag in _TOOLS.findall(text) if tag.strip()]:
        tools = tuple(tool for tag in lists for tool in _objects(tag.strip(), turn))
        text = _ABOUT_TAGS.sub("", _BLOCK.sub("\0", text))
        return re.sub(r"\n{2,}", "\n", text).strip(), turns.offered(list(tools), "<tools>")
    before, brace, _ = text.partition("{")
    if not brace or "function" not in before.lower():
        return text.strip(), ()
    tools = tuple(_objects(text[len(before) :].strip(), turn))
    return re.sub(r"\s*-?\s*$", "", before), turns.offered(list(tools), "system")


def _objects(text: str, turn: _Turn) -> Iterator[Any]:
    """Yield the tools in a text: a JSON list, or JSON objects one after the other."""
    if text.startswith("["):
        value = turns.decoded(text, f"the text of the tools in {_at(turn)}")
        yield from value if isinstance(value, list) else [value]
        return
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            if at == 0:
                value, at = turns.decoded(text, f"the text of the tools in {_at(turn)}"), len(text)
            else:
                raise harness.DataError(f"the tools in {_at(turn)} are not valid JSON: {shown(text[at:])}") from None
        yield value
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            at += 1


def _name(result: str) -> str:
    """Return the tool's name from a result of the form `{"name": ..., "content": ...}`; otherwise an empty string."""
    try:
        value = json.loads(result)
    except (ValueError, RecursionError):
        return ""
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def _names(tools: tuple[Mapping[str, Any], ...]) -> set[Any]:
    return {function.get("name") for tool in tools if isinstance(function := tool.get("function"), Mapping)}


def _at(turn: _Turn) -> str:
    return f"turn {turn.number}" if turn.number else "the field 'system'"


_TURN = ("from", "value", "value.*", "role", "content", *MARKS, *METADATA)

DATASET = harness.Dataset(
    "tools",
    "tool use written into texts (Glaive, Hermes) and code that was run, as real calls",
    convert,
    fields=(
        ("system", "chat", "id?"),
        ("sample", "id?"),
        (  # Hermes; without a category, and with `messages`, by name only: other datasets read such rows as they stand
            *(*within("conversations", _TURN), "messages?", *within("messages", _TURN), "tools?", "tools.*", "system?"),
            *("id?", "category", "-subcategory", "-task", "-schema", "-source"),
        ),
    ),
    yields="conversations",
)
