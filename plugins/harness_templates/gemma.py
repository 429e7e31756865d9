"""Gemma: `<start_of_turn>user`, `<start_of_turn>model`; from Gemma 4 on `<|turn>user`, with thoughts.

Gemma 3 puts a system prompt into the first user turn; 1 and 2 have none.
"""

from __future__ import annotations

from typing import Any

import harness
from harness.template.habits import Thinking
from harness_templates.sources import source
from harness_templates.stops import ends_with

_TURNS = ("<start_of_turn>", "<end_of_turn>")
_TOOLS = ("<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<tool_response|>", '<|"|>')
_GEMMA4 = ("<|turn>", "<|channel>", "<channel|>", "<|think|>", *_TOOLS)


class Gemma4(harness.Options):
    """`thinking: on` asks every answer for thoughts and `off` for none; `auto` asks for what the answer has."""

    thinking: Thinking = "auto"


def _gemma(tokenizer: Any, options: Any) -> str:
    return source("gemma", family="gemma", takes_system=False, takes_tools=False)


def _gemma3(tokenizer: Any, options: Any) -> str:
    return source("gemma", family="gemma3", takes_system=True, takes_tools=True)


def _gemma4(tokenizer: Any, options: Gemma4) -> str:
    return source("gemma4")


TEMPLATES = (
    harness.Template(
        "gemma",
        "<start_of_turn>user … <end_of_turn>, Gemma 1 and 2: no system prompt",
        _gemma,
        ends_with("<end_of_turn>"),
        control_tokens=_TURNS,
        takes_system=False,
    ),
    harness.Template(
        "gemma3",
        "Gemma 3: the system prompt opens the first user turn; calls as a Python list",
        _gemma3,
        ends_with("<end_of_turn>"),
        control_tokens=_TURNS,
        takes_tools=True,
        tool_parser="pythonic",
    ),
    harness.Template(
        "gemma4",
        "<|turn>user … <turn|>, Gemma 4 with thoughts and tools",
        _gemma4,
        ends_with("<turn|>", "<|tool_response>"),
        control_tokens=_GEMMA4,
        takes_tools=True,
        tool_parser="gemma4",
        options=Gemma4,
    ),
)
