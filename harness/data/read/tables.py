"""CSV and TSV as they stream in: rows of text by column, with the line where one cannot be read.

Which character parts the cells, whether quotes are quoting, and whether the first line names the columns is told from
the first lines by the rules of `table_rows`.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter, deque
from collections.abc import Iterator

from harness.data.read.jsontext import MAX_ROW, Parsed, lines_of, not_utf8
from harness.errors import DataError, shown

SAMPLE = 200  # lines that the rules look at
LONGEST_NAME = 40  # characters of a column's name
_OPEN = "a quote is opened and not closed"
WASTED = 1_000_000  # lines read again because of quotes that are never closed, after which a file is given up


Line = tuple[int, str | DataError]
Record = tuple[int, list[str] | DataError]


def table_rows(chunks: Iterator[bytes], delimiter: str, offset: int = 0) -> Iterator[Parsed]:
    """Yield the rows of a table by the line on which they begin, each a mapping from column to text.

    Cells are parted by `delimiter`; in a CSV whose first line has no comma, by semicolons or tabs if it has these.

    In a CSV, cells may be in double quotes, with `""` for one, and then hold line ends and delimiters (RFC 4180). A
    TSV knows no quotes, and a `\\n` in a cell is these two characters (`renamed` turns them into a line end where a
    source asks for it); but where cells of the first SAMPLE lines begin with a quote and all of these read as a CSV's
    would, with as many cells in every row, it is read like one.

    The first line is a header if each cell could be a name (it begins with a letter or `_`, is no sentence, has at most
    LONGEST_NAME characters; the first one may be empty, as pandas writes its index), all differ, and none of them comes
    again in its own column within the sample. Else, and for an empty name, columns are called "1", "2", ...
    """
    lines = _decoded(lines_of(chunks), offset)
    sample = list(itertools.islice(lines, SAMPLE))
    first = next((text for _, text in sample if isinstance(text, str) and text.strip()), "")
    if delimiter == "," and "," not in first:
        delimiter = ";" if ";" in first else "\t" if "\t" in first else ","
        quoted = True
    else:
        quoted = delimiter != "\t" or _is_quoted(sample)
    records = _records(itertools.chain(sample, lines), delimiter, quoted)
    begun = list(itertools.islice(records, SAMPLE // 2))
    names = _header(begun)
    rows: Iterator[Record] = itertools.chain(begun, records)
    if names:
        next(rows)
        like = f"the header, {shown(delimiter.join(names))},"
    else:
        widths = Counter(len(cells) for _, cells in begun if isinstance(cells, list))
        names = [str(number) for number in range(1, 1 + (widths.most_common(1)[0][0] if widths else 0))]
        like = "a row of this table (it has no header)"
    for number, cells in rows:
        if isinstance(cells, DataError):
            yield number, cells
        elif len(cells) != len(names):
            yield (
                number,
                DataError(f"{len(cells)} cells, where {like} has {len(names)}: {shown(delimiter.join(cells)[:200])}"),
            )
        else:
            yield number, dict(zip(names, cells, strict=True))


def looks_like_table(head: str, is_whole: bool) -> str | None:
    """Return the delimiter of text that is a table by all signs: every whole line has as many cells, two at least."""
    lines: list[Line] = list(enumerate(head.split("\n")[:SAMPLE], 1))
    for delimiter in "\t,":
        rows = [cells for _, cells in _records(iter(lines if is_whole else lines[:-1]), delimiter, delimiter == ",")]
        widths = {len(cells) if isinstance(cells, list) else 0 for cells in rows}
        if len(rows) > 1 and len(widths) == 1 and widths.pop() > 1:
            return delimiter
    return None


def _decoded(lines: Iterator[bytes], offset: int) -> Iterator[Line]:
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode().removesuffix("\r")
            yield number, DataError(f"a NUL byte at column {text.index(chr(0)) + 1}") if "\0" in text else text
        except UnicodeDecodeError as error:
            yield number, DataError(not_utf8(offset + error.start, number, error.reason))
        offset += len(line) + 1


def _is_quoted(sample: list[Line]) -> bool:
    """Return whether a TSV quotes its cells as a CSV does, by the rule of `table_rows`."""
    good = []
    for number, cells in _records(iter(sample), "\t", quoted=True):
        if isinstance(cells, DataError):
            # A row of many lines may be cut off by the end of the sample.
            if len(sample) < SAMPLE or number < SAMPLE // 2 or _OPEN not in cells.reason:
                return False
            sample = sample[: number - sample[0][0]]
            break
        good.append(len(cells))
    return len(set(good)) == 1 and any(
        text.startswith('"') or '\t"' in text for _, text in sample if isinstance(text, str)
    )


def _header(begun: list[Record]) -> list[str] | None:
    """Return the names of the columns, if the first line has them, by the rule of `table_rows`."""
    first = begun[0][1] if begun else []
    if isinstance(first, DataError) or not any(first):
        return None
    first = [cell.strip() for cell in first]
    names = first if first[0] else ["1", *first[1:]]
    if not all(map(_is_name, first if first[0] else first[1:])):
        return None
    later = [row for _, row in begun[1:] if isinstance(row, list)]
    if any(name == cell for row in later for name, cell in zip(first, row, strict=False) if name):
        return None
    twice = [name for name, times in Counter(names).items() if times > 1]
    if (
        twice
        and len(names) > 2
        and all(name.isidentifier() for name in first if name)
        and not any(twice[0] in row for row in later)
    ):
        raise DataError(
            f"the column {twice[0]!r} is there twice: rename one (or, if the first line is no header, add one)"
        )
    return None if twice else names


def _is_name(cell: str) -> bool:
    is_sentence = " " in cell and cell.endswith((".", "!", "?"))
    return (
        re.match(r"[^\W\d]", cell) is not None
        and len(cell) <= LONGEST_NAME
        and not is_sentence
        and "\n" not in cell
        and "\\n" not in cell
    )


def _records(lines: Iterator[Line], delimiter: str, quoted: bool) -> Iterator[Record]:
    """Yield the cells of each row. After quotes that do not add up, reading goes on with the next line."""
    again: deque[Line] = deque()
    wasted = 0
    while True:
        number, text = again.popleft() if again else next(lines, (0, ""))
        if number == 0:
            return
        if isinstance(text, DataError):
            yield number, text
        elif not text.strip(" "):
            continue
        elif not quoted or '"' not in text:
            yield number, text.split(delimiter)
        else:
            cells_or_error, taken = _quoted_cells(text, delimiter, again, lines)
            yield number, cells_or_error
            if isinstance(cells_or_error, DataError):
                again.extendleft(reversed(taken))
                wasted += len(taken)
                if wasted > WASTED:
                    raise DataError("too many quotes that are never closed; what follows is not read")


def _quoted_cells(
    text: str, delimiter: str, again: deque[Line], lines: Iterator[Line]
) -> tuple[list[str] | DataError, list[Line]]:
    """Return the cells of a row that begins with `text`, and the further lines it has, or those that were tried."""
    parts, taken, size = [text], list[Line](), len(text)
    cells = _parsed(text, delimiter)
    while cells is None and size <= MAX_ROW:
        number, line = again.popleft() if again else next(lines, (0, ""))
        if number == 0:
            break
        taken.append((number, line))
        if isinstance(line, DataError):
            return DataError(f"the row goes on to line {number}, and there is {line.reason}"), taken[:-1]
        parts.append(line)
        size += len(line)
        if line.count('"') % 2:  # else the quotes are still open
            cells = _parsed("\n".join(parts), delimiter)
    if cells is None:
        cells = f"{_OPEN} " + (f"in the {len(taken)} lines that follow" if taken else "before the file ends")
    if isinstance(cells, str):
        return DataError(
            f"not a row of a table: {cells}: {shown(text[:200])}. A quote in a quoted cell is written twice"
        ), taken
    return cells, taken


def _parsed(text: str, delimiter: str) -> list[str] | str | None:
    """Return the cells; or what is wrong with them; or None where a quote is still open."""
    limit = csv.field_size_limit()
    try:
        csv.field_size_limit(max(limit, len(text)))
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        return None if "unexpected end of data" in str(error) else str(error)
    finally:
        csv.field_size_limit(limit)
