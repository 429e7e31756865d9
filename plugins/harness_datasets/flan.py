"""Labelled rows of NLP tasks, phrased as instructions: several phrasings, exemplars, inversion, chains of thought.

After Wei et al. 2021 (FLAN, arXiv:2109.01652) and Longpre et al. 2023 (the FLAN collection, arXiv:2301.13688). The
columns and phrasings of each task are in YAML, which `phrasings` reads; this module applies them to rows. All choices
are drawn from a hash of the row's content and a seed: a row is phrased in the same way wherever it is.
"""

from __future__ import annotations

import random
import string
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic import Field

import harness
from harness.data import LeftOut
from harness.nouns import Row
from harness_datasets.benchmarks import BENCHMARKS, OTHERS
from harness_datasets.labelled import Labelled, Use, folded, read_labelled
from harness_datasets.phrasings import OPTION_PLACES, Phrasing, Texts, fill
from harness_datasets.tasks import fields_of, file_and_name, in_recipe, load_task, task_of

POOL = 256  # rows, the first of a file, that exemplars are taken from
LABEL_WORDS = 5  # an answer of more words is not one of a few that come again and again

Share = Annotated[float, Field(ge=0, le=1)]
Shots = Annotated[int, Field(ge=0, le=64)]


class FlanOptions(harness.Options):
    """Options of `flan`: the task, and how its rows are phrased.

    `task` is a built-in name, a YAML file, or FILE.yaml:NAME; by default the columns decide. `shots` is the number of
    exemplars before the question; from a list, one number is drawn for each row. `inverted` is the share of rows that
    ask for the input. `chain_of_thought` is the share of rows with a rationale whose answer includes it. `labels` gives
    the meaning of each value of the label. `values` fills columns that the rows lack.
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
        task = in_recipe(task, info) if task and info.context else task
        file, _ = file_and_name(task or "")
        if task and (file is None or Path(file).is_file()):  # else it may lie beside the data: seen when they are read
            try:
                load_task(task, None)
            except harness.DataError as error:
                raise ValueError(str(error)) from None
        return task


def convert(row: Row, options: FlanOptions) -> list[harness.Conversation] | LeftOut:
    """Convert one labelled row to one conversation, or to one a phrasing. A row without a usable label is left out."""
    use = task_of(row, options)
    name, file = use.name, use.file
    if options.inverted and not use.task.inverted:
        raise harness.DataError(f"the task {name!r} has no inverted phrasings: leave `inverted` out")
    item = read_labelled(row, use)
    if item is None:
        return LeftOut("no usable label")
    counts = (options.shots,) if isinstance(options.shots, int) else options.shots
    shots = item.one_of(counts, "shots")
    reasons = bool(item.rationale) and item.is_drawn(float(options.chain_of_thought), "chain of thought")
    conversations = []
    for phrasing, inverted in _chosen(item, use, embedded=reasons or shots > 0):
        reasoning = item.one_of(file.chain_of_thought, "reasoning") if reasons and not inverted else None
        way = _Way(phrasing, inverted, reasoning)
        prompt, answer = _phrase(item, way)
        if shots:
            layout = item.one_of(file.few_shot, "layout")
            exemplars = (
                fill(layout.shot, {"prompt": shot_prompt, "answer": shot_answer})
                for shot_prompt, shot_answer in _exemplars(row, item, use, way, shots)
            )
            parts = (layout.opening, *exemplars, fill(layout.question, {"prompt": prompt}))
            prompt = "\n\n".join(filter(None, parts))
        conversations.append(harness.Conversation.of(("user", prompt), ("assistant", answer)))
    return conversations


def gather(rows: Iterable[tuple[int, Row]], options: object) -> Iterator[tuple[int, Row]]:
    """Yield the same rows, each with a reference to the first rows of its file, from which exemplars are taken."""
    others = _Others(rows)
    for number, row in others:
        yield number, {**row, OTHERS: others}


class _Others:
    """The first rows of a file. They are read ahead when the first exemplar is needed, and not before."""

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
        """Return the first rows of the file, at most POOL; always the same rows."""
        while len(self._first) < POOL and self._error is None:
            try:
                number, row = next(self._rows)
            except StopIteration:
                break
            except harness.DataError as error:  # about a later row: raised when it is that row's turn
                self._error = error
            else:
                self._first.append(row)
                self._ahead.append((number, row))
        return self._first

    def __reduce__(self) -> tuple[Any, ...]:  # a row may be converted in another process
        return _Others, ((), self.first())


# Phrasing a row


class _Way(NamedTuple):
    """One way to phrase a row: a phrasing, inverted (asking for the input) or not, and the layout of the rationale."""

    phrasing: Phrasing
    inverted: bool
    reasoning: Phrasing | None


def _chosen(item: Labelled, use: Use, embedded: bool) -> list[tuple[Phrasing, bool]]:
    """Return the phrasings for a row as (phrasing, is inverted).

    `embedded` means that the prompt will be put inside a layout, with exemplars or a rationale.
    """
    name, task, options = use.name, use.task, use.options
    inverted = [phrasing for phrasing in task.inverted if item.fills(phrasing)]
    plain = [phrasing for phrasing in task.phrasings if item.fills(phrasing)]
    if embedded:
        plain = [phrasing for phrasing in plain if not phrasing.standalone] or plain
    if not plain:
        wanted = sorted(
            set().union(*(phrasing.places for phrasing in task.phrasings)) - item.columns.keys() - {"answer"}
        )
        raise harness.DataError(
            f"no phrasing of the task {name!r} can be filled: the row says nothing about {', '.join(wanted)}. "
            f"Give it as a column, or for all rows with `values: {{{wanted[0] if wanted else 'COLUMN'}: TEXT}}`"
        )
    invert = bool(inverted) and item.is_drawn(options.inverted, "inverted")
    if options.phrasings == "all":
        return [(phrasing, False) for phrasing in plain] + [(phrasing, True) for phrasing in inverted if invert]
    return [(item.one_of(inverted if invert else plain, "phrasing"), invert)]


def _phrase(item: Labelled, way: _Way) -> tuple[str, str]:
    """Return the prompt and the answer of a row, phrased in the given way."""
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
    """Return prompts and answers of other rows of the file, phrased in the same way.

    An exemplar must not reveal the answer. A row with the same inputs is therefore never an exemplar. A row with the
    same answer is not one either, if the answer is a text of its own. An exemplar may have the same label: if it could
    not, the label that is missing from the exemplars would be the answer.
    """
    others = row.get(OTHERS)
    pool = others.first() if isinstance(others, _Others) else []
    own = folded(_phrase(item, way._replace(reasoning=None))[1])
    is_own_text = way.inverted or (not item.choices and len(own.split()) > LABEL_WORDS)
    order = list(range(len(pool)))
    draw = random.Random(item.drawn("exemplars"))
    exemplars: list[tuple[str, str]] = []
    while order and len(exemplars) < count:
        at = draw.randrange(len(order))
        order[at], order[-1] = order[-1], order[at]
        try:
            other = read_labelled(_renamed(pool[order.pop()], use.options), use)
        except harness.DataError:  # raised when it is that row's turn
            continue
        if other is None or other.inputs == item.inputs or not other.fills(way.phrasing):
            continue
        if is_own_text and folded(_phrase(other, way._replace(reasoning=None))[1]) in ("", own):
            continue
        exemplar = _phrase(other, way if other.rationale else way._replace(reasoning=None))
        if exemplar not in exemplars:
            exemplars.append(exemplar)
    if len(exemplars) < count:
        raise harness.DataError(
            f"the row should have {count} exemplars, but of the first {len(pool)} rows of the file "
            f"only {len(exemplars)} can be one for it: lower `shots`"
        )
    return exemplars


def _renamed(row: Row, options: Any) -> Row:
    """Rename the columns of another row by the recipe's `columns`; the core renames only the row being converted."""
    columns: Mapping[str, str] = getattr(options, "columns", None) or {}
    if not columns:
        return row
    taken = set(columns.values())
    renamed = {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
    return {key: value for key, value in row.items() if key not in taken} | renamed


DATASET = harness.Dataset(
    "flan",
    "labelled rows of NLP tasks, phrased as instructions in several ways",
    convert,
    options=FlanOptions,
    gather=gather,
    fields_of=fields_of,
    plain=("text", "label"),
    fields=(
        *dict.fromkeys(form.alternatives[0] for forms in BENCHMARKS.values() for form in forms),
        # FLAN's own files, and labels in words
        ("1", "2", "3"),
        ("premise", "hypothesis", "label", "explanation?", "explanation_1?", "-idx", "-guid"),
        ("premise", "hypothesis", "gold_label", "explanation_1?", "-pairID"),
        ("text", "span1_text", "span2_text", "label", "-idx"),
        ("inputs", "targets", "-task_source", "-task_name", "-template_type"),
        ("inputs_pretokenized", "targets_pretokenized", "inputs?", "targets?"),
    ),
    yields="conversations",
)
