"""Escaping: a control-token string inside a message stays ordinary text. Messages of unsupported kinds are refused.

vLLM parses control tokens anywhere in a rendered prompt. The only protection that works in training and in serving
alike is to break such strings before the template sees them. A prelude does that, in Jinja, as part of the
saved template: it goes through every string of `messages`, `tools` and `documents`, keys and nested arguments included,
and puts a zero-width space behind the first character of each control-token string (behind the slash of a closing tag,
since some templates obey words such as `/think`), or behind every one where the string can overlap itself. All other
text is untouched.
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
_MAX_MARKERS = (8, 32)  # tried in this order; some vocabularies have a thousand control tokens of many kinds

_BEGIN = "{#- Written by the harness; the template itself is further down. -#}\n"
_REFUSE = """\
{%- for message in messages -%}
  {%- if message.content is none and message.role != "assistant" -%}
    {{- raise_exception("message " ~ loop.index ~ " (" ~ message.role ~ ") says nothing: its content is null") -}}
  {%- endif -%}
{%- endfor -%}
"""
_THOUGHTS = """\
{#- vLLM passes thoughts on as `reasoning`; this template reads them as `@FIELD@`. -#}
{%- set _all = namespace(messages=[]) -%}
{%- for message in messages -%}
  {%- set message = dict(message, @FIELD@=@VALUE@) if message.reasoning else message -%}
  {%- set _all.messages = _all.messages + [message] -%}
{%- endfor -%}
{%- set messages = _all.messages -%}
"""
_TEXT = '[{"type": "text", "text": message.content}] if message.content else []'
_VALUES = {  # of the fields that are not the thoughts themselves: parts of the content, of which some may be there
    "content": "message.content if message.content is not string and message.content"
    " and message.content[0].type == 'thinking' else [{'type': 'thinking', 'thinking': message.reasoning}]"
    f" + ({_TEXT} if message.content is string else message.content or [])"
}
_NAMED_CALLS = """\
{#- This template writes calls by their ids alone, which have to name the tool: `functions.NAME:NUMBER`. -#}
{%- set _ids = namespace(messages=[], named={}, waiting=[], count=0) -%}
{%- for message in messages -%}
  {%- if message.tool_calls -%}
    {%- set _new = namespace(calls=[], ids=[]) -%}
    {%- for call in message.tool_calls -%}
      {%- set stem, id = "functions." ~ call.function.name ~ ":", call.id | default("", true) -%}
      {%- set named = id if id.startswith(stem) else stem ~ _ids.count -%}
      {%- set _ids.named = dict(_ids.named, **{id: named}) -%}{%- set _ids.count = _ids.count + 1 -%}
      {%- set _new.calls = _new.calls + [dict(call, id=named)] -%}{%- set _new.ids = _new.ids + [named] -%}
    {%- endfor -%}
    {%- set _ids.waiting = _new.ids -%}
    {%- set message = dict(message, tool_calls=_new.calls) -%}
  {%- elif message.role == "tool" -%}
    {%- set id = message.tool_call_id | default("", true) -%}
    {%- set named = _ids.named[id] if id and id in _ids.named else _ids.waiting | first | default(id, true) -%}
    {%- set message = dict(message, tool_call_id=named) -%}{%- set _ids.waiting = _ids.waiting[1:] -%}
  {%- endif -%}
  {%- set _ids.messages = _ids.messages + [message] -%}
{%- endfor -%}
{%- set messages = _ids.messages %}
"""
_PLACES = {  # with the Jinja expression that is true for a conversation that needs one
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
    """Return the strings that this tokenizer turns into control tokens anywhere in a text, longest first.

    These are its added tokens that are marked special or are `stops`, and of the others those that look like control
    tokens: no white space, no words (of a vocabulary that was given those of a trade), and plain tags such as <table>
    only where the template `source` writes them.
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
    source: str,
    tokens: Sequence[str],
    refusals: Mapping[str, str] | None = None,
    roles: Sequence[str] | None = None,
    thoughts: str | None = None,
) -> str:
    """Return the template `source` with a prelude that breaks `tokens` and refuses unsupported messages.

    `refusals` are messages for what that is: "a system prompt", "tools", "more than one exchange". Messages of other
    `roles` are refused, where these are given. `thoughts` is the name under which the template reads thoughts, where
    that is not one that vLLM uses. A prelude that it has already, of another run with other tokens perhaps,
    gives way to this one.
    """
    prelude = _BEGIN + _REFUSE
    for what, message in (refusals or {}).items():
        prelude += f"{{%- if {_PLACES[what]} -%}}{{{{- raise_exception({_quoted(message)}) -}}}}{{%- endif -%}}\n"
    if roles:
        other = f"messages | rejectattr('role', 'in', {json.dumps(list(roles))}) | map(attribute='role') | first"
        prelude += (
            f"{{%- set _other = {other} -%}}{{%- if _other is defined -%}}"
            f"{{{{- raise_exception('the chat template does not support a message of the role ' ~ _other) -}}}}{{%- "
            f"endif -%}}\n"
        )
    if tokens:
        # A list that Jinja goes through: neither Jinja nor Python nests a thousand calls of a filter.
        control = ", ".join(f"({_quoted(token)}, {_quoted(_with_breaks(token))})" for token in tokens)
        marks = markers(tokens)
        guard = "true" if marks is None else " or ".join(f"{_quoted(marker)} in _said" for marker in marks)
        prelude += _PROTECT.replace("@CONTROL@", control).replace("@GUARD@", guard)
    if thoughts:
        prelude += _THOUGHTS.replace("@FIELD@", thoughts).replace("@VALUE@", _VALUES.get(thoughts, "message.reasoning"))
    return prelude + END + unprotected(source)


def with_named_calls(source: str) -> str:
    """Return the template with ids of calls and results that name the tool. Ids that do stay as they are."""
    return _NAMED_CALLS + source


def with_default(source: str, *variables: tuple[str, Any]) -> str:
    """Return the template with values for variables that a request does not set."""
    lines = (f"{{%- set {name} = {name} | default({json.dumps(value)}) %}}\n" for name, value in variables)
    prelude, end, own = source.partition(END) if source.startswith(_BEGIN) else ("", "", source)
    return prelude + end + "".join(lines) + own


def unprotected(source: str) -> str:
    """Return the template without its prelude.

    It renders the same text as with it, unless a message holds a control token or is refused.
    """
    return source.partition(END)[2] if source.startswith(_BEGIN) else source


def markers(tokens: Iterable[str]) -> tuple[str, ...] | None:
    """Return a few strings such that every text that holds one of `tokens` holds one of them; None if there are none.

    They are looked for in the `repr` of messages too, so they hold only characters that `repr` leaves unchanged.
    """
    tokens = list(tokens)
    for limit, length in product(_MAX_MARKERS, range(max(map(len, tokens), default=0), 1, -1)):
        prefixes = {token[:length] for token in tokens}
        if len(prefixes) <= limit:
            safe = all(marker.isprintable() and not set(marker) & set("'\"\\") for marker in prefixes)
            return tuple(sorted(prefixes)) if safe else None
    return None


def holds_any(marks: tuple[str, ...] | None, messages: Sequence[Mapping[str, Any]], tools: Any) -> bool:
    """Return whether a marker is in a message or tool, as the guard of the prelude decides it."""
    if marks is None:
        return True
    for message in messages:
        content = message["content"]
        text = content if len(message) == 2 and isinstance(content, str) else str(message)
        for marker in marks:
            if marker in text:
                return True
    return bool(tools) and any(marker in str(tools) for marker in marks)


def strings_of(value: Any) -> Iterator[str]:
    """Yield every text in messages or tools, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings_of(key)
            yield from strings_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings_of(item)


def escaped(value: Any, tokens: Sequence[str]) -> Any:
    """Return messages or tools with `tokens` broken, as the prelude does it (in the order of `control_tokens`)."""
    if isinstance(value, str):
        for token in [token for token in tokens if token in value]:
            value = value.replace(token, _with_breaks(token))
        return value
    if isinstance(value, Mapping):
        return {escaped(key, tokens): escaped(item, tokens) for key, item in value.items()}
    return [escaped(item, tokens) for item in value] if isinstance(value, (list, tuple)) else value


def _with_breaks(token: str) -> str:
    """Return the token with breaks in it, so that it is ordinary text.

    A token that can overlap itself, such as `[[` in `[[[`, gets a break behind every character.
    """
    overlaps = any(token.endswith(token[:length]) for length in range(1, len(token)))
    at = 2 if token.startswith("</") else 1
    return BREAK.join(token) + BREAK if overlaps else token[:at] + BREAK + token[at:]


def _quoted(text: str) -> str:
    """Return a Jinja string literal."""
    return json.dumps(text, ensure_ascii=False)
