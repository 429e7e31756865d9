"""Files of questions with one or more turns, and of answers to them: MT-bench's form, and plainer ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import HarnessError, known_names
from harness.files import read_text

PLAIN = ("prompt", "instruction", "question")


class Question(NamedTuple):
    """A conversation to be had: the user's turns, one after the other's answer."""

    id: str
    turns: tuple[str, ...]
    category: str = ""


def read_questions(path: Path) -> list[Question]:
    """Return the questions in a JSONL file: `turns`, or a `prompt`, `instruction` or `question` of one turn.

    Raises:
        HarnessError: naming the line that is none, or that has an id again.
    """
    questions: list[Question] = []
    for number, row in _rows(path):
        turns = row.get("turns", next((row[key] for key in PLAIN if key in row), None))
        turns = [turns] if isinstance(turns, str) else turns
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn for turn in turns):
            raise HarnessError(
                f"{path}, line {number}: expected `turns`, a list of texts, or one of {known_names(PLAIN)}; "
                f"there are {known_names(map(str, row))}"
            )
        category = row.get("category", "")
        questions.append(Question(_id(row, number), tuple(turns), category if isinstance(category, str) else ""))
    ids = [question.id for question in questions]
    if twice := [id for id in ids if ids.count(id) > 1]:
        raise HarnessError(f"{path}: the question {twice[0]!r} is there twice")
    if not questions:
        raise HarnessError(f"{path}: there are no questions in it")
    return questions


def read_answers(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the answers in a JSONL file, turn by turn, by the question's id.

    A row has `answer` (a text), `turns`, or MT-bench's `choices`, of which the first counts.
    """
    answers = {}
    for number, row in _rows(path):
        choices = row.get("choices")
        first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else row
        turns = first.get("turns", first.get("answer", first.get("output")))
        turns = [turns] if isinstance(turns, str) else turns
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
            raise HarnessError(
                f"{path}, line {number}: expected `answer`, `turns` or `choices` with the answer's texts; "
                f"there are {known_names(map(str, row))}"
            )
        answers[_id(row, number)] = tuple(turns)
    return answers


def _id(row: Mapping[str, Any], number: int) -> str:
    return str(next((row[key] for key in ("question_id", "id", "key") if key in row), number))


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise HarnessError(f"{path}, line {number}: not valid JSON: {error}") from None
        if not isinstance(row, Mapping):
            raise HarnessError(f"{path}, line {number}: expected a JSON object, there is {line[:40]!r}")
        yield number, row
