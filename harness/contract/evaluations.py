"""Evaluations: scores of a variant, with a record of every item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.contract.backends import CAPABILITIES, Answer, Backend, Capability, Request
from harness.contract.checking import require_functions, require_options, require_texts
from harness.errors import PluginError, known_names
from harness.nouns import Result

if TYPE_CHECKING:
    from harness.options import Options


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """The surroundings of one measurement: the recipe (None: a model measured without one) and the loaded plugins.

    `other(name)` opens the Backend of another variant, as the command line names it, for an evaluation that compares
    answers; None where no other can be opened. `repeat_share` is the share of items that are asked twice, so that the
    noise of the engine itself is measured.
    """

    recipe: Any
    plugins: Any
    other: Callable[[str], Backend] | None = None
    repeat_share: float = 0.0


@dataclass(frozen=True, slots=True)
class EvaluationItem:
    """One item of an evaluation: its requests, what a right answer is, and how it counts. `id` is given once.

    `group` names what items have in common that makes their scores alike (a passage, a template): standard errors are
    clustered by it. `weights` are those of metrics that count otherwise, by name. An item that `needs` more than the
    Backend can do is left out and counted.
    """

    id: str
    requests: tuple[Request, ...]
    target: str = ""
    category: str = ""
    weight: float = 1.0
    group: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    needs: tuple[Capability, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An item that cannot be asked or scored here, and the reason, for people. It is counted in the result."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A measurement of a Backend, with a record of every item.

    Either `items(options, context)` yields EvaluationItems (or LeftOut) and `score(item, answers)` returns an item's
    metrics by name (1.0 for right, 0.0 for wrong), and the harness asks, averages and records; `lower_is_better` names
    the metrics of which less is better. Or `run(backend, options, context)` does all of this itself and yields one
    Result a task; `requests(backend, options, context)` then yields what it will ask of any backend with this template,
    so that all variants can be asked at once, and a person can look at it first. `needs` are the capabilities without
    which a Backend is refused, or a function of the options that returns them. `asks` is False for one that asks no
    model anything: none is loaded for it, and its `run` gets a Backend that has a name and an identity only.

    `texts(options, context)` yields (id, text) of each item, question and answer; further texts of an item have the
    same id. `data.decontaminate` compares the training data with them.
    """

    name: str
    description: str
    options: type[Options]
    run: Callable[[Backend, Any, EvaluationContext], Iterable[Result]] | None = None
    texts: Callable[[Any, Any], Iterable[tuple[str, str]]] | None = None
    items: Callable[[Any, EvaluationContext], Iterable[EvaluationItem | LeftOut]] | None = None
    score: Callable[[EvaluationItem, Sequence[Answer]], Mapping[str, float]] | None = None
    needs: tuple[Capability, ...] | Callable[[Any], tuple[Capability, ...]] = ()
    lower_is_better: tuple[str, ...] = ()
    requests: Callable[[Backend, Any, EvaluationContext], Iterable[Request]] | None = None
    asks: bool = True

    def needed(self, options: Any) -> tuple[Capability, ...]:
        """Return the capabilities that a measurement with these options needs."""
        return self.needs(options) if callable(self.needs) else self.needs


def check_evaluation(evaluation: Evaluation) -> None:
    """Raise PluginError for a declaration that would fail when a recipe uses it."""
    drives_itself, has_items = evaluation.run is not None, evaluation.items is not None
    if drives_itself == has_items or has_items != (evaluation.score is not None):
        raise PluginError(f"{evaluation.name!r}: expected `run`, or `items` and `score` together, and not both")
    if drives_itself:
        require_functions(evaluation, run="backend, options, context")
    else:
        require_functions(evaluation, items="options, context", score="item, answers")
    if not evaluation.asks and (has_items or evaluation.requests is not None):
        raise PluginError(f"{evaluation.name!r} asks nothing, and so has a `run`, without `items` and `requests`")
    if evaluation.requests is not None:
        require_functions(evaluation, requests="backend, options, context")
    if callable(evaluation.needs):
        require_functions(evaluation, needs="options")
    elif unknown := [need for need in evaluation.needs if need not in CAPABILITIES]:
        raise PluginError(f"{evaluation.name!r} needs {unknown[0]!r}, expected one of {known_names(CAPABILITIES)}")
    require_options(evaluation)
    require_texts(evaluation, "description")
