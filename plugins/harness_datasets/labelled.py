"""A labelled row as its task sees it: inputs, the answer in words, the possible answers, a rationale.

How it is phrased is in `flan`. Labels come as numbers, words, letters or positions, answers as text or lists of them; what
cannot be made out is a DataError that names the column and says what the row has.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import harness
from harness.data import shown
from harness.errors import known_names, nearest
from harness.nouns import Row
from harness_datasets.phrasings import OPTION_PLACES, Phrasing, Task, plain_text

T = TypeVar("T")
OTHERS = "(other rows of the file)"  # a column that `flan` adds to a row; no message speaks of it


class Use(NamedTuple):
    """A task as a recipe uses it: its name, what the YAML says of it, and the recipe's options."""

    name: str
    task: Task
    options: Any


@dataclass(frozen=True, slots=True)
class Labelled:
    """A row as its task sees it. `inputs` are the texts that an exemplar must not share, `key` a hash of the content."""

    columns: Mapping[str, str]
    inputs: tuple[str, ...]
    answer: str
    choices: tuple[str, ...]
    rationale: str
    key: bytes

    def drawn(self, what: str) -> int:
        """A number in 0..2^64-1 that depends on the content, the seed and `what` is drawn for."""
        return int.from_bytes(hashlib.blake2b(self.key + what.encode(), digest_size=8).digest())

    def is_drawn(self, share: float, what: str) -> bool:
        return share > 0 and self.drawn(what) < share * 2**64

    def one_of(self, what: Sequence[T], salt: str) -> T:
        return what[self.drawn(salt) % len(what)]

    def fills(self, phrasing: Phrasing) -> bool:
        """Whether the row has something for every place of a phrasing, and the phrasing a word for every answer."""
        needed = phrasing.places - self.columns.keys() - {"answer"}
        if needed & {"letter", "lettered"} and len(self.choices) > len(string.ascii_uppercase):
            return False
        if phrasing.words and not phrasing.words.keys() >= set(self.choices):
            return False
        return not needed or (bool(self.choices) and needed <= {"letter", *OPTION_PLACES})


def read_labelled(row: Row, use: Use) -> Labelled | None:
    """What a row says. None where it has no label or answer and is to be left out; DataError where it does not fit."""
    name, task, options = use
    columns = {}
    for column in (*task.inputs, *task.optional):
        value = _value(row, column, options)
        if value is None:
            if column in task.inputs:
                raise harness.DataError(_missing(row, (column,), name))
            continue
        columns[column] = _text(value, column)
    column, value = _first_value(row, task.answer, options)
    if value is None:
        raise harness.DataError(_missing(row, task.answer, name))
    if isinstance(value, Mapping) and "text" in value:  # SQuAD's {"text": [...], "answer_start": [...]}
        value = value["text"]
    if isinstance(value, list):
        value = next((one for one in value if one not in ("", None)), None)
    if value is None or plain_text(value) in task.leave_out:
        return None
    told, rationale = _text(value, column), ""
    if reason := _first_value(row, task.rationale, options)[1]:
        rationale = _text(reason, "rationale")
    if task.split and task.split in told:
        rationale, _, told = told.rpartition(task.split)
    if task.remove:
        rationale = re.sub(task.remove, "", rationale)
    if task.choices:
        choices, labels = _choices(row, task, name, options)
        answer = _choice(value if isinstance(value, int) else told, choices, labels, task.first, column)
    else:
        meanings = options.labels or task.options
        choices = tuple(dict.fromkeys(meanings.values()))
        answer = _meaning(told, meanings, task, column) if meanings or _classifies(task) else told.strip()
    inputs = tuple(columns[column] for column in task.inputs)
    content = "\0".join([str(options.seed), *columns.values(), answer]).encode("utf-8", "surrogatepass")
    return Labelled(
        columns, tuple(map(folded, inputs)), answer, choices, rationale.strip(), hashlib.blake2b(content).digest()
    )


def _value(row: Row, column: str, options: Any) -> Any:
    """What a row has in a column; `translation.de` also looks into an object. None where it has nothing."""
    value = row.get(column)
    if value is None and "." in column:
        value = row
        for part in column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return options.values.get(column) if value is None else value


def _first_value(row: Row, names: tuple[str, ...], options: Any) -> tuple[str, Any]:
    for name in names:
        if (value := _value(row, name, options)) is not None:
            return name, value
    return (names[0] if names else ""), None


def _text(value: Any, column: str) -> str:
    if isinstance(value, list) and value and all(isinstance(part, str | int | float) for part in value):
        return ", ".join(str(plain_text(part)) for part in value)
    text = plain_text(value)
    if not isinstance(text, str):
        raise harness.DataError(f"the column {column!r} should be text or a number, found {shown(value)}")
    return text


def folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _missing(row: Row, columns: tuple[str, ...], name: str) -> str:
    has = [str(column) for column in row if column != OTHERS]
    wanted = " or ".join(map(repr, columns))
    near = next(filter(None, (nearest(column, has) for column in columns)), "")
    return (
        f"the column {wanted} is missing, which the task {name!r} needs.{near} The row has: {', '.join(has) or 'nothing'}. "
        f"If it has another name there, say `columns: {{{columns[0]}: NAME}}`"
    )


def _choices(row: Row, task: Task, name: str, options: Any) -> tuple[tuple[str, ...], list[str]]:
    """The possible answers of a row, and the labels by which it names them, if it has some."""
    values = [_value(row, column, options) for column in task.choices]
    for column, value in zip(task.choices, values, strict=True):
        if value is None:
            raise harness.DataError(_missing(row, (column,), name))
    if len(values) > 1:
        return tuple(_text(value, column) for column, value in zip(task.choices, values, strict=True)), []
    found, column, labels = values[0], task.choices[0], []
    if isinstance(found, Mapping):  # {"text": [...], "label": [...]}
        found, labels = found.get("text"), found.get("label") or []
    elif (
        isinstance(found, list) and found and all(isinstance(one, Mapping) for one in found)
    ):  # [{"text", "label"}, ...]
        found, labels = [one.get("text") for one in found], [one.get("label") for one in found]
    if not isinstance(found, list) or not found or not isinstance(labels, list):
        raise harness.DataError(
            f"the column {column!r} should hold the possible answers, a list of texts, found {shown(values[0])}"
        )
    return tuple(_text(one, column) for one in found), [str(plain_text(label)) for label in labels]


def _choice(label: Any, choices: tuple[str, ...], labels: list[str], first: int, column: str) -> str:
    """The possible answer that a label means: by its own label, its text, its position or its letter."""
    text = str(plain_text(label)).strip()
    if text in labels[: len(choices)]:
        return choices[labels.index(text)]
    if text in choices and not isinstance(label, int):
        return text
    if re.fullmatch(r"[0-9]{1,4}", text):
        index = int(text) - first
    else:
        index = string.ascii_uppercase.find(text.upper()) if len(text) == 1 else -1
    if not 0 <= index < len(choices):
        raise harness.DataError(
            f"the label {shown(label)} in the column {column!r} is none of the possible answers: {known_names(labels or choices)}; "
            f"a position is counted from {first}"
        )
    return choices[index]


def _meaning(label: str, meanings: Mapping[str, str], task: Task, column: str) -> str:
    """What the value of a label means, in words: by the value, or the words themselves."""
    text = label.strip()
    if (found := _known_labels(meanings).get(text.casefold())) is not None:
        return found
    if not meanings and not re.fullmatch(r"[0-9]+", text):
        return text
    if not meanings:
        raise harness.DataError(
            f"the label in the column {column!r} is the number {text}: say what the numbers mean, "
            f"`labels: {{{text}: WORDS, ...}}`"
        )
    raise harness.DataError(
        f"the label {shown(text)} in the column {column!r} is not known.{nearest(text, [*meanings, *meanings.values()])} "
        f"Known: {', '.join(f'{value} ({words})' for value, words in meanings.items())}. Say what your labels mean with "
        f"`labels: {{{text[:20]}: WORDS, ...}}`"
    )


def _known_labels(meanings: Mapping[str, str]) -> dict[str, str]:
    by_words = {words.casefold(): words for words in meanings.values()}
    return by_words | {value.casefold(): words for value, words in meanings.items()}


def _classifies(task: Task) -> bool:
    """Whether the answers of a task are labels, though it does not say which: some phrasing lists them."""
    return not task.choices and any(phrasing.places & set(OPTION_PLACES) for phrasing in task.phrasings)


def known_columns(row: Row, task: Task, options: Any) -> int:
    """How many columns of a row a task knows, 0 where it needs one that the row lacks."""
    columns = (*task.inputs, *task.optional, *task.choices)
    has = [column for column in columns if _value(row, column, options) is not None]
    _, label = _first_value(row, task.answer, options)
    if label is None or not {*task.inputs, *task.choices} <= set(has):
        return 0
    if task.split and not (isinstance(label, str) and task.split in label):
        return 0
    return len(has) + 1 + bool(task.split) + (_first_value(row, task.rationale, options)[1] is not None)


def says_its_label(row: Row, task: Task, options: Any) -> bool:
    """Whether what the label means is beyond doubt: it is in words that the task has, or the recipe says what it means."""
    if options.labels or not (task.options or _classifies(task)):
        return True
    label = str(plain_text(_first_value(row, task.answer, options)[1])).strip().casefold()
    if label.lstrip("-").isdigit():
        return False
    return not task.options or label in _known_labels(task.options) or label in task.leave_out
