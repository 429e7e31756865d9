"""Export of conversations and preferences as rows that `messages`, `preferences` and `feedback` read back unchanged."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import DataError, HarnessError
from harness.extras import require
from harness.files import explain_unwritable, replacing
from harness.nouns import Conversation, DataItem, Message, ToolCall

Form = Literal["messages", "preferences", "feedback"]
Row = dict[str, Any]
SUFFIXES = (".jsonl", ".parquet")
BATCH = 1024  # rows that are written to Parquet at a time


@dataclass(frozen=True, slots=True)
class Written:
    """A file of rows: the dataset that reads it back, how many rows, and the SHA-256 and size of what was written."""

    form: Form
    rows: int
    sha256: str
    size_bytes: int


def write_items(items: Iterable[DataItem], out: Path) -> Written:
    """Write items to a `.jsonl` or `.parquet` file, one at a time; the file appears when all of them are written.

    Raises:
        DataError: where there is no item, or items of different kinds.
        HarnessError: where the file cannot be written, or its suffix is another.
    """
    writer = _writer(out)
    numbered = _Rows(items)
    with explain_unwritable(out), replacing(out) as temporary:
        writer(numbered, temporary)
        if numbered.form is None:
            raise DataError("there is nothing to write: no conversation and no preference is left")
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = temporary.stat().st_size
    return Written(numbered.form, numbered.count, digest, size)


def check_writable(out: Path) -> None:
    """Raise HarnessError where `out` cannot become a file of rows, before anything is read for it."""
    _writer(out)
    if out.is_dir():
        raise HarnessError(f"{out}: is a folder; name a file in it, as in {out / 'data.jsonl'}")
    with explain_unwritable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()


def as_row(item: DataItem) -> tuple[Form, Row]:
    """Return an item as a row, and the name of the dataset that reads it.

    One completion that was judged alone is `feedback`.
    """
    origin = {"id": item.id, "source": item.source}
    offered: Row = {"tools": [dict(tool) for tool in item.tools]} if item.tools else {}
    offered |= {"weight": item.weight} if item.weight != 1 else {}
    if isinstance(item, Conversation):
        return "messages", {"messages": _messages(item.messages)} | offered | origin
    if item.chosen and item.rejected:
        row = {name: _messages(getattr(item, name)) for name in ("prompt", "chosen", "rejected")}
        known = {"margin": item.margin} if item.margin is not None else {}
        return "preferences", row | known | offered | origin
    row = {"prompt": _messages(item.prompt), "completion": _messages(item.chosen or item.rejected)}
    return "feedback", row | {"label": bool(item.chosen)} | offered | origin


def _messages(messages: Iterable[Message]) -> list[Row]:
    return [_message(message) for message in messages]


def _message(message: Message) -> Row:
    """Return a message in OpenAI's format: call arguments are JSON text; `weight` 0 marks an answer not trained on."""
    row: Row = {"role": message.role, "content": message.content}
    if message.reasoning:
        row["reasoning_content"] = message.reasoning
    if message.tool_calls:
        row["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    if message.train is not None and message.role == "assistant":
        row["weight"] = int(message.train)
    return row


def _call(call: ToolCall) -> Row:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False, default=str)
    row: Row = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    return row | {"id": call.id} if call.id else row


class _Rows:
    """Items as rows of one form, counted as they go by."""

    def __init__(self, items: Iterable[DataItem]) -> None:
        self.items, self.count = items, 0
        self.form: Form | None = None

    def __iter__(self) -> Iterator[Row]:
        for item in self.items:
            form, row = as_row(item)
            if self.form not in (None, form):
                raise DataError(
                    f"{item.source} {item.id} would be a row of {form!r}, after {self.count} of {self.form!r}: one "
                    "file holds one kind. Build conversations, preferences and feedback from recipes of their own"
                )
            self.form = form
            self.count += 1
            yield row


def _writer(out: Path) -> Callable[[_Rows, Path], None]:
    writers = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if (writer := writers.get(out.suffix)) is None:
        suffix = repr(out.suffix) if out.suffix else "no suffix"
        raise HarnessError(
            f"{out}: rows are written as {' or '.join(SUFFIXES)}, found {suffix}; name the file {out.stem}.jsonl"
        )
    if out.suffix == ".parquet":
        require("pyarrow", "data")
    return writer


def _write_jsonl(rows: _Rows, path: Path) -> None:
    with path.open("wb") as file:
        for row in rows:
            try:
                line = json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError:  # half of a surrogate pair, in a tool or an argument: JSON can escape it
                line = json.dumps(row).encode()
            file.write(line + b"\n")


def _write_parquet(rows: _Rows, path: Path) -> None:
    arrow, parquet = require("pyarrow", "data"), require("pyarrow.parquet", "data")
    iterator = iter(rows)
    first = list(itertools.islice(iterator, BATCH))
    if rows.form is None:
        return
    schema = _schema(rows.form)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        batch = first
        while batch:
            for row in batch:
                if "tools" in row:  # their JSON schemas differ from tool to tool, so that no column type fits them
                    row["tools"] = json.dumps(row["tools"], ensure_ascii=False)
            try:
                writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
            except UnicodeEncodeError as error:
                raise DataError(
                    f"a tool or an argument holds half of a surrogate pair, which Parquet cannot: {error}"
                ) from None
            batch = list(itertools.islice(iterator, BATCH))


def _schema(form: Form) -> Any:
    arrow = require("pyarrow", "data")
    text = arrow.string()
    function = arrow.struct([("name", text), ("arguments", text)])
    call = arrow.struct([("id", text), ("type", text), ("function", function)])
    message = arrow.struct(
        [
            ("role", text),
            ("content", text),
            ("tool_calls", arrow.list_(call)),
            ("tool_call_id", text),
            ("weight", arrow.int8()),
        ]
    )
    turns = arrow.list_(message)
    columns = {
        "messages": [("messages", turns)],
        "preferences": [
            ("prompt", turns),
            ("chosen", turns),
            ("rejected", turns),
            ("margin", arrow.float64()),
        ],
        "feedback": [("prompt", turns), ("completion", turns), ("label", arrow.bool_())],
    }
    both = [("weight", arrow.float64()), ("tools", text), ("id", text), ("source", text)]
    return arrow.schema([*columns[form], *both])
