"""What a template is tried for before it is used: small conversations that show what it does to what people say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.errors import TemplateError
from harness.template.differences import divergence
from harness.template.plain_text import control_tokens, protected
from harness.template.rendering import made_to_end

if TYPE_CHECKING:
    from harness.declarations import Template
    from harness.template.bound import BoundTemplate

Turn = dict[str, Any]


def _says(role: str, content: str, **more: Any) -> Turn:
    return {"role": role, "content": content, **more}


SYSTEM, QUESTION, ANSWER = _says("system", "probe one"), _says("user", "probe two"), _says("assistant", "probe three")
AGAIN = [_says("user", "probe four"), _says("assistant", "probe five")]
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


def missing_tokens(template: Template, tokenizer: Any) -> tuple[str, ...]:
    """The control tokens that the template writes and the tokenizer does not have."""
    written = dict.fromkeys((*template.control_tokens, *template.stop_tokens(tokenizer)))
    return tuple(token for token in written if not _has(tokenizer, token))


def _has(tokenizer: Any, token: str) -> bool:
    ids = tokenizer.encode(token, add_special_tokens=False)
    return len(ids) == 1 and (ids[0] != tokenizer.unk_token_id or token == tokenizer.unk_token)


def fitting(templates: Mapping[str, Template], tokenizer: Any) -> list[str]:
    """The names of the templates that the tokenizer has all tokens for."""
    names = []
    for name, template in templates.items():
        try:
            if template.stop_tokens(tokenizer) and not missing_tokens(template, tokenizer):
                names.append(name)
        except TemplateError:  # `model`, where the model brings none
            continue
    return names


def checked(template: Template, tokenizer: Any, options: Any = None) -> BoundTemplate:
    """The template on the tokenizer, once it has shown that it does what it declares.

    Raises:
        TemplateError: naming the template, and what it does to which message.
    """
    from harness.template.bound import BoundTemplate
    from harness.template.samples import require_text, samples

    stops = template.stop_tokens(tokenizer)
    if missing := missing_tokens(template, tokenizer):
        there = ", ".join(control_tokens(tokenizer)) or "none"
        raise TemplateError(
            f"template {template.name!r} writes {' and '.join(map(repr, missing))}, and this tokenizer has no such "
            f"token{'s' if len(missing) > 1 else ''}. Its control tokens: {there}. Choose a template that fits the tokenizer "
            f"(`harness template list --model FOLDER` says which do), or have the tokens added: "
            f"`template: {{name: {template.name}, add_tokens: true}}`"
        )
    if not stops:
        raise TemplateError(f"template {template.name!r} has no stop token: the tokenizer has no eos token")
    given = template.options() if template.options and options is None else options
    source = template.jinja(tokenizer, given) if template.options else template.jinja(tokenizer)
    parser = template.tool_parser(source) if callable(template.tool_parser) else template.tool_parser
    declares = template.takes_turns is not None  # and is held to it; a model's own is used as its authors wrote it

    def bound(source: str, **places: bool) -> BoundTemplate:
        tokenizer.chat_template = protected(source, control_tokens(tokenizer, source, stops))
        stop_ids = tuple(tokenizer.encode(stop, add_special_tokens=False)[0] for stop in stops)
        return BoundTemplate(template.name, tokenizer, stop_ids, **places, tool_parser=parser)

    with made_to_end(template.name):
        tried = _Trial(bound(source))
        if declares and tried.lacks_bos():
            source = "{{- bos_token -}}" + source
            tried = _Trial(bound(source))
        tried.require_plain_talk()
        if declares:
            tried.require_strangers_refused()
        places = {
            "takes_system": tried.takes("system prompts", template.takes_system, [[SYSTEM, QUESTION, ANSWER]]),
            "takes_tools": tried.takes("tools", template.takes_tools, [[QUESTION, *CALLING]], tools=True),
            "takes_turns": tried.takes("more than one exchange", template.takes_turns, [[QUESTION, ANSWER, *AGAIN]]),
        }
        made = bound(source, **places)
        for sample in samples(made)[0]:
            require_text(made, sample)
    return replace(made)  # which has rendered nothing yet


class _Trial:
    """Renders small conversations through a template and judges what comes of it."""

    def __init__(self, template: BoundTemplate) -> None:
        self.template, self.name = template, template.name
        self.render = template._renderer

    def lacks_bos(self) -> bool:
        """Whether the tokenizer begins every text with its BOS and the rendering does not."""
        tokenizer = self.template.tokenizer
        return _wants_bos(tokenizer) and not self.render([QUESTION], None, True).startswith(tokenizer.bos_token)

    def require_plain_talk(self) -> None:
        """A question and its answer: nothing dropped, a prompt that the answer follows, a stop token, one BOS."""
        whole, prompt = self.render([QUESTION, ANSWER], None, False), self.render([QUESTION], None, True)
        for message in (QUESTION, ANSWER):
            if message["content"] not in whole:
                raise TemplateError(
                    f"template {self.name!r} drops or changes what the {message['role']} says: {message['content']!r} became {whole[:80]!r}"
                )
        bos = self.template.tokenizer.bos_token
        if bos and (whole.startswith(2 * bos) or (_wants_bos(self.template.tokenizer) and whole.count(bos) > 1)):
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
                f"given {prompt[-30:]!r}, and learns answers that begin with {answer[: answer.index(ANSWER['content'])]!r}"
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

    def require_strangers_refused(self) -> None:
        """A role that the template does not know is refused or written down, and never dropped without a word."""
        try:
            text = self.render([QUESTION, STRANGER], None, False)
        except TemplateError:
            return
        if STRANGER["content"] not in text:
            raise TemplateError(
                f"template {self.name!r} drops messages of a role that it does not know ({STRANGER['role']!r}) without a word; it "
                f"should refuse them: raise_exception('unknown role ' + message['role'])"
            )

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


def _wants_bos(tokenizer: Any) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer.encode("a")[:1] == [bos]
