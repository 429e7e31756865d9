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
FIRST_TOOLS = ("hermes", "qwen3_coder", "llama3_json", "mistral", "lfm2", "pythonic", "glm45", "gemma4", "openai")
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
    talks = [Conversation((asked, one), (TOOL,) if one.tool_calls else ()) for one in answers]
    written = (_written(template, talk) for talk in talks)
    return [sample for sample in written if sample is not None]


def _written(template: BoundTemplate, talk: Conversation) -> WrittenAnswer | None:
    try:
        (example,) = template.encode_batch([talk])
    except TemplateError:  # it has no such answers
        return None
    answer, begin = talk.messages[-1], list(example.loss_mask).index(True)
    end = len(example.loss_mask) - list(example.loss_mask)[::-1].index(True) - 1
    ids, variables = list(example.input_ids), template.request_variables(bool(answer.reasoning))
    return WrittenAnswer(
        ids[begin:end], ids[:begin], answer.reasoning, answer.content, bool(answer.tool_calls), variables
    )


def find(template: BoundTemplate) -> dict[str, str | None]:
    """Return the names of the parsers that read the samples: `reasoning` and `tools`, None where none does.

    Where no parser of thoughts reads answers without any, too, the first that reads those with thoughts is named, and
    `loses` says so.
    """
    written = written_answers(template)
    words = [sample for sample in written if not sample.calls]
    thinks = [sample for sample in words if sample.thoughts]
    reasoning = tools = None
    remark: dict[str, str | None] = {}
    if thinks:
        from vllm.reasoning import ReasoningParserManager

        names = list(_sorted(ReasoningParserManager.list_registered(), FIRST_REASONING))
        reasoning = next((name for name in names if _reads(template, words, name, None)), None)
        if reasoning is None:
            reasoning = next((name for name in names if _reads(template, thinks, name, None)), None)
            remark |= {"loses": "an answer without thoughts comes back as thoughts"} if reasoning else {}
            written = [sample for sample in written if sample.thoughts] if reasoning else written
    if any(sample.calls for sample in written):
        from vllm.tool_parsers import ToolParserManager

        known = _sorted(ToolParserManager.list_registered(), FIRST_TOOLS)
        there = [sample for sample in written if reasoning or not sample.thoughts]
        tools = next((name for name in known if _reads(template, there, reasoning, name)), None)
    return {"reasoning": reasoning, "tools": tools} | remark


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
