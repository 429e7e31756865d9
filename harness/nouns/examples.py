"""Encoded examples, and the items that objectives read: ids and masks, without tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded sequence. `loss_mask[t]` is True if token t is supervised.

    Both have one entry a token; the loss at position t-1 predicts token t, so a True at 0 is never used. They are
    lists, or an `array` and `bytes` while many are on their way to storage. `escaped` are the control-token strings in
    its messages; they were encoded as text.
    """

    input_ids: Sequence[int]
    loss_mask: Sequence[bool] | bytes
    id: str = ""
    escaped: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:  # a dataclass's own way to another process takes ten times as long
        return Example, (self.input_ids, self.loss_mask, self.id, self.escaped)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        """The number of supervised tokens: those that the loss sees."""
        return sum(self.loss_mask[1:])


@dataclass(frozen=True, slots=True)
class Item:
    """The unit that an objective reads: the examples of one conversation or preference, the role of each, and figures.

    A Conversation gives one example, `answer`. A Preference gives two, `chosen` and `rejected`, which begin with the
    same prompt ids; or one of them, if a completion was judged alone. The `extras` are `weight` and, if known,
    `margin`: a figure of the item, or one of each of its examples.
    """

    examples: tuple[Example, ...]
    roles: tuple[str, ...]
    extras: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        return Item, (self.examples, self.roles, self.extras)
