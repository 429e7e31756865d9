"""From rows to conversations: converting them, and an account of what became of each.

Reading streams; a row that is left out is counted with its reason, never dropped in silence.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.data.convert.fields import LeftOut
from harness.data.read.formats import OnError, files_of, read_rows, stop
from harness.declarations import Dataset
from harness.errors import DataError, nearest, shown
from harness.nouns import Conversation, Message, Preference, Row

if TYPE_CHECKING:
    from harness.data.convert.recognise import Match
    from harness.plugins import Registry
    from harness.recipe import DataSource

Item = Conversation | Preference


@dataclass(slots=True)
class SourceReport:
    """What became of the rows of one source."""

    source: str
    path: str
    rows: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    # How often the kept ones are used, all together (a mixture may repeat them), and the tokens of that.
    used: int = 0
    tokens: int = 0
    supervised: int = 0
    # In how many of them somebody says a control token's string, which stays text, once they are encoded.
    said: Counter[str] = field(default_factory=Counter)
    # The ids of what was left out by reason, where somebody asked for them by setting this to a dict.
    ids: dict[str, list[str]] | None = None

    def __str__(self) -> str:
        """How much of it was kept: of rows, or of items where rows became several."""
        rows = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        if self.kept + self.left_out.total() > self.rows:
            return f"{self.kept:,} item{'' if self.kept == 1 else 's'} from {rows}"
        return f"{self.kept:,} of {rows}"

    def leave_out(self, id: str, reason: str) -> None:
        """Count a row or item that is left out, and list it if the ids are asked for."""
        self.left_out[reason] += 1
        if self.ids is not None:
            self.ids.setdefault(reason, []).append(id)


def reports_of(
    sources: Iterable[DataSource], datasets: Registry[Dataset], *, list_ids: bool = False
) -> tuple[SourceReport, ...]:
    """A report for each source, before anything is read. With `list_ids` they name what is left out, row by row."""
    return tuple(
        SourceReport(source.dataset, where_of(source, datasets[source.dataset]), ids={} if list_ids else None)
        for source in sources
    )


@dataclass(frozen=True, slots=True)
class LoadedRow:
    """What one row of a file became: one item or several."""

    path: str
    number: int
    items: tuple[Item, ...]


def load_source(
    source: DataSource, datasets: Registry[Dataset], report: SourceReport | None = None, on_error: OnError = stop
) -> Iterator[Item]:
    """The conversations (or preferences) of one source, each with its id and source filled in.

    `on_error` gets a DataError, naming file and row, for a row that does not fit; the default raises it.

    Raises:
        DataError: where the data set needs a path and has none; where no row is left.
    """
    for row in load_rows(source, datasets, report, on_error):
        yield from row.items


def load_rows(
    source: DataSource,
    datasets: Registry[Dataset],
    report: SourceReport | None = None,
    on_error: OnError = stop,
    check: Callable[[Item], None] | None = None,
) -> Iterator[LoadedRow]:
    """Like `load_source`, row by row. `check` raises DataError for an item that cannot be used; `check_item` if None."""
    dataset, source, _ = resolved(source, datasets)
    where = where_of(source, dataset)
    report = report or SourceReport(dataset.name, where)
    report.source = dataset.name  # what `auto` chose
    made = wrong = 0  # not `report.kept`, which falls again where what is made is left out later

    def count(error: DataError) -> None:
        nonlocal wrong
        wrong += 1
        on_error(error)

    for path, number, row in _gathered(dataset, source, where, report, count):
        report.rows += 1
        name = f"{path.rpartition('/')[2]}:{number}"
        try:
            items = convert_row(dataset, row, source, check or check_item)
        except DataError as error:
            count(DataError(f"{error}{_fits_another(dataset, row, datasets)}", path=path, row=number))
            continue
        if not items:
            why = f": {items.reason}" if isinstance(items, LeftOut) else " leaves it out"
            report.leave_out(name, dataset.name + why)
            continue
        left = len(items) if source.limit is None else source.limit - made
        named = tuple(
            _named(item, item.id or (f"{name}.{part}" if len(items) > 1 else name), item.source or dataset.name)
            for part, item in enumerate(items[:left], 1)
        )
        made += len(named)
        report.kept += len(named)
        yield LoadedRow(path, number, named)
        if len(named) == left and source.limit is not None:
            return
    if made == 0 and not wrong:
        why = "".join(f"; {count:,} left out: {reason}" for reason, count in report.left_out.items())
        on_error(DataError(f"the data set is empty: {report.rows} rows read, none kept{why}", path=where))


def _fits_another(dataset: Dataset, row: Row, datasets: Registry[Dataset]) -> str:
    """Of a refused row without the fields that the data set reads: which data sets have these fields."""
    from harness.data.convert.recognise import having_fields

    ours = not dataset.fields or having_fields(row, [dataset])
    others = [] if ours else having_fields(row, datasets.values())
    return f". It has the fields of the data set {' or '.join(map(repr, others[:2]))}" if others else ""


def _named(item: Item, id: str, source: str) -> Item:
    if isinstance(item, Conversation):  # nearly all are, and `replace` takes ten times as long
        return Conversation(item.messages, item.tools, id, source)
    return replace(item, id=id, source=source)


def resolved(source: DataSource, datasets: Registry[Dataset]) -> tuple[Dataset, DataSource, Match | None]:
    """The data set that a source is read as, and the source for that; where it was recognised, also how.

    That is its own, unless this is a stand-in for others (`auto`). Raises DataError where none fits.
    """
    from harness.data.convert.recognise import Match
    from harness.recipe import read_as

    dataset = datasets[source.dataset]
    if dataset.resolve is None:
        return dataset, source, None
    resolve: Callable[..., Dataset | Match] = dataset.resolve
    where = where_of(source, dataset)
    takes_columns = len(inspect.signature(resolve).parameters) > 2
    found = resolve(where, datasets, source.columns) if takes_columns else resolve(where, datasets)
    match = found if isinstance(found, Match) else None
    chosen = datasets[found.dataset] if isinstance(found, Match) else found
    return chosen, read_as(source, chosen), match


def where_of(source: DataSource, dataset: Dataset) -> str:
    """What a source is read from: its own path, or the one the data set brings. Raises DataError where there is none."""
    where = source.path or dataset.source
    if where is None:
        raise DataError(f"the data set {dataset.name!r} brings no data of its own: give it a `path`")
    return files_of(str(where), source.revision)[0] if str(where).startswith("hub://") else str(where)


def check_item(item: Item) -> None:
    """Raise DataError for an item that cannot be read or that nothing can be learnt from."""
    check_readable(item)
    check_learnable(item)


def check_readable(item: Item) -> None:
    """Raise DataError for an item without messages, or with text that is not Unicode."""
    if isinstance(item, Preference):
        if not item.prompt:
            raise DataError("the prompt has no messages")
    elif not item.messages:
        raise DataError("the conversation has no messages")
    for index, message in enumerate(messages_of(item), 1):
        _check_text(message.content, "message {} ({})", index, message.role)
        for call in message.tool_calls:
            _check_text(
                [call.name, call.arguments], "message {} ({}): the call of {!r}", index, message.role, call.name
            )
    for index, tool in enumerate(item.tools, 1):
        _check_text(tool, "tool {}", index)


def _check_text(value: Any, where: str, *about: object) -> None:
    """Raise DataError, beginning with `where`, for text that is not Unicode, and for JSON that is nested too deeply."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        text.encode()
    except UnicodeEncodeError as error:  # JSON can say "\ud83d"; no tokenizer takes it
        told = f"is not valid Unicode: it holds half of a surrogate pair, {text[error.start]!r}"
        raise DataError(f"{where.format(*about)} {told}") from None
    except RecursionError:
        raise DataError(f"{where.format(*about)} is nested too deeply") from None


def check_learnable(item: Item) -> None:
    """Raise DataError for an item that nothing can be learnt from; cleaning may have left it out before."""
    if isinstance(item, Conversation):
        _check_conversation(item)
    else:
        _check_preference(item)


def messages_of(item: Item) -> tuple[Message, ...]:
    """All messages of an item; of a preference the prompt's, then both completions'."""
    return item.messages if isinstance(item, Conversation) else item.prompt + item.chosen + item.rejected


def convert_row(
    dataset: Dataset, row: Row, options: Any = None, check: Callable[[Item], None] = check_item
) -> tuple[Item, ...]:
    """What the data set makes of one row, checked. Whatever goes wrong with the row is raised as a DataError."""
    try:
        made = dataset.convert(row, options) if dataset.options else dataset.convert(row)
        if isinstance(made, LeftOut):
            return made
        items = tuple(made or ()) if isinstance(made, Iterable | None) and not isinstance(made, str) else (made,)
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"the field {error} is missing. The row has: {', '.join(map(str, row)) or 'nothing'}") from None
    except Exception as error:  # whatever a plugin's `convert` trips over is about this row
        raise DataError(f"the row does not fit data set {dataset.name!r}: {type(error).__name__}: {error}") from error
    for item in items:
        if not isinstance(item, Conversation | Preference):
            raise DataError(f"data set {dataset.name!r} gave {shown(item)}, neither Conversation nor Preference")
        check(item)
    return items


def load_conversations(
    source: DataSource, datasets: Registry[Dataset], report: SourceReport | None = None
) -> Iterator[Conversation]:
    """Like `load_source`, for data that must be conversations."""
    for item in load_source(source, datasets, report):
        yield as_conversation(item, source.dataset)


def as_conversation(item: Item, dataset: str) -> Conversation:
    """The item, which must be a conversation. Raises DataError for a preference."""
    if not isinstance(item, Conversation):
        raise DataError(
            f"{item.source} {item.id}: the data set {dataset!r} yields preferences; this needs conversations"
        )
    return item


def _check_conversation(conversation: Conversation) -> None:
    if not any(message.role == "assistant" for message in conversation.messages):
        raise DataError("no message is the assistant's: there is nothing to learn from it")
    for index, message in enumerate(conversation.messages):
        if message.is_trained and not message.content.strip() and not message.tool_calls:
            raise DataError(f"message {index + 1} (assistant) is empty: there is nothing to learn from it")
        if message.role == "system" and index:
            raise DataError(f"message {index + 1} is a system prompt; only the first message can be one")


def _check_preference(preference: Preference) -> None:
    if not preference.chosen and not preference.rejected:
        raise DataError("there is neither a chosen nor a rejected completion")
    for name, turns in (("chosen", preference.chosen), ("rejected", preference.rejected)):
        if turns and not any(message.content.strip() or message.tool_calls for message in turns):
            raise DataError(f"the {name} completion is empty")
    if preference.chosen == preference.rejected:
        raise DataError("chosen and rejected are the same: there is nothing to prefer")


class _Place(int):
    """The number of a row, which knows its file. `gather` passes it on as the int that it is."""

    path: str


def _gathered(
    dataset: Dataset, source: DataSource, where: str, report: SourceReport, on_error: OnError
) -> Iterator[tuple[str, int, Row]]:
    """(file, number, row) of all files of a source, renamed, and put together where the data set gathers them."""

    def placed() -> Iterator[tuple[_Place, Row]]:
        for path in files_of(where, source.revision):
            for number, row in read_rows(path, on_error):
                try:
                    placed_row = renamed(row, source.columns)
                except DataError as error:
                    report.rows += 1
                    on_error(DataError(str(error), path=path, row=number))
                    continue
                place = _Place(number)
                place.path = path
                yield place, placed_row

    if dataset.gather is None:
        for place, row in placed():
            yield place.path, int(place), row
        return
    takes_options = len(inspect.signature(dataset.gather).parameters) > 1
    try:
        for number, row in dataset.gather(placed(), source) if takes_options else dataset.gather(placed()):
            yield (number.path if isinstance(number, _Place) else where), int(number), row
    except DataError as error:
        on_error(error if error.path else DataError(error.reason, path=where))


def renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """The row with its columns under the names that the data set knows: `{instruction: question}` reads `question`.

    Raises DataError for a row without a column that is to be renamed.
    """
    if not columns:
        return row
    if absent := [theirs for theirs in columns.values() if theirs not in row]:
        raise DataError(f"the column {absent[0]!r} is missing.{nearest(absent[0], row)} The row has: {', '.join(row)}")
    taken = set(columns.values())
    return {key: value for key, value in row.items() if key not in taken} | {
        ours: row[theirs] for ours, theirs in columns.items()
    }
