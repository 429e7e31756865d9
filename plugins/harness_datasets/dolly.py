"""Databricks Dolly rows: instruction, context, response, category."""

from __future__ import annotations

from collections.abc import Iterable

import harness
from harness.data import LeftOut, take
from harness.nouns import Row
from harness_datasets.choices import seen_names


class DollyOptions(harness.Options):
    """`categories`: the only ones to keep; all where none is named."""

    categories: tuple[str, ...] = ()


def convert(row: Row, options: DollyOptions) -> harness.Conversation | LeftOut:
    """One row as a question, with its context below it, and the answer; left out where its category is not asked for."""
    wanted = options.categories
    category = take(row, "category", str, "") if not wanted else take(row, "category", str)
    if wanted and category not in wanted:
        return LeftOut("a category that is not asked for")
    instruction, context = take(row, "instruction", str), take(row, "context", str, "")
    return harness.Conversation.of(
        ("user", f"{instruction}\n\n{context}" if context else instruction),
        ("assistant", take(row, "response", str)),
    )


def gather(rows: Iterable[tuple[int, Row]], options: DollyOptions) -> Iterable[tuple[int, Row]]:
    """The rows as they are. DataError at their end where a category that is asked for is that of none."""
    return seen_names(rows, "category", {"categories": options.categories})


DATASET = harness.Dataset(
    "dolly",
    "instruction, context, response, category",
    convert,
    options=DollyOptions,
    gather=gather,
    fields=(("instruction", "context?", "response", "category"),),
)
