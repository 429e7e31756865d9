"""The trial of a template before it is used: small conversations show whether it keeps every message unchanged."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from harness.errors import TemplateError, first_line
from harness.template.answers import Answers, squeezed
from harness.template.encode import BoundTemplate
from harness.template.habits import THOUGHT, Ends, Habits, commands_of, end_of_answer, thoughts_of, with_thoughts
from harness.template.render import variables_of
from harness.template.spans import wants_bos

Turn = dict[str, Any]


def _says(role: str, content: str, **more: Any) -> Turn:
    return {"role": role, "content": content, **more}


def _obeyed(message: Turn, command: str) -> Turn:
    return message | {"content": f"{message['content']} {command}"}


SYSTEM, QUESTION, ANSWER = _says("system", "probe one"), _says("user", "probe two"), _says("assistant", "probe three")
SECOND_EXCHANGE = [_says("user", "probe four"), _says("assistant", "probe five")]
COMMON_ROLES, OTHER_ROLES = ("system", "user", "assistant"), ("tool", "developer", "function", "ipython", "observation")
INVISIBLE = "\x07\0\x7f\u00ad\u200b\u200d\ufeff"  # characters that some tokenizers remove from a text
UNKNOWN_ROLE = _says("narrator", "probe six")
TOOL_NAME, TOOL_ARGUMENT = "probe_tool", "probe eight"
TOOL = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "probe seven",
        "parameters": {"type": "object", "properties": {"thing": {"type": "string"}}, "required": ["thing"]},
    },
}
CALL_ID = "probe1234"
CALL = {
    "type": "function",
    "id": CALL_ID,
    "function": {"name": TOOL_NAME, "arguments": {"thing": TOOL_ARGUMENT}},
}
TOOL_EXCHANGE = [
    _says("assistant", "", tool_calls=[CALL]),
    _says("tool", "probe nine", tool_call_id=CALL_ID),
    ANSWER,
]


def require_text_preserved(name: str, tokenizer: Any, control: Sequence[str]) -> None:
    """Require that text stays text: no other spelling of a control token becomes one, and none is a single character.

    A single character cannot be broken. Only tokens that a tokenizer looks for in the normalized text have other
    spellings (small letters, full width).
    """
    added = tokenizer.added_tokens_decoder.values()
    single = [
        token.content for token in added if token.special and len(token.content) == 1 and not token.content.isspace()
    ]
    if single:
        raise TemplateError(
            f"template {name!r}: this tokenizer has the control token {single[0]!r}, a single character, which nobody "
            "could write any more without it becoming a control token. Take it out of the tokenizer's added tokens"
        )
    words = f"{QUESTION['content']} {ANSWER['content']}"
    back = tokenizer.decode(tokenizer.encode(words, add_special_tokens=False), clean_up_tokenization_spaces=False)
    if back.strip() != words:
        raise TemplateError(
            f"template {name!r}: this tokenizer does not keep what is said: {words!r} comes back as {back!r}. Its "
            "vocabulary is not whole, or belongs to another kind of tokenizer than its tokenizer_config.json names"
        )
    if tokenizer.backend_tokenizer.normalizer is None:
        return
    for token in (token.content for token in added if token.normalized and token.content in control):
        id = tokenizer.convert_tokens_to_ids(token)
        wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in token)
        hidden = {token[0] + char + token[1:] for char in INVISIBLE}
        accented = "".join(unicodedata.normalize("NFC", char + "\u0301") for char in token)
        for spelling in {token.upper(), token.lower(), wide, accented, *hidden} - {token}:
            if id in tokenizer.encode(spelling, add_special_tokens=False):
                raise TemplateError(
                    f"template {name!r}: this tokenizer takes {spelling!r} for its control token {token!r}, because it "
                    "looks for it "
                    f'in the normalized text. Give that token `"normalized": false` in tokenizer.json'
                )


class Trial:
    """Small conversations rendered through a template, and checks of the results."""

    def __init__(self, template: BoundTemplate) -> None:
        self.template, self.name = template, template.name
        self.render = template.renderer

    def require_question(self) -> None:
        """Require that the template renders a question without tools."""
        try:
            self.render([QUESTION], None, True)
        except TemplateError as error:
            if self._rendered([QUESTION], [TOOL]) is not None:
                raise TemplateError(
                    f"template {self.name!r} renders only conversations that offer tools; it cannot render a question "
                    f"alone ({first_line(error)})"
                ) from None
            raise TemplateError(f"{error}{self._unset()}") from None

    def lacks_bos(self) -> bool:
        """Return whether the tokenizer begins every text with its BOS and the rendering does not."""
        tokenizer = self.template.tokenizer
        return wants_bos(tokenizer) and not self.render([QUESTION], None, True).startswith(tokenizer.bos_token)

    def hides_calls(self) -> bool:
        """Return whether the template writes of a call its id and arguments, and not the tool's name."""
        text = self._rendered([QUESTION, TOOL_EXCHANGE[0]], [TOOL]) or ""
        return TOOL_ARGUMENT in text and CALL_ID in text and text.count(TOOL_NAME) < 2

    def require_words(self) -> None:
        """Require that a question and its answer are unchanged, with one BOS."""
        self._require_plain_text()
        whole = self.render([QUESTION, ANSWER], None, False)
        for message in (QUESTION, ANSWER):
            if message["content"] not in whole:
                raise TemplateError(
                    f"template {self.name!r} drops or changes what the {message['role']} says: {message['content']!r} "
                    f"became {whole[:80]!r}"
                )
        if address := re.search(r"<[^<>]* at 0x[0-9a-f]+>", whole):
            raise TemplateError(
                f"template {self.name!r} writes where something lies in memory, which is elsewhere each time: "
                f"{address[0]!r}"
            )
        bos = self.template.tokenizer.bos_token
        if (
            bos
            and bos not in self.template.stop_tokens
            and (whole.startswith(2 * bos) or (wants_bos(self.template.tokenizer) and whole.count(bos) > 1))
        ):
            raise TemplateError(
                f"template {self.name!r} writes {bos!r} {whole.count(bos)} times, and a text begins with it once: "
                f"{whole[:80]!r}"
            )

    def _require_plain_text(self) -> None:
        """Refuse a template that takes what is said as a list of parts only."""
        whole = self._rendered([QUESTION, ANSWER], None)
        if whole is not None and QUESTION["content"] in whole:
            return
        parts = [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in (QUESTION, ANSWER)]
        if QUESTION["content"] in (self._rendered(parts, None) or ""):
            raise TemplateError(
                f"template {self.name!r} takes what is said as a list of parts, beside pictures, and loses or refuses "
                "plain text, which tuning and serving send"
            )

    def habits(self, source: str) -> Habits:
        """Return the habits that concern thoughts."""
        habits = thoughts_of(self.render, self.render.unprotected, source, QUESTION, ANSWER)
        return replace(habits, commands=commands_of(self.render, source, SYSTEM, QUESTION))

    def stops(self) -> tuple[str, ...]:
        """Return the tokens that end answers in words and answers with calls, as the template writes them."""
        return tuple(dict.fromkeys(end.stop for end in self._ends() if end))

    def within(self) -> set[str]:
        """Return the tokens that stand between the words or calls of an answer and its stop token."""
        return {token for end in self._ends() if end for token in end.before}

    def ends(self, habits: Habits, stops: Sequence[str]) -> Habits:
        """Return the habits with those that concern the ends of answers."""
        words, calls = (end if end and end.stop in stops else None for end in self._ends())
        late = (words.late if words else "", calls.late if calls else "")
        asked, unasked = (self.render([QUESTION], None, asks) for asks in (True, False))
        header = asked.removeprefix(unasked) if asked.startswith(unasked) else ""
        header = header if ANSWER["content"] not in header and header.strip() else ""
        return replace(habits, ends=late, trailer=words.trailer if words else "", header=header)

    def _ends(self) -> tuple[Ends | None, Ends | None]:
        """Return the ends of an answer in words and of one with calls; None where there is none."""
        control = self.template.control_tokens
        whole = self._rendered([QUESTION, ANSWER], None)
        more = self._rendered([QUESTION, ANSWER, SECOND_EXCHANGE[0]], None)
        known = self.template.stop_tokens
        words = end_of_answer(whole or "", more, ANSWER["content"], control, known=known)
        call, result = (self._rendered([QUESTION, *TOOL_EXCHANGE[:count]], [TOOL]) for count in (1, 2))
        if not call or TOOL_ARGUMENT not in call:
            return words, None
        twice = self._rendered([QUESTION, TOOL_EXCHANGE[0] | {"tool_calls": [CALL, CALL]}], [TOOL]) or ""
        between = twice.split(TOOL_ARGUMENT)[1] if twice.count(TOOL_ARGUMENT) == 2 else ""
        known = [words.stop] if words else known
        return words, end_of_answer(call, result, TOOL_ARGUMENT, control, between, known)

    def _rendered(self, talk: list[Turn], tools: list[Any] | None) -> str | None:
        try:
            return self.render(talk, tools, False)
        except TemplateError:
            return None

    def require_thoughts(self) -> None:
        """Require that an answer with thoughts is what the model must write, where the template has them."""
        habits = self.template.habits
        if not habits.takes_thoughts or self.template.thinking == "off":
            return
        _, _, end = self._frame(Answers(self.name, self.template.stop_tokens, habits), [QUESTION], thinks=True)
        if habits.marks and squeezed(habits.marks[1]) in end:
            raise TemplateError(
                f"template {self.name!r} closes thoughts and words with the same mark, {habits.marks[1]!r}, so that "
                "nothing tells them apart"
            )

    def require_simple_exchange(self) -> Habits:
        """Require an answer that has a fitting prompt and a stop token; return the habits with its frames."""
        habits = self.template.habits
        self._require_prompt()
        frames, grows = [], True
        answers = Answers(self.name, self.template.stop_tokens, habits)
        thoughts = (False, True) if habits.takes_thoughts else (False,)
        pairs = [[_obeyed(one, command) for one in (SYSTEM, QUESTION)] for command in habits.commands]
        commanded = [talk for system, question in pairs for talk in ([system, QUESTION], [question])]
        exchanges = [QUESTION, ANSWER, SECOND_EXCHANGE[0]], [QUESTION, *TOOL_EXCHANGE[:2]]
        for before in ([QUESTION], *exchanges, *commanded):
            for thinks in thoughts:
                try:
                    frame = self._frame(answers, before, thinks)
                    if not self._plain_words(frame[2]):
                        frames.append(frame)
                except TemplateError:
                    if before == [QUESTION] and not (thinks and self.template.thinking == "off"):
                        raise
        text = self._rendered([QUESTION, ANSWER, *SECOND_EXCHANGE], None)
        if text is not None:
            first = self.render([QUESTION], None, True)
            answer = answers.of(1, ANSWER, first, self.render([QUESTION, ANSWER], None, False))
            second = self.render([QUESTION, ANSWER, SECOND_EXCHANGE[0]], None, True)
            grows = text.startswith(first + answer.text) and text.startswith(second)
        return replace(habits, frames=tuple(dict.fromkeys(frames)), grows=grows)

    def _plain_words(self, text: str) -> str:
        """Return what remains of the text without control tokens."""
        for token in self.template.broken_strings:
            text = text.replace(squeezed(token), "")
        return text

    def _frame(self, answers: Answers, before: list[Turn], thinks: bool) -> tuple[str, str, str]:
        """Return what the model writes before its thoughts, between them and its words, and behind these."""
        habits, tools = self.template.habits, [TOOL] if len(before) > 1 and "tool_calls" in before[1] else None
        answer = with_thoughts(ANSWER, THOUGHT, habits.field) if thinks else ANSWER
        variables = self.template.request_variables(thinks)
        prompt, whole = (
            self.render(talk, tools, asks, variables) for talk, asks in ((before, True), ([*before, answer], False))
        )
        bare = functools.partial(self.render, before, tools, False, variables)
        text = squeezed(answers.of(len(before), answer, prompt, whole, bare).text)
        start, _, rest = text.partition(squeezed(THOUGHT)) if thinks else ("", "", text)
        between, _, end = rest.partition(squeezed(ANSWER["content"]))
        return start, between, end

    def _require_prompt(self) -> None:
        """Require that asking for an answer makes another prompt, where the answer has a header of its own."""
        asked, unasked = (self.render([QUESTION], None, asks) for asks in (True, False))
        whole = self.render([QUESTION, ANSWER], None, False)
        if asked != unasked or not whole.startswith(asked):
            return
        header = whole[len(asked) :].partition(ANSWER["content"])[0]
        if header.strip() and not self._always_asks(asked, whole):
            raise TemplateError(
                f"template {self.name!r} has no generation prompt that fits (`add_generation_prompt`): asked for an "
                f"answer, the model is given {asked[-30:]!r}, and learns answers that begin with {header!r}"
                f"{self._unset()}"
            )

    def _always_asks(self, asked: str, whole: str) -> bool:
        """Return whether the template asks for an answer behind every message, behind an answer's stop token too."""
        behind = whole.rpartition(ANSWER["content"])[2]
        asks = any(behind.partition(stop)[2].strip() for stop in self.template.stop_tokens)
        return asks and whole.endswith(asked.rpartition(QUESTION["content"])[2])

    def _unset(self) -> str:
        """Return a sentence about the variables that the template reads and that are not set; empty without any."""
        unset = variables_of(self.template.tokenizer.get_chat_template())
        if not unset:
            return ""
        return (
            f". It reads {', '.join(unset)}, which nobody sets; in a recipe, `variables` sets what the model's own "
            "template reads"
        )

    def require_unknown_roles_refused(self) -> None:
        """Require that the template refuses or renders a role that it does not know, and never drops it silently."""
        if self._writes(UNKNOWN_ROLE["role"]) is False:
            raise TemplateError(
                f"template {self.name!r} drops messages of a role that it does not know ({UNKNOWN_ROLE['role']!r}) "
                "without a word; it should refuse them: raise_exception('unknown role ' + message['role'])"
            )

    def roles(self, *, with_tools: bool) -> list[str]:
        """Return the roles that a model's own template renders or refuses by itself.

        The prelude refuses all other roles: the template might drop them, and a role that it writes unchanged
        (`<|im_end|>`) can be a control token.
        """
        return [
            *COMMON_ROLES,
            *(role for role in OTHER_ROLES if self._writes(role) is not False or (role == "tool" and with_tools)),
        ]

    def _writes(self, role: str) -> bool | None:
        """Return whether a message of that role is rendered; None if the template refuses it."""
        try:
            return UNKNOWN_ROLE["content"] in self.render([QUESTION, UNKNOWN_ROLE | {"role": role}], None, False)
        except TemplateError:
            return None

    def takes(self, what: str, declared: bool | None, talks: Iterable[list[Turn]], *, tools: bool = False) -> bool:
        """Return whether the template takes `what`, as it declares or, if it leaves that open, as it renders."""
        if declared is False:
            return False
        for talk in talks:
            problem = self._problem(talk, [TOOL] if tools else None)
            if problem and declared:
                raise TemplateError(f"template {self.name!r} declares that it takes {what}, and does not: {problem}")
            if problem:
                return False
        return True

    def call(self) -> str:
        """Return what the template writes behind the prompt, or behind the question, to call a tool."""
        prompt, text = self.render([QUESTION], [TOOL], True), self.render([QUESTION, TOOL_EXCHANGE[0]], [TOOL], False)
        return text[len(prompt) :] if text.startswith(prompt) else text.rpartition(QUESTION["content"])[2]

    def _problem(self, talk: list[Turn], tools: list[Any] | None) -> str | None:
        try:
            text = self.render(talk, tools, False)
        except TemplateError as error:
            return str(error)
        expected = [(message["role"], message["content"]) for message in talk if message["content"]]
        if tools:
            expected += [("tool", TOOL_NAME), ("tool call", TOOL_ARGUMENT)]
        dropped = [role for role, words in expected if words not in text]
        if dropped:
            return f"it drops what the {dropped[0]} says"
        if tools and (escape := re.search(r"&(?:#34|quot|#39|amp);", text)):
            return f"it writes tools or calls as HTML: {escape[0]!r} in the place of a character"
        return "it drops the tools that are offered" if tools and text.count(TOOL_NAME) < 2 else None
