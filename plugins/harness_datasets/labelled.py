"""Labelled rows as their task reads them: inputs, the answer in words, the possible answers, a rationale.

`flan` phrases them. Labels are numbers, words, letters or positions; answers are text or lists of text. A value that
cannot be read is a DataError that names the column and says what the row has.
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
from harness_datasets.benchmarks import OTHERS, Form
from harness_datasets.phrasings import OPTION_PLACES, Phrasing, Task, TaskFile, plain_text

T = TypeVar("T")


class Use(NamedTuple):
    """A task as a recipe uses it: its name, its definition, the recipe's options, its file, the form of the rows."""

    name: str
    task: Task
    options: Any
    file: TaskFile
    form: Form | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A row as its task reads it. An exemplar must not have the same `inputs`. `key` is a hash of the content."""

    columns: Mapping[str, str]
    inputs: tuple[str, ...]
    answer: str
    choices: tuple[str, ...]
    rationale: str
    key: bytes

    def drawn(self, what: str) -> int:
        """Return a number in 0..2^64-1 that depends on the content, the seed and the purpose `what`."""
        return int.from_bytes(hashlib.blake2b(self.key + what.encode(), digest_size=8).digest())

    def is_drawn(self, share: float, what: str) -> bool:
        """Return True for a `share` of all rows, drawn by content and seed."""
        return share > 0 and self.drawn(what) < share * 2**64

    def one_of(self, choices: Sequence[T], what: str) -> T:
        """Return one of the `choices`, drawn by content and seed."""
        return choices[self.drawn(what) % len(choices)]

    def fills(self, phrasing: Phrasing) -> bool:
        """Return True if the row fills every place of a phrasing, and the phrasing has a word for every answer."""
        needed = phrasing.places - self.columns.keys() - {"answer"}
        if needed & {"letter", "lettered"} and len(self.choices) > len(string.ascii_uppercase):
            return False
        if phrasing.words and not phrasing.words.keys() >= set(self.choices):
            return False
        return not needed or (bool(self.choices) and needed <= {"letter", *OPTION_PLACES})


def read_labelled(row: Row, use: Use) -> Labelled | None:
    """Read a row by its task. Return None if it has neither label nor answer, so that it is left out.

    Raises:
        DataError: if the row does not fit the task.
    """
    name, task, options = use.name, use.task, use.options
    if use.form is not None:
        row = use.form.as_task_reads(row)
    columns = {}
    for column in (*task.inputs, *task.optional):
        value = _value(row, column, options)
        if value is None:
            if column in task.inputs:
                raise harness.DataError(_missing(row, (column,), name))
            continue
        columns[column] = _text(value, column)
    column, value = first_value(row, task.answer, options)
    if value is None:
        raise harness.DataError(_missing(row, task.answer, name))
    if isinstance(value, Mapping) and "text" in value:  # SQuAD's {"text": [...], "answer_start": [...]}
        value = value["text"]
    if isinstance(value, list):
        value = next((one for one in value if one not in ("", None)), None)
    has_label = value != "" or not (task.choices or task.options)  # an answer of its own that is empty is an error
    if value is None or not has_label or plain_text(value) in task.leave_out:
        return None
    text, rationale = _text(value, column), ""
    if reason := first_value(row, task.rationale, options)[1]:
        rationale = _text(reason, "rationale")
    if task.split and task.split in text:
        if rationale:
            raise harness.DataError(
                f"the rationale {shown(rationale)} would be lost: the answer has one too, {shown(text)}"
            )
        rationale, _, text = text.rpartition(task.split)
    if task.remove:
        rationale = re.sub(task.remove, "", rationale)
    if task.choices:
        choices, labels = _choices(row, task, name, options)
        answer = _choice(value if isinstance(value, int) else text, choices, labels, task.first, column)
    else:
        meanings = options.labels or task.options
        choices = tuple(dict.fromkeys(meanings.values()))
        answer = _meaning(text, meanings, task, column) if meanings or _classifies(task) else text.strip()
    inputs = tuple(columns[column] for column in task.inputs)
    content = "\0".join([str(options.seed), *columns.values(), answer]).encode("utf-8", "surrogatepass")
    return Labelled(
        columns, tuple(map(folded, inputs)), answer, choices, rationale.strip(), hashlib.blake2b(content).digest()
    )


def _value(row: Row, column: str, options: Any) -> Any:
    """Return the value of a column, or None; `translation.de` also looks into an object."""
    value = row.get(column)
    if value is None and "." in column:
        value = row
        for part in column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return options.values.get(column) if value is None else value


def first_value(row: Row, names: tuple[str, ...], options: Any) -> tuple[str, Any]:
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
        f"the column {wanted} is missing, which the task {name!r} needs.{near} "
        f"The row has: {', '.join(has) or 'nothing'}. "
        f"If it has another name there, say `columns: {{{columns[0]}: NAME}}`"
    )


def _choices(row: Row, task: Task, name: str, options: Any) -> tuple[tuple[str, ...], list[str]]:
    """Return the possible answers of a row, and their labels if the row has labels for them."""
    values = [_value(row, column, options) for column in task.choices]
    for column, value in zip(task.choices, values, strict=True):
        if value is None:
            raise harness.DataError(_missing(row, (column,), name))
    if len(values) > 1:
        return tuple(_text(value, column) for column, value in zip(task.choices, values, strict=True)), []
    texts, column, labels = values[0], task.choices[0], []
    if isinstance(texts, Mapping):  # {"text": [...], "label": [...]}
        texts, labels = texts.get("text"), texts.get("label") or []
    elif (
        isinstance(texts, list) and texts and all(isinstance(one, Mapping) for one in texts)
    ):  # [{"text", "label"}, ...]
        texts, labels = [one.get("text") for one in texts], [one.get("label") for one in texts]
    if not isinstance(texts, list) or not texts or not isinstance(labels, list):
        raise harness.DataError(
            f"the column {column!r} should hold the possible answers, a list of texts, found {shown(values[0])}"
        )
    return tuple(_text(one, column) for one in texts), [str(plain_text(label)) for label in labels]


def _choice(label: Any, choices: tuple[str, ...], labels: list[str], first: int, column: str) -> str:
    """Return the possible answer that a label stands for: by label, text, position or letter."""
    text = str(plain_text(label)).strip()
    if text in labels[: len(choices)]:
        return choices[labels.index(text)]
    index = string.ascii_uppercase.find(text) if len(text) == 1 else -1
    if text in choices and not isinstance(label, int):
        if 0 <= index < len(choices) and choices[index] != text:
            raise harness.DataError(
                f"the label {shown(label)} in the column {column!r} may be the letter of {shown(choices[index])} or "
                f"the answer {shown(text)} itself: write the answers of such rows otherwise, or leave these rows out"
            )
        return text
    if re.fullmatch(r"[0-9]{1,4}", text):
        index = int(text) - first
    else:
        index = string.ascii_uppercase.find(text.upper()) if len(text) == 1 else -1
    if not 0 <= index < len(choices):
        raise harness.DataError(
            f"the label {shown(label)} in the column {column!r} is none of the possible answers: "
            f"{known_names(labels or choices)}; a position is counted from {first}"
        )
    return choices[index]


def _meaning(label: str, meanings: Mapping[str, str], task: Task, column: str) -> str:
    """Return the meaning of a label in words. The label is a known value, or the words themselves."""
    text = label.strip()
    if (words := known_labels(meanings).get(text.casefold())) is not None:
        return words
    if not meanings and not re.fullmatch(r"[0-9]+", text):
        return text
    if not meanings:
        raise harness.DataError(
            f"the label in the column {column!r} is the number {text}: say what the numbers mean, "
            f"`labels: {{{text}: WORDS, ...}}`"
        )
    raise harness.DataError(
        f"the label {shown(text)} in the column {column!r} is not known."
        f"{nearest(text, [*meanings, *meanings.values()])} "
        f"Known: {', '.join(f'{value} ({meaning})' for value, meaning in meanings.items())}. "
        f"Say what your labels mean with `labels: {{{text[:20]}: WORDS, ...}}`"
    )


def known_labels(meanings: Mapping[str, str]) -> dict[str, str]:
    """Return the words of each label, by its value and by the words themselves, in lower case."""
    by_words = {words.casefold(): words for words in meanings.values()}
    return by_words | {value.casefold(): words for value, words in meanings.items()}


def _classifies(task: Task) -> bool:
    """Return True if the answers of a task are labels that it does not list itself, by name or in a phrasing."""
    lists = any(phrasing.places & set(OPTION_PLACES) for phrasing in task.phrasings)
    return not task.choices and (task.answer[0] == "label" or lists)


def known_columns(row: Row, task: Task, options: Any) -> int:
    """Count the columns of a row that a task knows; 0 if the row lacks a column that the task needs."""
    columns = (*task.inputs, *task.optional, *task.choices)
    has = [column for column in columns if _value(row, column, options) is not None]
    _, label = first_value(row, task.answer, options)
    if label is None or not {*task.inputs, *task.choices} <= set(has):
        return 0
    if task.split and not (isinstance(label, str) and task.split in label):
        return 0
    return len(has) + 1 + bool(task.split) + (first_value(row, task.rationale, options)[1] is not None)


def says_its_label(row: Row, task: Task, options: Any) -> bool:
    """Return True if the meaning of the label is certain: the task has its words, or the recipe gives its meaning."""
    if options.labels and task.options:  # these words must be the task's, or it is about something else
        return set(options.labels.values()) <= set(task.options.values())
    if options.labels or not (task.options or _classifies(task)):
        return True
    label = str(plain_text(first_value(row, task.answer, options)[1])).strip().casefold()
    if label.lstrip("-").isdigit():
        return False
    return not task.options or label in known_labels(task.options) or label in task.leave_out
