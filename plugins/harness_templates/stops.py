"""Stop tokens, which end an assistant's turn, as templates declare them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def ends_with(*tokens: str) -> Callable[[Any], tuple[str, ...]]:
    """Return a function that gives the format's own tokens, whatever the tokenizer's eos is."""
    return lambda tokenizer: tokens


def eos(tokenizer: Any) -> tuple[str, ...]:
    """Return the tokenizer's eos; an empty tuple if it has none, which the core refuses."""
    return (tokenizer.eos_token,) if tokenizer.eos_token else ()
