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
class EvaluationContext:
    """The surroundings of one measurement: the recipe (None: a model measured without one) and the loaded plugins."""

    recipe: Any
    plugins: Any


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Gives a loaded variant scores, per-sample records and standard errors, one Result a task.

    `run(variant, options, context)`; the context has the recipe and the plugins. `texts(options, context)` gives (id, text) of each item, question and answer, and under the same id more texts of it if there are any, for
    `data.decontaminate` to compare the training data with.
    """

    name: str
    description: str
    options: type[Options]
    run: Callable[[Any, Any, Any], Iterable[Result]]
    texts: Callable[[Any, Any], Iterable[tuple[str, str]]] | None = None


def check_evaluation(evaluation: Evaluation) -> None:
    """Refuse a declaration that would break where a recipe uses it. Raises PluginError."""
    require_functions(evaluation, run="variant, options, context")
    require_options(evaluation)
    require_texts(evaluation, "description")
