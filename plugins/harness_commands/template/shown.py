"""A conversation as a template renders it, as `harness template show` prints it and puts it on a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import TemplateError
from harness.nouns import Example, Message
from harness_commands.data.showing import ShownToken

if TYPE_CHECKING:
    from harness.template import BoundTemplate


@dataclass(frozen=True)
class Shown:
    """A conversation as the template renders it; `left_out` says what the built-in one lacks, and why."""

    label: str
    text: str
    example: Example
    tokens: list[ShownToken]
    left_out: dict[str, str]

    @property
    def supervised(self) -> int:
        return self.example.supervised

    @property
    def control(self) -> int:
        """The number of its tokens that are control tokens."""
        return sum(token.control for token in self.tokens)


def _thoughts(template: BoundTemplate) -> str:
    habits = template.habits
    marks = " … ".join(habits.marks)
    on, off = map(json.dumps, habits.values)
    state = "on" if habits.thinks else "off"
    switch = f"{habits.switch}: {on} or {off}, {state} where a request does not set it" if habits.switch else ""
    if habits.switch and template.thinking != "auto":
        switch = f"{habits.switch}: {template.thinking}"
    commands = f"obeys {' and '.join(habits.commands)} where somebody says it" if habits.commands else ""
    named = "; ".join(part for part in (marks, switch, commands) if part)
    return f"thoughts ({named})" if named else "thoughts"


def ends(template: BoundTemplate) -> str:
    """Return the stop tokens, each with the place that names it."""
    sources = dict(template.habits.stops)  # runs of before they were recorded have none
    return ", ".join(f"{stop} ({sources[stop]})" if stop in sources else stop for stop in template.stop_tokens)


def changes(template: BoundTemplate) -> str:
    """Return a sentence on the turns that the template changes once others follow; empty where it changes none."""
    habits = template.habits
    if habits.thoughtless:
        return f"it writes thoughts that cannot be trained on: {habits.thoughtless}"
    if not habits.grows:
        return "it changes earlier turns when others follow: each answer is an example of its own"
    if habits.takes_thoughts and _drops_thoughts(template):
        return "it drops the thoughts of earlier answers: where there are some, each answer is an example of its own"
    return ""


def _drops_thoughts(template: BoundTemplate) -> bool:
    """Return whether the thoughts of an answer are gone once the next question is asked."""
    talk = (Message("user", "one"), Message("assistant", "two", reasoning="a thought"), Message("user", "three"))
    try:
        return "a thought" not in template.render(talk, generation_prompt=True, thinks=True)
    except TemplateError:  # it takes no second exchange
        return False


def takes(template: BoundTemplate) -> str:
    """Return the features that the template takes, in words."""
    tools = f"tools (vLLM: {template.tool_parser})" if template.tool_parser else "tools"
    places = {
        "a system prompt": template.takes_system,
        tools: template.takes_tools,
        "many exchanges": template.takes_turns,
        _thoughts(template): template.habits.takes_thoughts,
    }
    there = [place for place, taken in places.items() if taken]
    return ", ".join(there) or "one question and its answer"
