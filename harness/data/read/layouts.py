"""Layouts in which rows are not one object each: columns side by side, a viewer's export, lists of messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.errors import DataError, listed, nearest

# What the hub's viewer writes around the rows.
_VIEWER = {
    *("dataset", "config", "split", "features", "rows", "num_rows_total", "num_rows_per_page", "partial", "truncated"),
}


def rows_within(whole: Mapping[str, Any]) -> list[Any] | None:
    """Return the rows of a JSON object that holds a whole file; None for an object that is a row itself.

    - `{"text": ["a", "b"]}`: lists of one length, one of them of texts or lists of objects, as `datasets` has them;
    - `{"text": {"0": "a", "1": "b"}}`: objects with the keys 0, 1, ..., as pandas writes them;
    - `{"columns": ["text"], "data": [["a"], ["b"]]}`: names and lists of cells, as pandas writes them with `split`;
    - `{"rows": [{"row_idx": 0, "row": {...}}]}`: an export of the hub's viewer.
    """
    values = list(whole.values())
    rows = whole.get("rows")
    if isinstance(rows, list) and rows and whole.keys() <= _VIEWER and all(map(_is_viewers, rows)):
        return [_of_viewer(row) for row in rows]
    if whole.keys() >= {"columns", "data"} and whole.keys() <= {"columns", "data", "index"}:
        return _of_split(whole["columns"], whole["data"], whole.get("index"))
    if not values or not values[0]:
        return None
    if all(isinstance(value, Mapping) for value in values):
        keys = [str(number) for number in range(len(values[0]))]
        if all(list(value) == keys for value in values):
            return [{name: column[key] for name, column in whole.items()} for key in keys]
    if all(isinstance(value, list) and len(value) == len(values[0]) for value in values) and any(
        all(map(_is_text, value)) or all(map(_is_list_of_objects, value)) for value in values
    ):
        return [dict(zip(whole, cells, strict=True)) for cells in zip(*values, strict=True)]
    return None


def _is_text(cell: Any) -> bool:
    return isinstance(cell, str)


def _is_list_of_objects(cell: Any) -> bool:
    return isinstance(cell, list) and bool(cell) and all(isinstance(one, Mapping) for one in cell)


def _is_viewers(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "row" in entry and entry.keys() <= {"row_idx", "row", "truncated_cells"}


def _of_split(names: Any, rows: Any, index: Any) -> list[Any] | None:
    """Return rows of pandas' `split` layout; None where the names do not fit each list of cells, or an index has texts.

    An index of numbers is left out.
    """
    if index is not None and not (isinstance(index, list) and all(isinstance(one, int | float) for one in index)):
        return None
    if not (isinstance(names, list) and names and all(map(_is_text, names)) and isinstance(rows, list)):
        return None
    if not all(isinstance(cells, list) and len(cells) == len(names) for cells in rows):
        return None
    return [dict(zip(names, cells, strict=True)) for cells in rows]


def rows_under(key: str, values: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Yield the rows that each object of a file holds as a list under a key, counted from 1."""
    number = 0
    for at, value in values:
        if not isinstance(value, Mapping):
            yield at, value
            continue
        rows = value.get(key)
        if not isinstance(rows, list):
            has = ", ".join(map(str, value)) or "nothing"
            problem = (
                f"there is no list of rows under `rows: {key}`.{nearest(key, map(str, value))} The object has: {has}"
            )
            yield at, DataError(problem)
            continue
        for row in rows:
            number += 1
            yield number, row


def _of_viewer(entry: Mapping[str, Any]) -> Any:
    if cut := entry.get("truncated_cells"):
        return DataError(f"the viewer has cut off the cells {listed(cut)}: download the file itself")
    return entry["row"]


def as_row(value: Any) -> Any:
    """Return a list of messages as the row that it stands for; any other value as it is."""
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        for key, name in (("role", "messages"), ("from", "conversations")):
            if all(key in one for one in value):
                return {name: value}
    return value
