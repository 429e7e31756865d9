"""Stand-in for the dataset that fits a file, chosen on a sample of the file's rows.

It is replaced by that dataset before rows are read. If no dataset fits, or if two fit equally well, this is an error:
nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import harness
from harness.data.convert.recognise import choose
from harness.nouns import Match, Row

if TYPE_CHECKING:
    from harness.recipe import DataSource


def resolve(path: str, datasets: Mapping[str, harness.Dataset], options: DataSource) -> Match:
    """Return the dataset that fits the file after its columns are renamed.

    Raises:
        DataError: if no dataset fits, or if several fit equally well.
    """
    return choose(path, datasets, options.columns, options.unread, options.rows)


def convert(row: Row, options: object) -> NoReturn:
    """Raise DataError: `auto` never converts a row itself."""
    raise harness.DataError("auto is replaced by the dataset that fits the file before rows are read")


DATASET = harness.Dataset(
    "auto", "whichever of these fits the file; refuses where two do", convert, resolve=resolve, yields="either"
)
