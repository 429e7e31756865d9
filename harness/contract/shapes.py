"""Shapes: other ways to write the rows of a dataset, declared by the names of their columns."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

from harness.contract.checking import require_functions, require_texts
from harness.contract.datasets import Dataset
from harness.errors import DataError, PluginError, nearest
from harness.nouns import Conversation, Preference, Row

Fields = tuple[tuple[str, ...], ...]
Rewritten = Row | Iterable[Row | tuple[()]]  # an empty tuple is a LeftOut, for a row or a part of it
Pairs = tuple[tuple[str, str], ...]  # (ours, theirs) of each column that is read
_ONE_OF = re.compile(r"[^=.?|]+(?:\|[^=.?|]+)+")


@dataclass(frozen=True, slots=True)
class Shape:
    """One more way to write the rows that the dataset `into` reads. It is used by its name, like a dataset.

    `fields` lists alternatives as those of a Dataset, with `ours=theirs` for a column that `into` knows under another
    name: `(("prompt=title", "completion=body", "-author"),)`. `title|headline` is either of two names, so that several
    spellings are one line. `rewrite(row)`, if there is one, gets the row with its columns renamed, and without those
    that only are metadata; it returns the row that `into` reads, or several, or a `LeftOut`. `gather` is that of a
    Dataset, and sees the columns of the file. `*` stands for all other columns, where a program lets its users name
    them: `rewrite` gets these as they are, and raises DataError for one that it does not read.

    Two shapes may have the same columns, and differ in what these mean: then `auto` refuses and names both. `rank` is
    that of a Dataset.
    """

    name: str
    description: str
    into: str
    fields: Fields
    metadata: tuple[str, ...] = ()
    rewrite: Callable[[Row], Rewritten] | None = None
    gather: Callable[[Iterable[tuple[int, Row]], Any], Iterable[tuple[int, Row]]] | None = None
    rank: int = 0
    licence: str = "not stated"

    def as_dataset(self, into: Dataset) -> Dataset:
        """Return the dataset that reads rows of this shape through `into`."""
        return Dataset(
            self.name,
            self.description,
            partial(_convert, self.fields, self.rewrite, into.convert),
            licence=self.licence,
            options=into.options,
            gather=self.gather,
            fields=tuple(tuple(_theirs(name) for name in alternative) for alternative in spelt_out(self.fields)),
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


@cache
def spelt_out(fields: Fields) -> Fields:
    """Return the alternatives with one for each name of `a|b`; the same names have the same one throughout."""
    spelt: dict[tuple[str, ...], None] = {}
    for alternative in fields:
        groups = tuple(dict.fromkeys(group for name in alternative for group in _ONE_OF.findall(name)))
        for chosen in itertools.product(*(group.split("|") for group in groups)):
            if len(set(chosen)) == len(chosen):
                names = dict(zip(groups, chosen, strict=True))
                spelt[tuple(_with_names(name, names) for name in alternative)] = None
    return tuple(spelt)


def _with_names(name: str, names: Mapping[str, str]) -> str:
    return _ONE_OF.sub(lambda group: names[group[0]], name)


def _theirs(name: str) -> str:
    """Return the file's name in `ours=theirs`, with the `?` of an optional column."""
    return name.rpartition("=")[2]


@cache
def _renames(fields: Fields) -> tuple[tuple[frozenset[str], Pairs], ...]:
    """Return for each alternative the columns that it needs, and those that it reads."""
    return tuple(map(_renames_of, spelt_out(fields)))


def _renames_of(alternative: tuple[str, ...]) -> tuple[frozenset[str], Pairs]:
    needed: set[str] = set()
    pairs: dict[str, str] = {}
    for name in alternative:
        if name.startswith("-") or name == "*":
            continue
        ours, _, theirs = name.partition("=") if "=" in name else (name, "", name)
        column = theirs.removesuffix("?").partition(".")[0]
        pairs.setdefault(column, ours.removesuffix("?").partition(".")[0])
        if not theirs.endswith("?") and f"{column}?" not in map(_theirs, alternative):
            needed.add(column)
    return frozenset(needed), tuple((ours, theirs) for theirs, ours in pairs.items())


def _convert(
    fields: Fields,
    rewrite: Callable[[Row], Rewritten] | None,
    convert: Callable[[Row, Any], Any],
    row: Row,
    options: Any,
) -> Any:
    """Convert a row of a shape: rename its columns, rewrite it, and let the shape's dataset convert what comes out."""
    seen: Rewritten = _renamed(row, fields)
    if rewrite is not None:
        seen = rewrite(seen)  # type: ignore[arg-type]
    if isinstance(seen, Mapping):
        return convert(seen, options)
    if isinstance(seen, tuple) and not seen:  # a LeftOut, with its reason
        return seen
    items: list[Any] = []
    for one in seen:
        if isinstance(one, tuple):  # a LeftOut for a part of the row
            items.append(one)
            continue
        converted = convert(one, options)
        several = isinstance(converted, Iterable) and not isinstance(converted, Conversation | Preference)
        items += converted if several else [converted]
    return items


def _renamed(row: Row, fields: Fields) -> Row:
    """Return the columns that the shape reads, under the names of its dataset; of several alternatives, of the fullest.

    Raises:
        DataError: for a row that lacks a column of every alternative.
    """
    filled = frozenset(name for name, value in row.items() if value is not None)
    pairs = _fullest(fields, filled)
    if pairs is None:
        absent = [sorted(needed - filled) for needed, _ in _renames(fields)]
        name = min(absent, key=len)[0]
        state = "is null" if name in row else f"is missing.{nearest(name, row)}"
        raise DataError(f"the field {name!r} {state} The row has: {', '.join(map(str, row)) or 'nothing'}")
    read = {ours: row[theirs] for ours, theirs in pairs if theirs in filled}
    if any("*" in alternative for alternative in fields):
        named = {theirs for _, theirs in pairs}
        read |= {name: value for name, value in row.items() if name in filled and name not in named}
    return read


@lru_cache(maxsize=4096)
def _fullest(fields: Fields, filled: frozenset[str]) -> Pairs | None:
    """Return the columns of the alternative of which most are filled; None where each lacks a column that it needs."""
    fitting = [pairs for needed, pairs in _renames(fields) if needed <= filled]
    return max(fitting, key=lambda pairs: sum(theirs in filled for _, theirs in pairs), default=None)
