"""The trial of a template before it is used: small conversations show what it does to what people say."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from harness.errors import TemplateError
from harness.template.differences import divergence
from harness.template.encode import BoundTemplate
from harness.template.render import variables_of
from harness.template.spans import wants_bos

Turn = dict[str, Any]


def _says(role: str, content: str, **more: Any) -> Turn:
    return {"role": role, "content": content, **more}


SYSTEM, QUESTION, ANSWER = _says("system", "probe one"), _says("user", "probe two"), _says("assistant", "probe three")
AGAIN = [_says("user", "probe four"), _says("assistant", "probe five")]
PEOPLE, OTHERS = ("system", "user", "assistant"), ("tool", "developer", "function", "ipython", "observation")
INVISIBLE = "\x07\0\x7f\u00ad\u200b\u200d\ufeff"  # characters that some tokenizers take out of a text
STRANGER = _says("narrator", "probe six")
TOOL = {
    "type": "function",
    "function": {
        "name": "probe_tool",
        "description": "probe seven",
        "parameters": {"type": "object", "properties": {"thing": {"type": "string"}}, "required": ["thing"]},
    },
}
CALL = {
    "type": "function",
    "id": "probe1234",
    "function": {"name": "probe_tool", "arguments": {"thing": "probe eight"}},
}
CALLING = [_says("assistant", "", tool_calls=[CALL]), _says("tool", "probe nine", tool_call_id="probe1234"), ANSWER]


def require_words_stay_words(name: str, tokenizer: Any, control: Sequence[str]) -> None:
    """No other spelling of a control token becomes one, and none is a single character, which nothing can break.

    Only tokens that a tokenizer looks for in the normalized text have other spellings (small letters, full width).
    """
    added = tokenizer.added_tokens_decoder.values()
    single = [
        token.content for token in added if token.special and len(token.content) == 1 and not token.content.isspace()
    ]
    if single:
        raise TemplateError(
            f"template {name!r}: this tokenizer has the control token {single[0]!r}, a single character, which nobody could "
            f"write any more without it becoming a control token. Take it out of the tokenizer's added tokens"
        )
    words = f"{QUESTION['content']} {ANSWER['content']}"
    back = tokenizer.decode(tokenizer.encode(words, add_special_tokens=False), clean_up_tokenization_spaces=False)
    if back.strip() != words:
        raise TemplateError(
            f"template {name!r}: this tokenizer does not keep what is said: {words!r} comes back as {back!r}. Its vocabulary is not "
            f"whole, or belongs to another kind of tokenizer than its tokenizer_config.json names"
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
                    f"template {name!r}: this tokenizer takes {spelling!r} for its control token {token!r}, because it looks for it "
                    f'in the normalized text. Give that token `"normalized": false` in tokenizer.json'
                )


class Trial:
    """Renders small conversations through a template and judges what comes of it."""

    def __init__(self, template: BoundTemplate) -> None:
        self.template, self.name = template, template.name
        self.render = template.renderer

    def lacks_bos(self) -> bool:
        """Whether the tokenizer begins every text with its BOS and the rendering does not."""
        tokenizer = self.template.tokenizer
        return wants_bos(tokenizer) and not self.render([QUESTION], None, True).startswith(tokenizer.bos_token)

    def require_plain_talk(self) -> None:
        """A question and its answer: nothing dropped, a prompt that the answer follows, a stop token, one BOS."""
        whole, prompt = self.render([QUESTION, ANSWER], None, False), self.render([QUESTION], None, True)
        for message in (QUESTION, ANSWER):
            if message["content"] not in whole:
                raise TemplateError(
                    f"template {self.name!r} drops or changes what the {message['role']} says: {message['content']!r} became {whole[:80]!r}"
                )
        if address := re.search(r"<[^<>]* at 0x[0-9a-f]+>", whole):
            raise TemplateError(
                f"template {self.name!r} writes where something lies in memory, which is elsewhere each time: {address[0]!r}"
            )
        bos = self.template.tokenizer.bos_token
        if (
            bos
            and bos not in self.template.stop_tokens
            and (whole.startswith(2 * bos) or (wants_bos(self.template.tokenizer) and whole.count(bos) > 1))
        ):
            raise TemplateError(
                f"template {self.name!r} writes {bos!r}, with which a text begins once, {whole.count(bos)} times: {whole[:80]!r}"
            )
        if not whole.startswith(prompt):
            raise TemplateError(
                f"template {self.name!r} does not grow by appending: a question is rendered otherwise where its answer follows.\n"
                f"{divergence(prompt, whole)}"
            )
        answer = whole[len(prompt) :]
        if not answer.lstrip().startswith(ANSWER["content"]):
            raise TemplateError(
                f"template {self.name!r} has no generation prompt that fits (`add_generation_prompt`): asked for an answer, the model is "
                f"given {prompt[-30:]!r}, and learns answers that begin with {answer[: answer.index(ANSWER['content'])]!r}{self._unset()}"
            )
        after = answer.lstrip().removeprefix(ANSWER["content"])
        stops = ", ".join(self.template.stop_tokens)
        stop = next((stop for stop in self.template.stop_tokens if after.lstrip().startswith(stop)), None)
        if stop is None:
            raise TemplateError(
                f"template {self.name!r} does not end an answer with a stop token ({stops}): the model would never learn to stop. "
                f"After the words comes {after[:40]!r}"
            )
        if behind := after.lstrip().removeprefix(stop).strip():
            raise TemplateError(f"template {self.name!r} writes {behind[:40]!r} after the stop token of an answer")

    def _unset(self) -> str:
        """The variables that decide what is rendered and that nobody sets, for people."""
        unset = variables_of(self.template.tokenizer.get_chat_template())
        if not unset:
            return ""
        return f". It reads {', '.join(unset)}, which nobody sets; in a recipe, `variables` sets what the model's own template reads"

    def require_strangers_refused(self) -> None:
        """A role that the template does not know is refused or written down, and never dropped without a word."""
        if self._writes(STRANGER["role"]) is False:
            raise TemplateError(
                f"template {self.name!r} drops messages of a role that it does not know ({STRANGER['role']!r}) without a word; it "
                f"should refuse them: raise_exception('unknown role ' + message['role'])"
            )

    def roles(self, *, with_tools: bool) -> list[str]:
        """The roles that a model's own template writes down or refuses by itself.

        All others are refused for it: it may drop them, and a role it writes as it is (`<|im_end|>`) can be a control token.
        """
        return [
            *PEOPLE,
            *(role for role in OTHERS if self._writes(role) is not False or (role == "tool" and with_tools)),
        ]

    def _writes(self, role: str) -> bool | None:
        """Whether a message of that role is written down; None where the template refuses it."""
        try:
            return STRANGER["content"] in self.render([QUESTION, STRANGER | {"role": role}], None, False)
        except TemplateError:
            return None

    def takes(self, what: str, declared: bool | None, talks: Iterable[list[Turn]], *, tools: bool = False) -> bool:
        """Whether the template has a place for `what`, as it declares or, where it leaves that open, as it renders."""
        if declared is False:
            return False
        for talk in talks:
            problem = self._problem(talk, [TOOL] if tools else None)
            if problem and declared:
                raise TemplateError(f"template {self.name!r} declares that it takes {what}, and does not: {problem}")
            if problem:
                return False
        return True

    def _problem(self, talk: list[Turn], tools: list[Any] | None) -> str | None:
        try:
            text = self.render(talk, tools, False)
        except TemplateError as error:
            return str(error)
        said = [(message["role"], message["content"]) for message in talk if message["content"]]
        if tools:
            said += [("tool", TOOL["function"]["name"]), ("tool call", CALL["function"]["arguments"]["thing"])]  # type: ignore[index]
        dropped = [role for role, words in said if words not in text]
        return f"it drops what the {dropped[0]} says" if dropped else None
