"""From files to raw rows, one at a time, and saying which row of which file cannot be read.

What a file is, its first bytes tell, and its name only where these leave it open. Rows stream: memory does not grow
with their number. The bytes come from `files`, JSON is read by `jsontext`, CSV and TSV by `tables`.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from harness.data.read.documents import TEXTS, document
from harness.data.read.jsontext import Parsed, described, json_lines, json_list, json_objects
from harness.data.read.layouts import as_row, rows_under
from harness.data.read.packed import PACKED, peek
from harness.data.read.sqlite import MAGIC, sqlite_rows
from harness.data.read.storage import (
    HUB,
    bare_suffix,
    files_of,
    hub_parts,
    is_remote,
    local_path,
    read_bytes,
    reason_of,
)
from harness.data.read.tables import looks_like_table, table_rows
from harness.errors import DataError
from harness.extras import require
from harness.nouns import Row

OnError = Callable[[DataError], None]

HEAD = 1 << 20  # bytes that tell what a file is
BATCH = 256  # rows of Parquet that are decoded at once
_BOM = b"\xef\xbb\xbf"
_PARQUET = b"PAR1"
_SPACE = " \t\r\n"
_LINES = (".jsonl", ".ndjson")
_TABLES = {".csv": ",", ".tsv": "\t"}


def raise_error(error: DataError) -> None:
    """Raise the error of a row that is wrong: what happens unless something else is asked for."""
    raise error


def read_rows(
    path: str | Path,
    on_error: OnError = raise_error,
    *,
    unescape_newlines: bool = False,
    key: str | None = None,
) -> Iterator[tuple[int, Row]]:
    """Yield the rows of one of the files that `files_of` names, with their number.

    - JSONL, CSV and TSV, by the line (1-based) on which a row begins; `tables.table_rows` says how a header is known.
    - JSON, counted from 1: a list of objects; an object whose values are all objects, each of them a row with its key
      as `id` if it has none; columns side by side and exports of the hub's viewer (`layouts.rows_within`); or one
      object, or several one after the other, each of them a row. A list of messages is a row with this list.
    - Text and Markdown: the whole file is one row with its `text`; a `.txt` that is a table is read as one.
    - Parquet, SQLite (the file's only table) and hub datasets, counted from 1.

    Files may be packed with gzip or zstd. `on_error` gets a DataError naming the file and the row for each row that
    cannot be read, and the default raises it. Where a file is damaged so that nothing after the damage can be read,
    that is one error; the rows before it are still given. `unescape_newlines` turns `\\n` in the text of a column into
    a line end. `key` is the one under which a JSON object holds its rows, as a list.

    Raises:
        MissingExtraError: for Parquet, zstd, URLs and hub datasets, without the extra `data`.
    """
    values = _ending_with_the_error(str(path))
    for number, value in values if key is None else rows_under(key, values):
        row = as_row(value)
        if isinstance(row, dict):
            yield number, _unescaped(row) if unescape_newlines else row
        elif isinstance(row, DataError):
            on_error(DataError(row.reason, path=path, row=number or None))
        else:
            on_error(DataError(f"a row should be an object, found {described(row)}", path=path, row=number))


def _unescaped(row: dict[str, Any]) -> Row:
    return {name: cell.replace("\\n", "\n") if isinstance(cell, str) else cell for name, cell in row.items()}


def _ending_with_the_error(path: str) -> Iterator[Parsed]:
    """Yield the rows, and last the error that ends the file early, if one does."""
    number = 0
    try:
        for number, row in _parsed(path):
            yield number, row
    except DataError as error:
        yield number + 1 if number else 0, error


def _parsed(path: str) -> Iterator[Parsed]:
    if path.startswith(HUB):
        yield from _hub(path)
        return
    head, chunks = peek(read_bytes(path), HEAD)
    if head.startswith(_PARQUET):
        yield from _parquet(path, chunks)
        return
    if head.startswith(MAGIC) and not is_remote(path) and Path(path).suffix not in PACKED:
        yield from sqlite_rows(local_path(path))
        return
    if problem := _foreign(head, path):
        raise DataError(problem)
    offset = len(_BOM) if head.startswith(_BOM) else 0
    yield from _text(head[offset:], path, _after(chunks, offset), offset)


def _after(chunks: Iterator[bytes], skipped: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[skipped:]
        skipped = max(0, skipped - len(chunk))


# Which format


def _text(head: bytes, path: str, chunks: Iterator[bytes], offset: int) -> Iterator[Parsed]:
    """Yield the rows of a text file, by what its first lines look like."""
    text = head.decode("utf-8", "ignore")
    suffix, is_whole = bare_suffix(path), len(head) < HEAD - len(_BOM)
    first, _, rest = text.lstrip(_SPACE).partition("\n")
    first = first.rstrip(_SPACE)
    one_line = is_whole and not rest.strip(_SPACE)
    if suffix in (*_TABLES, *_LINES) and "\r" in first and "\n" not in text:
        raise DataError(
            "its lines end with a carriage return alone, as on old Macs: convert it, as with `tr '\\r' '\\n'`"
        )
    if suffix in _TABLES and not (first in ("[", "{") or (first[:1] in ("[", "{") and _is_json(first))):
        return table_rows(chunks, _TABLES[suffix], offset)
    if suffix in TEXTS and (suffix == ".md" or not _is_table_or_json(text, first, is_whole)):
        return document(chunks, offset)
    if first.startswith("["):
        after = rest.lstrip(_SPACE)[:1]
        # Rows by the line that begin with a damaged one: it is no beginning of a list, and another row follows.
        damaged = after == "{" and first.endswith("}") and not _is_json(first + "]")
        by_line = suffix in _LINES and (damaged or (after == "[" and _is_json(first)))
        return json_lines(chunks, offset) if by_line else json_list(chunks, offset)
    if first.startswith("{"):
        if suffix in _LINES:
            spread = first == "{"
        else:
            spread = one_line or not rest or (first.endswith(("{", "[", ",", ":")) and not _is_json(first))
        return json_objects(chunks, offset) if spread else json_lines(chunks, offset)
    if first and suffix not in (*_LINES, ".json"):
        if delimiter := looks_like_table(text, is_whole):
            return table_rows(chunks, delimiter, offset)
        raise DataError(
            f"neither JSON, JSONL, CSV, TSV nor Parquet by its content, which begins {described(first)}; "
            f"name it .csv or .tsv if it is a table"
        )
    return json_lines(chunks, offset)


def _is_table_or_json(text: str, first: str, is_whole: bool) -> bool:
    """Return True for a `.txt` that holds rows; prose has a blank after its commas."""
    if first[:1] in ("[", "{"):
        return _is_json(first) or first in ("[", "{") or first.endswith((",", "[", "{"))
    return "\t" in first or (", " not in text and looks_like_table(text, is_whole) is not None)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


_FOREIGN = (
    (
        rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff",
        "not UTF-8 text (byte 0: the byte order mark of UTF-32)",
        "convert it, as with `iconv -f UTF-32 -t UTF-8`",
    ),
    (
        rb"\xff\xfe|\xfe\xff",
        "not UTF-8 text (byte 0: the byte order mark of UTF-16)",
        "convert it, as with `iconv -f UTF-16 -t UTF-8`",
    ),
    (
        rb"[\t\n\r -~]\x00[^\x00]\x00",
        "not UTF-8 text (byte 1: NUL bytes, as of UTF-16)",
        "convert it, as with `iconv -f UTF-16LE -t UTF-8`",
    ),
    (
        rb"\x00[\t\n\r -~]\x00[^\x00]",
        "not UTF-8 text (byte 0: NUL bytes, as of UTF-16)",
        "convert it, as with `iconv -f UTF-16BE -t UTF-8`",
    ),
    (rb"\x00{16}", "NUL bytes where rows should be, as after a crash", "copy it again"),
    (rb"PK\x03\x04", "a ZIP archive, or a workbook of Excel", "unpack it, or save the sheet as CSV"),
    (rb"BZh[1-9]1AY&SY", "packed with bzip2", "unpack it with `bunzip2`; gzip and zstd are read as they are"),
    (rb"\xfd7zXZ\x00", "packed with xz", "unpack it with `unxz`; gzip and zstd are read as they are"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (rb"[\s\S]{257}ustar", "a tar archive", "unpack it with `tar -x` and name the files in it"),
    (rb"ARROW1\x00\x00|\xff\xff\xff\xff", "an Arrow file", "write it as Parquet"),
    (rb"SQLite format 3\x00", "a SQLite file that is packed or not on this machine", "unpack it, or copy it here"),
    (rb"Obj\x01", "an Avro file", "write it as Parquet"),
    (rb"\x89HDF\r\n", "an HDF5 file", "write its rows as Parquet or JSONL"),
    (rb"%PDF-", "a PDF", "name the file that holds the rows"),
    (rb"version https://git-lfs", "a pointer of Git LFS in place of the data", "fetch them with `git lfs pull`"),
    (
        rb"\s*<(?i:!doctype html|html)",
        "a web page in place of the data",
        "download the file itself; its address may need a login",
    ),
)


def _foreign(head: bytes, path: str) -> str:
    """Describe a file in a format that is not read, and say what to do with it."""
    for magic, what, advice in _FOREIGN:
        if re.match(magic, head):
            return f"{what}: {advice}. JSON, JSONL, Parquet, CSV and TSV are read"
    if bare_suffix(path) == ".parquet":
        return f"not a Parquet file, whatever its name says: it should begin with PAR1, and {_begins(head)}"
    if path.endswith(PACKED) and not is_remote(path) and local_path(path).stat().st_size < 8:
        return "a file too short to be packed, as its name says it is: copy or download it again"
    return ""


def _begins(head: bytes) -> str:
    return f"begins with {described(head[:8].decode('latin-1'))}" if head else "is empty"


# Parquet


def _parquet(path: str, chunks: Iterator[bytes]) -> Iterator[Parsed]:
    """Yield the rows of a Parquet file. What is packed or remote is copied first: Parquet is read at random."""
    parquet = require("pyarrow.parquet", "data")
    with _at_random(path, chunks) as file:
        try:
            table = parquet.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
            names = table.schema_arrow.names
            padded = [field.name for field in table.schema_arrow if _has_fields(field.type)]
            groups = [table.metadata.row_group(group).num_rows for group in range(table.metadata.num_row_groups)]
        except Exception as error:  # Arrow has exceptions of its own, for what cannot be in a file that is whole
            raise DataError(f"the Parquet file is damaged or cut off: {reason_of(error)}") from None
        if twice := {name for name in names if names.count(name) > 1}:
            raise DataError(f"the column {min(twice)!r} is there twice: rename one")
        end = 0
        for group, size in enumerate(groups):
            number, end = end, end + max(0, size)
            problem = "the file holds fewer than it says"
            try:
                for batch in table.iter_batches(BATCH, row_groups=[group]):
                    for row in _batch_rows(batch):
                        number += 1
                        yield number, _without_padding(row, padded)
            except Exception as error:
                problem = reason_of(error)
            if number < end:  # what is damaged costs no more than its row group
                yield (
                    number + 1,
                    DataError(f"rows {number + 1} to {end} cannot be read: the Parquet file is damaged: {problem}"),
                )


@contextmanager
def _at_random(path: str, chunks: Iterator[bytes]) -> Iterator[BinaryIO]:
    if not is_remote(path):
        with local_path(path).open("rb") as file:
            if file.read(4) == _PARQUET:
                yield file
                return
    with tempfile.TemporaryFile() as copy:
        try:
            for chunk in chunks:
                copy.write(chunk)
        except OSError as error:
            raise DataError(f"cannot be copied to a temporary file, as Parquet must be: {reason_of(error)}") from None
        yield copy


def _batch_rows(batch: Any) -> Iterator[Any]:
    try:
        rows = batch.to_pylist()
    except Exception:  # a value that Python cannot hold, or text that is not UTF-8: only its own row is lost
        for at in range(batch.num_rows):
            try:
                yield batch.slice(at, 1).to_pylist()[0]
            except Exception as error:
                yield DataError(f"a value cannot be read: {reason_of(error)}")
    else:
        yield from rows


def _has_fields(type: Any) -> bool:
    """Return whether values of an Arrow type hold objects."""
    types = require("pyarrow", "data").types
    if types.is_struct(type):
        return True
    inner = getattr(type, "value_type", None)
    return inner is not None and _has_fields(inner)


def _without_padding(row: Any, columns: Sequence[str]) -> Any:
    """Return a row without the null fields of its objects.

    Arrow gives all objects of a column the same fields, and null to those that an object did not have: the arguments of
    one tool would have the names of all others.
    """
    if columns and isinstance(row, dict):
        return row | {name: _unpadded(row[name]) for name in columns}
    return row


def _unpadded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unpadded(inner) for name, inner in value.items() if inner is not None}
    return [_unpadded(one) for one in value] if isinstance(value, list) else value


# The hub


def _hub(address: str) -> Iterator[Parsed]:
    """Yield the rows of a hub dataset at a pinned revision, streamed."""
    (pinned,) = files_of(address)
    owner, name, config, options = hub_parts(pinned)
    datasets = require("datasets", "data")
    number = 0
    try:
        rows = datasets.load_dataset(
            _hub_path(f"{owner}/{name}"), config, split=options["split"], revision=options["revision"], streaming=True
        )
        for number, row in enumerate(rows, 1):
            yield number, row
    except DataError:
        raise
    except Exception as error:  # of `datasets`, of its readers, and of the network
        where = f"after row {number}" if number else "the hub dataset"
        raise DataError(f"{where} cannot be read: {reason_of(error)}".replace("after", "what comes after")) from None


def _hub_path(name: str) -> str:
    """Return the name by which `datasets` finds a hub dataset. It would prefer a local folder of that name."""
    if Path(name).exists():
        raise DataError(
            f"a folder {name} is here, which would be read in place of the hub's; for the folder, write `path: {name}`"
        )
    return name
