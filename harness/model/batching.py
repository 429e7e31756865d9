"""Layouts of a batch: padded rows, packed rows, and prompts that several answers share.

Worked example, the two sides of a preference, `P` the prompt's ids, `c` and `r` the completions':

    padded          row 0   P P P c c         row 1   P P P r .        two documents, two groups' sides
    packed          row 0   P P P c c P P P r                          the same two documents in one row
    shared prompt   row 0   P P P c c r                                three documents; the prompt is the others' parent
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.contract.batches import Batch, Documents, Targets
from harness.nouns import Example, Item

NO_PARENT = -1


def padded(items: Sequence[Item], pad_id: int, device: torch.device | str) -> Batch:
    """Lay out each example as a row of its own, padded on the right to the longest."""
    layout = _Layout()
    for group, item in enumerate(items):
        for number, (example, role) in enumerate(zip(item.examples, item.roles, strict=True)):
            layout.document(example.input_ids, example.loss_mask, group, role, row=layout.rows, example=number)
    return layout.batch(items, pad_id, device, is_padded=True)


def packed(items: Sequence[Item], rows: Sequence[Sequence[int]], pad_id: int, device: torch.device | str) -> Batch:
    """Lay out several examples behind each other. `rows` are the examples of each row, counted over all items."""
    examples = [
        (*pair, group, number)
        for group, item in enumerate(items)
        for number, pair in enumerate(zip(item.examples, item.roles, strict=True))
    ]
    order = [index for row in rows for index in row]
    if sorted(order) != list(range(len(examples))):
        raise ValueError(f"the rows hold the examples {sorted(order)}, expected each of 0..{len(examples) - 1} once")
    layout = _Layout()
    for row, indices in enumerate(rows):
        for index in indices:
            example, role, group, number = examples[index]
            layout.document(example.input_ids, example.loss_mask, group, role, row=row, example=number)
    return layout.batch(items, pad_id, device, is_padded=False)


def with_shared_prompts(items: Sequence[Item], pad_id: int, device: torch.device | str) -> Batch:
    """Lay out each item as one row: the ids that all its examples begin with once, then what follows in each."""
    layout = _Layout()
    for row, item in enumerate(items):
        shared = _shared_prefix(item.examples)
        first = item.examples[0]
        prompt = layout.document(first.input_ids[:shared], first.loss_mask[:shared], row, "prompt", row=row)
        for number, (example, role) in enumerate(zip(item.examples, item.roles, strict=True)):
            rest = example.input_ids[shared:], example.loss_mask[shared:]
            layout.document(*rest, row, role, row=row, parent=prompt, example=number)
    return layout.batch(items, pad_id, device, is_padded=False)


def rows_with_targets(
    rows: Sequence[Sequence[int]], targets: Sequence[tuple[int, int, int]], pad_id: int, device: torch.device | str
) -> Batch:
    """Lay out each sequence of ids as a row, padded on the right, with any tokens as targets.

    Args:
        targets: a row, the column that predicts, and the token; several may be predicted at one place.
    """
    layout = _Layout()
    for row, ids in enumerate(rows):
        layout.document(ids, [False] * len(ids), row, "prompt", row=row)
    layout.targets += [(row, column, token, row) for row, column, token in targets]
    return layout.batch([], pad_id, device, is_padded=True)


def nothing(pad_id: int, device: torch.device | str) -> Batch:
    """Return a batch without documents, for a process whose share of a step is empty: one token of padding."""
    layout = _Layout(tokens=[[]])
    return layout.batch([], pad_id, device, is_padded=True)


def attention_mask(batch: Batch, dtype: torch.dtype) -> Tensor | None:
    """Return what a token may look at, added to the scores: 0 or the least number, [b, 1, s, s]; None for padded rows.

    It says nothing to recurrent layers, and overrules a sliding window: such models take padded rows only.
    """
    if batch.is_padded:
        return None
    assert batch.position_ids is not None
    b, s = batch.input_ids.shape
    documents = batch.documents
    owner = torch.full((b, s), -1, device=batch.input_ids.device)
    for index in range(len(documents.row)):
        begin = int(documents.start[index])
        owner[int(documents.row[index]), begin : begin + int(documents.length[index])] = index
    related = torch.eye(len(documents.row), dtype=torch.bool, device=owner.device)  # [d, d]: its own and its ancestors
    parents = documents.parent.tolist()
    for index, above in enumerate(parents):
        while above != NO_PARENT:
            related[index, above] = True
            above = parents[above]
    sees = related[owner.clamp(min=0)[:, :, None], owner.clamp(min=0)[:, None, :]]
    sees &= (owner >= 0)[:, :, None] & (owner >= 0)[:, None, :]
    sees &= torch.ones(s, s, dtype=torch.bool, device=owner.device).tril()
    sees |= torch.eye(s, dtype=torch.bool, device=owner.device)  # padding looks at itself: no row without a number
    return torch.zeros((b, 1, s, s), dtype=dtype, device=owner.device).masked_fill_(
        ~sees[:, None], torch.finfo(dtype).min
    )


@dataclass
class _Layout:
    """Documents as they are put into rows, and the targets among them."""

    tokens: list[list[int]] = field(default_factory=list)  # by row
    positions: list[list[int]] = field(default_factory=list)
    documents: list[tuple[int, int, int, int]] = field(default_factory=list)  # row, start, length, parent
    groups: list[int] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    examples: list[int | None] = field(default_factory=list)  # the place in its item; None for a prompt that is shared
    targets: list[tuple[int, int, int, int]] = field(default_factory=list)  # row, column of its source, token, document

    @property
    def rows(self) -> int:
        return len(self.tokens)

    def document(
        self,
        ids: Sequence[int],
        mask: Sequence[bool] | bytes,
        group: int,
        role: str,
        *,
        row: int,
        parent: int = NO_PARENT,
        example: int | None = None,
    ) -> int:
        """Put a document at the end of a row; return its number. Its first token is predicted by its parent's last."""
        while self.rows <= row:
            self.tokens.append([])
            self.positions.append([])
        number, start = len(self.documents), len(self.tokens[row])
        before = -1  # the column that predicts the first token, where there is one
        offset = 0
        if parent != NO_PARENT:
            _, parent_start, parent_length, _ = self.documents[parent]
            before = parent_start + parent_length - 1
            offset = self.positions[row][before] + 1 if parent_length else 0
        for at in itertools.compress(range(len(ids)), mask):
            source = start + at - 1 if at else before
            if source >= 0:
                self.targets.append((row, source, ids[at], number))
        self.tokens[row] += ids
        self.positions[row] += range(offset, offset + len(ids))
        self.documents.append((row, start, len(ids), parent))
        self.groups.append(group)
        self.roles.append(role)
        self.examples.append(example)
        return number

    def batch(self, items: Sequence[Item], pad_id: int, device: torch.device | str, *, is_padded: bool) -> Batch:
        width = max(1, *map(len, self.tokens))
        input_ids = torch.full((self.rows, width), pad_id, dtype=torch.long)
        for row, tokens in enumerate(self.tokens):
            input_ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        position_ids = None
        if not is_padded:
            position_ids = torch.zeros((self.rows, width), dtype=torch.long)
            for row, positions in enumerate(self.positions):
                position_ids[row, : len(positions)] = torch.tensor(positions, dtype=torch.long)
        columns = torch.tensor(self.documents, dtype=torch.long).reshape(-1, 4).to(device).unbind(1)
        targets = [(row * width + column, token, document) for row, column, token, document in self.targets]
        source, token_id, document = torch.tensor(targets, dtype=torch.long).reshape(-1, 3).to(device).unbind(1)
        groups = torch.tensor(self.groups, dtype=torch.long, device=device)
        names = {name for item in items for name in item.extras}
        places = list(zip(self.groups, self.examples, strict=True))
        extras = {
            name: torch.tensor([_figure(items[group], name, number) for group, number in places], device=device)
            for name in sorted(names)
        }
        return Batch(
            input_ids.to(device, non_blocking=True),
            Documents(*columns),
            Targets(source, token_id, document),
            groups,
            tuple(self.roles),
            tokens=sum(map(len, self.tokens)),
            position_ids=None if position_ids is None else position_ids.to(device, non_blocking=True),
            extras=extras,
        )


def _figure(item: Item, name: str, example: int | None) -> float:
    """Return an item's figure for one of its examples; one that it lacks is 0, its weight 1."""
    figure = item.extras.get(name, 1.0 if name == "weight" else 0.0)
    if not isinstance(figure, tuple):
        return figure
    return 0.0 if example is None else figure[example]


def _shared_prefix(examples: Sequence[Example]) -> int:
    """Return how many ids all the examples begin with, before the first that is trained on in any of them."""
    shortest = min(examples, key=len)
    for at, token in enumerate(shortest.input_ids):
        if any(example.input_ids[at] != token or example.loss_mask[at] for example in examples):
            return at
    return len(shortest)
