"""A sample of the rows of a file, or of the files that a path stands for, renamed as a source says."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from harness.contract import Dataset
from harness.data.convert.accounting import without
from harness.data.convert.conversion import renamed
from harness.data.read.formats import read_rows
from harness.data.read.storage import files_of
from harness.errors import DataError
from harness.nouns import Row

SAMPLE = 64  # rows that are tried
FILES = 8  # of a folder or glob, files that the sample is taken from
GATHERED = 2048  # rows that a dataset with `gather` may read for its sample
CHARACTERS = 1 << 24  # in the rows that are read for a sample, after which there are enough of them
NONE_RENAMED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SampledRows:
    """Some rows of a file, or of the `files` that a path stands for, renamed as the source says.

    `key` is that of `rows_under`, the object's key under which the rows are.
    """

    path: str
    files: tuple[str, ...]
    columns: Mapping[str, str]
    unread: tuple[str, ...]
    rows: tuple[tuple[int, Row], ...]
    key: str | None = None

    @classmethod
    def of(
        cls,
        path: str,
        columns: Mapping[str, str] = NONE_RENAMED,
        unread: tuple[str, ...] = (),
        count: int = SAMPLE,
        rows: str | None = None,
    ) -> SampledRows:
        """Read `count` rows, from up to FILES of the files that a path stands for.

        Raises:
            DataError: where there is nothing to read at `path`, or no row of it can be read.
        """
        files = files_of(path)
        some = tuple(files[:: -(-len(files) // FILES)])
        errors: list[DataError] = []
        sample = tuple(_rows(some, rows, columns, unread, max(1, count // len(some)), errors))
        if not sample:
            raise errors[0] if errors else DataError("there are no rows in it", path=path)
        return cls(path, some, columns, unread, sample, rows)

    def under(self, columns: Mapping[str, str]) -> SampledRows:
        """Return the rows with further columns renamed. Raises DataError for a row that lacks one of them."""
        rows = tuple((number, renamed(row, columns)) for number, row in self.rows)
        theirs = {ours: self.columns.get(name, name) for ours, name in columns.items()}
        return replace(self, columns={**self.columns, **theirs}, rows=rows)

    def without(self, unread: tuple[str, ...]) -> SampledRows:
        """Return the rows without further columns, which have the names of the file."""
        rows = tuple((number, without(row, unread)) for number, row in self.rows)
        return replace(self, unread=(*self.unread, *unread), rows=rows)

    def within(self, key: str) -> SampledRows:
        """Return the rows that the one row holds as a list under a key."""
        ((_, row),) = self.rows
        return replace(self, rows=tuple(enumerate(row[key][:SAMPLE], 1)), key=key)

    def gathered(self, dataset: Dataset, options: Any) -> Iterable[tuple[int, Row]]:
        """Return the rows as the dataset puts them together; more are read, as rows of one tree may lie far apart."""
        if dataset.gather is None:
            return self.rows
        rows = _rows(self.files, self.key, self.columns, self.unread, None, [])
        some = list(itertools.islice(rows, GATHERED))
        gathered = list(itertools.islice(dataset.gather(some, options), len(self.rows) + 1))
        is_all = len(some) < GATHERED and sum(_characters(row) for _, row in some) < CHARACTERS
        # What is put together last may be cut off where the reading stopped.
        return gathered[: len(self.rows)] if is_all or len(gathered) > len(self.rows) else gathered[:-1]


def _rows(
    files: Iterable[str],
    key: str | None,
    columns: Mapping[str, str],
    unread: tuple[str, ...],
    each: int | None,
    errors: list[DataError],
) -> Iterator[tuple[int, Row]]:
    """Yield the first `each` rows of each file, renamed, until they have CHARACTERS."""
    characters = 0
    for file in files:
        for number, row in itertools.islice(read_rows(file, errors.append, key=key), each):
            try:
                yield number, renamed(row, columns, unread)
            except DataError as error:
                errors.append(DataError(error.reason, path=file, row=number))
            characters += _characters(row)
            if characters >= CHARACTERS:
                return


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list):
        return 0
    return sum(map(_characters, value))
