"""Laws of datasets: declaring reads nothing, rows become the same valid items each time, and keep their text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.contract.kinds import Kind
from harness.data.convert.conversion import convert_row
from harness.data.convert.sources import load_rows, where_of
from harness.data.read.formats import raise_error, read_rows
from harness.data.read.storage import files_of
from harness.errors import DataError, HarnessError, shown
from harness.nouns import Conversation, DataItem, Message, Row
from harness.plugins.registry import Entry
from harness.testing.laws.law import Doubtful, Kit, NotTried

MOST_ROWS = 200


def listing_reads_nothing(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require that nothing of the source was read, and no host asked, while the plugin was loaded."""
    reads = kit.plugins.read_by(kit.info.name)
    if reads.hosts:
        raise HarnessError(f"loading the plugin asked {', '.join(sorted(reads.hosts))}: ask it in `convert`, when read")
    source = str(Path(entry.item.source).absolute()) if entry.item.source else ""
    if source in reads.files:
        raise HarnessError(f"loading the plugin read {source}: the harness reads it when somebody asks for the rows")


def licence_is_stated(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require a description, and a licence of data that the dataset brings."""
    if not entry.item.description.strip():
        raise HarnessError("it has no description: `harness data list` shows one")
    if entry.item.source is not None and entry.item.licence == "not stated":
        raise Doubtful("it brings data and states no licence: licence='CC-BY-4.0', say")


def rows_are_valid(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require that each of the first rows becomes a valid item."""
    _items(kit, kind, entry)


def rows_are_the_same_each_time(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require equal items of two readings, which the cache of encoded data relies on."""
    for number, (one, other) in enumerate(zip(_items(kit, kind, entry), _items(kit, kind, entry), strict=True), 1):
        if one != other:
            raise HarnessError(
                f"item {number} is another at the second reading: {shown(str(one), 200)} and {shown(str(other), 200)}. "
                f"Chance and the clock have no place in `convert`"
            )


def text_is_kept(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require that the texts of the fields that the dataset says it reads are in the items."""
    dataset = entry.item
    if not dataset.fields or dataset.gather is not None:
        raise NotTried("it names no `fields`" if not dataset.fields else "it gathers rows")
    options = _source(kit, kind, entry)
    read = {name.removesuffix("?") for form in dataset.fields for name in form if not name.startswith("-")}
    for number, row in _rows(options, dataset):
        items = [item for item in convert_row(dataset, row, options) if not isinstance(item, tuple)]
        words = "\n".join(_words(item) for item in items)
        for name in sorted(read & set(row) - {dataset.label}):
            text = row[name]
            if items and isinstance(text, str) and text.strip() and text.strip() not in words:
                raise Doubtful(f"row {number}: {shown(text.strip())} of the field {name!r} is in none of its messages")


LAWS = {
    "listing reads nothing": listing_reads_nothing,
    "description and licence are stated": licence_is_stated,
    "rows are valid": rows_are_valid,
    "rows are the same each time": rows_are_the_same_each_time,
    "text is kept": text_is_kept,
}


def _source(kit: Kit, kind: Kind, entry: Entry[Any]) -> Any:
    options = kit.options(kind, entry)
    if entry.item.resolve is not None:
        raise NotTried("it stands for other datasets")
    if kit.rows is not None:
        return options.model_copy(update={"path": str(kit.rows)})
    if options.path is None and entry.item.source is None:
        raise NotTried("it brings no data: --rows FILE tries it on yours")
    return options


def _items(kit: Kit, kind: Kind, entry: Entry[Any]) -> list[DataItem]:
    rows = load_rows(_source(kit, kind, entry), kit.plugins.datasets)
    items = [item for row in itertools.islice(rows, MOST_ROWS) for item in row.items]
    if not items:
        raise DataError("no row became an item")
    return items


def _rows(options: Any, dataset: Any) -> Iterator[tuple[int, Row]]:
    for path in files_of(where_of(options, dataset), options.revision):
        yield from itertools.islice(read_rows(path, raise_error, key=options.rows), MOST_ROWS)


def _words(item: DataItem) -> str:
    parts: tuple[tuple[Message, ...], ...]
    parts = (item.messages,) if isinstance(item, Conversation) else (item.prompt, item.chosen, item.rejected)
    return "\n".join(f"{one.content}\n{one.reasoning}\n{one.tool_calls}" for part in parts for one in part)
