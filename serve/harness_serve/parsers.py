"""The choice of vLLM's parsers of thoughts and tool calls, by what a template writes.

Samples are rendered as they are tuned on, and vLLM's parsers take their ids apart as its endpoint does it, which drops
special tokens from the text of an answer where a parser does not ask for them. The first that returns the samples'
thoughts, words and calls is the template's. Importing vLLM takes seconds, so this has a process of its own:
`python -m harness_serve.parsers CHAT_FOLDER` prints JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
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
# Those of gpt-oss, whose answers vLLM parses from their ids, by a vocabulary of its own.
HARMONY = ("openai_gptoss", "openai")

Parts = tuple[str, str, list[tuple[str, Any]]]  # thoughts, words, and calls by name and arguments


@dataclass(frozen=True)
class WrittenAnswer:
    """An answer as the model writes it: the ids behind the prompt, without the stop token, and what they hold."""

    ids: list[int]
    prompt: list[int]
    thoughts: str
    words: str
    calls: bool
    variables: dict[str, Any]


def written_answers(template: BoundTemplate) -> list[WrittenAnswer]:
    """Return answers with and without thoughts, and with a call, as far as the template takes them."""
    asked = Message("user", "Where is the silver key?")
    call = ToolCall("look_up", ARGUMENTS, "call00001")
    answers = [Message("assistant", WORDS)]
    if thinks := template.habits.takes_thoughts and template.thinking != "off":
        answers.append(Message("assistant", WORDS, reasoning=THOUGHTS))
    if template.takes_tools:
        answers.append(Message("assistant", "", (call,)))
        if thinks:
            answers.append(Message("assistant", "", (call,), reasoning=THOUGHTS))
    return [_written(template, Conversation((asked, one), (TOOL,) if one.tool_calls else ())) for one in answers]


def _written(template: BoundTemplate, talk: Conversation) -> WrittenAnswer:
    (example,) = template.encode_batch([talk])
    answer, begin = talk.messages[-1], list(example.loss_mask).index(True)
    end = len(example.loss_mask) - list(example.loss_mask)[::-1].index(True) - 1
    ids, variables = list(example.input_ids), template.request_variables(bool(answer.reasoning))
    return WrittenAnswer(
        ids[begin:end], ids[:begin], answer.reasoning, answer.content, bool(answer.tool_calls), variables
    )


def find(template: BoundTemplate) -> dict[str, str | None]:
    """Return the names of the parsers that read the samples: `reasoning` and `tools`, None where none does."""
    try:
        written = written_answers(template)
    except TemplateError:  # it was changed after tuning: the parity check shows where, before anybody is served
        return {"reasoning": None, "tools": None}
    words = [sample for sample in written if not sample.calls]
    reasoning = tools = None
    if any(sample.thoughts for sample in written):
        from vllm.reasoning import ReasoningParserManager

        names = ReasoningParserManager.list_registered()
        reasoning = next(
            (name for name in _sorted(names, FIRST_REASONING) if _reads(template, words, name, None)), None
        )
    if len(words) < len(written):
        from vllm.tool_parsers import ToolParserManager

        names = ToolParserManager.list_registered()
        there = [sample for sample in written if reasoning or not sample.thoughts]
        tools = next((name for name in _sorted(names, FIRST_TOOLS) if _reads(template, there, reasoning, name)), None)
    return {"reasoning": reasoning, "tools": tools}


def _sorted(names: Sequence[str], first: Sequence[str]) -> Iterator[str]:
    yield from (name for name in first if name in names)
    yield from (name for name in names if name not in first)


def _reads(template: BoundTemplate, written: Sequence[WrittenAnswer], reasoning: str | None, tools: str | None) -> bool:
    """Return whether vLLM with these parsers returns what the samples hold."""
    return all(_apart(template, sample, reasoning, tools) == _held(sample) for sample in written)


def _held(sample: WrittenAnswer) -> Parts:
    return sample.thoughts, sample.words, [("look_up", ARGUMENTS)] if sample.calls else []


def _apart(template: BoundTemplate, sample: WrittenAnswer, reasoning: str | None, tools: str | None) -> Parts | None:
    """Return thoughts, words and calls of a sample as vLLM's endpoint answers with them; None where a parser fails."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser import ParserManager

    auto, harmony = tools is not None, (reasoning in HARMONY or tools in HARMONY)
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Where is the silver key?"}]}
    asked |= {"chat_template_kwargs": sample.variables}
    request = ChatCompletionRequest.model_validate(asked | ({"tools": [TOOL]} if sample.calls else {}))
    try:
        kind: Any = ParserManager.get_parser(tools, reasoning, enable_auto_tools=auto, is_harmony=harmony)
        parser = kind(template.tokenizer, request.tools, chat_template_kwargs=sample.variables)
        request = parser.adjust_request(request)
        text = template.tokenizer.decode(sample.ids, skip_special_tokens=request.skip_special_tokens)
        parser.set_prompt_token_ids(sample.prompt)
        thoughts, words, calls = parser.parse(text, request, enable_auto_tools=auto, model_output_token_ids=sample.ids)
        read = [(call.name, json.loads(call.arguments)) for call in calls or []]
    except Exception:  # a parser may raise whatever it likes at what another model writes
        return None
    return (thoughts or "").strip(), (words or "").strip(), read


if __name__ == "__main__":
    try:
        print(json.dumps(find(BoundTemplate.load(Path(sys.argv[1])))))
    except harness.HarnessError as error:
        sys.exit(str(error))
