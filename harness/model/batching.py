"""Layouts of a batch: padded rows, and packed rows in which the examples of an item share their prompt.

Worked example, the two sides of a preference, `P` the prompt's ids, `c` and `r` the completions, and an answer `a`:

    padded   row 0   P P P c c    row 1   P P P r .    row 2   a a a . .    a document each
    packed   row 0   P P P c c r a a a         four documents; the prompt is the parent of `c c` and of `r`
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from harness.contract.batches import Batch, Documents, Sequences, Targets
from harness.nouns import Example, Item

NO_PARENT = -1
SHARED = "prompt"  # the role of a document that others continue


def padded(items: Sequence[Item], pad_id: int, device: torch.device | str) -> Batch:
    """Lay out each example as a row of its own, padded on the right to the longest."""
    layout = _Layout()
    for group, item in enumerate(items):
        for number, (example, role) in enumerate(zip(item.examples, item.roles, strict=True)):
            layout.document(example.input_ids, example.loss_mask, group, role, row=layout.rows, example=number)
    return layout.batch(items, pad_id, device, is_padded=True)


def packed(items: Sequence[Item], rows: Sequence[Sequence[int]], pad_id: int, device: torch.device | str) -> Batch:
    """Lay out several items behind each other; what examples of an item begin with alike is there once.

    Args:
        rows: the items of each row, by their place in `items`.
    """
    order = [index for row in rows for index in row]
    if sorted(order) != list(range(len(items))):
        raise ValueError(f"the rows hold the items {sorted(order)}, expected each of 0..{len(items) - 1} once")
    layout = _Layout()
    for row, indices in enumerate(rows):
        for index in indices:
            item, numbers = items[index], list[int]()
            for part in parts_of(item.examples):
                example = item.examples[part.example]
                ids, mask = example.input_ids[part.start : part.end], example.loss_mask[part.start : part.end]
                role = SHARED if part.is_shared else item.roles[part.example]
                parent = NO_PARENT if part.parent == NO_PARENT else numbers[part.parent]
                numbers.append(layout.document(ids, mask, index, role, row=row, parent=parent, example=part.example))
    return layout.batch(items, pad_id, device, is_padded=False)


class Part(NamedTuple):
    """A stretch of an example's ids: what several examples share, or the rest of one; `parent` is a part before it."""

    example: int
    start: int
    end: int
    parent: int
    is_shared: bool


def parts_of(examples: Sequence[Example]) -> list[Part]:
    """Return the parts of an item's examples as a tree: what examples begin with alike is one part, a parent.

    Only what none of them trains on is shared, so that each trained token has a document of its own.
    """
    parts: list[Part] = []
    _add_parts(examples, range(len(examples)), 0, NO_PARENT, parts)
    return parts


def packed_length(examples: Sequence[Example]) -> int:
    """Return the positions that an item takes in packed rows."""
    return sum(part.end - part.start for part in parts_of(examples))


def _add_parts(examples: Sequence[Example], among: Sequence[int], start: int, parent: int, parts: list[Part]) -> None:
    """Add the parts of the examples `among`, which agree before `start`."""
    if len(among) == 1:
        parts.append(Part(among[0], start, len(examples[among[0]]), parent, False))
        return
    end = _shared_until(examples, among, start)
    if end > start:
        parts.append(Part(among[0], start, end, parent, True))
        parent = len(parts) - 1
    alike: dict[object, list[int]] = {}
    for index in among:
        example = examples[index]
        is_alone = end == len(example) or example.loss_mask[end]
        alike.setdefault((index,) if is_alone else example.input_ids[end], []).append(index)
    for group in alike.values():
        _add_parts(examples, group, end, parent, parts)


def _shared_until(examples: Sequence[Example], among: Sequence[int], start: int) -> int:
    """Return where the first token stands in which the examples differ, or that one of them trains on."""
    first = examples[among[0]].input_ids
    shortest = min(len(examples[index]) for index in among)
    for at in range(start, shortest):
        if any(examples[index].input_ids[at] != first[at] or examples[index].loss_mask[at] for index in among):
            return at
    return shortest


def rows_with_targets(
    rows: Sequence[Sequence[int]], targets: Sequence[tuple[int, int, int]], pad_id: int, device: torch.device | str
) -> Batch:
    """Lay out each sequence of ids as a row, padded on the right, with any tokens as targets.

    Args:
        targets: a row, the column that predicts, and the token; several may be predicted at one place.
    """
    layout = _Layout()
    for row, ids in enumerate(rows):
        layout.document(ids, [False] * len(ids), row, SHARED, row=row)
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
    if batch.sequences is None:
        return None
    (b, s), sequences, device = batch.input_ids.shape, batch.sequences, batch.input_ids.device
    sees = torch.zeros(b * s, s, dtype=torch.bool, device=device)
    for query, key in zip(
        sequences.query.split(sequences.query_lengths), sequences.key.split(sequences.key_lengths), strict=True
    ):
        sees[query[:, None], key[None] % s] = True
    sees = sees.view(b, s, s) & torch.ones(s, s, dtype=torch.bool, device=device).tril()
    sees |= torch.eye(s, dtype=torch.bool, device=device)  # padding looks at itself: no row without a number
    return torch.zeros((b, 1, s, s), dtype=dtype, device=device).masked_fill_(~sees[:, None], torch.finfo(dtype).min)


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
            offset = self.positions[row][before] + 1
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
        """Return the tensors, on the device: copied there from pinned memory, without waiting, where it has its own."""
        is_pinned = torch.device(device).type == "cuda"

        def on_device(tensor: Tensor) -> Tensor:
            return (tensor.pin_memory() if is_pinned else tensor).to(device, non_blocking=True)

        width = max(1, *map(len, self.tokens))
        input_ids = torch.full((self.rows, width), pad_id, dtype=torch.long)
        for row, tokens in enumerate(self.tokens):
            input_ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        position_ids = None
        if not is_padded:
            position_ids = torch.zeros((self.rows, width), dtype=torch.long)
            for row, positions in enumerate(self.positions):
                position_ids[row, : len(positions)] = torch.tensor(positions, dtype=torch.long)
            position_ids = on_device(position_ids)
        columns = on_device(torch.tensor(self.documents, dtype=torch.long).reshape(-1, 4)).unbind(1)
        targets = [(row * width + column, token, document) for row, column, token, document in self.targets]
        source, token_id, document = on_device(torch.tensor(targets, dtype=torch.long).reshape(-1, 3)).unbind(1)
        names = {name for item in items for name in item.extras}
        places = list(zip(self.groups, self.examples, strict=True))
        counts = Counter(document for *_, document in self.targets)
        by_role: dict[str, list[int]] = {}
        for number in sorted(range(len(self.documents)), key=self.groups.__getitem__):
            by_role.setdefault(self.roles[number], []).append(number)
        extras = {
            name: on_device(torch.tensor([_figure(items[group], name, number) for group, number in places]))
            for name in sorted(names)
        }
        return Batch(
            on_device(input_ids),
            Documents(*columns),
            Targets(source, token_id, document),
            tuple(self.groups),
            tuple(self.roles),
            tokens=sum(map(len, self.tokens)),
            weights=tuple(_figure(items[group], "weight", number) if items else 1.0 for group, number in places),
            target_counts=tuple(counts[number] for number in range(len(self.documents))),
            by_role={role: on_device(torch.tensor(numbers)) for role, numbers in by_role.items()},
            position_ids=position_ids,
            extras=extras,
            sequences=None if is_padded else self._sequences(width, on_device),
        )

    def _lengths(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the number of queries and of keys of each document."""
        queries = tuple(length for _, _, length, _ in self.documents)
        keys = (sum(self.documents[one][2] for one in self._lineage(number)) for number in range(len(self.documents)))
        return queries, tuple(keys)

    def _sequences(self, width: int, on_device: Callable[[Tensor], Tensor]) -> Sequences:
        """Return the documents as sequences of queries and keys."""
        positions = [
            torch.arange(row * width + start, row * width + start + length) for row, start, length, _ in self.documents
        ]
        keys = [positions[one] for number in range(len(positions)) for one in self._lineage(number)]
        lengths = self._lengths()
        query_ends, key_ends = (torch.tensor([0, *itertools.accumulate(some)], dtype=torch.int32) for some in lengths)
        tensors = (torch.cat(positions), torch.cat(keys), query_ends, key_ends)
        is_whole = all(torch.equal(some, torch.arange(self.rows * width)) for some in tensors[:2])
        return Sequences(*map(on_device, tensors), *lengths, is_whole)  # type: ignore[call-arg]  # four tensors

    def _lineage(self, number: int) -> list[int]:
        """Return a document behind its ancestors."""
        lineage = [number]
        while (parent := self.documents[lineage[0]][3]) != NO_PARENT:
            lineage.insert(0, parent)
        return lineage


def _figure(item: Item, name: str, example: int | None) -> float:
    """Return an item's figure for one of its examples; one that it lacks is 0, its weight 1."""
    figure = item.extras.get(name, 1.0 if name == "weight" else 0.0)
    if not isinstance(figure, tuple):
        return figure
    return 0.0 if example is None else figure[example]
