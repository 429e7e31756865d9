"""Filters: steps of cleaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contract.checking import require_functions, require_options, require_paths, require_texts
from harness.nouns import Conversation, Preference

if TYPE_CHECKING:
    from harness.options import Options


@dataclass(frozen=True, slots=True)
class Filter:
    """A cleaning step. `create(options)` returns a function that is asked about every item, in order.

    It gets a Conversation or a Preference and returns why to leave it out, in a few words that are the same for all
    items of that kind (they are counted), or None to keep it. It may remember what it saw: each pass creates its own.
    `reads` is that of a `Dataset`.
    """

    name: str
    description: str
    options: type[Options]
    create: Callable[[Any], Callable[[Conversation | Preference], str | None]]
    reads: tuple[str | Path, ...] = ()


def check_filter(declared: Filter) -> None:
    """Refuse a declaration that would break where a recipe uses it. Raises PluginError."""
    require_functions(declared, create="options")
    require_options(declared)
    require_texts(declared, "description")
    require_paths(declared, "reads")
