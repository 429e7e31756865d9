"""The rows of a SQLite file: of its only view, else of its only table, read without changing a byte of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from harness.errors import DataError, shown
from harness.files import read_only_uri
from harness.nouns import Row

MAGIC = b"SQLite format 3\x00"


def sqlite_rows(path: Path) -> Iterator[tuple[int, Row | DataError]]:
    """Yield the rows of the file's only view or table, numbered from 1; a DataError in the place of one that is wrong.

    Columns declared as JSON are decoded. A server may be writing to the file meanwhile: what is read is one state of
    it.

    Raises:
        DataError: where the file is damaged, or has neither one view nor one table.
    """
    try:
        with closing(_opened(path)) as connection:
            name, columns = _source_of_rows(connection)
            cursor = connection.execute(f"SELECT * FROM {_quoted(name)}")
            for number, values in enumerate(cursor, 1):
                try:
                    yield (
                        number,
                        {
                            column: _value(value, column, kind)
                            for (column, kind), value in zip(columns, values, strict=True)
                        },
                    )
                except DataError as error:
                    yield number, error
    except sqlite3.Error as error:
        raise DataError(f"the SQLite file cannot be read: {error}") from None


def _opened(path: Path) -> sqlite3.Connection:
    """Return a read-only connection. Raises HarnessError where what was written last cannot be read."""
    connection = sqlite3.connect(read_only_uri(path), uri=True, timeout=10)
    connection.text_factory = _Text
    return connection


class _Text(bytes):
    """Text as it is in the file, so that a cell that is not UTF-8 costs its row and no other. Blobs are plain bytes."""


def _source_of_rows(connection: sqlite3.Connection) -> tuple[str, list[tuple[str, str]]]:
    """Return the name of the only view, or else table, with the name and declared type (upper case) of each column."""
    names = _names(connection, "view")
    if len(names) != 1:
        names = _names(connection, "table")
    if len(names) != 1:
        tables = f"{len(names)}: {', '.join(names)}" if names else "none"
        raise DataError(f"a SQLite file of rows has one table, found {tables}")
    columns = connection.execute(f"PRAGMA table_info({_quoted(names[0])})").fetchall()
    return names[0], [(name.decode(errors="replace"), kind.decode().upper()) for _, name, kind, *_ in columns]


def _names(connection: sqlite3.Connection, kind: str) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = ? AND substr(name, 1, 7) <> 'sqlite_' ORDER BY name", (kind,)
    )
    return [name.decode(errors="replace") for (name,) in rows]


def _value(value: Any, column: str, kind: str) -> Any:
    if not isinstance(value, _Text):
        return value
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"the column {column!r} is not UTF-8 text: byte {error.start}: {error.reason}") from None
    if "JSON" not in kind:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the column {column!r} is declared as JSON but is not valid: {error}: {shown(text)}") from None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
