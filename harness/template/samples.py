"""Fixed conversations that probe a bound template: shapes, languages, tools, and control-token strings in every role.

`harness template verify` encodes them, serving sends them to an engine, `harness template show` prints one of them.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import TemplateError
from harness.nouns import Conversation, Message, ToolCall
from harness.template.differences import first_difference

if TYPE_CHECKING:
    from harness.template.encode import BoundTemplate

TOGETHER = 8  # control tokens in one hostile conversation, so that each fits a small context
UNICODE = " \t¿Où? é e\u0301 ﬁ 中文 한국어 🐦\u200d⬛ שלום\u00a0\u200b\ufeff\r\n{{ 7 * 7 }} {% if %} \\n \"'  \n\n"
CALL = "call00001"  # nine letters and digits, which some formats insist on

_system, _user, _assistant = (functools.partial(Message, role) for role in ("system", "user", "assistant"))


class ProbeConversation(NamedTuple):
    """A conversation that ends with an answer.

    If it holds control tokens, `harmless` has plain words in their place.
    """

    name: str
    conversation: Conversation
    harmless: Conversation | None = None


def samples(template: BoundTemplate) -> tuple[list[ProbeConversation], dict[str, str]]:
    """Return the fixed conversations that the template takes, and the names of the others with the reasons.

    Each control token of the tokenizer stands in one of them in the text of every role; of tokens that
    differ in a number only, as reserved ones do, the first is.
    """
    taken: list[ProbeConversation] = []
    left_out: dict[str, str] = {}
    thinks = template.habits.takes_thoughts and template.thinking != "off"
    for sample in _fixed(_different(template.broken_strings), thinks=thinks):
        sample = _in_its_places(template, sample)
        try:
            template.render(sample.conversation.messages, sample.conversation.tools)
        except TemplateError as error:
            left_out[sample.name] = str(error)
        else:
            taken.append(sample)
    return taken, left_out


def require_text(template: BoundTemplate, sample: ProbeConversation) -> None:
    """Require that control-token strings in messages stay text: the probe has the control tokens of its harmless twin.

    Raises:
        TemplateError: naming the control tokens that text of a message became.
    """
    if sample.harmless is None:
        return
    control = set(template.tokenizer.convert_tokens_to_ids(template.control_tokens))
    text, words = (_ids(template, conversation) for conversation in (sample.conversation, sample.harmless))
    ours, theirs = ([(at, id) for at, id in enumerate(ids) if id in control] for ids in (text, words))
    control_ids = [[id for _, id in some] for some in (ours, theirs)]
    if control_ids[0] == control_ids[1]:
        return
    same = first_difference(*control_ids)
    more, fewer = map(Counter, control_ids)
    counts = ", ".join(
        f"{token} {more[id]} times, not {fewer[id]}"
        for token, id in zip(
            template.control_tokens, template.tokenizer.convert_tokens_to_ids(template.control_tokens), strict=True
        )
        if more[id] != fewer[id]
    )
    raise TemplateError(
        f"template {template.name!r} makes control tokens of what somebody says, in the conversation `{sample.name}`"
        f"{f' ({counts})' if counts else ''}:\n"
        f"  said:     {_around(template, text, ours, same)}\n  in words: {_around(template, words, theirs, same)}"
    )


def example(template: BoundTemplate) -> tuple[Conversation, dict[str, str]]:
    """Return a conversation with a system prompt, tools and two exchanges, as far as the template takes them.

    The dict has the reason for each part that is left out. If the template takes each of them but not all in one
    conversation, as few as possible are left out.

    Raises:
        TemplateError: if the template does not even take a question and its answer.
    """
    places = {
        "a second exchange": template.takes_turns,
        "tools": template.takes_tools,
        "a system prompt": template.takes_system,
    }
    left_out = {part: "the template does not support it" for part, taken in places.items() if not taken}
    there = [part for part in places if part not in left_out]
    refusal = ""
    for without in (some for count in range(len(there) + 1) for some in itertools.combinations(there, count)):
        turns, tools, system = (part in there and part not in without for part in places)
        conversation = _example(system, tools, turns)
        try:
            template.encode_batch([conversation])
        except TemplateError as error:
            refusal = refusal or str(error)
            if len(without) == len(there):
                raise
        else:
            return conversation, left_out | dict.fromkeys(without, refusal)
    raise AssertionError("a question and its answer are tried at last")


def _example(system: bool, tools: bool, turns: bool) -> Conversation:
    messages = [_system("You help at the mill. Answer briefly.")] if system else []
    messages.append(_user("Where is the silver key?"))
    offered: tuple[Mapping[str, Any], ...] = ()
    if tools:
        offered = (_tool("look_up", "Looks up who keeps a thing.", "thing"),)
        messages.append(_assistant("", (ToolCall("look_up", {"thing": "silver key"}, CALL),)))
        messages.append(Message("tool", '{"keeper": "the heron"}', tool_call_id=CALL))
    messages.append(_assistant("The heron keeps it."))
    if turns:
        messages += [_user("Since when?"), _assistant("Since May.")]
    return Conversation(tuple(messages), offered)


def _fixed(control_tokens: Sequence[str], *, thinks: bool) -> Iterator[ProbeConversation]:
    asked, answer = _user("Who keeps the key?"), _assistant("The heron.")
    if thinks:
        thought, again = _assistant("The heron.", reasoning="She has it."), _assistant("Yes.", reasoning="I looked.")
        yield _sample("thoughts", asked, thought, _user("Sure?"), again)
    yield _sample("plain", asked, answer)
    yield _sample("system", _system("Answer briefly."), asked, answer)
    yield _sample(
        "multi-turn",
        asked,
        answer,
        _user("Since when?"),
        _assistant("Since May."),
        _user("Why?"),
        _assistant("She asked."),
    )
    yield _sample("unicode", _user(UNICODE), _assistant(UNICODE.strip()))
    silver = "silver 🗝 é"
    tool = _tool("look_up", 'Looks\nit up: "é"', "key")
    yield _sample("tools", *_tool_talk(silver, _call("look_up", "key", silver, CALL)), tools=(tool,))
    calls = [_call("look_up", "key", text, id) for text, id in ((silver, CALL), ("brass", "call00002"))]
    yield _sample("two calls", *_tool_talk(silver, *calls), tools=(tool,))
    for number, at in enumerate(range(0, len(control_tokens), TOGETHER), 1):
        which = f" {number}" if len(control_tokens) > TOGETHER else ""
        text = " ".join(control_tokens[at : at + TOGETHER])
        yield ProbeConversation(f"hostile{which}", _hostile_talk(f"hostile{which}", text), _hostile_talk("", "words"))
        if thinks:
            name = f"hostile thoughts{which}"
            yield ProbeConversation(name, _hostile_thoughts(name, text), _hostile_thoughts("", "words"))
        yield ProbeConversation(
            f"hostile tools{which}", _hostile_tools(f"hostile tools{which}", text), _hostile_tools("", "words")
        )


def _sample(name: str, *messages: Message, tools: tuple[Mapping[str, Any], ...] = ()) -> ProbeConversation:
    return ProbeConversation(name, Conversation(messages, tools, id=f"`{name}`", source="fixed conversation"))


def _hostile_talk(name: str, text: str) -> Conversation:
    messages = (_system(text), _user(text), _assistant(f"x {text} x"), _user(f"{text}\n{text}"), _assistant(text))
    return _sample(name, *messages).conversation


def _hostile_thoughts(name: str, text: str) -> Conversation:
    thoughts = (_assistant(f"x {text} x", reasoning=f"y {text} y") for _ in range(2))
    return _sample(name, _user(text), next(thoughts), _user(text), next(thoughts)).conversation


def _hostile_tools(name: str, text: str) -> Conversation:
    tool = _tool(f"look{text}", text, f"key {text}")
    return _sample(name, *_tool_talk(text, _call(f"look{text}", f"key {text}", text, CALL)), tools=(tool,)).conversation


def _tool_talk(text: str, *calls: ToolCall) -> tuple[Message, ...]:
    result = json.dumps({"found": text}, ensure_ascii=False)
    results = (Message("tool", result, tool_call_id=call.id) for call in calls)
    return (_user("Is it there?"), _assistant("", calls), *results, _assistant("It is."))


def _call(name: str, argument: str, text: str, id: str) -> ToolCall:
    more = {"often": 3, "far": 0.5, "sure": True, "nobody": None, "within": {"z": [text, 1], "a": {}}}
    return ToolCall(name, {argument: text} | more, id)


def _tool(name: str, description: str, parameter: str) -> dict[str, Any]:
    properties = {parameter: {"type": "string", "description": description}}
    schema = {"type": "object", "properties": properties, "required": [parameter]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def _different(tokens: Sequence[str]) -> list[str]:
    """Return the first of each group of tokens that differ only by a number (some vocabularies reserve a thousand)."""
    return list({re.sub(r"\d+", "0", token): token for token in reversed(tokens)}.values())


def _in_its_places(template: BoundTemplate, sample: ProbeConversation) -> ProbeConversation:
    """Return a hostile conversation without the parts that the template does not take, so that each is tried."""
    if sample.harmless is None or sample.conversation.tools:
        return sample

    def cut(conversation: Conversation) -> Conversation:
        messages = tuple(one for one in conversation.messages if one.role != "system" or template.takes_system)
        return replace(conversation, messages=messages if template.takes_turns else messages[:-2])

    return ProbeConversation(sample.name, cut(sample.conversation), cut(sample.harmless))


def _ids(template: BoundTemplate, conversation: Conversation) -> list[int]:
    (ids,) = template.ids_of([template.render(conversation.messages, conversation.tools)])
    return ids


def _around(template: BoundTemplate, ids: list[int], control: list[tuple[int, int]], number: int) -> str:
    """Return the text around the control token `number`, or the end of the text where there are fewer."""
    at = control[number][0] if number < len(control) else len(ids)
    return f"…{template.tokenizer.decode(ids[max(0, at - 8) : at + 8])!r}"
