"""From files to raw rows, one at a time, and saying which row of which file cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.data.fields import shown
from harness.errors import DataError
from harness.nouns import Row

OnError = Callable[[DataError], None]


def stop(error: DataError) -> None:
    """What is done about a row that is wrong where nothing else is asked for: raise."""
    raise error


def files_of(where: str) -> list[str]:
    """The files that a path, a glob or a folder names, in order. Raises DataError where it names none."""
    return [where]


def read_rows(path: str | Path, on_error: OnError = stop) -> Iterator[tuple[int, Row]]:
    """The rows of a JSON (a list of objects) or JSONL file with their 1-based row; for JSONL that is the line.

    `on_error` gets a DataError naming the file and the line for each row that cannot be read; the default raises it.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((char for line in file for char in line if not char.isspace()), "")
            file.seek(0)
            rows = _json_list(path, file.read()) if first == "[" else _json_lines(path, file)
            for number, row in rows:
                if isinstance(row, DataError):
                    on_error(row)
                elif not isinstance(row, dict):
                    on_error(DataError(f"a row should be an object, found {shown(row)}", path=path, row=number))
                else:
                    yield number, row
    except UnicodeDecodeError as error:
        on_error(
            DataError(
                f"not UTF-8 text ({_undecodable(path) or error.reason}); convert it, as with `iconv -t UTF-8`",
                path=path,
            )
        )
    except FileNotFoundError:
        on_error(DataError("no such file", path=path))
    except OSError as error:
        on_error(DataError(f"cannot be read: {error.strerror}", path=path))


def _undecodable(path: Path) -> str:
    """Where in the file the first byte is that is not UTF-8; what a streaming decoder reports counts from its buffer."""
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return f"byte {error.start}: {error.reason}, on line {line}"
    return ""


def _json_list(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    try:
        yield from enumerate(json.loads(text), 1)
    except json.JSONDecodeError as error:
        yield 0, DataError(f"line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}", path=path)
    except (RecursionError, ValueError) as error:
        yield 0, DataError(f"the JSON cannot be read: {error}", path=path)


def _json_lines(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            yield number, DataError(
                f"not valid JSON at column {error.colno}: {error.msg}: {shown(line.strip())}. A JSONL file holds one "
                f"object a line; a JSON file is one list of objects", path=path, row=number
            )  # fmt: skip
        except (RecursionError, ValueError) as error:
            yield number, DataError(f"the JSON cannot be read: {error}", path=path, row=number)
