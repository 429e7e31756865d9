"""gpt-oss (OpenAI): the Harmony format, in which the model writes the channel of each of its messages."""

from __future__ import annotations

import datetime
from typing import Any, Literal

import harness
from harness_templates.sources import source
from harness_templates.stops import ends_with


class GptOss(harness.Options):
    """Options of `gpt-oss`.

    `effort` is what the system message calls the reasoning; a request's `reasoning_effort` goes before it. `date` is
    what it calls today: one fixed day, in tuning as in serving.
    """

    effort: Literal["low", "medium", "high"] = "medium"
    identity: str = "You are ChatGPT, a large language model trained by OpenAI."
    date: datetime.date = datetime.date(2024, 7, 26)


def _jinja(tokenizer: Any, options: GptOss) -> str:
    return source("gpt-oss", identity=options.identity, date=options.date.isoformat(), effort=options.effort)


TEMPLATES = (
    harness.Template(
        "gpt-oss",
        "<|start|>role<|channel|>…<|message|> … <|end|>: gpt-oss, one tool call a message",
        _jinja,
        ends_with("<|return|>", "<|call|>"),
        control_tokens=("<|start|>", "<|channel|>", "<|message|>", "<|end|>"),
        takes_tools=True,
        tool_parser="openai",
        options=GptOss,
    ),
)
