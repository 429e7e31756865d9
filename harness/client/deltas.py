"""The pieces of an answer that streams."""

from __future__ import annotations

from typing import Any, NamedTuple


class Delta(NamedTuple):
    """A piece of an answer that streams. `completion_tokens` comes once, at its end.

    `calls` are pieces of calls of tools: the call's number, and more of its name and arguments.
    """

    text: str
    finish: str | None
    completion_tokens: int | None
    reasoning: str = ""
    calls: tuple[tuple[int, str, str], ...] = ()


def calls_of(delta: Any) -> tuple[tuple[int, str, str], ...]:
    """Return the pieces of calls in a piece of an answer."""
    pieces = [(call.index, call.function) for call in delta.tool_calls or () if call.function is not None]
    return tuple((number, piece.name or "", piece.arguments or "") for number, piece in pieces)


def thoughts_of(delta: Any) -> str:
    """Return the thoughts in a piece of an answer: `reasoning` as vLLM names them, or `reasoning_content`."""
    thoughts = getattr(delta, "reasoning", None) or getattr(delta, "reasoning_content", None)
    return thoughts if isinstance(thoughts, str) else ""
