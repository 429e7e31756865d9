"""Evaluations: scores of a variant, with a record of every item."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.contract.checking import require_functions, require_options, require_texts
from harness.nouns import Result

if TYPE_CHECKING:
    from harness.options import Options


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A measurement of a loaded variant: scores, per-sample records and standard errors, one Result a task.

    `run(variant, options, recipe)` gets the recipe that the variant was tuned with, or None. `texts(options, recipe)`
    yields (id, text) of each item, question and answer; further texts of an item have the same id.
    `data.decontaminate` compares the training data with them.
    """

    name: str
    description: str
    options: type[Options]
    run: Callable[[Any, Any, Any], Iterable[Result]]
    texts: Callable[[Any, Any], Iterable[tuple[str, str]]] | None = None


def check_evaluation(evaluation: Evaluation) -> None:
    """Raise PluginError for a declaration that would fail when a recipe uses it."""
    require_functions(evaluation, run="variant, options, recipe")
    require_options(evaluation)
    require_texts(evaluation, "description")
