"""JSON and JSONL as they stream in: rows one at a time, with line and column where one cannot be read.

A list or object of any length is decoded element by element with the standard library's own decoder (`raw_decode` on a
buffer that is refilled), not with ijson: that is several times faster, needs nothing installed, and says where it
stumbled. What the decoder takes besides JSON (NaN, Infinity) is taken. A key that comes twice with different values is
refused, as one of them would be lost.
"""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from harness.data.read.layouts import rows_within
from harness.errors import DataError, shown

Parsed = tuple[int, Any]  # a row's number and the row, or the DataError that it is

MAX_ROW = 1 << 29  # bytes or characters of one row; what is longer is no row, but a file without line ends
KEYED = 64  # so many values of an object are looked at to tell an object of rows from a row
_SPACE = re.compile(r"[ \t\n\r]*")
_BLANK = b" \t\r"
_HINT = "A JSONL file holds one object a line; a JSON file is one list of objects"


class _TwiceError(ValueError):
    """A key that an object has twice, with different values."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if seen.setdefault(key, value) != value:
                raise _TwiceError(_twice(key, seen[key], value))
    return members


def _twice(key: str, one: object, other: object) -> str:
    return f"the key {key!r} comes twice, as {described(one)} and as {described(other)}: keep one"


def loads(text: str) -> Any:
    """Return JSON text as data, as rows are read: a key that comes twice with different values is a ValueError."""
    return json.loads(text, object_pairs_hook=_unique)


def reason_of(error: Exception) -> str:
    """Describe what the decoder stumbled over, for people."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if digits := re.search(r"value has (\d+) digits", str(error)):
        return f"a number of {digits[1]} digits"
    return str(error)


_decode = json.JSONDecoder(object_pairs_hook=_unique).raw_decode
_skip = json.JSONDecoder(parse_int=len, parse_float=len).raw_decode  # to find where a refused value ends


def described(value: object) -> str:
    """Return `shown`, for values of any depth."""
    try:
        return shown(value[:200] if isinstance(value, str) else value)
    except (RecursionError, ValueError):
        return "something nested deeply"


# JSONL


def lines_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines, without their ends. Raises DataError for a line of more than MAX_ROW bytes."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        first, *more = chunk.split(b"\n")
        held.append(first)
        size += len(first)
        if size > MAX_ROW:
            raise DataError(
                f"a line of more than {MAX_ROW >> 20} MiB: no line end is found, so this is no file of rows"
            )
        if more:
            yield b"".join(held)
            yield from more[:-1]
            held, size = [more[-1]], len(more[-1])
    if size:
        yield b"".join(held)


def json_lines(chunks: Iterator[bytes], offset: int = 0) -> Iterator[Parsed]:
    """Yield the rows of a JSONL file by their line. `offset` is where in the file the bytes begin."""
    for number, line in enumerate(lines_of(chunks), 1):
        text = line.strip(_BLANK)
        if text:
            try:
                decoded = text.decode()
                row, end = _decode(decoded)
                if end == len(decoded):
                    yield number, row
                else:
                    yield number, _bad_line(line, json.JSONDecodeError("Extra data", decoded, end))
            except UnicodeDecodeError as error:
                at = offset + len(line) - len(line.lstrip(_BLANK)) + error.start
                yield number, DataError(not_utf8(at, number, error.reason))
            except json.JSONDecodeError as error:
                yield number, _bad_line(line, error)
            except (RecursionError, ValueError) as error:
                yield number, DataError(f"the JSON cannot be read: {reason_of(error)}")
        offset += len(line) + 1


def _bad_line(line: bytes, error: json.JSONDecodeError) -> DataError:
    column = len(line) - len(line.lstrip(_BLANK)) + error.colno
    return DataError(f"not valid JSON at column {column}: {error.msg}: {described(error.doc)}. {_HINT}")


def not_utf8(byte: int, line: int, reason: str) -> str:
    """Describe text in another encoding, for an error message."""
    return f"not UTF-8 text (byte {byte}: {reason}, on line {line}); convert it, as with `iconv -t UTF-8`"


# JSON


def json_list(chunks: Iterator[bytes], offset: int = 0) -> Iterator[Parsed]:
    """Yield the elements of a list, numbered from 1."""
    text = _Text(chunks, offset)
    text.expect("[")
    if text.ahead() == "]":
        text.expect("]")
    else:
        number = 0
        while True:
            number += 1
            yield number, text.value()
            if text.expect(",", "]") == "]":
                break
    if text.ahead():
        raise DataError(f"{text.where()}: text after the end of the list. {_HINT}")


def json_objects(chunks: Iterator[bytes], offset: int = 0) -> Iterator[Parsed]:
    """Yield the rows of an object that is written over several lines, numbered from 1.

    An object may hold a whole file: see `layouts.rows_within`. Where all its values are objects (of the first KEYED, if
    there are more) each of these is a row, with its key as `id` if it has none. Else the object is a row itself, and
    more objects may follow.
    """
    text = _Text(chunks, offset)
    members = _members(text)
    held: list[tuple[str, Any]] = []
    keyed = True
    for key, value in members:
        held.append((key, value))
        keyed = keyed and isinstance(value, dict | DataError)
        if keyed and len(held) == KEYED:
            break
    is_whole = len(held) == len(dict(held)) and not (keyed and len(held) == KEYED)
    rows = rows_within(dict(held)) if is_whole else None
    if rows is not None:
        yield from enumerate(rows, 1)
    elif held and keyed:
        yield from enumerate((_keyed(*member) for member in itertools.chain(held, members)), 1)
    if rows is not None or (held and keyed):
        if text.ahead():
            raise DataError(f"{text.where()}: text after the end of the object. {_HINT}")
        return
    yield 1, _row_of(held)
    number = 1
    while text.ahead():
        number += 1
        if text.ahead() != "{":
            raise DataError(f"{text.where()}: expected another object, found {text.ahead()!r}. {_HINT}")
        yield number, text.value()


def _members(text: _Text) -> Iterator[tuple[str, Any]]:
    """Yield the key and value of each member of an object."""
    text.expect("{")
    if text.ahead() == "}":
        text.expect("}")
        return
    while True:
        if text.ahead() != '"':
            raise DataError(f"{text.where()}: not valid JSON: expected a key in double quotes{text.but()}. {_HINT}")
        key = text.value()
        text.expect(":")
        yield str(key), text.value()
        if text.expect(",", "}") == "}":
            return


def _row_of(members: list[tuple[str, Any]]) -> Any:
    try:
        return next((value for _, value in members if isinstance(value, DataError)), None) or _unique(members)
    except _TwiceError as error:
        return DataError(f"the JSON cannot be read: {error}")


def _keyed(key: str, value: Any) -> Any:
    return {"id": key} | value if isinstance(value, dict) else value


class _Text:
    """JSON text that is read on where a value needs more of it. `at` is where in `text` the next value begins."""

    def __init__(self, chunks: Iterator[bytes], offset: int) -> None:
        self.chunks = chunks
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at = "", 0
        self.line, self.column = 1, 1  # of the text's first character
        self.bytes_read = offset
        self.ended = False
        self.failure: DataError | None = None

    def ahead(self) -> str:
        """Return the next character that is no white space; empty at the end."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def expect(self, *chars: str) -> str:
        """Step over the next character, which must be one of these."""
        if (char := self.ahead()) not in chars:
            raise DataError(f"{self.where()}: not valid JSON: expected {' or '.join(map(repr, chars))}{self.but()}")
        self.at += 1
        return char

    def value(self) -> Any:
        """Step over the next value. One that is whole but cannot be used comes as a DataError."""
        self.ahead()
        while True:
            refused = None
            try:
                try:
                    value, end = _decode(self.text, self.at)
                except json.JSONDecodeError:
                    raise
                except ValueError as error:  # a key twice, or a number of too many digits
                    refused = DataError(f"{self.where()}: the JSON cannot be read: {reason_of(error)}")
                    value, end = _skip(self.text, self.at)
            except json.JSONDecodeError as error:
                problem = (
                    f"{self.where(error.pos)}: not valid JSON: {error.msg}{self.but(error.pos)}; what follows cannot "
                    "be read"
                )
                if self._may_go_on(error) and self._more():
                    continue
                raise DataError(problem) from None
            except RecursionError as error:
                raise DataError(
                    f"{self.where()}: the JSON cannot be read: {reason_of(error)}; what follows cannot be read"
                ) from None
            if end == len(self.text) and not isinstance(value, str | list | dict) and self._more():
                continue  # of a number there may be more
            self.at = end
            return refused or value

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Return whether the value is perhaps not wrong, but only cut off by the end of what has been read."""
        return error.pos >= len(self.text) - 16 or error.msg.startswith("Unterminated string")

    def _more(self) -> bool:
        """Read on, by as much as is still held, so that a long value is tried a few times only. False at the end."""
        if self.failure:
            raise self.failure
        if self.ended:
            return False
        self.line, self.column = self._position(self.at)
        self.text, self.at = self.text[self.at :], 0
        if len(self.text) > MAX_ROW:
            raise DataError(f"{self.where()}: a value of more than {MAX_ROW >> 20} MiB: this is no file of rows")
        parts, size = [self.text], 0
        while size <= len(self.text) and not self.ended and not self.failure:
            try:
                chunk = next(self.chunks, b"")
                self.ended = not chunk
                parts.append(self.decoder.decode(chunk, self.ended))
                self.bytes_read += len(chunk)
            except DataError as error:
                self.failure = error
            except UnicodeDecodeError as error:
                parts.append(error.object[: error.start].decode())
                at = self.bytes_read + len(chunk) - len(error.object) + error.start
                line = self.line + sum(part.count("\n") for part in parts)
                self.failure = DataError(not_utf8(at, line, error.reason))
            size += len(parts[-1])
        self.text = "".join(parts)
        if not size and self.failure:
            raise self.failure
        return size > 0

    def where(self, at: int | None = None) -> str:
        """Return line and column, as an editor counts them."""
        return "line {}, column {}".format(*self._position(self.at if at is None else at))

    def but(self, at: int | None = None) -> str:
        """Describe what is there instead."""
        rest = self.text[self.at if at is None else at :][:30]
        return f", found {rest!r}" if rest else ", found the end of the file: it was cut off"

    def _position(self, at: int) -> tuple[int, int]:
        breaks = self.text.count("\n", 0, at)
        column = at - self.text.rfind("\n", 0, at) if breaks else self.column + at
        return self.line + breaks, column
