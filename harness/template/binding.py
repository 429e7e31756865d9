"""Binding: a declared template on one tokenizer, refused where the tokenizer lacks its tokens or it fails its trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.errors import TemplateError
from harness.options import Options
from harness.template.encode import BoundTemplate
from harness.template.escape import control_tokens, protected
from harness.template.render import made_to_end, memory_bounded
from harness.template.samples import require_text, samples
from harness.template.trial import AGAIN, ANSWER, CALLING, QUESTION, SYSTEM, Trial, require_words_stay_words

if TYPE_CHECKING:
    from harness.contract import Template


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


def bind(template: Template, tokenizer: Any, options: Any = None) -> BoundTemplate:
    """Fit a declared template to a tokenizer, once it has shown that it does what it declares.

    Args:
        options: those that the template declares; None: their defaults.

    Raises:
        TemplateError: naming the template, and what it does to which message.
    """
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
        raise TemplateError(
            f"template {template.name!r} has no stop token: the tokenizer has no eos token (`eos_token` in its tokenizer_config.json)"
        )
    source = template.jinja(tokenizer, (template.options or Options)() if options is None else options)
    parser = template.tool_parser(source) if callable(template.tool_parser) else template.tool_parser
    declares = template.takes_turns is not None  # and is held to it; a model's own is used as its authors wrote it

    roles: list[str] | None = None

    def bound(source: str, **places: bool) -> BoundTemplate:
        stop_ids = tuple(tokenizer.encode(stop, add_special_tokens=False)[0] for stop in stops)
        made = BoundTemplate(template.name, tokenizer, stop_ids, **places, tool_parser=parser)
        tokenizer.chat_template = protected(source, control_tokens(tokenizer, source, stops), made.refusals, roles)
        return made

    require_words_stay_words(template.name, tokenizer, control_tokens(tokenizer, source, stops))
    with made_to_end(template.name), memory_bounded():
        tried = Trial(bound(source, takes_tools=True))
        if tried.lacks_bos():
            source = "{{- bos_token }}{# which the template forgets #}\n" + source  # as if it began here
            tried = Trial(bound(source, takes_tools=True))
        tried.require_plain_talk()
        if declares:
            tried.require_strangers_refused()
        places = {
            "takes_system": tried.takes("system prompts", template.takes_system, [[SYSTEM, QUESTION, ANSWER]]),
            "takes_tools": tried.takes("tools", template.takes_tools, [[QUESTION, *CALLING]], tools=True),
            "takes_turns": tried.takes("more than one exchange", template.takes_turns, [[QUESTION, ANSWER, *AGAIN]]),
        }
        if not declares:
            roles = tried.roles(with_tools=places["takes_tools"])
        made = bound(source, **places)
        for sample in samples(made)[0]:
            require_text(made, sample)
    return replace(made)  # which has rendered nothing yet
