"""A template bound to a tokenizer: renders conversations, encodes them, and proves that the loss sees what it should.

One rendered text is tokenized as one piece, as vLLM does it, so that the ids of a prompt in training are the ids the
server receives. The mask comes from rendering each trained turn's prefix; every example is checked as it is made.
"""

from __future__ import annotations

import bisect
import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import TemplateError
from harness.files import explain_full_disk, replacing, write_json
from harness.nouns import Conversation, Example, Message

if TYPE_CHECKING:
    from harness.declarations import Template

BREAK = "\u200b"  # zero-width space: put inside a control-token string, it makes ordinary text of it

# Encoded like this, `Hi` is the only thing to learn from in ("user", "Hello"), ("assistant", "Hi"):
#
#   text       <|im_start|> user \n Hello <|im_end|> \n <|im_start|> assistant \n Hi <|im_end|> \n
#   loss_mask       0        0    0   0       0      0       0          0      0  1      1      0


@dataclass(frozen=True)
class BoundTemplate:
    """A chat template in the words of one tokenizer.

    `tokenizer` is a transformers fast tokenizer whose `chat_template` is the Jinja source; `stop_ids` end a turn.
    """

    name: str
    tokenizer: Any
    stop_ids: tuple[int, ...]
    takes_system: bool = True
    takes_tools: bool = False

    @classmethod
    def bind(cls, template: Template, tokenizer: Any) -> BoundTemplate:
        """Fit a declared template to a tokenizer.

        Raises:
            TemplateError: where the tokenizer lacks a token that the template needs.
        """
        stop_tokens = template.stop_tokens(tokenizer)
        tokenizer.chat_template = template.jinja(tokenizer)
        stop_ids = []
        for token in stop_tokens:
            ids = tokenizer.encode(token, add_special_tokens=False)
            if len(ids) != 1:
                raise TemplateError(
                    f"template {template.name!r} ends a turn with {token!r}, but this tokenizer has no such token (it "
                    f"becomes {len(ids)} tokens). Its control tokens: {', '.join(control_tokens(tokenizer)) or 'none'}. "
                    f"Choose a template that fits the tokenizer, such as `model` or `plain`"
                )
            stop_ids.append(ids[0])
        if not stop_ids:
            raise TemplateError(f"template {template.name!r} has no stop token: the tokenizer has no eos token")
        return cls(template.name, tokenizer, tuple(stop_ids), template.takes_system, template.takes_tools)

    @classmethod
    def load(cls, folder: Path) -> BoundTemplate:
        """The template that a run saved in its `chat/` folder; needs no plugin."""
        from harness.models import load_tokenizer

        try:
            saved = json.loads((folder / "template.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise TemplateError(f"{folder}: no saved chat template: {error}") from None
        return cls(
            saved["name"],
            load_tokenizer(str(folder)),
            tuple(saved["stop_ids"]),
            saved["takes_system"],
            saved["takes_tools"],
        )

    def save(self, folder: Path) -> None:
        """Write tokenizer, chat template and generation defaults: what evaluation and serving load."""
        with explain_full_disk(folder), replacing(folder) as temporary:
            self.tokenizer.save_pretrained(temporary)
            write_json(
                temporary / "template.json",
                {
                    "name": self.name,
                    "stop_ids": list(self.stop_ids),
                    "stop_tokens": self.stop_tokens,
                    "takes_system": self.takes_system,
                    "takes_tools": self.takes_tools,
                },
            )
            # Greedy where nobody says otherwise; the stop tokens are what vLLM ends an answer at.
            write_json(
                temporary / "generation_config.json",
                {
                    "eos_token_id": list(self.stop_ids),
                    "pad_token_id": self.pad_id,
                    "do_sample": False,
                    "temperature": 0.0,
                },
            )

    @functools.cached_property
    def stop_tokens(self) -> list[str]:
        """The stop tokens as text."""
        return [self.tokenizer.convert_ids_to_tokens(stop) for stop in self.stop_ids]

    @property
    def pad_id(self) -> int:
        """What batches are padded with. Padding is never attended to nor trained on, so any id does."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.stop_ids[0])

    def render(self, messages: Sequence[Message], tools: Sequence[Any] = (), *, generation_prompt: bool = False) -> str:
        """The conversation as one text, control tokens included; with `generation_prompt`, up to where an answer begins.

        Raises:
            TemplateError: where the template refuses the conversation, or would drop part of it.
        """
        if not messages:
            return ""
        self._check_places(messages, tools)
        return self._render([message.as_dict() for message in messages], _tools(tools), generation_prompt)

    def _check_places(self, messages: Sequence[Message], tools: Sequence[Any]) -> None:
        if not self.takes_system and any(message.role == "system" for message in messages):
            raise TemplateError(f"template {self.name!r} has no place for a system prompt")
        if not self.takes_tools and (tools or any(message.tool_calls for message in messages)):
            raise TemplateError(f"template {self.name!r} has no place for tools")

    def _render(self, messages: list[dict[str, Any]], tools: list[Any] | None, generation_prompt: bool) -> str:
        """What `apply_chat_template` renders, without what it does around that for each call."""
        import jinja2

        if not messages:
            return ""
        try:
            (text,), _ = self._render_jinja(
                conversations=[messages],
                tools=tools,
                chat_template=self.tokenizer.get_chat_template(None, tools),
                add_generation_prompt=generation_prompt,
                **self.tokenizer.special_tokens_map,
            )
        except (jinja2.TemplateError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise TemplateError(f"template {self.name!r} cannot render this conversation: {error}") from error
        return str(text)

    @functools.cached_property
    def _render_jinja(self) -> Callable[..., Any]:
        # Looking it up in the lazy modules of transformers takes as long as rendering a short text.
        from transformers.utils.chat_template_utils import render_jinja_template

        return render_jinja_template  # type: ignore[no-any-return]

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """The ids that ask for an answer to `messages`: what training saw, and what the server must receive."""
        return self._tokenize([self.render(messages, tools, generation_prompt=True)])[0].ids  # type: ignore[no-any-return]

    def encode(self, conversation: Conversation) -> Example:
        """One conversation as ids and mask. See `encode_batch`."""
        return self.encode_batch([conversation])[0]

    def encode_batch(self, conversations: Sequence[Conversation]) -> list[Example]:
        """Conversations as ids and masks: the assistant's words and the stop token of each trained turn are learnt.

        Raises:
            TemplateError: where the template does not grow by appending, an answer has no stop token, a token straddles
                the edge of an answer, or there is nothing to learn.
        """
        rendered = [self._spans(conversation) for conversation in conversations]
        encodings = self._tokenize([text for text, _ in rendered])
        return [
            self._example(conversation, text, spans, encoding)
            for conversation, (text, spans), encoding in zip(conversations, rendered, encodings, strict=True)
        ]

    def _spans(self, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
        """The rendered text and the character spans [start, end) that are trained: answer and stop token."""
        messages, tools = conversation.messages, conversation.tools
        trained = conversation.trained
        if not trained:
            raise TemplateError(f"{_named(conversation)}nothing to learn from: no assistant message is trained on")
        self._check_places(messages, tools)
        turns, offered = [message.as_dict() for message in messages], _tools(tools)
        text = self._render(turns, offered, False)
        spans = []
        for index in trained:
            prompt = self._render(turns[:index], offered, True)
            upto = text if index == len(messages) - 1 else self._render(turns[: index + 1], offered, False)
            for name, prefix in (("the prompt of", prompt), ("the text up to", upto)):
                if not text.startswith(prefix):
                    raise TemplateError(
                        f"{_named(conversation)}template {self.name!r} does not grow by appending: {name} message "
                        f"{index + 1} ({messages[index].role}) is not a prefix of the whole conversation.\n"
                        + _divergence(prefix, text)
                    )
            spans.append((len(prompt), self._end_of_turn(conversation, index, prompt, upto)))
        return text, spans

    def _end_of_turn(self, conversation: Conversation, index: int, prompt: str, upto: str) -> int:
        """Where the stop token after the answer ends. What the template writes behind it is not learnt."""
        answer = upto[len(prompt) :]
        stops = [stop for stop in self.stop_tokens if stop in answer]
        if not stops:
            raise TemplateError(
                f"{_named(conversation)}template {self.name!r} does not end message {index + 1} with a stop token "
                f"({', '.join(self.stop_tokens)}): the model would never learn to stop. It ends with {answer[-40:]!r}"
            )
        last = max(answer.rindex(stop) + len(stop) for stop in stops)
        if answer[last:].strip():
            raise TemplateError(
                f"{_named(conversation)}template {self.name!r} writes {answer[last:][:40]!r} after the stop token of message {index + 1}"
            )
        self._check_words(conversation, index, answer[:last])
        return len(prompt) + last

    def _check_words(self, conversation: Conversation, index: int, answer: str) -> None:
        """The rendered answer is the message's own words, but for white space at its edges and broken control tokens."""
        message = conversation.messages[index]
        words = answer.replace(BREAK, "")
        if not message.tool_calls and message.content.replace(BREAK, "").strip() not in words:
            raise TemplateError(
                f"{_named(conversation)}template {self.name!r} changes the assistant's words in message {index + 1}: "
                f"{message.content[:60]!r} became {answer[:60]!r}"
            )

    def _tokenize(self, texts: list[str]) -> Any:
        return self.tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)

    def _example(self, conversation: Conversation, text: str, spans: list[tuple[int, int]], encoding: Any) -> Example:
        ids = encoding.ids
        mask = [False] * len(ids)
        for start, end in spans:
            if (inside := self._tokens_of(encoding, ids, start, end)) is None:
                return self._example_by_offsets(conversation, text, spans, encoding)
            first, last = inside
            mask[first : last + 1] = [True] * (last + 1 - first)
        if not any(mask[1:]):
            raise TemplateError(f"{_named(conversation)}nothing to learn from: no token of an answer is left")
        return Example(ids, mask, conversation.id)

    def _tokens_of(self, encoding: Any, ids: list[int], start: int, end: int) -> tuple[int, int] | None:
        """The first and last token of an answer where all is as it should be; None where that needs a closer look.

        Few tokens are asked where they stand: the offsets of all of them would cost a third of what tokenizing does.
        """
        first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
        if first is None or last is None or encoding.token_to_chars(first)[0] != start:
            return None
        if first and (encoding.token_to_chars(first - 1) or (start,))[0] >= start:
            return None
        if ids[last] not in self.stop_ids or encoding.token_to_chars(last)[1] != end:
            return None
        if last + 1 < len(ids) and (encoding.token_to_chars(last + 1) or (0,))[0] < end:
            return None
        return None if any(stop in ids[first:last] for stop in self.stop_ids) else (first, last)

    def _example_by_offsets(
        self, conversation: Conversation, text: str, spans: list[tuple[int, int]], encoding: Any
    ) -> Example:
        ids, offsets = encoding.ids, encoding.offsets
        if _straddling(offsets, spans[-1][0]):
            # An answer that begins with white space can merge with the prompt's last token. Nothing follows the last
            # answer, so it is cut off there: its prompt is then what the server receives.
            ids, offsets = self._tokenize_cut(text, spans[-1][0])
        starts = [start for start, _ in offsets]
        mask = [False] * len(ids)
        for (start, end), index in zip(spans, conversation.trained, strict=True):
            where = f"{_named(conversation)}message {index + 1}: "
            first, last = bisect.bisect_left(starts, start), bisect.bisect_left(starts, end) - 1
            if (token := _straddling(offsets, start)) is not None:
                raise TemplateError(
                    f"{where}the token {text[slice(*offsets[token])]!r} holds the end of the prompt and the start of the answer "
                    f"together, so that training and serving would differ. Start the answer with something else than white space"
                )
            if ids[last] not in self.stop_ids or offsets[last][1] != end:
                raise TemplateError(f"{where}the stop token is cut into ordinary tokens")
            if inside := [ids[position] for position in range(first, last) if ids[position] in self.stop_ids]:
                token_text = self.tokenizer.convert_ids_to_tokens(inside[0])
                raise TemplateError(f"{where}the answer holds the stop token {token_text!r} before its end")
            mask[first : last + 1] = [True] * (last + 1 - first)
        if not any(mask[1:]):
            raise TemplateError(f"{_named(conversation)}nothing to learn from: no token of an answer is left")
        return Example(ids, mask, conversation.id)

    def _tokenize_cut(self, text: str, at: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character offsets of `text` tokenized as two pieces."""
        head, tail = self._tokenize([text[:at], text[at:]])
        return head.ids + tail.ids, head.offsets + [(start + at, end + at) for start, end in tail.offsets]


def _tools(tools: Sequence[Any]) -> list[Any] | None:
    return [dict(tool) for tool in tools] or None


def control_tokens(tokenizer: Any) -> list[str]:
    """The strings that this tokenizer turns into control tokens, wherever they stand, longest first."""
    return sorted(
        (token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()),
        key=lambda content: (-len(content), content),
    )


def without_control_tokens(expression: str, tokenizer: Any) -> str:
    """A Jinja expression for `expression` with every control-token string broken by a zero-width space.

    "Text is text": someone who writes <|im_end|> in a message gets those characters, not the token. It is part of the
    saved template, so training and serving do the same.
    """
    for token in control_tokens(tokenizer):
        broken = token[0] + BREAK + token[1:] if len(token) > 1 else token
        expression += f" | replace({json.dumps(token)}, {json.dumps(broken, ensure_ascii=False)})"
    return expression


def _straddling(offsets: list[tuple[int, int]], at: int) -> int | None:
    """The token that has characters on both sides of `at`, if there is one."""
    position = bisect.bisect_left(offsets, at, key=lambda offset: offset[0]) - 1
    return position if position >= 0 and offsets[position][1] > at else None


def _named(conversation: Conversation) -> str:
    where = " ".join(part for part in (conversation.source, conversation.id) if part)
    return f"{where}: " if where else ""


def _divergence(prefix: str, text: str) -> str:
    """The two texts around the first difference, one above the other."""
    at = next((i for i, (a, b) in enumerate(zip(prefix, text, strict=False)) if a != b), min(len(prefix), len(text)))
    begin = max(0, at - 30)
    return f"  as a prefix: …{prefix[begin : at + 30]!r}\n  in the whole: …{text[begin : at + 30]!r}"


def fingerprint(template: BoundTemplate) -> str:
    """Hash of what decides the ids of a prompt: the chat template and the vocabulary."""
    import hashlib

    vocabulary = re.sub(r"\s+", "", template.tokenizer.backend_tokenizer.to_str())
    return hashlib.sha256((str(template.tokenizer.chat_template) + vocabulary).encode()).hexdigest()
