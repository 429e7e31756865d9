"""A template bound to a tokenizer: renders conversations, encodes them, and proves that the loss sees what it should.

One rendered text is tokenized as one piece, as vLLM does it, so that the ids of a prompt in training are the ids the
server receives. Every example is checked as it is made, see `spans`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import TemplateError
from harness.files import explain_full_disk, read_json, replacing, write_json
from harness.nouns import Conversation, Example, Message
from harness.template.differences import aligned
from harness.template.escape import broken, control_tokens
from harness.template.render import Renderer, made_to_end
from harness.template.spans import Rendered, Span, Tokens, named
from harness.template.verify import Verification

TrainOn = Literal["all", "last", "none-but-marked"]
SAVED = "template.json"  # what of a template is in no file of the tokenizer

# Encoded like this, `Hi` is the only thing to learn from in ("user", "Hello"), ("assistant", "Hi"):
#
#   text       <|im_start|> user \n Hello <|im_end|> \n <|im_start|> assistant \n Hi <|im_end|> \n
#   loss_mask       0        0    0   0       0      0       0          0      0  1      1      0


@dataclass(frozen=True)
class BoundTemplate:
    """A chat template in the words of one tokenizer.

    `tokenizer` is a transformers fast tokenizer whose `chat_template` is the Jinja source; `stop_ids` end a turn.
    `tool_parser` is vLLM's name for what reads its tool calls.
    """

    name: str
    tokenizer: Any
    stop_ids: tuple[int, ...]
    takes_system: bool = True
    takes_tools: bool = False
    takes_turns: bool = True
    tool_parser: str | None = None

    @classmethod
    def load(cls, folder: Path) -> BoundTemplate:
        """The template that a run saved in its `chat/` folder; needs no plugin.

        Raises:
            HarnessError: where the folder is not what `save` leaves.
        """
        from harness.model.tokenizer import load_tokenizer

        for name in (SAVED, "tokenizer.json", "chat_template.jinja"):
            if not (folder / name).is_file():
                raise TemplateError(f"{folder}: no saved chat template: it has no {name}")
        saved = read_json(path := folder / SAVED)
        try:
            stop_ids = tuple(saved["stop_ids"])
            places = {what: saved[what] for what in ("takes_system", "takes_tools", "takes_turns")}
            named = str(saved["name"]), list(saved["stop_tokens"]), saved["tool_parser"]
        except (KeyError, TypeError) as error:
            lacks = f"it lacks {error}" if isinstance(error, KeyError) else "it is no JSON object of that kind"
            raise TemplateError(
                f"{path}: not what a run saves of its template: {lacks}. The run has to be tuned again"
            ) from None
        tokenizer = load_tokenizer(str(folder))
        name, stop_tokens, tool_parser = named
        if not stop_ids or [tokenizer.convert_tokens_to_ids(token) for token in stop_tokens] != list(stop_ids):
            raise TemplateError(
                f"{path}: the stop tokens {stop_tokens} are not the ids {list(stop_ids)} of its tokenizer"
            )
        return cls(name, tokenizer, stop_ids, **places, tool_parser=tool_parser)

    def save(self, folder: Path) -> None:
        """Write tokenizer, chat template and generation defaults: what evaluation and serving load."""
        with explain_full_disk(folder), replacing(folder) as temporary:
            self.tokenizer.save_pretrained(temporary)
            write_json(
                temporary / SAVED,
                {
                    "name": self.name,
                    "stop_ids": list(self.stop_ids),
                    "stop_tokens": self.stop_tokens,
                    "takes_system": self.takes_system,
                    "takes_tools": self.takes_tools,
                    "takes_turns": self.takes_turns,
                    "tool_parser": self.tool_parser,
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

    @functools.cached_property
    def opening(self) -> str:
        """What stands before the first question where nobody gives a system prompt: a default one, if there is one."""
        return self.renderer([{"role": "user", "content": "probe two"}], None, True).partition("probe two")[0]

    @functools.cached_property
    def control_tokens(self) -> list[str]:
        """The strings that become control tokens where the template writes them, and text where somebody says them."""
        return control_tokens(self.tokenizer, self.tokenizer.get_chat_template(), self.stop_tokens)

    @functools.cached_property
    def renderer(self) -> Renderer:
        """Renders messages as dicts, with no look at what the template has a place for."""
        source = self.tokenizer.get_chat_template()
        return Renderer(self.name, source, self.control_tokens, self.tokenizer.special_tokens_map)

    @functools.cached_property
    def _verification(self) -> Verification:
        return Verification(self.name, self.stop_tokens)

    @functools.cached_property
    def _tokens(self) -> Tokens:
        return Tokens(self.name, self.tokenizer, self.stop_ids, self.control_tokens)

    def render(self, messages: Sequence[Message], tools: Sequence[Any] = (), *, generation_prompt: bool = False) -> str:
        """The conversation as one text, control tokens included; with `generation_prompt`, up to where an answer begins.

        Raises:
            TemplateError: where the template refuses the conversation, or would drop part of it.
        """
        self._check_places(messages, tools)
        with made_to_end(self.name):
            return self.renderer(
                [message.as_dict() for message in messages], as_vllm_has_them(tools), generation_prompt
            )

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """The ids that ask for an answer to `messages`: what training saw, and what the server must receive."""
        return self.ids_of([self.render(messages, tools, generation_prompt=True)])[0]

    def ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of rendered texts, each tokenized as one piece."""
        return self._tokens.ids_of(texts)

    def encode(self, conversation: Conversation, train_on: TrainOn = "all") -> Example:
        """One conversation as ids and mask. See `encode_batch`."""
        return self.encode_batch([conversation], train_on)[0]

    def encode_batch(self, conversations: Sequence[Conversation], train_on: TrainOn = "all") -> list[Example]:
        """Conversations as ids and masks: the assistant's words and the stop token of each trained turn are learnt.

        `train_on` says which turns are: all that the conversation does not exclude, the last of these, or those marked
        with `train=True`.

        Raises:
            TemplateError: where the template does not grow by appending, drops or changes what somebody says, an answer
                has no stop token, tokens before an answer would be others in serving, or there is nothing to learn.
        """
        rendered = self.rendered(conversations, train_on)
        return self.examples(rendered, self.tokenized(rendered))

    # The same in three steps, for who has other things to do while texts are tokenized.

    def rendered(self, conversations: Sequence[Conversation], train_on: TrainOn = "all") -> list[Rendered]:
        """The first step of `encode_batch`: conversations as text."""
        with made_to_end(self.name, each=True):
            return [self._rendered(conversation, train_on) for conversation in conversations]

    def tokenized(self, rendered: Sequence[Rendered]) -> list[Any]:
        """The second, which takes most of the time, all cores, and Python's lock hardly ever."""
        return self._tokens.tokenized(rendered)

    def examples(self, rendered: Sequence[Rendered], tokenized: Sequence[Any]) -> list[Example]:
        """The last: ids and masks, verified."""
        return self._tokens.examples(rendered, tokenized)

    def check_turns(self, conversation: Conversation, train_on: TrainOn = "all") -> int:
        """Compare the prompt of every learnt turn, tokenized on its own as the server does it, with what training sees.

        Returns how many were compared. Raises TemplateError at the first difference.
        """
        ids = self.encode(conversation, train_on).input_ids
        turns = trained(conversation, train_on)
        for turn in turns:
            prompt = self.prompt_ids(conversation.messages[:turn], conversation.tools)
            if ids[: len(prompt)] != prompt:
                told = aligned(self.tokenizer, ids, prompt, ("in training", "in serving"))
                raise TemplateError(
                    f"{named(conversation)}message {turn + 1}: its prompt has other tokens in serving, {told}"
                )
        return len(turns)

    @functools.cached_property
    def refusals(self) -> dict[str, str]:
        """What the template has no place for, and how that is said."""
        taken = {
            "a system prompt": self.takes_system,
            "tools": self.takes_tools,
            "more than one exchange": self.takes_turns,
        }
        return {what: f"template {self.name!r} has no place for {what}" for what, takes in taken.items() if not takes}

    def _check_places(self, messages: Sequence[Message], tools: Sequence[Any]) -> None:
        """What the prelude of the saved template does in serving."""
        if not (refusals := self.refusals):
            return
        needed = {
            "a system prompt": any(message.role == "system" for message in messages),
            "tools": bool(tools) or any(message.tool_calls for message in messages),
            "more than one exchange": sum(message.role == "user" for message in messages) > 1,
        }
        for what, told in refusals.items():
            if needed[what]:
                raise TemplateError(told)

    def _rendered(self, conversation: Conversation, train_on: TrainOn) -> Rendered:
        """The rendered text and what of it is trained: answers and stop tokens."""
        messages, turns = conversation.messages, trained(conversation, train_on)
        if not turns:
            why = "is marked with `train: true`" if train_on == "none-but-marked" else "is trained on"
            raise TemplateError(f"{named(conversation)}nothing to learn from: no assistant message {why}")
        try:
            self._check_places(messages, conversation.tools)
            dicts, tools = [message.as_dict() for message in messages], as_vllm_has_them(conversation.tools)
            said = self.renderer.said(dicts, tools)
            if said:
                dicts, tools = broken(dicts, said), broken(tools, said)
            render = self.renderer.unprotected
            text = render(dicts, tools, False)
            spans, verify = [], self._verification
            for turn in turns:
                prompt = render(dicts[:turn], tools, True)
                verify.require_prefix("the prompt of", turn, messages[turn], prompt, text)
                end = verify.end_of_words(text, len(prompt), messages[turn])
                if end is None or (turn == len(messages) - 1 and text[end:].strip()):
                    upto = text if turn == len(messages) - 1 else render(dicts[: turn + 1], tools, False)
                    verify.require_prefix("the text up to", turn, messages[turn], upto, text)
                    end = verify.end_of_turn(turn, messages[turn], prompt, upto)
                spans.append(Span(turn, prompt, end))
            verify.require_all_said(conversation, turns, text)
        except TemplateError as error:
            raise TemplateError(f"{named(conversation)}{error}") from error.__cause__
        except RecursionError:
            raise TemplateError(
                f"{named(conversation)}a tool or the arguments of a call are nested too deeply"
            ) from None
        return Rendered(conversation, text, spans, said)


def trained(conversation: Conversation, train_on: TrainOn) -> tuple[int, ...]:
    """Indices of the messages that the loss sees."""
    if train_on == "none-but-marked":
        return tuple(index for index, message in enumerate(conversation.messages) if message.train)
    return conversation.trained[-1:] if train_on == "last" else conversation.trained


def as_vllm_has_them(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Tools as vLLM 0.32 passes them to a template, whoever wrote them: which keys, and in which order.

    Raises TemplateError for what is no tool.
    """
    return [_tool(number, tool) for number, tool in enumerate(tools, 1)] or None


def _tool(number: int, tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function", tool)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise TemplateError(
            f"tool {number} is {str(tool)[:80]}: expected {{type: function, function: {{name, description, parameters}}}}"
        )
    kept = {key: function.get(key) for key in ("name", "description", "parameters")}
    strict = {"strict": function["strict"]} if function.get("strict") is not None else {}
    return {"type": "function", "function": kept | strict}


def fingerprint(template: BoundTemplate) -> str:
    """Hash of what decides the ids of a prompt: the chat template and the vocabulary."""
    vocabulary = re.sub(r"\s+", "", template.tokenizer.backend_tokenizer.to_str())
    return hashlib.sha256((str(template.tokenizer.chat_template) + vocabulary).encode()).hexdigest()


def source_fingerprint(template: BoundTemplate) -> str:
    """Hash of the chat template alone, which is the same whatever version of tokenizers reads the vocabulary."""
    return hashlib.sha256(str(template.tokenizer.chat_template).encode()).hexdigest()
