"""Databricks Dolly rows: instruction, context, response, category."""

from __future__ import annotations

from collections.abc import Iterable

import harness
from harness.data import LeftOut, take
from harness.nouns import Row
from harness_datasets.choices import seen_names


class DollyOptions(harness.Options):
    """Options of `dolly`. `categories` lists the categories to keep; an empty list keeps all."""

    categories: tuple[str, ...] = ()


def convert(row: Row, options: DollyOptions) -> harness.Conversation | LeftOut:
    """Convert one row: the question with its context below it, then the answer.

    A row of a category that is not asked for is left out.
    """
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
    """Return the rows unchanged. After the last row, raise DataError if none has a category that is asked for."""
    return seen_names(rows, "category", {"categories": options.categories})


DATASET = harness.Dataset(
    "dolly",
    "instruction, context, response, category",
    convert,
    options=DollyOptions,
    gather=gather,
    fields=(("instruction", "context?", "response", "category"), ("instruction", "context", "response")),
    metadata=("id",),
    yields="conversations",
)
