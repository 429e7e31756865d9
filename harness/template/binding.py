"""Binding of a template to a tokenizer, refused if the tokenizer lacks a token or the template fails its trial."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.contract.templates import parses_source
from harness.errors import TemplateError
from harness.options import Options
from harness.template.encode import BoundTemplate
from harness.template.escape import control_tokens, protected, with_named_calls
from harness.template.habits import Habits, Thinking
from harness.template.render import memory_bounded, time_limited
from harness.template.samples import require_text, samples
from harness.template.stops import sources_of
from harness.template.trial import (
    ANSWER,
    QUESTION,
    SECOND_EXCHANGE,
    SYSTEM,
    TOOL_EXCHANGE,
    Trial,
    require_text_preserved,
)

if TYPE_CHECKING:
    from harness.contract import Template


def missing_tokens(template: Template, tokenizer: Any) -> tuple[str, ...]:
    """Return the control tokens that the template writes and the tokenizer lacks."""
    written = dict.fromkeys((*template.control_tokens, *template.stop_tokens(tokenizer)))
    return tuple(token for token in written if not _has(tokenizer, token))


def _has(tokenizer: Any, token: str) -> bool:
    ids = tokenizer.encode(token, add_special_tokens=False)
    return len(ids) == 1 and (ids[0] != tokenizer.unk_token_id or token == tokenizer.unk_token)


def fitting(templates: Mapping[str, Template], tokenizer: Any) -> list[str]:
    """Return the names of the templates whose control tokens the tokenizer has."""
    names = []
    for name, template in templates.items():
        try:
            if template.stop_tokens(tokenizer) and not missing_tokens(template, tokenizer):
                names.append(name)
        except TemplateError:  # `model`, where the model brings none
            continue
    return names


def bind(template: Template, tokenizer: Any, options: Any = None) -> BoundTemplate:
    """Bind a template to a tokenizer, after checking on small conversations that it does what it declares.

    Args:
        options: the options that the template declares; None for their defaults.

    Raises:
        TemplateError: naming the template, the message, and what the template does to it.
    """
    stops = _stops_of(template, tokenizer)
    given = (template.options or Options)() if options is None else options
    thinking: Thinking = getattr(given, "thinking", "auto")
    source = template.jinja(tokenizer, given)
    parser = None if callable(template.tool_parser) else template.tool_parser
    # A template that declares what it takes is held to it; a model's own template is used as its authors wrote it.
    declares = template.takes_turns is not None

    roles: list[str] | None = None
    habits = Habits()

    def bound(source: str, **places: bool) -> BoundTemplate:
        stop_ids = tuple(tokenizer.encode(stop, add_special_tokens=False)[0] for stop in stops)
        bound_template = BoundTemplate(
            template.name, tokenizer, stop_ids, **places, tool_parser=parser, thinking=thinking, habits=habits
        )
        broken = sorted({*control_tokens(tokenizer, source, stops), *habits.marks}, key=lambda one: (-len(one), one))
        tokenizer.chat_template = protected(source, broken, bound_template.refusals, roles, habits.field)
        return bound_template

    require_text_preserved(template.name, tokenizer, control_tokens(tokenizer, source, stops))
    with time_limited(template.name), memory_bounded(), nullcontext() if declares else _another_instead():
        tried = Trial(bound(source, takes_tools=True))
        tried.require_question()
        if tried.lacks_bos():
            source = "{{- bos_token }}{# which the template forgets #}\n" + source
            tried = Trial(bound(source, takes_tools=True))
        if not declares and tried.hides_calls():
            source = with_named_calls(source)
            tried = Trial(bound(source, takes_tools=True))
        tried.require_words()
        habits = tried.habits(source)
        if thinking != "auto" and habits.switch:
            value = json.dumps(habits.values[0 if thinking == "on" else 1])
            source = f"{{%- set {habits.switch} = {value} %}}\n{source}"
            tried = Trial(bound(source, takes_tools=True))
        written = stops if declares else tried.stops()
        within: set[str] = set() if declares else tried.within()
        stops = tuple(dict.fromkeys((*written, *(stop for stop in stops if stop not in within))))
        habits = replace(tried.ends(habits, stops), stops=sources_of(stops, written, tokenizer))
        tried = Trial(bound(source, takes_tools=True))
        try:
            tried.require_thoughts()
        except TemplateError as error:
            if declares:
                raise
            habits = replace(habits, thoughtless=str(error), switch=None)
            tried = Trial(bound(source, takes_tools=True))
        habits = tried.require_simple_exchange()
        tried = Trial(bound(source, takes_tools=True))
        if declares:
            tried.require_unknown_roles_refused()
        places = {
            "takes_system": tried.takes("system prompts", template.takes_system, [[SYSTEM, QUESTION, ANSWER]]),
            "takes_tools": tried.takes("tools", template.takes_tools, [[QUESTION, *TOOL_EXCHANGE]], tools=True),
            "takes_turns": tried.takes(
                "more than one exchange", template.takes_turns, [[QUESTION, ANSWER, *SECOND_EXCHANGE]]
            ),
        }
        if not declares:
            roles = tried.roles(with_tools=places["takes_tools"])
        if callable(template.tool_parser) and places["takes_tools"]:
            parser = template.tool_parser(source if parses_source(template) else tried.call())
        template_on_tokenizer = bound(source, **places)
        for sample in samples(template_on_tokenizer)[0]:
            require_text(template_on_tokenizer, sample)
    return replace(template_on_tokenizer)  # a copy with empty caches


def _stops_of(template: Template, tokenizer: Any) -> tuple[str, ...]:
    """Return the stop tokens of a template. Raises TemplateError if the tokenizer lacks what it writes."""
    stops = template.stop_tokens(tokenizer)
    if missing := missing_tokens(template, tokenizer):
        there = ", ".join(control_tokens(tokenizer)) or "none"
        raise TemplateError(
            f"template {template.name!r} writes {' and '.join(map(repr, missing))}, and this tokenizer has no such "
            f"token{'s' if len(missing) > 1 else ''}. Its control tokens: {there}. Choose a template that fits the "
            "tokenizer (`harness template list --model FOLDER` says which do), or have the tokens added: `template: "
            f"{{name: {template.name}, add_tokens: true}}`"
        )
    if not stops:
        raise TemplateError(
            f"template {template.name!r} has no stop token: the tokenizer has no eos token (`eos_token` in its "
            "tokenizer_config.json)"
        )
    return stops


@contextmanager
def _another_instead() -> Iterator[None]:
    """Add to a refusal of a model's own template what can be done about it."""
    try:
        yield
    except TemplateError as error:
        raise TemplateError(
            f"{error}\nChoose a registered template instead: `harness template list --model FOLDER` says which fit"
        ) from error.__cause__
