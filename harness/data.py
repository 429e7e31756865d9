"""From files to conversations: reading rows, converting them, and saying which row of which file is wrong.

Reading streams; a row that is left out is counted with its reason, never dropped in silence.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.declarations import Dataset, Row
from harness.errors import DataError, nearest
from harness.nouns import Conversation, Example, Preference

if TYPE_CHECKING:
    from harness.plugins import Registry
    from harness.recipe import DataSource, DataSpec
    from harness.template import BoundTemplate

T = TypeVar("T")
OnError = Callable[[DataError], None]
SAMPLE = 256  # conversations that `encode_sources` hands back as they were
_MISSING: Any = object()
_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def take(row: Row, name: str, kind: type[T], default: T = _MISSING) -> T:
    """The field `name` of a row, checked for its type; null counts as absent.

    Raises:
        DataError: where it is absent and has no default, or is of another type.
    """
    value = row.get(name)
    if value is None:
        if default is _MISSING:
            raise DataError(
                f"the field {name!r} is missing.{nearest(name, row)} The row has: {', '.join(map(str, row)) or 'nothing'}"
            )
        return default
    if not isinstance(value, kind):
        raise DataError(f"the field {name!r} should be {_NAMES.get(kind, kind.__name__)}, found {_shown(value)}")
    return value


def stop(error: DataError) -> None:
    """What is done about a row that is wrong where nothing else is asked for: raise."""
    raise error


def read_rows(path: Path, on_error: OnError = stop) -> Iterator[tuple[int, Row]]:
    """The rows of a JSON (a list of objects) or JSONL file with their 1-based row; for JSONL that is the line.

    `on_error` gets a DataError naming the file and the line for each row that cannot be read; the default raises it.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((char for line in file for char in line if not char.isspace()), "")
            file.seek(0)
            rows = _json_list(path, file.read()) if first == "[" else _json_lines(path, file)
            for number, row in rows:
                if isinstance(row, DataError):
                    on_error(row)
                elif not isinstance(row, dict):
                    on_error(DataError(f"a row should be an object, found {_shown(row)}", path=path, row=number))
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
                f"not valid JSON at column {error.colno}: {error.msg}: {_shown(line.strip())}. A JSONL file holds one "
                f"object a line; a JSON file is one list of objects", path=path, row=number
            )  # fmt: skip
        except (RecursionError, ValueError) as error:
            yield number, DataError(f"the JSON cannot be read: {error}", path=path, row=number)


@dataclass(slots=True)
class SourceReport:
    """What became of the rows of one source."""

    source: str
    path: str
    rows: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def load_source(
    source: DataSource, datasets: Registry[Dataset], report: SourceReport | None = None, on_error: OnError = stop
) -> Iterator[Conversation | Preference]:
    """The conversations (or preferences) of one source, each with its id and source filled in.

    `on_error` gets a DataError, naming file and row, for a row that does not fit; the default raises it.

    Raises:
        DataError: where the data set needs a path and has none; where no row is left.
    """
    dataset = datasets[source.dataset]
    where = source.path or dataset.source
    if where is None:
        raise DataError(f"the data set {dataset.name!r} brings no data of its own: give it a `path`")
    path = Path(where)
    report = report or SourceReport(dataset.name, str(path))
    wrong = 0

    def count(error: DataError) -> None:
        nonlocal wrong
        wrong += 1
        on_error(error)

    for number, row in read_rows(path, count):
        report.rows += 1
        try:
            item = convert_row(dataset, row)
        except DataError as error:
            count(DataError(str(error), path=path, row=number))
            continue
        if item is None:
            report.left_out[f"{dataset.name} leaves it out"] += 1
            continue
        report.kept += 1
        yield _identified(item, f"{path.name}:{number}", dataset.name)
        if report.kept == source.limit:
            break
    if report.kept == 0 and not wrong:
        on_error(DataError(f"the data set is empty: {report.rows} rows read, none kept", path=path))


def convert_row(dataset: Dataset, row: Row) -> Conversation | Preference | None:
    """What the data set makes of one row, checked. Whatever goes wrong with the row is raised as a DataError."""
    try:
        item = dataset.convert(row)
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"the field {error} is missing. The row has: {', '.join(map(str, row)) or 'nothing'}") from None
    except Exception as error:  # whatever a plugin's `convert` trips over is about this row
        raise DataError(f"the row does not fit data set {dataset.name!r}: {type(error).__name__}: {error}") from error
    if isinstance(item, Conversation):
        _check_conversation(item)
    elif item is not None and not isinstance(item, Preference):
        raise DataError(f"data set {dataset.name!r} gave {_shown(item)}, neither Conversation nor Preference")
    return item


def load_conversations(
    source: DataSource, datasets: Registry[Dataset], report: SourceReport | None = None
) -> Iterator[Conversation]:
    """Like `load_source`, for data that must be conversations."""
    for item in load_source(source, datasets, report):
        if not isinstance(item, Conversation):
            raise DataError(
                f"{item.source} {item.id}: the data set {source.dataset!r} yields preferences; this needs conversations"
            )
        yield item


@dataclass(frozen=True, slots=True)
class EncodedData:
    """Examples ready for batches, and the account of how they came about. `sample` is where they begin, unencoded."""

    examples: list[Example]
    reports: tuple[SourceReport, ...]
    overlong: int
    sha256: str
    sample: list[Conversation]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.examples))

    @property
    def supervised(self) -> int:
        return sum(example.supervised for example in self.examples)


def encode_sources(
    sources: tuple[DataSource, ...],
    spec: DataSpec,
    datasets: Registry[Dataset],
    template: BoundTemplate,
    batch: int = 256,
) -> EncodedData:
    """Read, convert and encode sources, and apply `on_overlong`.

    Raises:
        DataError: for a row that does not fit; for an overlong conversation where `on_overlong` is `error`; where
            nothing is left.
    """
    examples: list[Example] = []
    sample: list[Conversation] = []
    reports = []
    overlong = 0
    digest = hashlib.sha256()
    for source in sources:
        report = SourceReport(source.dataset, source.path or str(datasets[source.dataset].source))
        reports.append(report)
        pending: list[Conversation] = []

        def flush(pending: list[Conversation], report: SourceReport) -> None:
            nonlocal overlong
            sample.extend(pending[: SAMPLE - len(sample)])
            for example in template.encode_batch(pending):
                if len(example) > spec.max_tokens:
                    overlong += 1
                    example = _shortened(example, spec, report)  # type: ignore[assignment]
                    if example is None:
                        report.kept -= 1
                        report.left_out[f"longer than {spec.max_tokens} tokens"] += 1
                        continue
                digest.update(json.dumps([example.input_ids, example.loss_mask]).encode())
                examples.append(example)
            pending.clear()

        for conversation in load_conversations(source, datasets, report):
            pending.append(conversation)
            if len(pending) == batch:
                flush(pending, report)
        flush(pending, report)
    if not examples:
        raise DataError("nothing is left to learn from: every conversation was left out; see `harness data validate`")
    return EncodedData(examples, tuple(reports), overlong, digest.hexdigest(), sample)


def _shortened(example: Example, spec: DataSpec, report: SourceReport) -> Example | None:
    """What `on_overlong` makes of an example that is too long; None leaves it out."""
    if spec.on_overlong == "error":
        raise DataError(
            f"{report.path}: {example.id} has {len(example)} tokens, more than data.max_tokens = {spec.max_tokens}. Raise that, or "
            f"choose data.on_overlong: drop (leave such conversations out) or truncate (cut their end off)"
        )
    if spec.on_overlong == "drop":
        return None
    cut = Example(example.input_ids[: spec.max_tokens], example.loss_mask[: spec.max_tokens], example.id)
    return cut if cut.supervised else None


def _check_conversation(conversation: Conversation) -> None:
    if not conversation.messages:
        raise DataError("the conversation has no messages")
    for index, message in enumerate(conversation.messages):
        try:
            message.content.encode()
        except UnicodeEncodeError as error:  # JSON can say "\ud83d"; no tokenizer takes it
            raise DataError(
                f"message {index + 1} ({message.role}) is not valid Unicode: it holds half of a surrogate pair, "
                f"{message.content[error.start]!r}"
            ) from None
        if message.is_trained and not message.content.strip() and not message.tool_calls:
            raise DataError(f"message {index + 1} (assistant) is empty: there is nothing to learn from it")
        if message.role == "system" and index:
            raise DataError(f"message {index + 1} is a system prompt; only the first message can be one")


def _identified(item: Conversation | Preference, id: str, source: str) -> Conversation | Preference:
    return replace(item, id=item.id or id, source=item.source or source)


def _shown(value: object, limit: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | Mapping) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
