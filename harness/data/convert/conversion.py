"""One raw row to conversations and preferences, through the dataset's `convert`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harness.contract import Dataset
from harness.data.convert.accounting import check_accounted, is_empty, without
from harness.data.convert.cells import with_objects
from harness.data.convert.fields import LeftOut
from harness.data.convert.validity import check_item
from harness.errors import ENDINGS, DataError, nearest, shown
from harness.nouns import Conversation, DataItem, Preference, Row

MOST_ITEMS = 100_000  # of one row


def convert_row(
    dataset: Dataset,
    row: Row,
    options: Any = None,
    check: Callable[[DataItem], None] = check_item,
    *,
    is_gathered: bool = False,
) -> tuple[DataItem | LeftOut, ...]:
    """Convert one row and check each item. `options` is the source as the recipe has it; None: with its defaults.

    `is_gathered` says that the dataset's `gather` put the row together: what it is of was accounted for before that.

    Returns a `LeftOut`, which is an empty tuple, where the dataset gives a reason to leave the row out; among the items
    it stands for a part of the row that is left out.

    Raises:
        UnreadError: where the row has a filled field that the dataset neither reads nor lists as metadata.
        DataError: for whatever else is wrong with the row.
    """
    if options is None:
        from harness.recipe import source_model

        options = source_model(dataset)(dataset=dataset.name)
    row = with_objects(dataset, row)
    try:
        converted = dataset.convert(row, options)
        if isinstance(converted, LeftOut):
            return converted
        if isinstance(converted, Conversation | Preference | str) or not isinstance(converted, Iterable | None):
            converted = (converted,)
        items = tuple(itertools.islice(converted or (), MOST_ITEMS + 1))
        if len(items) > MOST_ITEMS:
            raise DataError(f"the row becomes more than {MOST_ITEMS:,} items, and they go on: `convert` has to end")
    except (DataError, *ENDINGS):
        raise
    except KeyError as error:
        raise DataError(f"the field {error} is missing. The row has: {', '.join(map(str, row)) or 'nothing'}") from None
    except BaseException as error:  # whatever a plugin's `convert` trips over is about this row
        raise DataError(f"the row does not fit dataset {dataset.name!r}: {type(error).__name__}: {error}") from error
    if items and not is_gathered:
        check_accounted(dataset, row, options)
    for item in items:
        if isinstance(item, LeftOut):
            continue
        if not isinstance(item, Conversation | Preference):
            raise DataError(f"dataset {dataset.name!r} gave {shown(item)}, neither Conversation nor Preference")
        if dataset.yields == ("preferences" if isinstance(item, Conversation) else "conversations"):
            kind = type(item).__name__
            raise DataError(f"dataset {dataset.name!r} gave a {kind}, and is declared to yield {dataset.yields}")
        check(item)
    return items


def renamed(row: Row, columns: Mapping[str, str], unread: Iterable[str] = ()) -> Row:
    """Return the row with its columns under the dataset's names: `{instruction: question}` reads `question`.

    `unread` names the columns, as they are in the file, that are left out before that.

    Raises:
        DataError: for a row without a column that is to be renamed, or with another one under the new name.
    """
    if unread:
        row = without(row, unread)
    if not columns:
        return row
    if absent := [theirs for theirs in columns.values() if theirs not in row]:
        raise DataError(f"the column {absent[0]!r} is missing.{nearest(absent[0], row)} The row has: {', '.join(row)}")
    taken = set(columns.values())
    for ours in columns:
        if ours in row and ours not in taken and not is_empty(row[ours]):
            raise DataError(
                f"`columns` would put {columns[ours]!r} in the place of the row's own column {ours!r}, which would be "
                f"lost. Rename that one too, or leave it out with `unread: [{ours}]`"
            )
    return {key: value for key, value in row.items() if key not in taken} | {
        ours: row[theirs] for ours, theirs in columns.items()
    }
