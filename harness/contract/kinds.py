"""The kinds of things that plugins register: the one table behind registries, hooks and documentation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pkgutil import resolve_name
from typing import Any

from harness.errors import PluginError


@dataclass(frozen=True)
class Kind:
    """One kind: its name, the name of its registry, and the place, `module:Class`, of what is registered.

    `checker` is a function of the same module that raises PluginError for a declaration that would fail when it is
    used. The module is imported when something is registered. With `default`, a recipe may omit the kind: a
    first-party plugin registers one with `default=True`. `section` is the place of the recipe's section that gets the
    options of what is registered, and whose keys these cannot be. `where` are the keys of a recipe under which a name
    stands, with `[]` for a list: `data.train[].dataset`.
    """

    name: str
    plural: str
    place: str
    purpose: str
    checker: str | None = None
    default: bool = False
    section: str | None = None
    where: str = ""

    @property
    def key(self) -> str:
        """The key of the section that holds a name: `dataset` in `data: {train: [{dataset: NAME}]}`."""
        return self.where.rpartition(".")[2]

    @property
    def hook(self) -> str:
        """The registration hook's name."""
        return f"register_{self.plural}"

    @property
    def class_name(self) -> str:
        """The name of the class, without importing it."""
        return self.place.rpartition(":")[2]

    @cached_property
    def item(self) -> type:
        """The class of what is registered."""
        item: type = resolve_name(self.place)
        return item

    def check(self, item: Any) -> None:
        """Raise PluginError for a declaration that would fail when it is used."""
        if self.checker is not None:
            resolve_name(f"{self.place.partition(':')[0]}:{self.checker}")(item)
        own = getattr(getattr(item, "options", None), "model_fields", {})
        if self.section is not None and own:
            reserved = resolve_name(self.section).model_fields
            if taken := [key for key in own if key in reserved]:
                raise PluginError(
                    f"{item.name!r} has the option {taken[0]!r}, a key of the section that names it: rename it. "
                    f"Reserved keys: {', '.join(reserved)}"
                )


KINDS = (
    Kind(
        "dataset",
        "datasets",
        "harness.contract.datasets:Dataset",
        "each dataset",
        "check_dataset",
        section="harness.recipe.schema:DataSource",
        where="data.train[].dataset",
    ),
    Kind(
        "shape",
        "shapes",
        "harness.contract.shapes:Shape",
        "each further way to write a dataset's rows",
        "check_shape",
    ),
    Kind(
        "filter",
        "filters",
        "harness.contract.filters:Filter",
        "each cleaning step that `data.clean` can name",
        "check_filter",
        section="harness.recipe.schema:CleanStep",
        where="data.clean[].filter",
    ),
    Kind(
        "template",
        "templates",
        "harness.contract.templates:Template",
        "each chat template",
        "check_template",
        default=True,
        section="harness.recipe.schema:TemplateSpec",
        where="template.name",
    ),
    Kind(
        "objective",
        "objectives",
        "harness.contract.objectives:Objective",
        "each loss",
        "check_objective",
        default=True,
        section="harness.recipe.schema:ObjectiveSpec",
        where="tune.objective.name",
    ),
    Kind(
        "method",
        "methods",
        "harness.contract.methods:Method",
        "each way of choosing the weights that move",
        "check_method",
        default=True,
        section="harness.recipe.schema:MethodSpec",
        where="tune.method.name",
    ),
    Kind(
        "evaluation",
        "evaluations",
        "harness.contract.evaluations:Evaluation",
        "each evaluation",
        "check_evaluation",
        section="harness.recipe.schema:EvaluateSpec",
        where="evaluate[].evaluation",
    ),
    Kind(
        "engine",
        "engines",
        "harness.contract.engines:Engine",
        "each serving engine",
        "check_engine",
        default=True,
        section="harness.recipe.schema:ServeSpec",
        where="serve.engine",
    ),
    Kind(
        "tracker",
        "trackers",
        "harness.contract.trackers:Tracker",
        "each tracker that a recipe can switch on by name",
        "check_tracker",
        section="harness.recipe.schema:TrackSpec",
        where="track[].tracker",
    ),
    Kind("command", "commands", "click:Command", "each click command to add to `harness`"),
)
