"""Labelled rows of NLP tasks, phrased as instructions: several phrasings a task, exemplars, inversion, chains of thought.

After Wei et al. 2021 (FLAN, arXiv:2109.01652) and Longpre et al. 2023 (the FLAN collection, arXiv:2301.13688). Which
columns a task has and how it is phrased is in YAML, read by `phrasings`; here is what is made of a row with it. All
choices are drawn from a hash of the row's content and a seed: a row is phrased in the same way wherever it stands.
"""

from __future__ import annotations

import os
import random
import re
import string
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic import Field

import harness
from harness.data import LeftOut
from harness.errors import known_names
from harness.nouns import Row
from harness_datasets.labelled import OTHERS, Labelled, Use, folded, known_columns, read_labelled, says_its_label
from harness_datasets.phrasings import OPTION_PLACES, OURS, Phrasing, TaskFile, Texts, fill, load_tasks, task_named

POOL = 256  # rows, the first of a file, that exemplars are taken from
LABEL_WORDS = 5  # an answer of more words is not one of a few that come again and again

Share = Annotated[float, Field(ge=0, le=1)]
Shots = Annotated[int, Field(ge=0, le=64)]


class FlanOptions(harness.Options):
    """How rows are phrased.

    `task` is a name of ours, a YAML file, or FILE.yaml:NAME; without it, it is told by the columns. `shots` is how many
    exemplars come first; of a list, one number is drawn for each row. `inverted` is the share of rows whose input is
    asked for, `chain_of_thought` the share of rows with a rationale that give it. `labels` says what the values of the
    label mean, and `values` fills columns that the rows lack.
    """

    task: str | None = None
    shots: Shots | Annotated[tuple[Shots, ...], Field(min_length=1)] = 0
    inverted: Share = 0.0
    chain_of_thought: bool | Share = True
    phrasings: Literal["one", "all"] = "one"
    labels: Texts = Field(default_factory=dict)
    values: Texts = Field(default_factory=dict)
    seed: int = 0

    @pydantic.field_validator("task")
    @classmethod
    def _task_is_known(cls, task: str | None, info: pydantic.ValidationInfo) -> str | None:
        task = _in_recipe(task, info) if task and info.context else task
        file, _ = _file_and_name(task or "")
        if task and (file is None or Path(file).is_file()):  # else it may lie beside the data: seen when they are read
            try:
                _load(task, None)
            except harness.DataError as error:
                raise ValueError(str(error)) from None
        return task


def convert(row: Row, options: FlanOptions) -> list[harness.Conversation] | LeftOut:
    """One labelled row as one conversation, or as one for each phrasing. Left out where it has no usable label."""
    file, name = _task_of(row, options)
    use = Use(name, file.tasks[name], options)
    if options.inverted and not use.task.inverted:
        raise harness.DataError(f"the task {name!r} has no inverted phrasings: leave `inverted` out")
    item = read_labelled(row, use)
    if item is None:
        return LeftOut("no usable label")
    counts = (options.shots,) if isinstance(options.shots, int) else options.shots
    shots = item.one_of(counts, "shots")
    reasons = bool(item.rationale) and item.is_drawn(float(options.chain_of_thought), "chain of thought")
    made = []
    for phrasing, inverted in _chosen(item, use, embedded=reasons or shots > 0):
        reasoning = item.one_of(file.chain_of_thought, "reasoning") if reasons and not inverted else None
        way = _Way(phrasing, inverted, reasoning)
        prompt, answer = _phrase(item, way)
        if shots:
            layout = item.one_of(file.few_shot, "layout")
            exemplars = (
                fill(layout.shot, {"prompt": asked, "answer": told})
                for asked, told in _exemplars(row, item, use, way, shots)
            )
            parts = (layout.opening, *exemplars, fill(layout.question, {"prompt": prompt}))
            prompt = "\n\n".join(filter(None, parts))
        made.append(harness.Conversation.of(("user", prompt), ("assistant", answer)))
    return made


def gather(rows: Iterable[tuple[int, Row]], options: object) -> Iterator[tuple[int, Row]]:
    """The same rows, each with the first rows of its file beside it, to take exemplars from."""
    others = _Others(rows)
    for number, row in others:
        yield number, {**row, OTHERS: others}


class _Others:
    """The first rows of a file. They are read ahead when the first exemplar is asked for, and not before."""

    def __init__(self, rows: Iterable[tuple[int, Row]], first: Iterable[Row] = ()) -> None:
        self._rows, self._first = iter(rows), list(first)
        self._ahead: deque[tuple[int, Row]] = deque()
        self._error: harness.DataError | None = None

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        while True:
            if self._ahead:
                yield self._ahead.popleft()
            elif self._error:
                raise self._error
            else:
                try:
                    number, row = next(self._rows)
                except StopIteration:
                    return
                if len(self._first) < POOL:
                    self._first.append(row)
                yield number, row

    def first(self) -> list[Row]:
        """The first rows of the file, at most POOL of them; always the same ones."""
        while len(self._first) < POOL and self._error is None:
            try:
                number, row = next(self._rows)
            except StopIteration:
                break
            except harness.DataError as error:  # about a later row: told when it is that row's turn
                self._error = error
            else:
                self._first.append(row)
                self._ahead.append((number, row))
        return self._first

    def __reduce__(self) -> tuple[Any, ...]:  # a row may be converted in another process
        return _Others, ((), self.first())


# How it is put


class _Way(NamedTuple):
    """One way to put a row: a phrasing, whether it asks for the input, and how the rationale is laid out, if it is given."""

    phrasing: Phrasing
    inverted: bool
    reasoning: Phrasing | None


def _chosen(item: Labelled, use: Use, embedded: bool) -> list[tuple[Phrasing, bool]]:
    """The phrasings for a row, each with whether it is an inverted one. `embedded`: they are put inside a layout."""
    name, task, options = use
    inverted = [phrasing for phrasing in task.inverted if item.fills(phrasing)]
    plain = [phrasing for phrasing in task.phrasings if item.fills(phrasing)]
    if embedded:
        plain = [phrasing for phrasing in plain if not phrasing.standalone] or plain
    if not plain:
        wanted = sorted(
            set().union(*(phrasing.places for phrasing in task.phrasings)) - item.columns.keys() - {"answer"}
        )
        raise harness.DataError(
            f"no phrasing of the task {name!r} can be filled: the row says nothing about {', '.join(wanted)}. Give it as a "
            f"column, or for all rows with `values: {{{wanted[0] if wanted else 'COLUMN'}: TEXT}}`"
        )
    invert = bool(inverted) and item.is_drawn(options.inverted, "inverted")
    if options.phrasings == "all":
        return [(phrasing, False) for phrasing in plain] + [(phrasing, True) for phrasing in inverted if invert]
    return [(item.one_of(inverted if invert else plain, "phrasing"), invert)]


def _phrase(item: Labelled, way: _Way) -> tuple[str, str]:
    """Prompt and answer of a row, put in that way."""
    phrasing, words = way.phrasing, way.phrasing.words
    values = {**item.columns, "answer": words.get(item.answer, item.answer)}
    if phrasing.places & {"letter", *OPTION_PLACES}:
        choices = [words.get(choice, choice) for choice in item.choices]
        lettered = dict(zip(string.ascii_uppercase, choices, strict=False))
        values |= {
            "options": "\n".join(f"- {choice}" for choice in choices),
            "lettered": "\n".join(f"{letter}. {choice}" for letter, choice in lettered.items()),
            "listed": " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices),
            "letter": dict(zip(item.choices, lettered, strict=False)).get(item.answer, ""),
        }
    prompt, answer = fill(phrasing.prompt, values), fill(phrasing.answer, values)
    if way.reasoning is None:
        return prompt, answer
    reasoned = fill(way.reasoning.answer, {"rationale": item.rationale, "answer": answer})
    return fill(way.reasoning.prompt, {"prompt": prompt}), reasoned


def _exemplars(row: Row, item: Labelled, use: Use, way: _Way, count: int) -> list[tuple[str, str]]:
    """Prompts and answers of other rows of the file, put in the same way.

    A row with the same inputs is never one of them, nor one with the same answer where that is a text of its own: an
    exemplar does not tell what is asked for. A label may come again; if it could not, its absence would tell it.
    """
    others = row.get(OTHERS)
    pool = others.first() if isinstance(others, _Others) else []
    own = folded(_phrase(item, way._replace(reasoning=None))[1])
    is_own_text = way.inverted or (not item.choices and len(own.split()) > LABEL_WORDS)
    order = list(range(len(pool)))
    draw = random.Random(item.drawn("exemplars"))
    found: list[tuple[str, str]] = []
    while order and len(found) < count:
        at = draw.randrange(len(order))
        order[at], order[-1] = order[-1], order[at]
        try:
            other = read_labelled(_renamed(pool[order.pop()], use.options), use)
        except harness.DataError:  # said when it is that row's turn
            continue
        if other is None or other.inputs == item.inputs or not other.fills(way.phrasing):
            continue
        if is_own_text and folded(_phrase(other, way._replace(reasoning=None))[1]) in ("", own):
            continue
        exemplar = _phrase(other, way if other.rationale else way._replace(reasoning=None))
        if exemplar not in found:
            found.append(exemplar)
    if len(found) < count:
        raise harness.DataError(
            f"the row should have {count} exemplars, but of the first {len(pool)} rows of the file only {len(found)} can be "
            f"one for it: lower `shots`"
        )
    return found


def _renamed(row: Row, options: Any) -> Row:
    """Another row of the file under the names of the recipe's `columns`; the core does so only for the row at hand."""
    columns: Mapping[str, str] = getattr(options, "columns", None) or {}
    if not columns:
        return row
    taken = set(columns.values())
    renamed = {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
    return {key: value for key, value in row.items() if key not in taken} | renamed


# Which task it is


def _task_of(row: Row, options: Any) -> tuple[TaskFile, str]:
    if options.task:
        return _load(options.task, getattr(options, "path", None))
    file = load_tasks(OURS)
    return file, _recognised(row, file, options)


def _file_and_name(task: str) -> tuple[str | None, str]:
    """`FILE.yaml`, `FILE.yaml:NAME` or `NAME` as (file or None, name)."""
    if found := re.fullmatch(r"(.+\.ya?ml)(?::([^:/\\]+))?", task, re.DOTALL):
        return found[1], found[2] or ""
    return None, task


def _in_recipe(task: str, info: pydantic.ValidationInfo) -> str:
    """A `task` of a recipe with the path of its file made absolute: from the recipe's folder, or from the data's."""
    named, name = _file_and_name(task)
    if named is None:
        return task
    folder, data = Path(info.context["folder"]), info.data.get("path")
    folders = [folder, *([(folder / data).parent] if data and "://" not in data else [])]
    places = (place / os.path.expanduser(named) for place in folders)  # noqa: PTH111 - Path's raises for an unknown user
    path = next((str(place) for place in places if place.is_file()), named)
    return f"{path}:{name}" if name else path


@cache
def _load(task: str, data: str | None) -> tuple[TaskFile, str]:
    """The file that a `task` names, and the task in it. A path that is still relative is that from here, or from the data's
    folder; a recipe's have been made absolute."""
    named, name = _file_and_name(task)
    if named is None:
        path = OURS
    else:
        places = [Path(os.path.expanduser(named)), *([Path(data).parent / named] if data and "://" not in data else [])]  # noqa: PTH111 - Path's raises for an unknown user
        path = next((place for place in places if place.is_file()), places[0])
        if not path.is_file():
            looked = " and ".join(str(place.absolute()) for place in places)
            raise harness.DataError(f"`task: {task}`: there is no such file; looked for {looked}")
    file = load_tasks(path)
    if not name and len(file.tasks) > 1:
        raise harness.DataError(
            f"`task: {task}`: the file has several tasks: say which, as in `task: {named}:{next(iter(file.tasks))}`. "
            f"Tasks: {known_names(file.tasks)}"
        )
    name = name or next(iter(file.tasks))
    task_named(name, file, path)
    return file, name


def _recognised(row: Row, file: TaskFile, options: FlanOptions) -> str:
    """The task that a row's columns are those of. What a numbered label means is never guessed."""
    fitting = {name: known for name, task in file.tasks.items() if (known := known_columns(row, task, options))}
    knows = {name: known for name, known in fitting.items() if says_its_label(row, file.tasks[name], options)}
    best = [name for name, known in knows.items() if known == max(knows.values())]
    if len(best) == 1:
        return best[0]
    found = "it has the columns of no task"
    if best or fitting:
        found = f"by its columns it could be {' or '.join(best or fitting)}" + (
            "" if best else ", but its label does not say"
        )
    has = ", ".join(str(column) for column in row if column != OTHERS) or "nothing"
    raise harness.DataError(
        f"the row does not say what task it is: {found}. The row has: {has}. Choose one with `task: NAME`: "
        f"{known_names(file.tasks)}; other names of columns are given with `columns`"
    )


DATASET = harness.Dataset(
    "flan",
    "labelled rows of NLP tasks, phrased as instructions in several ways",
    convert,
    options=FlanOptions,
    gather=gather,
    # Only what says by itself which task it is. Numbered labels do not, so they need a `task` in a recipe.
    fields=(
        ("1", "2", "3"),
        ("premise", "hypothesis", "label", "explanation?", "explanation_1?", "idx?", "guid?"),
        ("premise", "hypothesis", "gold_label", "explanation_1?", "pairID?"),
        ("context", "question", "answers", "id?", "title?"),
        ("document", "summary", "id?"),
        ("question", "answer"),
        ("question", "choices", "answerKey", "id?", "question_concept?"),
        ("question", "choices", "answer", "id?", "subject?"),
        ("sentence", "option1", "option2", "answer"),
        ("inputs", "targets", "task_source?", "task_name?", "template_type?"),
        ("inputs_pretokenized", "targets_pretokenized", "inputs?", "targets?"),
    ),
)
