"""The choice of vLLM's parsers of thoughts and tool calls, by what a template writes.

Samples are rendered as they are tuned on, and vLLM's parsers take their ids apart as its endpoint does it, which drops
special tokens from the text of an answer where a parser does not ask for them. The first that returns the samples'
thoughts, words and calls is the template's. Importing vLLM takes seconds, so this has a process of its own:
`python -m harness_serve.parsers CHAT_FOLDER` prints JSON.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness.errors import TemplateError, first_line
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

    Where no parser of thoughts reads answers without any, too, the first that reads those with thoughts is named. What
    that loses, and what keeps a parser from reading the samples, say `reasoning_remark` and `tools_remark`.
    """
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    written = written_answers(template)
    words = [sample for sample in written if not sample.calls]
    thinks = [sample for sample in words if sample.thoughts]
    reasoning = tools = None
    remarks: dict[str, str | None] = {}
    if thinks:
        names = list(_sorted(ReasoningParserManager.list_registered(), FIRST_REASONING))
        reasoning = next((name for name in names if _reads(template, words, name, None)), None)
        if reasoning is None:
            reasoning = next((name for name in names if _reads(template, thinks, name, None)), None)
            lost = "an answer without thoughts comes back as thoughts"
            remarks["reasoning_remark"] = lost if reasoning else _hindrance(template, words, [(n, None) for n in names])
            written = [sample for sample in written if sample.thoughts] if reasoning else written
    there = [sample for sample in written if reasoning or not sample.thoughts]
    if any(sample.calls for sample in there):
        names = list(
            _sorted(ToolParserManager.list_registered(), (str(template.tool_parser), str(reasoning), *FIRST_TOOLS))
        )
        tools = next((name for name in names if _reads(template, there, reasoning, name)), None)
        if tools is None:
            remarks["tools_remark"] = _hindrance(template, there, [(reasoning, name) for name in names])
    return {"reasoning": reasoning, "tools": tools} | {what: remark for what, remark in remarks.items() if remark}


def _sorted(names: Sequence[str], first: Sequence[str]) -> Iterator[str]:
    yield from (name for name in first if name in names)
    yield from (name for name in names if name not in first)


def _reads(
    template: BoundTemplate,
    written: Sequence[WrittenAnswer],
    reasoning: str | None,
    tools: str | None,
    vocabulary: _Vocabulary | None = None,
    *,
    keeps_special: bool = False,
) -> bool:
    """Return whether vLLM with these parsers returns what the samples hold."""
    try:
        return all(
            _read(template, sample, reasoning, tools, vocabulary, keeps_special=keeps_special)
            in _held(template, sample)
            for sample in written
        )
    except Exception:  # a parser may raise whatever it likes at what another model writes
        return False


def _held(template: BoundTemplate, sample: WrittenAnswer) -> list[Parts]:
    """Return what a sample holds, as read: what the template writes behind words as ordinary text may stay there."""
    calls = [("look_up", ARGUMENTS)] if sample.calls else []
    text = template.tokenizer.decode(sample.ids, skip_special_tokens=True)
    behind = text.rpartition(WORDS)[2] if sample.words else ""
    return [(sample.thoughts, words.strip(), calls) for words in (sample.words, sample.words + behind)]


def _read(
    template: BoundTemplate,
    sample: WrittenAnswer,
    reasoning: str | None,
    tools: str | None,
    vocabulary: _Vocabulary | None = None,
    *,
    keeps_special: bool = False,
) -> Parts:
    """Return thoughts, words and calls of a sample as vLLM's endpoint answers with them."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser import ParserManager

    auto, harmony = tools is not None, (reasoning in HARMONY or tools in HARMONY)
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Where is the silver key?"}]}
    asked |= {"chat_template_kwargs": sample.variables}
    request = ChatCompletionRequest.model_validate(asked | ({"tools": [TOOL]} if sample.calls else {}))
    tokenizer = template.tokenizer if vocabulary is None else vocabulary.of(template.tokenizer)
    kind: Any = ParserManager.get_parser(tools, reasoning, enable_auto_tools=auto, is_harmony=harmony)
    parser = kind(tokenizer, request.tools, chat_template_kwargs=sample.variables)
    request = parser.adjust_request(request)
    skips = request.skip_special_tokens and not keeps_special
    text = template.tokenizer.decode(sample.ids, skip_special_tokens=skips)
    parser.set_prompt_token_ids(sample.prompt)
    thoughts, words, calls = parser.parse(text, request, enable_auto_tools=auto, model_output_token_ids=sample.ids)
    read = [(call.name, json.loads(call.arguments)) for call in calls or []]
    return (thoughts or "").strip(), (words or "").strip(), read


class _Vocabulary(dict[str, int]):
    """A vocabulary that has every token that a parser asks for, but for some that it `lacks`.

    `invented` are those that the tokenizer does not have.
    """

    def __init__(self, tokenizer: Any, lacks: Iterable[str] = ()) -> None:
        super().__init__(tokenizer.get_vocab())
        self.lacks, self.invented = frozenset(lacks), dict[str, int]()

    def of(self, tokenizer: Any) -> Any:
        """Return the tokenizer with this vocabulary."""
        tokenizer = copy.copy(tokenizer)
        tokenizer.get_vocab = lambda: self
        return tokenizer

    def get(self, token: str, default: Any = None) -> Any:
        """Return the id of a token, a new one where there is none."""
        return default if token in self.lacks else self[token]

    def __missing__(self, token: str) -> int:
        if token in self.lacks:
            raise KeyError(token)
        return self.invented.setdefault(token, len(self) + len(self.invented))


def _hindrance(
    template: BoundTemplate, written: Sequence[WrittenAnswer], pairs: Sequence[tuple[str | None, str | None]]
) -> str | None:
    """Return what keeps a parser of vLLM from reading the samples; None where none could.

    A parser may ask for tokens that its own model's vocabulary has, read text while vLLM leaves special tokens out of
    it, need a package, or make another call of it. Of `pairs`, the parsers of thoughts and of calls, the last is meant.
    """
    untried: dict[str, list[str]] = {}
    for reasoning, tools in pairs:
        name = str(tools or reasoning)
        if needs := _needs(template, written, reasoning, tools):
            return f"{name} does {needs}"
        try:
            _, _, calls = _read(template, next(one for one in written if one.calls == bool(tools)), reasoning, tools)
            if calls and name == template.tool_parser:
                return f"{name} makes {calls[0][0]} of the name look_up"
        except ImportError as error:
            untried.setdefault(first_line(error), []).append(name)
        except Exception:  # it is not the parser of these
            continue
    return "; ".join(f"{' and '.join(names)} not tried: {why}" for why, names in untried.items()) or None


def _needs(
    template: BoundTemplate, written: Sequence[WrittenAnswer], reasoning: str | None, tools: str | None
) -> str | None:
    """Return on what vocabulary the parsers read the samples; None if on none."""
    for generous, keeps in ((True, False), (False, True), (True, True)):
        vocabulary = _Vocabulary(template.tokenizer) if generous else None
        if not _reads(template, written, reasoning, tools, vocabulary, keeps_special=keeps):
            continue
        lacks: list[str] = []
        for token in vocabulary.invented if vocabulary else ():
            without = _Vocabulary(template.tokenizer, [*lacks, token])
            if _reads(template, written, reasoning, tools, without, keeps_special=keeps):
                lacks.append(token)
        tokens = [token for token in vocabulary.invented if token not in lacks] if vocabulary else []
        needs = [f"on a vocabulary with {' and '.join(tokens)}"] if tokens else []
        needs += ["where the marks are no special tokens, which vLLM leaves out of the text"] if keeps else []
        return " and ".join(needs)
    return None


if __name__ == "__main__":
    try:
        print(json.dumps(find(BoundTemplate.load(Path(sys.argv[1])))))
    except harness.HarnessError as error:
        sys.exit(str(error))
