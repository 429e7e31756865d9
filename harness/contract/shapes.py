"""Shapes: other ways to write the rows of a dataset, declared by the names of their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness.contract.checking import require_functions, require_texts
from harness.contract.datasets import Dataset
from harness.errors import DataError, PluginError, nearest
from harness.nouns import Conversation, Preference, Row

Alternatives = tuple[tuple[frozenset[str], tuple[tuple[str, str], ...]], ...]  # (needed, (ours, theirs) that are read)


@dataclass(frozen=True, slots=True)
class Shape:
    """One more way to write the rows that the dataset `into` reads. It is used by its name, like a dataset.

    `fields` lists alternatives as those of a Dataset, with `ours=theirs` for a column that `into` knows under another
    name: `(("prompt=title", "completion=body", "-author"),)`. `rewrite(row)`, if there is one, gets the row with its
    columns renamed, and without those that only are metadata; it returns the row that `into` reads, or several, or a
    `LeftOut`. `gather` is that of a Dataset, and sees the columns of the file.

    Two shapes may have the same columns, and differ in what these mean: then `auto` refuses and names both. `rank` is
    that of a Dataset.
    """

    name: str
    description: str
    into: str
    fields: tuple[tuple[str, ...], ...]
    metadata: tuple[str, ...] = ()
    rewrite: Callable[[Row], Row | Iterable[Row]] | None = None
    gather: Callable[[Iterable[tuple[int, Row]], Any], Iterable[tuple[int, Row]]] | None = None
    rank: int = 0
    licence: str = "not stated"

    def as_dataset(self, into: Dataset) -> Dataset:
        """Return the dataset that reads rows of this shape through `into`."""
        return Dataset(
            self.name,
            self.description,
            partial(_convert, tuple(map(_renames, self.fields)), self.rewrite, into.convert),
            licence=self.licence,
            options=into.options,
            gather=self.gather,
            fields=tuple(tuple(_theirs(name) for name in alternative) for alternative in self.fields),
            metadata=self.metadata,
            rank=self.rank,
            yields=into.yields,
        )


def check_shape(shape: Shape) -> None:
    """Raise PluginError for a declaration that would fail when a recipe uses it."""
    require_texts(shape, "description", "licence", "into")
    if shape.rewrite is not None:
        require_functions(shape, rewrite="row")
    if shape.gather is not None:
        require_functions(shape, gather="rows, options")
    fields = shape.fields
    if not (isinstance(fields, tuple) and fields and all(isinstance(one, tuple) and one for one in fields)):
        raise PluginError(
            f"{shape.name!r}: fields should be a tuple of alternatives, each a tuple of columns, as in "
            f'`fields=(("prompt=title", "completion=body"),)`; found {fields!r:.200}'
        )


def _theirs(name: str) -> str:
    """Return the file's name in `ours=theirs`, with the `?` of an optional column."""
    return name.rpartition("=")[2]


def _renames(alternative: tuple[str, ...]) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """Return the columns that an alternative needs, and (ours, theirs) of each column that it reads."""
    needed: set[str] = set()
    pairs: dict[str, str] = {}
    for name in alternative:
        if name.startswith("-"):
            continue
        ours, _, theirs = name.partition("=") if "=" in name else (name, "", name)
        column = theirs.removesuffix("?").partition(".")[0]
        pairs.setdefault(column, ours.removesuffix("?").partition(".")[0])
        if not theirs.endswith("?") and f"{column}?" not in map(_theirs, alternative):
            needed.add(column)
    return frozenset(needed), tuple((ours, theirs) for theirs, ours in pairs.items())


def _convert(
    alternatives: Alternatives,
    rewrite: Callable[[Row], Row | Iterable[Row]] | None,
    convert: Callable[[Row, Any], Any],
    row: Row,
    options: Any,
) -> Any:
    """Convert a row of a shape: rename its columns, rewrite it, and let the shape's dataset convert what comes out."""
    seen: Row | Iterable[Row] = _renamed(row, alternatives)
    if rewrite is not None:
        seen = rewrite(seen)  # type: ignore[arg-type]
    if isinstance(seen, Mapping):
        return convert(seen, options)
    if isinstance(seen, tuple) and not seen:  # a LeftOut, with its reason
        return seen
    items: list[Any] = []
    for one in seen:
        converted = convert(one, options)
        several = isinstance(converted, Iterable) and not isinstance(converted, Conversation | Preference)
        items += converted if several else [converted]
    return items


def _renamed(row: Row, alternatives: Alternatives) -> Row:
    """Return the columns that the shape reads, under the names of its dataset; of several alternatives, of the fullest.

    Raises:
        DataError: for a row that lacks a column of every alternative.
    """
    best: tuple[tuple[str, str], ...] = ()
    most = -1
    for needed, pairs in alternatives:
        if all(row.get(name) is not None for name in needed):
            filled = sum(row.get(theirs) is not None for _, theirs in pairs)
            if filled > most:
                best, most = pairs, filled
    if most < 0:
        absent = [sorted(name for name in needed if row.get(name) is None) for needed, _ in alternatives]
        name = min(absent, key=len)[0]
        state = "is null" if name in row else f"is missing.{nearest(name, row)}"
        raise DataError(f"the field {name!r} {state} The row has: {', '.join(map(str, row)) or 'nothing'}")
    return {ours: row[theirs] for ours, theirs in best if row.get(theirs) is not None}
