"""Checks that a rendered conversation holds every message unchanged, and that only the answers are trained on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import TemplateError
from harness.nouns import Conversation, Message
from harness.template.escape import BREAK


@dataclass(frozen=True)
class Verification:
    """Comparison of the text that the template called `name` writes with the messages that it was given.

    `stop_tokens` are the texts that end answers, `commands` the words that the template obeys instead of writing them.
    All methods raise TemplateError, naming the message (counted from 1, while a turn is an index from 0).
    """

    name: str
    stop_tokens: Sequence[str]
    commands: Sequence[str] = ()

    def end_of_words(self, text: str, start: int, message: Message) -> int | None:
        """Return the end of the stop token that follows the message's words; None if that needs a closer look."""
        if message.tool_calls:
            return None
        for words in (message.content, message.content.strip()):
            at = text.find(words, start, start + len(words) + 4)
            if at == start or (at > start and text[start:at].isspace()):
                for stop in self.stop_tokens:
                    if text.startswith(stop, at + len(words)):
                        return at + len(words) + len(stop)
        return None

    def require_all_content(self, conversation: Conversation, turns: Sequence[int], text: str) -> None:
        """Require that all messages, tools and calls are in the text, except answers that are not trained on."""
        messages = [(i, m) for i, m in enumerate(conversation.messages) if m.role != "assistant" or i in turns]
        broken = BREAK in text
        rendered = text.replace(BREAK, "") if broken else text
        before: dict[str, int] = {}
        for index, message in messages:
            words = message.content.replace(BREAK, "") if broken else message.content
            before[words] = times = before.get(words, 0) + 1
            if words not in rendered or (times > 1 and rendered.count(words) < times):
                if _times(words.strip(), rendered) >= times or _is_there_as_json(words, rendered):
                    continue
                if (
                    message.role != "assistant"
                    and (bare := self._without_commands(words)) != words
                    and bare in rendered
                ):
                    continue
                beside = " beside its tool calls" if message.tool_calls else ""
                raise TemplateError(
                    f"template {self.name!r} drops or changes what message {index + 1} ({message.role}) says{beside}: "
                    f"{words[:60]!r}"
                )
        if conversation.tools or any(message.tool_calls for _, message in messages):
            self._require_all_tools(conversation.tools, messages, rendered)

    def _without_commands(self, words: str) -> str:
        """Return what remains of the words where commands stand in them as words of their own."""
        for command in self.commands:
            words = re.sub(rf"(?<![\w<]){re.escape(command)}(?![\w>])", "", words)
        return words.strip()

    def _require_all_tools(
        self, tools: Sequence[Mapping[str, Any]], messages: Sequence[tuple[int, Message]], rendered: str
    ) -> None:
        names: dict[str, int] = {}
        for tool in tools:
            name = tool.get("function", tool)["name"].replace(BREAK, "")
            names[name] = names.get(name, 0) + 1
            if rendered.count(name) < names[name]:
                raise TemplateError(f"template {self.name!r} drops the tool {name!r}")
        for index, message in messages:
            for call in message.tool_calls:
                name = call.name.replace(BREAK, "")
                names[name] = names.get(name, 0) + 1
                if rendered.count(name) < names[name]:
                    raise TemplateError(f"template {self.name!r} drops a call of {name!r} in message {index + 1}")
                for words in _leaves(call.arguments):
                    if _times(words.replace(BREAK, ""), rendered) == 0:
                        raise TemplateError(
                            f"template {self.name!r} drops or changes an argument of the call of {name!r} in message "
                            f"{index + 1}: {words[:60]!r}"
                        )


def _leaves(value: Any) -> Iterator[str]:
    """Yield every key, text and number in a call's arguments."""
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
    """Return how often the text holds the words: unchanged, as a JSON string, or as a JSON string inside another."""
    once = json.dumps(words, ensure_ascii=False)[1:-1]
    return sum(text.count(form) for form in {words, once, json.dumps(once, ensure_ascii=False)[1:-1]})


def _is_there_as_json(words: str, text: str) -> bool:
    """Return whether the words are JSON and the text holds the same value, written by `json.dumps`."""
    try:
        value = json.loads(words)
    except ValueError:
        return False
    return json.dumps(value, ensure_ascii=False) in text
