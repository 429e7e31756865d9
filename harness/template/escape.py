"""Text is text: what keeps a control-token string inside somebody's words from becoming a control token. And what a template
has no place for is refused by whoever renders it.

vLLM parses control tokens wherever they stand in a rendered prompt, so the only thing that holds for training and serving
alike is to break such strings before the template sees them. A prelude does that, in Jinja, as part of the saved template:
it goes through every string of `messages`, `tools` and `documents`, keys and nested arguments included, and puts a zero-width
space behind the first character of each control-token string, or behind every one where the string can overlap itself. All
other text is untouched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

BREAK = "\u200b"  # zero-width space: put inside a control-token string, it makes ordinary text of it
END = "{#- The template itself begins here. #}\n"
_WORDS = re.compile(r"[\w\s.,'’/&+-]+")
_PLAIN_TAG = re.compile(r"</?[a-z]+[0-9]*>")
_MOST_MARKERS = (8, 32)  # as few as there can be; some vocabularies have a thousand control tokens of many kinds

_BEGIN = "{#- Written by the harness; the template itself is further down. -#}\n"
_REFUSE = """\
{%- for message in messages -%}
  {%- if message.content is none and message.role != "assistant" -%}
    {{- raise_exception("message " ~ loop.index ~ " (" ~ message.role ~ ") says nothing: its content is null") -}}
  {%- endif -%}
{%- endfor -%}
"""
_PLACES = {  # and how a conversation that needs one is told
    "a system prompt": "messages | selectattr('role', 'equalto', 'system') | list",
    "tools": "tools or messages | selectattr('tool_calls') | list",
    "more than one exchange": "messages | selectattr('role', 'equalto', 'user') | list | length > 1",
}
_PROTECT = """\
{#- Text is text: control-token strings in messages and tools are broken by a zero-width space. -#}
{%- set _control = [@CONTROL@] -%}
{%- macro _broken(value, out) -%}
  {%- if value is string -%}
    {%- set out.value = value -%}
    {%- for token, broken in _control if token in value -%}
      {%- set out.value = out.value | replace(token, broken) -%}
    {%- endfor -%}
  {%- elif value is mapping -%}
    {%- set found = namespace(pairs=[]) -%}
    {%- for key, item in value.items() -%}
      {%- set new = namespace(key=none, value=none) -%}
      {{- _broken(key, new) -}}{%- set new.key = new.value -%}{{- _broken(item, new) -}}
      {%- set found.pairs = found.pairs + [(new.key, new.value)] -%}
    {%- endfor -%}
    {%- set out.value = dict(found.pairs) -%}
  {%- elif value is sequence -%}
    {%- set found = namespace(items=[]) -%}
    {%- for item in value -%}
      {%- set new = namespace(value=none) -%}
      {{- _broken(item, new) -}}
      {%- set found.items = found.items + [new.value] -%}
    {%- endfor -%}
    {%- set out.value = found.items -%}
  {%- else -%}
    {%- set out.value = value -%}
  {%- endif -%}
{%- endmacro -%}
{%- set _said = messages | string ~ (tools | default(none)) ~ (documents | default(none)) -%}
{%- if @GUARD@ -%}
  {%- set _new = namespace(value=none) -%}
  {{- _broken(messages, _new) -}}{%- set messages = _new.value -%}
  {{- _broken(tools | default(none), _new) -}}{%- set tools = _new.value -%}
  {{- _broken(documents | default(none), _new) -}}{%- set documents = _new.value -%}
{%- endif -%}
"""


def control_tokens(tokenizer: Any, source: str = "", stops: Sequence[str] = ()) -> list[str]:
    """The strings that this tokenizer turns into control tokens, wherever they stand, longest first.

    These are its added tokens that are marked special or are `stops`, and of the others those that look like control tokens: no
    white space, no words (of a vocabulary that was given those of a trade), and plain tags such as <table> only where the
    template `source` writes them.
    """
    known = {*tokenizer.all_special_tokens, *stops}
    return sorted(
        (
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if len(token.content.strip(" \t\r\n▁")) > 1
            and (
                token.special
                or token.content in known
                or not (
                    _WORDS.fullmatch(token.content)
                    or (_PLAIN_TAG.fullmatch(token.content) and token.content not in source)
                )
            )
        ),
        key=lambda content: (-len(content), content),
    )


def protected(
    source: str, tokens: Sequence[str], refusals: Mapping[str, str] | None = None, roles: Sequence[str] | None = None
) -> str:
    """The template `source` with a prelude that breaks `tokens` in what people say, and refuses what has no place.

    `refusals` are messages for what that is: "a system prompt", "tools", "more than one exchange". Messages of other `roles` are
    refused, where these are given. A prelude that it has
    already, of another run with other tokens perhaps, gives way to this one.
    """
    prelude = _BEGIN + _REFUSE
    for what, told in (refusals or {}).items():
        prelude += f"{{%- if {_PLACES[what]} -%}}{{{{- raise_exception({_quoted(told)}) -}}}}{{%- endif -%}}\n"
    if roles:
        other = f"messages | rejectattr('role', 'in', {json.dumps(list(roles))}) | map(attribute='role') | first"
        prelude += (
            f"{{%- set _other = {other} -%}}{{%- if _other is defined -%}}"
            f"{{{{- raise_exception('the chat template has no place for a message of the role ' ~ _other) -}}}}{{%- endif -%}}\n"
        )
    if tokens:
        # A list that Jinja goes through: neither Jinja nor Python nests a thousand calls of a filter.
        control = ", ".join(f"({_quoted(token)}, {_quoted(_broken(token))})" for token in tokens)
        found = markers(tokens)
        guard = "true" if found is None else " or ".join(f"{_quoted(marker)} in _said" for marker in found)
        prelude += _PROTECT.replace("@CONTROL@", control).replace("@GUARD@", guard)
    return prelude + END + unprotected(source)


def unprotected(source: str) -> str:
    """The template without its prelude: it renders the same wherever no marker is in what is said and nothing is refused."""
    return source.partition(END)[2] if source.startswith(_BEGIN) else source


def markers(tokens: Iterable[str]) -> tuple[str, ...] | None:
    """A few strings of which one is in every text that holds one of `tokens`; None where there are none to rely on.

    They are looked for in the `repr` of messages too, so they hold nothing that this would write differently.
    """
    tokens = list(tokens)
    for most, length in product(_MOST_MARKERS, range(max(map(len, tokens), default=0), 1, -1)):
        found = {token[:length] for token in tokens}
        if len(found) <= most:
            safe = all(marker.isprintable() and not set(marker) & set("'\"\\") for marker in found)
            return tuple(sorted(found)) if safe else None
    return None


def holds_any(found: tuple[str, ...] | None, messages: Sequence[Mapping[str, Any]], tools: Any) -> bool:
    """Whether a marker is anywhere in what is said; what the prelude's own guard finds out."""
    if found is None:
        return True
    for message in messages:
        content = message["content"]
        said = content if len(message) == 2 and isinstance(content, str) else str(message)
        for marker in found:
            if marker in said:
                return True
    return bool(tools) and any(marker in str(tools) for marker in found)


def strings_of(value: Any) -> Iterator[str]:
    """Every text in messages or tools, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings_of(key)
            yield from strings_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings_of(item)


def broken(value: Any, tokens: Sequence[str]) -> Any:
    """What the prelude makes of messages or tools in which somebody says `tokens` (in the order of `control_tokens`)."""
    if isinstance(value, str):
        for token in [token for token in tokens if token in value]:
            value = value.replace(token, _broken(token))
        return value
    if isinstance(value, Mapping):
        return {broken(key, tokens): broken(item, tokens) for key, item in value.items()}
    return [broken(item, tokens) for item in value] if isinstance(value, (list, tuple)) else value


def _broken(token: str) -> str:
    """The token as text. One whose end is its beginning (`[[` in `[[[`) must not go on into what follows it either."""
    overlaps = any(token.endswith(token[:length]) for length in range(1, len(token)))
    return BREAK.join(token) + BREAK if overlaps else token[0] + BREAK + token[1:]


def _quoted(text: str) -> str:
    """A Jinja string literal."""
    return json.dumps(text, ensure_ascii=False)
