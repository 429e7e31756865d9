"""The reader of encoded items: the kind of items it takes, and what it makes of each before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.contract import Objective
from harness.nouns import Item, Reads

if TYPE_CHECKING:
    from harness.plugins import Plugins
    from harness.recipe import DataSpec, ObjectiveSpec
    from harness.template import BoundTemplate


@dataclass(frozen=True, slots=True)
class Reader:
    """An objective or an evaluation, as encoding knows it.

    Args:
        reads: the kind of items; a dataset that yields another is refused.
        name: who it is, for messages: `the objective 'sft'`.
        positions: of the model, if it has a limit: what is longer is for `data.on_overlong`.
        spec: the recipe's objective, and `objective` what it names, where that makes items of its own.
    """

    reads: Reads = "conversations"
    name: str = "the objective"
    positions: int | None = None
    spec: ObjectiveSpec | None = None
    objective: Objective | None = None

    @classmethod
    def of(cls, spec: ObjectiveSpec, plugins: Plugins, positions: int | None = None) -> Reader:
        """Return the reader that a recipe's objective is."""
        objective = plugins.objectives[spec.name]
        own = (spec, objective) if objective.encode is not None else (None, None)
        return cls(objective.reads, f"the objective {objective.name!r}", positions, *own)

    def longest(self, spec: DataSpec) -> int:
        """Return the most tokens that an example may have: the recipe's limit, or the model's where it is lower."""
        return spec.max_tokens if self.positions is None else min(spec.max_tokens, self.positions)

    def items(self, item: Item, template: BoundTemplate, spec: DataSpec) -> Sequence[Item]:
        """Return the items that the objective makes of one that the template encoded: without a wish, the same."""
        if self.objective is None or self.objective.encode is None:
            return (item,)
        return self.objective.encode(item, template, self.longest(spec), self.spec)


CONVERSATIONS = Reader()
