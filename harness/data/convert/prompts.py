"""Prompts of a file of any kind, for who asks a model with them: its answers, where it has some, are not read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.contract import Dataset
from harness.data.convert.recognise import choose
from harness.data.convert.sources import load_rows
from harness.data.convert.validity import check_readable
from harness.errors import DataError
from harness.nouns import Conversation, DataItem

if TYPE_CHECKING:
    from harness.plugins import Registry


def prompts_of(path: str, datasets: Registry[Dataset]) -> Iterator[str]:
    """Yield the first question of each row, as the dataset that fits the file reads it.

    Raises:
        DataError: for a file that no dataset fits, and for a row without a question.
    """
    from harness.recipe import DataSource

    match = choose(path, datasets, check=_check_asks)
    source = DataSource(dataset=match.dataset, path=path)
    for row in load_rows(source, datasets, check=_check_asks):
        yield from map(_question, row.items)


def _question(item: DataItem) -> str:
    messages = item.messages if isinstance(item, Conversation) else item.prompt
    return next((message.content for message in messages if message.role == "user" and message.content.strip()), "")


def _check_asks(item: DataItem) -> None:
    check_readable(item)
    if not _question(item):
        raise DataError("there is no question in it")
