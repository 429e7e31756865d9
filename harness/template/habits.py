"""Habits of a template, found by trial: thoughts and their marks, switches, ends of answers, history that changes.

Small conversations with unmistakable words are rendered and compared. Nothing is taken from a list of known models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from harness.errors import TemplateError
from harness.template.differences import first_difference

Thinking = Literal["auto", "on", "off"]
Value = bool | int | str  # of a switch
Turn = dict[str, Any]
Render = Callable[..., str]  # (messages, tools, generation_prompt, variables) -> text

THOUGHT = "probe thought"
_MARK = re.compile(r"<[^<>\s/]{1,30}>|</[^<>\s]{1,30}>|<[^<>\s]{1,30}\|>|\[/?[A-Z_]{2,30}\]")
_CLOSES_A_THOUGHT = re.compile(r"</(?:think|thinking|thought|thoughts|reasoning|reason)>|\[/THINK\]")
_OPENS_A_THOUGHT = re.compile(r"(<(?:think|thinking|thought|thoughts|reasoning|reason)>|\[THINK\])\s*\Z")
_NAMED = re.compile(rf"(?:{_MARK.pattern})\w+(?:{_MARK.pattern})")
_SWITCH = re.compile(r"(?<![\w.'\"])[a-z_]*(?:think|reason)[a-z_]*(?![\w(])")
_CODE = re.compile(r"{[{%].*?[%}]}", re.DOTALL)
_EMPTY = re.compile(
    rf"(?P<opening>{_MARK.pattern})(?P<label>\w*)(?P<within>\s*)(?P<closing>{_MARK.pattern})(?P<behind>\s*)\Z"
)
_PART = re.compile(r"""\.type\b.*['"]thinking['"]|\[['"]type['"]\].*['"]thinking['"]""")
_EFFORTS, _NO_EFFORT = ("high", "medium", "low"), ("no_think", "none")  # words of effort that some templates take
_BUDGET = (-1, 0)  # tokens of thoughts: as many as it takes, or none
_COMMAND = re.compile(r"""['"](/[a-z_]{3,20})['"]""")
_FIELDS = ("thinking", "thought", "tool_plan", "reasoning_text")  # names of thoughts that vLLM does not pass on


@dataclass(frozen=True)
class Habits:
    """The habits of a template around the words of an answer.

    `marks` open and close a thought. `writes_thoughts` says that the template writes thoughts of the last answer
    itself; where it has them in no answer, the model writes `opens`, the thought and `closes`. `thoughtless` says why
    thoughts that the template writes cannot be trained on. `field` is a name under which the template reads thoughts
    and that vLLM does not use; `content`, where it reads them as a part of that. `switch` is the variable that turns
    thinking on and off, by its `values`, and `thinks` if it is on where nobody sets it. `grows` says that a
    conversation without thoughts is rendered as its prompts and answers one behind the other. `ends` are what ends an
    answer in words, and one with calls, where the template writes that only once the next message is there. `trailer`
    stands behind the stop token of the last answer. `header` is what asks for an answer. `frames` are what stands
    before thoughts, between them and the words, and behind these. `stops` are the stop tokens, each with the place that
    names it. `commands` are words, such as `/no_think`, that it obeys where somebody says them, and does not write.
    """

    marks: tuple[str, ...] = ()
    writes_thoughts: bool = False
    opens: str = ""
    closes: str = ""
    thoughtless: str = ""
    field: str | None = None
    switch: str | None = None
    values: tuple[Value, Value] = (True, False)
    thinks: bool = False
    grows: bool = True
    ends: tuple[str, str] = ("", "")
    trailer: str = ""
    header: str = ""
    frames: tuple[tuple[str, str, str], ...] = ()
    stops: tuple[tuple[str, str], ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def takes_thoughts(self) -> bool:
        """True if thoughts have a place."""
        return not self.thoughtless and (self.writes_thoughts or bool(self.closes))

    def variables(self, thinks: bool) -> dict[str, Any]:
        """Return what sets the switch, if there is one."""
        return {self.switch: self.values[0 if thinks else 1]} if self.switch else {}

    def as_dict(self) -> dict[str, Any]:
        """Return the habits as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Habits:
        """Return the habits that `as_dict` was called on."""
        frames = tuple((before, between, after) for before, between, after in saved["frames"])
        words, calls = saved["ends"]
        on, off = saved.get("values", (True, False))
        lists = {"marks": tuple(saved["marks"]), "ends": (words, calls), "frames": frames, "values": (on, off)}
        lists["commands"] = tuple(saved.get("commands", ()))
        lists["stops"] = tuple((stop, source) for stop, source in saved.get("stops", ()))
        return cls(**{**saved, **lists})


@dataclass(frozen=True)
class Ends:
    """The end of an answer: the stop token, what stands around it, and if it comes only with the next message."""

    stop: str
    late: str = ""
    trailer: str = ""
    before: tuple[str, ...] = ()


def end_of_answer(
    alone: str,
    continued: str | None,
    words: str,
    control: Sequence[str],
    between: str = "",
    known: Sequence[str] = (),
) -> Ends | None:
    """Return the end of the answer that ends with `words`, in a text where it is last and one where a message follows.

    The stop token is the last control token behind the words that stays when the conversation goes on, if possible one
    of the `known`; where none stays, the first. Where none is there, or none that is known, it is the one that the next
    message brings. None if there is no control token. What stands `between` two calls ends a call, not the answer.
    """
    tokens = re.compile("|".join(map(re.escape, control))) if control else None
    tail = _behind_last(alone, words)
    more = "" if continued is None else _behind_first(continued, words, alone)
    if tokens is None:
        return None
    same = tail[: first_difference(tail, more)] if continued is not None else tail
    there = [match for match in tokens.finditer(tail) if match[0] not in between]
    written = tail.rstrip()
    if there and not more.startswith(written):
        written = "".join(more.partition(there[-1][0])[:2])
    late = re.compile(rf"\s*({tokens.pattern})").match(more, len(written)) if more.startswith(written) else None
    if there and not (late and late[1] in known and not any(match[0] in known for match in there)):
        kept = [match for match in there if match.end() <= len(same)]
        usual = [match for match in kept or there if match[0] in known]
        stop = (usual or kept)[-1] if kept else (usual or there)[0]
        gone = [match for match in there if kept and match.start() >= stop.end()]
        before = tuple(match[0] for match in there if match.end() <= stop.start() and match[0] != stop[0])
        return Ends(stop[0], trailer=tail[gone[0].start() :].strip() if gone else "", before=before)
    before = tuple(match[0] for match in there)
    return Ends(late[1], late=late[0], before=before) if late else None


def _behind_last(text: str, words: str) -> str:
    return text[text.rindex(words) + len(words) :]


def _behind_first(text: str, words: str, alone: str) -> str:
    """Return what follows the words where `alone` has them for the last time."""
    before = alone[: alone.rindex(words)].count(words)
    parts = text.split(words, before + 1)
    return parts[-1] if len(parts) == before + 2 else ""


def thoughts_of(render: Render, raw: Render, source: str, question: Turn, answer: Turn) -> Habits:
    """Return the habits that concern thoughts: marks, fields and the switch.

    `raw` renders without breaking control tokens in messages.
    """
    habits = Habits(**_switch(render, source, question))
    on = habits.variables(True)
    prompt = render([question], None, True, on)
    fields = [field for field in _FIELDS if field in source]
    for field in (None, *fields, *(["content"] if _PART.search(source) else [])):
        try:
            text = render([question, with_thoughts(answer, THOUGHT, field)], None, False, on)
        except TemplateError:
            continue
        if THOUGHT in text and answer["content"] in text:
            before, _, rest = text.partition(THOUGHT)
            between = rest.partition(answer["content"])[0]
            marks = _marks(prompt, before, between)
            closes = _up_to(marks[1], between) if marks else ""
            return replace(habits, writes_thoughts=True, field=field, marks=marks, closes=closes)
    # It may have thoughts in no answer, and strip them out of earlier ones: then the model alone writes them.
    if (closed := _CLOSES_A_THOUGHT.search(source)) and _strips(raw, question, answer, closed[0]):
        opening, closing = closed[0].replace("/", ""), closed[0]
        opens, closes = f"{opening}\n", f"\n{closing}\n\n"
    elif opened := _OPENS_A_THOUGHT.search(prompt):
        opening, closing = opened[1], f"{opened[1][0]}/{opened[1][1:]}"
        opens, closes = f"{opening}\n", f"\n{closing}\n\n"
    elif block := _empty_thought(render, habits, question, answer, prompt):
        opening, closing = block["opening"], block["closing"]
        label, within = block["label"], block["within"]
        half = len(within) if label else len(within) // 2  # a label has a line of its own
        opens = opening + label + within[:half]
        closes = within[0 if label else half :] + closing + block["behind"]
    else:
        return habits
    return replace(habits, marks=(opening, closing), opens=opens, closes=closes)


def commands_of(render: Render, source: str, *messages: Turn) -> tuple[str, ...]:
    """Return the words that the template takes out of one of the messages (the last is a question), longest first."""

    def obeys(command: str, message: Turn) -> bool:
        commanded = message | {"content": f"{message['content']} {command}"}
        try:
            text = render([commanded] if message is messages[-1] else [commanded, messages[-1]], None, True)
        except TemplateError:
            return False
        return message["content"] in text and commanded["content"] not in text

    named = dict.fromkeys(_COMMAND.findall(source))
    return tuple(sorted((one for one in named if any(obeys(one, each) for each in messages)), key=len, reverse=True))


def _empty_thought(render: Render, habits: Habits, question: Turn, answer: Turn, prompt: str) -> re.Match[str] | None:
    """Return the empty thought that the prompt without thinking ends with, or that every answer begins with."""
    if habits.switch:
        off = render([question], None, True, habits.variables(False))
        if (block := _EMPTY.search(off)) and not prompt.endswith(block[0]):
            return block
    whole = render([question, answer], None, False, habits.variables(True))
    begin = whole.removeprefix(prompt).partition(answer["content"])[0] if whole.startswith(prompt) else ""
    block = _EMPTY.search(begin)
    return block if block and _CLOSES_A_THOUGHT.fullmatch(block["closing"]) else None


def _strips(raw: Render, question: Turn, answer: Turn, closing: str) -> bool:
    """Return whether the template takes a thought in tags out of the text of an earlier answer."""
    opening, words = closing.replace("/", ""), answer["content"]
    tagged = answer | {"content": f"{opening}\n{THOUGHT}\n{closing}\n\n{words}"}
    try:
        text = raw([question, tagged, question], None, False)
    except TemplateError:
        return False
    return THOUGHT not in text and words in text


def with_thoughts(message: Turn, thoughts: str, field: str | None) -> Turn:
    """Return the message with thoughts under the names that vLLM passes on, and under `field`."""
    message = message | {"reasoning": thoughts, "reasoning_content": thoughts}
    if field == "content":
        words = [{"type": "text", "text": message["content"]}] if message["content"] else []
        return message | {"content": [{"type": "thinking", "thinking": thoughts}, *words]}
    return message | ({field: thoughts} if field else {})


def words_of(message: Mapping[str, Any]) -> str:
    """Return the words of a message as the template gets it."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _marks(prompt: str, before: str, between: str) -> tuple[str, ...]:
    """Return the marks around a thought: the first mark behind it, and that mark's counterpart or what opens it.

    The counterpart may stand at the end of the prompt. A mark can have a name of its own with a tag on either side.
    Where there are no tags, all that the template writes is a mark.
    """
    tag, named = _MARK.search(between), _NAMED.search(between)
    label = re.search(r"\w*\s*\Z", before)
    bare = before[: label.start()] if label else before
    for closing in (one[0] for one in (tag, named) if one):
        for opening in _counterparts(closing):
            if opening != closing and bare.endswith(opening):
                return opening, closing
    closing = tag[0] if tag else between.strip()
    same = first_difference(prompt, before)
    tags = _MARK.findall(before, same)
    opening = tags[-1] if tags else prompt[same:].strip() or before[same:].strip()
    return (opening, closing) if opening and closing and opening != closing else ()


def _counterparts(closing: str) -> tuple[str, ...]:
    """Return the marks that may open what this one closes."""
    return (
        closing.replace("/", ""),
        closing.replace("END", "START"),
        closing.replace("END", "BEGIN"),
        closing.replace("close", "open"),
        closing.replace("<", "<|").replace("|>", ">"),
    )


def _up_to(mark: str, text: str) -> str:
    """Return the text up to the mark, and the white space behind it."""
    end = text.index(mark) + len(mark)
    return text[: end + len(text[end:]) - len(text[end:].lstrip())]


def _switch(render: Render, source: str, question: Turn) -> dict[str, Any]:
    """Return `switch`, `values` and `thinks`: the variable that changes the prompt.

    Its values are true and false, words of effort that the template names, or a budget of tokens.
    """
    code = " ".join(_CODE.findall(source))
    words = [(on, off) for on in _EFFORTS for off in _NO_EFFORT if _names(code, on) and _names(code, off)]
    for name in dict.fromkeys(_SWITCH.findall(code)):
        for values in ((True, False), *words, _BUDGET):
            try:
                on, off = (render([question], None, True, {name: value}) for value in values)
                default = render([question], None, True, {})
            except TemplateError:
                continue
            if on != off and default in (on, off):
                return {"switch": name, "values": values, "thinks": default == on}
    return {}


def _names(code: str, word: str) -> bool:
    return f"'{word}'" in code or f'"{word}"' in code
