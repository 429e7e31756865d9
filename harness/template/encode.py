"""A template bound to a tokenizer: renders conversations, encodes them, and checks that the loss sees only the answers.

A rendered text is tokenized as one piece, as vLLM does it, so that a prompt has the same ids in training and in
serving. Every example is checked when it is encoded, see `spans`.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from harness.errors import TemplateError
from harness.nouns import Conversation, Example, Message, without_thoughts
from harness.template import saved
from harness.template.answers import Answers, told_not_to_think
from harness.template.differences import aligned
from harness.template.escape import control_tokens, escaped, with_default
from harness.template.habits import Habits, Thinking, with_thoughts
from harness.template.render import Renderer, time_limited
from harness.template.spans import Rendered, Span, Tokens, named
from harness.template.tools import tools_for_vllm
from harness.template.verify import Verification

TrainOn = Literal["all", "last", "marked"]
Reasoning = Literal["learn", "context", "drop"]
_MARK = re.compile(r"<[|｜][^<>\s]{1,40}[|｜]>")

# Example: of ("user", "Hello"), ("assistant", "Hi"), the model is trained on `Hi` and its stop token.
#
#   text       <|im_start|> user \n Hello <|im_end|> \n <|im_start|> assistant \n Hi <|im_end|> \n
#   loss_mask       0        0    0   0       0      0       0          0      0  1      1      0


@dataclass(frozen=True)
class BoundTemplate:
    """A chat template bound to one tokenizer.

    `tokenizer` is a transformers fast tokenizer whose `chat_template` is the Jinja source; `stop_ids` end a turn.
    `tool_parser` is vLLM's name for the parser of the tool calls that the template writes. `thinking` is `on` or `off`
    where the template is told to think or not; with `auto`, each answer has the prompt that fits it, see `habits`.
    """

    name: str
    tokenizer: Any
    stop_ids: tuple[int, ...]
    takes_system: bool = True
    takes_tools: bool = False
    takes_turns: bool = True
    tool_parser: str | None = None
    thinking: Thinking = "auto"
    habits: Habits = field(default_factory=Habits)

    @classmethod
    def load(cls, folder: Path) -> BoundTemplate:
        """Load the template that a run saved in its `chat/` folder. Needs no plugin.

        Raises:
            HarnessError: if the folder was not written by `save`, or is damaged.
        """
        return cls(**saved.read(folder))

    def save(self, folder: Path) -> None:
        """Write tokenizer, chat template and generation defaults: the files that evaluation and serving load."""
        saved.write(folder, {field.name: getattr(self, field.name) for field in fields(self)}, self.pad_id)

    @functools.cached_property
    def stop_tokens(self) -> list[str]:
        """The stop tokens as text."""
        return [self.tokenizer.convert_ids_to_tokens(stop) for stop in self.stop_ids]

    @property
    def pad_id(self) -> int:
        """The id that batches are padded with. Padding is never attended to or trained on, so any id will do."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.stop_ids[0])

    @functools.cached_property
    def opening(self) -> str:
        """The text before the first question of a conversation without a system prompt, with the default one if any."""
        return self.renderer([{"role": "user", "content": "probe two"}], None, True).partition("probe two")[0]

    @functools.cached_property
    def text_marks(self) -> list[str]:
        """The marks of turns that this tokenizer has no control tokens for: ordinary text, which anybody can write."""
        text = self.renderer([{"role": "user", "content": "probe two"}], None, True)
        return [mark for mark in dict.fromkeys(_MARK.findall(text)) if mark not in self.control_tokens]

    @functools.cached_property
    def spelt_marks(self) -> list[str]:
        """The marks of thoughts that this tokenizer has no tokens for: the model spells them, and nobody else can."""
        known = (*self.control_tokens, *self.tokenizer.added_tokens_encoder)
        return [mark for mark in self.habits.marks if not mark.startswith(known)]

    @property
    def remarks(self) -> list[str]:
        """Sentences on marks that are ordinary text in this vocabulary."""
        kinds = (
            ("no control tokens of this tokenizer, so that anybody can write them", self.text_marks),
            ("no tokens of this tokenizer, so that thoughts begin and end with spelt words", self.spelt_marks),
        )
        return [f"{kind}: {', '.join(marks)}" for kind, marks in kinds if marks]

    @functools.cached_property
    def control_tokens(self) -> list[str]:
        """The strings that are control tokens where the template writes them, and ordinary text inside messages."""
        return control_tokens(self.tokenizer, self.tokenizer.get_chat_template(), self.stop_tokens)

    @functools.cached_property
    def broken_strings(self) -> list[str]:
        """The strings that are broken inside messages: control tokens, and the marks of thoughts; longest first."""
        return sorted({*self.control_tokens, *self.habits.marks}, key=lambda token: (-len(token), token))

    @functools.cached_property
    def renderer(self) -> Renderer:
        """The renderer of messages given as dicts.

        It does not check `takes_system`, `takes_tools` and `takes_turns`.
        """
        source = self.tokenizer.get_chat_template()
        return Renderer(self.name, source, self.broken_strings, self.tokenizer.special_tokens_map)

    @functools.cached_property
    def _verification(self) -> Verification:
        return Verification(self.name, self.stop_tokens, self.habits.commands)

    @functools.cached_property
    def _answers(self) -> Answers:
        return Answers(self.name, self.stop_tokens, self.habits)

    @functools.cached_property
    def _tokens(self) -> Tokens:
        return Tokens(self.name, self.tokenizer, self.stop_ids, self.control_tokens)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Any] = (),
        *,
        generation_prompt: bool = False,
        thinks: bool | None = None,
    ) -> str:
        """Return the conversation as one text, control tokens included.

        With `generation_prompt`, the text ends where an answer begins. `thinks` sets the template's switch, if it has
        one; None leaves that to the template.

        Raises:
            TemplateError: if the template refuses the conversation, or would drop part of it.
        """
        self._check_places(messages, tools)
        with time_limited(self.name):
            return self.renderer(
                self.dicts(messages),
                tools_for_vllm(tools),
                generation_prompt,
                None if thinks is None else self.request_variables(thinks),
            )

    def request_variables(self, thinks: bool) -> dict[str, Any]:
        """Return the `chat_template_kwargs` that ask for an answer with thoughts, or for one without."""
        return self.habits.variables(thinks) if self.thinking == "auto" else {}

    def asking(self, thinks: bool) -> BoundTemplate:
        """Return the template with the switch set for requests that do not set it; itself where nothing changes."""
        habits, source = self.habits, str(self.tokenizer.get_chat_template())
        if not habits.switch or self.thinking != "auto" or thinks == habits.thinks:
            return self
        tokenizer = copy.copy(self.tokenizer)
        tokenizer.chat_template = with_default(source, *habits.variables(thinks).items())
        return replace(self, tokenizer=tokenizer, habits=replace(habits, thinks=thinks))

    def prompt_ids(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), *, thinks: bool | None = None
    ) -> list[int]:
        """Return the ids of the prompt for an answer to `messages`: the same in training and in serving."""
        return self.ids_of([self.render(messages, tools, generation_prompt=True, thinks=thinks)])[0]

    def dicts(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return messages as the template gets them."""
        raw, field = [message.as_dict() for message in messages], self.habits.field
        return [with_thoughts(one, one["reasoning"], field) if "reasoning" in one else one for one in raw]

    def ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of rendered texts, each tokenized as one piece."""
        return self._tokens.ids_of(texts)

    def decoded(self, ids: Sequence[int]) -> str:
        """Return ids as text, control tokens included."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def encode(self, conversation: Conversation, train_on: TrainOn = "all") -> Example:
        """Encode one conversation that is one example; see `encode_batch`. Raises TemplateError where it is several."""
        examples = self.encode_batch([conversation], train_on)
        if len(examples) > 1:
            raise TemplateError(
                f"{named(conversation)}template {self.name!r} changes earlier turns, so that this conversation is "
                f"{len(examples)} examples, one an answer"
            )
        return examples[0]

    def encode_batch(
        self, conversations: Sequence[Conversation], train_on: TrainOn = "all", reasoning: Reasoning = "learn"
    ) -> list[Example]:
        """Encode conversations. The mask covers what the model writes in each trained turn, and its stop token.

        `train_on` selects these turns: all that the conversation does not exclude, the last of them, or only those
        marked with `train=True`. `reasoning` says if thoughts are trained on, stand before the words without being
        trained on, or are left out.

        Returns one example a conversation where the template renders it as its prompts and answers one behind the
        other; else one an answer, behind the prompt that serving sends for it.

        Raises:
            TemplateError: if the template drops or changes the words of a message, if an answer lacks a stop token, if
                the prompt of an answer would have other tokens in serving, or if there is nothing to train on.
        """
        rendered = self.rendered(conversations, train_on, reasoning)
        return [
            replace(one, loss_mask=cast("list[bool]", memoryview(bytes(one.loss_mask)).cast("?").tolist()))
            for examples in self.examples(rendered, self.tokenized(rendered))
            for one in examples
        ]

    # The same three steps, exposed so that callers can overlap tokenization with other work.

    def rendered(
        self, conversations: Sequence[Conversation], train_on: TrainOn = "all", reasoning: Reasoning = "learn"
    ) -> list[Rendered]:
        """Render conversations as text, the texts of one behind those of another: the first step of `encode_batch`."""
        with time_limited(self.name, each=True):
            return [text for one in conversations for text in self._rendered(one, train_on, reasoning)]

    def tokenized(self, rendered: Sequence[Rendered]) -> list[Any]:
        """Tokenize: the second step. It takes most of the time, uses all cores and rarely holds Python's lock."""
        return self._tokens.tokenized(rendered)

    def examples(self, rendered: Sequence[Rendered], tokenized: Sequence[Any]) -> list[tuple[Example, ...]]:
        """Return ids and masks (as bytes) of each conversation, verified: the last step."""
        conversations: list[tuple[Example, ...]] = []
        for text, examples in zip(rendered, self._tokens.examples(rendered, tokenized), strict=True):
            if text.first:
                conversations.append(examples)
            else:
                conversations[-1] += examples
        return conversations

    def check_turns(self, conversation: Conversation, train_on: TrainOn = "all") -> int:
        """Compare the prompt of every trained turn, tokenized on its own as in serving, with the ids of training.

        Returns the number of prompts compared. Raises TemplateError at the first difference.
        """
        examples, turns = self.encode_batch([conversation], train_on), trained(conversation, train_on)
        for number, turn in enumerate(turns):
            ids = examples[number if len(examples) > 1 else 0].input_ids
            thinks = bool(conversation.messages[turn].reasoning)
            prompt = self.prompt_ids(conversation.messages[:turn], conversation.tools, thinks=thinks)
            if ids[: len(prompt)] != prompt:
                difference = aligned(self.tokenizer, ids, prompt, ("in training", "in serving"))
                raise TemplateError(
                    f"{named(conversation)}message {turn + 1}: its prompt has other tokens in serving, {difference}"
                )
        return len(turns)

    @functools.cached_property
    def refusals(self) -> dict[str, str]:
        """The parts of a conversation that the template cannot write, each with the message that refuses it."""
        taken = {
            "a system prompt": self.takes_system,
            "tools": self.takes_tools,
            "more than one exchange": self.takes_turns,
        }
        return {what: f"template {self.name!r} does not support {what}" for what, takes in taken.items() if not takes}

    def _check_places(self, messages: Sequence[Message], tools: Sequence[Any]) -> None:
        """Refuse what the template does not support, as the prelude of the saved template does in serving."""
        if not (refusals := self.refusals):
            return
        needed = {
            "a system prompt": any(message.role == "system" for message in messages),
            "tools": bool(tools) or any(message.tool_calls for message in messages),
            "more than one exchange": sum(message.role == "user" for message in messages) > 1,
        }
        for what, refusal in refusals.items():
            if needed[what]:
                raise TemplateError(refusal)

    def _rendered(self, conversation: Conversation, train_on: TrainOn, reasoning: Reasoning) -> list[Rendered]:
        """Return the rendered text and its trained spans: one text, or one an answer where earlier turns change."""
        turns = trained(conversation, train_on)
        if not turns:
            why = "is marked with `train: true`" if train_on == "marked" else "is trained on"
            raise TemplateError(f"{named(conversation)}nothing to learn from: no assistant message {why}")
        if reasoning == "drop":
            conversation = without_thoughts(conversation)
        try:
            self._check_places(conversation.messages, conversation.tools)
            thinking = [turn for turn in turns if conversation.messages[turn].reasoning]
            if thinking and self.thinking == "off":
                raise told_not_to_think(self.name, thinking[0])
            talk = self._talk(conversation)
            learns = reasoning == "learn"
            whole = self._whole(talk, turns, learns) if self.habits.grows else None
            return [self._alone(talk, turns, turn, learns) for turn in turns] if whole is None else [whole]
        except TemplateError as error:
            raise TemplateError(f"{named(conversation)}{error}") from error.__cause__
        except RecursionError:
            raise TemplateError(
                f"{named(conversation)}a tool or the arguments of a call are nested too deeply"
            ) from None

    def _talk(self, conversation: Conversation) -> _Talk:
        dicts = self.dicts(conversation.messages)
        tools = tools_for_vllm(conversation.tools)
        if tokens := self.renderer.control_tokens_in(dicts, tools):
            dicts, tools = escaped(dicts, tokens), escaped(tools, tokens)
        return _Talk(conversation, dicts, tools, tokens)

    def _whole(self, talk: _Talk, turns: Sequence[int], learns: bool) -> Rendered | None:
        """Return the conversation as one text, or None where it is not its prompts and answers one behind the other."""
        messages, verify, render = talk.conversation.messages, self._verification, self.renderer.unprotected
        variables = None
        if self.habits.switch:
            thinks = {bool(messages[turn].reasoning) for turn in turns}
            if len(thinks) > 1:
                return None
            variables = self.request_variables(thinks.pop())
        text, spans = render(talk.dicts, talk.tools, False, variables), []
        for turn in turns:
            prompt, last = render(talk.dicts[:turn], talk.tools, True, variables), turn == len(messages) - 1
            if not text.startswith(prompt):
                return None
            end = None if messages[turn].reasoning else verify.end_of_words(text, len(prompt), messages[turn])
            if end is None or (last and text[end:].strip()):
                rendered = text if last else render(talk.dicts[: turn + 1], talk.tools, False, variables)
                answer = self._answers.of(turn, talk.dicts[turn], prompt, rendered)
                end = len(prompt) + len(answer.text)
                if not text.startswith(answer.text, len(prompt)):
                    if not last:
                        return None
                    text = prompt + answer.text
                if not learns:
                    prompt += answer.text[: answer.thoughts]
            spans.append(Span(turn, prompt, end))
        verify.require_all_content(talk.conversation, turns, text)
        return Rendered(talk.conversation, text, spans, talk.escaped)

    def _alone(self, talk: _Talk, turns: Sequence[int], turn: int, learns: bool) -> Rendered:
        """Return one answer behind the prompt that serving sends for it."""
        messages = talk.conversation.messages[: turn + 1]
        variables = self.request_variables(bool(messages[turn].reasoning))
        prompt, rendered = (
            self.renderer.unprotected(talk.dicts[: turn + more], talk.tools, not more, variables) for more in (0, 1)
        )

        def before() -> str:
            return self.renderer.unprotected(talk.dicts[:turn], talk.tools, False, variables)

        answer = self._answers.of(turn, talk.dicts[turn], prompt, rendered, before)
        text = prompt + answer.text
        part = replace(talk.conversation, messages=messages)
        self._verification.require_all_content(part, [turn], text)
        span = Span(turn, prompt if learns else text[: len(prompt) + answer.thoughts], len(text))
        return Rendered(talk.conversation, text, [span], talk.escaped, first=turn == turns[0])


@dataclass(frozen=True, slots=True)
class _Talk:
    """A conversation as the template gets it: messages and tools as dicts, the control tokens in them broken."""

    conversation: Conversation
    dicts: list[dict[str, Any]]
    tools: list[Any] | None
    escaped: tuple[str, ...]


def trained(conversation: Conversation, train_on: TrainOn) -> tuple[int, ...]:
    """Return the indices of the messages that are trained on."""
    if train_on == "marked":
        return tuple(index for index, message in enumerate(conversation.messages) if message.train)
    return conversation.trained[-1:] if train_on == "last" else conversation.trained
