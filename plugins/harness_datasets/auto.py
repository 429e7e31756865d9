"""Any format that another data set declares: the one that fits the file, chosen on a sample of its rows.

A stand-in: before rows are read, it is replaced by the data set that fits. Where none fits, or two fit equally well, it
says so and guesses nothing.
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
    """Return the data set that fits the file with its columns renamed. Raises DataError where none does, or several do."""
    return choose(path, datasets, options.columns)


def convert(row: Row, options: object) -> NoReturn:
    raise harness.DataError("auto is replaced by the data set that fits the file before rows are read")


DATASET = harness.Dataset("auto", "whichever of these fits the file; refuses where two do", convert, resolve=resolve)
