"""That a rendered conversation is what was said: nobody's words are dropped or changed, and nothing else is learnt."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import TemplateError
from harness.nouns import Conversation, Message
from harness.template.differences import divergence
from harness.template.escape import BREAK


@dataclass(frozen=True)
class Verification:
    """Compares what the template called `name` writes with what it was given; `stop_tokens` are the texts that end answers.

    All raise TemplateError, naming the message (counted from 1, where a turn is an index).
    """

    name: str
    stop_tokens: Sequence[str]

    def end_of_words(self, text: str, start: int, message: Message) -> int | None:
        """Where the stop token ends that follows the message's words; None where that needs a closer look."""
        if message.tool_calls:
            return None
        for words in (message.content, message.content.strip()):
            at = text.find(words, start, start + len(words) + 4)
            if at == start or (at > start and text[start:at].isspace()):
                for stop in self.stop_tokens:
                    if text.startswith(stop, at + len(words)):
                        return at + len(words) + len(stop)
        return None

    def end_of_turn(self, turn: int, message: Message, prompt: str, upto: str) -> int:
        """Where the stop token after the answer ends. What the template writes behind it is not learnt."""
        answer = upto[len(prompt) :]
        stops = [stop for stop in self.stop_tokens if stop in answer]
        if not stops:
            raise TemplateError(
                f"template {self.name!r} does not end message {turn + 1} with a stop token ({', '.join(self.stop_tokens)}): "
                f"the model would never learn to stop. It ends with {answer[-40:]!r}"
            )
        last = max(answer.rindex(stop) + len(stop) for stop in stops)
        if answer[last:].strip():
            raise TemplateError(
                f"template {self.name!r} writes {answer[last:][:40]!r} after the stop token of message {turn + 1}"
            )
        if any(stop in answer[: last - 1] for stop in stops):
            raise TemplateError(f"message {turn + 1}: the answer holds a stop token before its end: {answer[:80]!r}")
        said, words = answer[:last].replace(BREAK, ""), message.content.replace(BREAK, "").strip()
        if not said.lstrip().startswith(words):
            if words in said and not prompt:
                raise TemplateError(
                    f"the conversation begins with an answer, to which template {self.name!r} has no prompt. Let it begin with a question, "
                    f"or leave that answer out of what is learnt: `train=False`, in `messages` rows `weight: 0`"
                )
            if words in said:
                raise TemplateError(
                    f"template {self.name!r} has no generation prompt that fits: asked for message {turn + 1}, the model would not "
                    f"be given {said[: said.index(words)]!r}, which stands before the answer in the conversation"
                )
            raise TemplateError(
                f"template {self.name!r} changes the assistant's words in message {turn + 1}: {message.content[:60]!r} became "
                f"{answer[:60]!r}"
            )
        stop = next(stop for stop in self.stop_tokens if said.endswith(stop))
        added = said.lstrip().removeprefix(words).removesuffix(stop).strip()
        if added and not message.tool_calls:
            raise TemplateError(
                f"template {self.name!r} puts words into the answer of message {turn + 1} that nobody said, and that would be learnt: "
                f"{added[:60]!r}"
            )
        return len(prompt) + last

    def require_prefix(self, what: str, turn: int, message: Message, prefix: str, text: str) -> None:
        """`prefix` is what the template makes of a part of the conversation, and `text` of the whole."""
        if text.startswith(prefix):
            return
        raise TemplateError(
            f"template {self.name!r} does not grow by appending: {what} message {turn + 1} ({message.role}) is not a prefix of "
            f"the whole conversation.\n{divergence(prefix, text)}\n"
            f"Where only earlier answers are concerned, `data.train_on: last` learns the last answer of each conversation"
        )

    def require_all_said(self, conversation: Conversation, turns: Sequence[int], text: str) -> None:
        """Everybody's words, the tools, and the calls are there, but for answers that are not learnt."""
        messages = [(i, m) for i, m in enumerate(conversation.messages) if m.role != "assistant" or i in turns]
        broken = BREAK in text
        said = text.replace(BREAK, "") if broken else text
        before: dict[str, int] = {}
        for index, message in messages:
            words = message.content.replace(BREAK, "") if broken else message.content
            before[words] = times = before.get(words, 0) + 1
            if words not in said or (times > 1 and said.count(words) < times):
                if _times(words.strip(), said) >= times or _is_there_as_json(words, said):
                    continue
                beside = " beside its tool calls" if message.tool_calls else ""
                raise TemplateError(
                    f"template {self.name!r} drops or changes what message {index + 1} ({message.role}) says{beside}: {words[:60]!r}"
                )
        if conversation.tools or any(message.tool_calls for _, message in messages):
            self._require_all_tools(conversation.tools, messages, said)

    def _require_all_tools(
        self, tools: Sequence[Mapping[str, Any]], messages: Sequence[tuple[int, Message]], said: str
    ) -> None:
        names: dict[str, int] = {}
        for tool in tools:
            name = tool.get("function", tool)["name"].replace(BREAK, "")
            names[name] = names.get(name, 0) + 1
            if said.count(name) < names[name]:
                raise TemplateError(f"template {self.name!r} drops the tool {name!r}")
        for index, message in messages:
            for call in message.tool_calls:
                name = call.name.replace(BREAK, "")
                names[name] = names.get(name, 0) + 1
                if said.count(name) < names[name]:
                    raise TemplateError(f"template {self.name!r} drops a call of {name!r} in message {index + 1}")
                for words in _leaves(call.arguments):
                    if _times(words.replace(BREAK, ""), said) == 0:
                        raise TemplateError(
                            f"template {self.name!r} drops or changes an argument of the call of {name!r} in message {index + 1}: {words[:60]!r}"
                        )


def _leaves(value: Any) -> Iterator[str]:
    """Every key, text and number in a call's arguments."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        yield json.dumps(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)


def _times(words: str, text: str) -> int:
    """How often the text holds the words, as they are or as a JSON string, or as one within another."""
    once = json.dumps(words, ensure_ascii=False)[1:-1]
    return sum(text.count(form) for form in {words, once, json.dumps(once, ensure_ascii=False)[1:-1]})


def _is_there_as_json(words: str, text: str) -> bool:
    """Whether the text holds the JSON that the words are."""
    try:
        found = json.loads(words)
    except ValueError:
        return False
    return json.dumps(found, ensure_ascii=False) in text
