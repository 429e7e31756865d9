"""A batch: what one forward pass takes, and the tokens that are supervised in it.

Letters of shapes: b rows, s positions of a row, d documents, n targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Documents:
    """The place of each document in a batch: its row, its first position there, its length; int64 [d] each.

    `parent` is the document whose tokens come before its own, or -1: a prompt that several answers share.
    """

    row: Tensor
    start: Tensor
    length: Tensor
    parent: Tensor


@dataclass(frozen=True, slots=True)
class Targets:
    """The supervised tokens; int64 [n] each.

    Target i is predicted at `source[i]`, a position among all b*s of the batch: behind a shared prompt the token before
    it in the row is not the one that predicts it. `document[i]` is the document it belongs to.
    """

    source: Tensor
    token_id: Tensor
    document: Tensor


@dataclass(frozen=True, slots=True)
class Sequences:
    """The documents of packed rows as sequences for variable-length attention, in the order of `Documents`.

    Args:
        query: int64 [q], the positions among all b*s that ask, a document's own behind each other; no padding.
        key: int64 [k], those that they see: of each document its ancestors' positions, then its own.
        query_ends: int32 [d + 1], where each document begins and ends among the queries.
        key_ends: int32 [d + 1], the same among the keys.
        query_lengths: the number of queries of each document, on the host.
        key_lengths: the number of keys of each document, on the host.
        is_whole: True where queries and keys are both all b*s positions in their order, so that none is gathered.
    """

    query: Tensor
    key: Tensor
    query_ends: Tensor
    key_ends: Tensor
    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one forward pass.

    A token sees its own document and that document's ancestors, causally; positions go on from the parent's.

    Args:
        input_ids: int64 [b, s].
        documents: what lies where.
        targets: the supervised tokens.
        groups: [d], on the host, equal for the documents of one item: a preference's completions and their prompt.
        roles: [d], the role of each document in its item; `prompt` for one that others share.
        tokens: how many of the b*s positions are no padding.
        weights: [d], on the host: of the item of each document, 1 where the data have none.
        target_counts: [d], on the host: of the targets of each document.
        by_role: the documents of each role, int64, item by item.
        position_ids: int64 [b, s]; None where each row is one document, padded on the right.
        extras: figures by name, [d] or [n] each, such as a preference's margin.
        sequences: the documents of packed rows, for variable-length attention; None for padded rows.
        observed: batches that `Objective.observe` looks at beside this one; they are not trained on.
    """

    input_ids: Tensor
    documents: Documents
    targets: Targets
    groups: tuple[int, ...]
    roles: tuple[str, ...]
    tokens: int
    weights: tuple[float, ...]
    target_counts: tuple[int, ...]
    by_role: Mapping[str, Tensor]
    position_ids: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    sequences: Sequences | None = None
    observed: tuple[Batch, ...] = ()

    @property
    def supervised(self) -> int:
        """The number of supervised tokens."""
        return len(self.targets.token_id)

    @property
    def is_padded(self) -> bool:
        """True where each row is one document, padded on the right: causal attention then needs no mask."""
        return self.position_ids is None

    def by_document(self, figures: Tensor) -> Tensor:
        """Return the sum of the targets' `figures` [n] in each document, [d], with its gradient."""
        return figures.new_zeros(len(self.roles)).index_add(0, self.targets.document, figures)

    def targets_by_document(self) -> Tensor:
        """Return the number of targets of each document, float32 [d]."""
        return self.by_document(self.input_ids.new_ones(self.supervised).float())

    def figures(self, name: str, default: float | None = None) -> Tensor:
        """Return `extras[name]` [d], or `default` for each document where no item of the batch has it.

        Raises KeyError without a default, unless there are no documents.
        """
        if name in self.extras:
            return self.extras[name]
        if default is None and self.roles:
            raise KeyError(name)
        return self.input_ids.new_zeros(len(self.roles)).float() + (default or 0.0)

    def index(self, role: str) -> Tensor:
        """Return the documents of a role, item by item, as an index of figures [d]: int64, on the device.

        With a list as index the host waits for the device.
        """
        return self.by_role.get(role, self.input_ids.new_zeros(0))

    def of_role(self, role: str) -> list[int]:
        """Return the documents of a role, as a list on the host."""
        return [number for number, own in enumerate(self.roles) if own == role]

    def pairs(self, first: str = "chosen", second: str = "rejected") -> tuple[list[int], list[int]]:
        """Return the documents of two roles, item by item, for the items that have both: as lists, on the host."""
        one, other = (
            {self.groups[number]: number for number, role in enumerate(self.roles) if role == wanted}
            for wanted in (first, second)
        )
        both = sorted(one.keys() & other.keys())
        return [one[group] for group in both], [other[group] for group in both]
