"""Sources to conversations and preferences: the rows of each source, converted and counted.

Reading streams; a row that is left out is counted with its reason, never dropped in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.contract import Dataset
from harness.data.convert.accounting import UnreadError, check_accounted
from harness.data.convert.cells import writes_line_ends
from harness.data.convert.conversion import convert_row, renamed
from harness.data.convert.fields import LeftOut, having_fields
from harness.data.convert.validity import check_item
from harness.data.read.formats import OnError, raise_error, read_rows
from harness.data.read.storage import files_of
from harness.data.reports import SourceReport
from harness.errors import DataError, listed
from harness.nouns import Conversation, DataItem, Match, Row

if TYPE_CHECKING:
    from harness.plugins import Registry
    from harness.recipe import DataSource


def reports_of(
    sources: Iterable[DataSource], datasets: Registry[Dataset], *, list_ids: bool = False
) -> tuple[SourceReport, ...]:
    """Begin a report for each source, before anything is read. With `list_ids` it lists what is left out."""
    return tuple(
        SourceReport(source.dataset, where_of(source, datasets[source.dataset]), ids={} if list_ids else None)
        for source in sources
    )


@dataclass(frozen=True, slots=True)
class ConvertedRow:
    """One row of a file as converted: one item or several."""

    path: str
    number: int
    items: tuple[DataItem, ...]


def load_source(
    source: DataSource,
    datasets: Registry[Dataset],
    report: SourceReport | None = None,
    on_error: OnError = raise_error,
) -> Iterator[DataItem]:
    """Yield the conversations (or preferences) of one source, each with its id and source filled in.

    `on_error` gets a DataError, naming file and row, for a row that does not fit; the default raises it.

    Raises:
        DataError: where the dataset needs a path and has none; where no row is left.
    """
    for row in load_rows(source, datasets, report, on_error):
        yield from row.items


def load_rows(
    source: DataSource,
    datasets: Registry[Dataset],
    report: SourceReport | None = None,
    on_error: OnError = raise_error,
    check: Callable[[DataItem], None] = check_item,
) -> Iterator[ConvertedRow]:
    """Yield what `load_source` does, row by row. `check` raises DataError for an item that cannot be used."""
    dataset, source, _ = resolved(source, datasets)
    where = where_of(source, dataset)
    report = report or SourceReport(dataset.name, where)
    report.source = dataset.name  # what `auto` chose
    paths = files_of(where, source.revision)
    names = names_apart(paths)
    count = wrong = 0  # not `report.kept`, which falls again where an item is left out later

    def note_wrong(error: DataError) -> None:
        nonlocal wrong
        if source.on_bad_row == "drop" and error.row is not None:
            name = f"{names.get(str(error.path), error.path)}:{error.row}"
            report.drop_bad(name, dataset.name, error.reason)
            return
        wrong += 1
        on_error(error)

    for path, number, row in _gathered(dataset, source, where, paths, report, note_wrong):
        report.rows += 1
        name = f"{names.get(path) or path.rpartition('/')[2]}:{number}"
        try:
            items = convert_row(dataset, row, source, check, is_gathered=dataset.gather is not None)
        except DataError as error:
            hint = _fits_another(dataset, row, datasets)
            if isinstance(error, UnreadError) and error.may_judge:
                hint += _reads_judged(datasets)
            note_wrong(DataError(f"{error}{hint}", path=path, row=number))
            continue
        if not items:
            why = f": {items.reason}" if isinstance(items, LeftOut) else " leaves it out"
            report.leave_out(name, dataset.name + why)
            continue
        left = len(items) if source.limit is None else source.limit - count
        kept: list[DataItem] = []
        for part, item in enumerate(items, 1):
            part_name = f"{name}.{part}" if len(items) > 1 else name
            if isinstance(item, LeftOut):
                report.leave_out(part_name, f"{dataset.name}: {item.reason}")
            elif len(kept) < left:
                kept.append(_named(item, item.id or part_name, item.source or dataset.name))
        if not kept:
            continue
        named = tuple(kept)
        count += len(named)
        report.kept += len(named)
        yield ConvertedRow(path, number, named)
        if len(named) == left and source.limit is not None:
            return
    if count == 0 and not wrong:
        why = "".join(f"; {times:,} left out: {reason}" for reason, times in report.left_out.items())
        on_error(DataError(f"the dataset is empty: {report.rows} rows read, none kept{why}", path=where))


def names_apart(paths: Sequence[str]) -> dict[str, str]:
    """Return a name for each file: its last part, behind as many folders as tell it from the others."""
    names: dict[str, str] = {}
    depth = 1
    while left := [path for path in paths if path not in names]:
        ends = {path: "/".join(path.split("/")[-depth:]) for path in left}
        times = Counter(ends.values())
        names |= {path: end for path, end in ends.items() if times[end] == 1 or end == path}
        depth += 1
    return names


def resolved(source: DataSource, datasets: Registry[Dataset]) -> tuple[Dataset, DataSource, Match | None]:
    """Return the dataset that a source is read as, the source for that, and the match where a stand-in chose it.

    Raises:
        DataError: where the source names a stand-in for other datasets (`auto`), and none of them fits.
    """
    from harness.recipe import read_as

    dataset = datasets[source.dataset]
    if dataset.resolve is None:
        return dataset, source, None
    match = dataset.resolve(where_of(source, dataset), datasets, source)
    chosen = datasets[match.dataset]
    return chosen, read_as(source, chosen), match


def where_of(source: DataSource, dataset: Dataset) -> str:
    """Return what a source is read from: its own path, or the one that its dataset brings.

    Raises:
        DataError: where there is neither.
    """
    where = source.path or dataset.source
    if where is None:
        raise DataError(f"the dataset {dataset.name!r} brings no data of its own: give it a `path`")
    return files_of(str(where), source.revision)[0] if str(where).startswith("hub://") else str(where)


def _fits_another(dataset: Dataset, row: Row, datasets: Registry[Dataset]) -> str:
    """Say which datasets read a refused row that lacks the fields of its own dataset."""
    if not dataset.fields or having_fields(row, [dataset]):
        return ""
    others = [name for name in having_fields(row, datasets.values()) if _reads(datasets[name], row)]
    return f". It fits the dataset {' or '.join(map(repr, others[:2]))}" if others else ""


def _reads_judged(datasets: Registry[Dataset]) -> str:
    """Say which datasets read rows of judged answers, and by which field."""
    reading = [f"{dataset.name!r} reads as its {dataset.label!r}" for dataset in datasets.values() if dataset.label]
    return f". Such a column is what the dataset {listed(reading)}" if reading else ""


def _reads(dataset: Dataset, row: Row) -> bool:
    try:
        return bool(convert_row(dataset, row))
    except DataError:
        return False


def _named(item: DataItem, id: str, source: str) -> DataItem:
    if isinstance(item, Conversation):  # nearly all are, and `replace` takes ten times as long
        return Conversation(item.messages, item.tools, id, source, item.weight)
    return replace(item, id=id, source=source)


def _rows_of(path: str, source: DataSource, on_error: OnError) -> Iterator[tuple[int, Row]]:
    return read_rows(path, on_error, unescape_newlines=source.unescape_newlines, key=source.rows)


class _RowNumber(int):
    """The number of a row, with the file it is from. `gather` passes it on as the int that it is."""

    path: str


def _gathered(
    dataset: Dataset, source: DataSource, where: str, paths: Sequence[str], report: SourceReport, on_error: OnError
) -> Iterator[tuple[str, int, Row]]:
    """Yield (file, number, row) of all files of a source, renamed, and put together where the dataset gathers them."""

    def numbered() -> Iterator[tuple[_RowNumber, Row]]:
        for path in paths:
            for row_number, row in _rows_of(path, source, on_error):
                report.written_ends += not source.unescape_newlines and writes_line_ends(row)
                try:
                    row = renamed(row, source.columns, source.unread)
                    if dataset.gather is not None:
                        check_accounted(dataset, row, source)
                except DataError as error:
                    report.rows += 1
                    on_error(DataError(str(error), path=path, row=row_number))
                    continue
                number = _RowNumber(row_number)
                number.path = path
                yield number, row

    if dataset.gather is None:
        for number, row in numbered():
            yield number.path, int(number), row
        return
    try:
        for gathered, row in dataset.gather(numbered(), source):
            yield (gathered.path if isinstance(gathered, _RowNumber) else where), int(gathered), row
    except DataError as error:
        on_error(error if error.path else DataError(error.reason, path=where))
