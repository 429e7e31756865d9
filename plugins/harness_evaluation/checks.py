"""Checks of an answer by program: each is a function of the answer and its arguments, true or false.

An answer is read as a person would read it: thoughts are cut off, a fence around JSON is no part of it, and a question
that it quotes is not the answer to it. An empty answer passes no check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_THOUGHTS = re.compile(r"\A\s*<(think|thinking|reasoning|thought)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_UNOPENED = re.compile(r"\A.*</(think|thinking|reasoning|thought)>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"\A```[\w+-]*[ \t]*\n(.*?)\n?```\Z", re.DOTALL)
_BULLET = re.compile(r"\s*(?:[-*•–]|\d+[.)])\s+\S")
_MARKER = re.compile(
    r"<\|[\w ]{1,40}\|>|<｜[^<>]{1,40}｜>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|</?s>"
    r"|^[ \t]*#{1,4}[ \t]*(?:instruction|response|input|user|human|assistant|system|question|answer)\b"
    r"|^[ \t*_]*(?:user|human|assistant|system|ai|bot|question|q|you)[ \t*_]*:",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s+[^\sa-z]|\s*\Z)")
_OFFER = re.compile(r"(?:\A|(?<=[.!\n]))[^.!?\n]*\b(?:you|anything else)\b[^.!?\n]*\?\W*\Z", re.IGNORECASE)
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|vs|etc|e\.g|i\.e|a\.m|p\.m|No|[A-Z])\.(?=\s)")
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»"}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
    "object": (dict,),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Given:
    """An answer to be checked: its text without thoughts, how it ended, the question, and the tools offered."""

    text: str
    finish: str = "stop"
    question: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def own(self) -> str:
        """The text without the question, where it quotes that word for word."""
        asked = self.question.strip()
        return re.sub(re.escape(asked), " ", self.text, flags=re.IGNORECASE) if len(asked) > 3 else self.text


def without_thoughts(text: str) -> str:
    """Return an answer without thoughts written between common marks; nothing is left of thoughts that do not end."""
    text = _THOUGHTS.sub("", text, count=1)
    return _UNOPENED.sub("", text, count=1).strip()


# What it says


def says(given: Given, any: Sequence[str] = (), all: Sequence[str] = (), within_sentences: int | None = None) -> bool:
    """Check that the answer has one of the texts, and every one of others, as whole words; the case does not matter."""
    text = given.own
    if within_sentences is not None:
        places = [end.end() for end in _sentence_ends(text)]
        text = text[: places[within_sentences - 1]] if len(places) >= within_sentences else text
    return (not any or _has_one(text, any)) and _has_all(text, all)


def lacks(given: Given, any: Sequence[str]) -> bool:
    """Check that the answer has none of the texts as whole words."""
    return not _has_one(given.text, any)


def equals(given: Given, any: Sequence[str]) -> bool:
    """Check that the answer is one of the texts and nothing else; case, quotes and punctuation around do not matter."""
    return _bare(given.text) in map(_bare, any)


def asks_nothing(given: Given) -> bool:
    """Check that the answer puts no question, which a model does that goes on with the text.

    An offer to the user at its end is none.
    """
    return "?" not in _OFFER.sub("", given.own)


# Its form


def is_json(given: Given, keys: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> bool:
    """Check that the answer is one JSON object with exactly these keys, and these values where they are given.

    It may stand in a fence; words around it are too much. Texts are compared without case.
    """
    value = json_of(given.text)
    if not isinstance(value, dict) or (keys and set(value) != set(keys)):
        return False
    return all(_alike(value.get(key), wanted) for key, wanted in (values or {}).items())


def is_list(given: Given, n: int, numbered: bool | None = None) -> bool:
    """Check that the answer has n list items, one a line, before and behind which there is at most one line."""
    lines = [line for line in given.text.splitlines() if line.strip()]
    items = [number for number, line in enumerate(lines) if _BULLET.match(line)]
    if len(items) != n or items != list(range(items[0], items[0] + n)) or items[0] > 1 or len(lines) - items[-1] > 2:
        return False
    with_numbers = [bool(re.match(r"\s*\d", lines[number])) for number in items]
    return numbered is None or all(one == numbered for one in with_numbers)


def has_words(given: Given, exactly: int | None = None, least: int = 1, most: int | None = None) -> bool:
    """Check the number of words."""
    return _counts(len(given.text.split()), exactly, least, most)


def has_sentences(given: Given, exactly: int | None = None, least: int = 1, most: int | None = None) -> bool:
    """Check the number of sentences; a last one without a full stop counts too."""
    places = _sentence_ends(given.text)
    rest = given.text[places[-1].end() :] if places else given.text
    return _counts(len(places) + bool(re.search(r"\w", rest)), exactly, least, most)


def has_lines(given: Given, exactly: int | None = None, least: int = 1, most: int | None = None) -> bool:
    """Check the number of lines that are not empty."""
    return _counts(sum(bool(line.strip()) for line in given.text.splitlines()), exactly, least, most)


def is_upper(given: Given) -> bool:
    """Check that every letter is a capital, and that there are letters."""
    return given.text.isupper()


def is_lower(given: Given) -> bool:
    """Check that no letter is a capital, and that there are letters."""
    return given.text.islower()


def is_quoted(given: Given) -> bool:
    """Check that the whole answer stands in one pair of double quotes."""
    text = given.text
    closing = _QUOTES.get(text[:1])
    return len(text) > 2 and closing is not None and text.endswith(closing) and closing not in text[1:-1]


def starts(given: Given, text: str) -> bool:
    """Check how the answer begins; the case does not matter."""
    return given.text.lower().startswith(text.lower())


def ends(given: Given, text: str) -> bool:
    """Check how the answer ends; the case, and a full stop behind, do not matter."""
    return given.text.rstrip(" .!\n").lower().endswith(text.rstrip(" .!").lower())


def separates(given: Given, n: int, by: str = ",") -> bool:
    """Check that the answer is n short texts on one line, with a separator between them."""
    parts = [part.strip() for part in given.text.rstrip(".").split(by)]
    return "\n" not in given.text and len(parts) == n and all(0 < len(part.split()) <= 4 for part in parts)


# Its bounds


def stops(given: Given) -> bool:
    """Check that the model ended its turn itself."""
    return given.finish == "stop"


def is_one_turn(given: Given) -> bool:
    """Check that the answer has no mark or label of a role: none of the next turn, none of its own."""
    return _MARKER.search(given.text) is None


# Tools


def calls(given: Given, name: str, arguments: Mapping[str, Any]) -> bool:
    """Check that the answer is one call of a tool with these arguments, and valid by the tool's own description.

    An argument whose wanted value is a list may be any of it.
    """
    made_calls = tool_calls_in(given.text)
    if len(made_calls) != 1 or made_calls[0][0] != name:
        return False
    given_arguments = made_calls[0][1]
    if set(given_arguments) != set(arguments) or not _is_valid(name, given_arguments, given.tools):
        return False
    return all(
        any(_alike(given_arguments[key], one) for one in (wanted if isinstance(wanted, list) else [wanted]))
        for key, wanted in arguments.items()
    )


def calls_nothing(given: Given) -> bool:
    """Check that the answer calls no tool."""
    return not tool_calls_in(given.text)


CHECKS: dict[str, Callable[..., bool]] = {
    check.__name__: check
    for check in (
        says, lacks, equals, asks_nothing, is_json, is_list, has_words, has_sentences, has_lines, is_upper, is_lower,
        is_quoted, starts, ends, separates, stops, is_one_turn, calls, calls_nothing,
    )
}  # fmt: skip


def passes(given: Given, name: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether an answer passes the check of this name. An empty one passes none."""
    return bool(given.text.strip()) and CHECKS[name](given, **arguments)


# Reading answers


def json_of(text: str) -> Any:
    """Return the JSON value that a text is, in a fence or not; None where it is none, or is more than that."""
    text = text.strip()
    if fence := _FENCE.match(text):
        text = fence[1].strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def tool_calls_in(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls in an answer as (name, arguments), in the forms in which chat templates write them.

    These are JSON objects with a name and arguments (between marks, in a list, or alone), `<function=name>` with
    `<parameter=key>` elements, and `[name(key="value")]`.
    """
    calls = [call for value in _json_values(text) for call in _calls_of(value)]
    for name, body in re.findall(r"<function=([\w.-]+)>(.*?)(?:</function>|\Z)", text, re.DOTALL):
        parameters = re.findall(r"<parameter=([\w.-]+)>\s*(.*?)\s*(?:</parameter>|\Z)", body, re.DOTALL)
        calls.append((name, {key: _value(value) for key, value in parameters}))
    if not calls and (listing := re.fullmatch(r"\s*\[?\s*(\w+)\(([^()]*)\)\s*\]?\s*", text)):
        pairs = re.findall(r"(\w+)\s*=\s*(\"[^\"]*\"|'[^']*'|[^,\s]+)", listing[2])
        calls.append((listing[1], {key: _value(value.replace("'", '"')) for key, value in pairs}))
    return calls


def _json_values(text: str) -> list[Any]:
    """Return the JSON objects and lists in a text, none that is a part of another."""
    values, at, decoder = [], 0, json.JSONDecoder()
    while (begin := re.compile(r"[\[{]").search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, begin.start())
            values.append(value)
        except (ValueError, RecursionError):
            at = begin.start() + 1
    return values


def _calls_of(value: Any) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(value, list):
        return [call for one in value for call in _calls_of(one)]
    if not isinstance(value, dict):
        return []
    value = value["function"] if isinstance(value.get("function"), dict) else value
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = json_of(arguments)
    return [(value["name"], arguments)] if isinstance(value.get("name"), str) and isinstance(arguments, dict) else []


def _is_valid(name: str, arguments: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a tool of this name was offered, and the arguments have the types that it declares."""
    functions = {tool.get("function", tool)["name"]: tool.get("function", tool) for tool in tools}
    if name not in functions:
        return False
    schema = functions[name].get("parameters", {})
    properties = schema.get("properties", {})
    if any(key not in properties for key in arguments) or any(
        key not in arguments for key in schema.get("required", ())
    ):
        return False
    return all(
        isinstance(value, _TYPES.get(properties[key].get("type"), (object,)))
        and (properties[key].get("type") == "boolean" or not isinstance(value, bool))
        and ("enum" not in properties[key] or value in properties[key]["enum"])
        for key, value in arguments.items()
    )


def _value(text: str) -> Any:
    value = json_of(text)
    return text.strip() if value is None else value


def _alike(value: Any, wanted: Any) -> bool:
    """Return whether a value is the wanted one; texts without case and outer white space."""
    if isinstance(value, str) and isinstance(wanted, str):
        return _bare(value) == _bare(wanted)
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted)


def _bare(text: str) -> str:
    return " ".join(text.split()).strip(" .!?,;:\"'“”*_`()").lower()


def _has_one(text: str, texts: Sequence[str]) -> bool:
    return any(_has(text, one) for one in texts)


def _has_all(text: str, texts: Sequence[str]) -> bool:
    return all(_has(text, one) for one in texts)


def _has(text: str, part: str) -> bool:
    """Return whether a text has a part between two ends of words, with any white space in it."""
    words = r"\s+".join(map(re.escape, part.split()))
    before, behind = (r"(?<!\w)" if part[:1].isalnum() else ""), (r"(?!\w)" if part[-1:].isalnum() else "")
    return re.search(before + words + behind, text, re.IGNORECASE) is not None


def _sentence_ends(text: str) -> list[re.Match[str]]:
    masked = _ABBREVIATION.sub(lambda match: match[0][:-1] + "_", text)
    return list(_SENTENCE_END.finditer(masked))


def _counts(number: int, exactly: int | None, least: int, most: int | None) -> bool:
    return number == exactly if exactly is not None else number >= least and (most is None or number <= most)
