"""The choice of vLLM's parsers of thoughts and tool calls, by what a template writes.

A sample is rendered as it is tuned on, and each parser of vLLM is asked to take it apart. The first that returns the
sample's thoughts, words and calls is the template's. Importing vLLM takes seconds, so this has a process of its own:
`python -m harness_serve.parsers CHAT_FOLDER` prints JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness.errors import TemplateError
from harness.nouns import Conversation, Message, ToolCall
from harness.template import BoundTemplate

THOUGHTS, WORDS = "The heron has it.", "It is under the willow."
ARGUMENTS = {"thing": "silver key", "often": 3}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks up where a thing is.",
        "parameters": {
            "type": "object",
            "properties": {"thing": {"type": "string"}, "often": {"type": "integer"}},
            "required": ["thing"],
        },
    },
}
# Tried first: several parsers read the same sample, and these are the plain ones.
FIRST_REASONING = ("deepseek_r1", "qwen3", "glm45", "mistral", "gemma4", "openai_gptoss")
FIRST_TOOLS = ("hermes", "qwen3_coder", "llama3_json", "mistral", "pythonic", "glm45", "gemma4", "openai")


@dataclass(frozen=True)
class WrittenAnswer:
    """An answer as the model writes it, without its stop token, and what it holds."""

    text: str
    thoughts: str
    words: str
    calls: bool
    variables: dict[str, Any]
    prompt: tuple[int, ...]


def written_answers(template: BoundTemplate) -> list[WrittenAnswer]:
    """Return answers with and without thoughts, and with a call, as far as the template takes them."""
    asked = Message("user", "Where is the silver key?")
    call = ToolCall("look_up", ARGUMENTS, "call00001")
    answers = [Message("assistant", WORDS)]
    if template.habits.takes_thoughts and template.thinking != "off":
        answers.append(Message("assistant", WORDS, reasoning=THOUGHTS))
    if template.takes_tools:
        answers.append(Message("assistant", "", (call,)))
        if len(answers) == 3:
            answers.append(Message("assistant", "", (call,), reasoning=THOUGHTS))
    return [_written(template, Conversation((asked, one), (TOOL,) if one.tool_calls else ())) for one in answers]


def _written(template: BoundTemplate, talk: Conversation) -> WrittenAnswer:
    (example,) = template.encode_batch([talk])
    answer, begin = talk.messages[-1], list(example.loss_mask).index(True)
    end = len(example.loss_mask) - list(example.loss_mask)[::-1].index(True) - 1  # without the stop token
    return WrittenAnswer(
        template.decoded(example.input_ids[begin:end]),
        answer.reasoning,
        answer.content,
        bool(answer.tool_calls),
        template.request_variables(bool(answer.reasoning)),
        tuple(example.input_ids[:begin]),
    )


def find(template: BoundTemplate) -> dict[str, str | None]:
    """Return the names of the parsers that read these answers: `reasoning` and `tools`, None where none does."""
    parsers: dict[str, str | None] = {"reasoning": None, "tools": None}
    try:
        written = written_answers(template)
    except TemplateError:  # it was changed after tuning: the parity check shows where, before anybody is served
        return parsers
    if any(sample.thoughts for sample in written):
        parsers["reasoning"] = _first(
            FIRST_REASONING, _reasoning_parsers(), lambda kind: _thinks(kind, template, written)
        )
    if any(sample.calls for sample in written):
        reasoning = parsers["reasoning"]
        parsers["tools"] = _first(FIRST_TOOLS, _tool_parsers(), lambda kind: _calls(kind, template, written, reasoning))
    return parsers


def _first(first: Iterable[str], names: list[str], reads: Callable[[str], bool]) -> str | None:
    for name in sorted(names, key=lambda name: (name not in first, list(first).index(name) if name in first else 0)):
        try:
            if reads(name):
                return name
        except Exception:  # a parser may raise whatever it likes at what another model writes
            continue
    return None


def _reasoning_parsers() -> list[str]:
    from vllm.reasoning import ReasoningParserManager

    return list(ReasoningParserManager.list_registered())


def _tool_parsers() -> list[str]:
    from vllm.tool_parsers import ToolParserManager

    return list(ToolParserManager.list_registered())


def _request(sample: WrittenAnswer) -> Any:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    tools = {"tools": [TOOL], "tool_choice": "auto"} if sample.calls else {}
    asked = [{"role": "user", "content": "Where?"}]
    return ChatCompletionRequest(model="m", messages=asked, chat_template_kwargs=sample.variables, **tools)


def _apart(kind: str, template: BoundTemplate, sample: WrittenAnswer) -> tuple[str, str]:
    """Return the thoughts and the rest, as the parser takes the sample apart."""
    from vllm.reasoning import ReasoningParserManager

    parser = ReasoningParserManager.get_reasoning_parser(kind)(
        template.tokenizer, chat_template_kwargs=sample.variables
    )
    thoughts, rest = parser.extract_reasoning(sample.text, _request(sample))
    return (thoughts or "").strip(), (rest or "").strip()


def _thinks(kind: str, template: BoundTemplate, written: list[WrittenAnswer]) -> bool:
    """Return whether the parser tells the thoughts from the rest, where there are some and where there are none."""
    for sample in written:
        thoughts, rest = _apart(kind, template, sample)
        if thoughts != sample.thoughts or sample.words not in rest or (not sample.calls and rest != sample.words):
            return False
    return True


def _calls(kind: str, template: BoundTemplate, written: list[WrittenAnswer], reasoning: str | None) -> bool:
    """Return whether the parser reads the call, and leaves words alone."""
    from vllm.tool_parsers import ToolParserManager

    for sample in written:
        if sample.thoughts and reasoning is None:
            continue
        rest = _apart(reasoning, template, sample)[1] if reasoning else sample.text
        request = _request(sample)
        parser = ToolParserManager.get_tool_parser(kind)(template.tokenizer, request.tools)
        read = parser.extract_tool_calls(rest, request)
        calls = [(one.function.name, json.loads(one.function.arguments)) for one in read.tool_calls]
        if calls != ([("look_up", ARGUMENTS)] if sample.calls else []):
            return False
        if not sample.calls and (read.content or "").strip() != sample.words:
            return False
    return True


if __name__ == "__main__":
    try:
        print(json.dumps(find(BoundTemplate.load(Path(sys.argv[1])))))
    except harness.HarnessError as error:
        sys.exit(str(error))
