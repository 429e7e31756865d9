"""Finding the task of a row: the one that a recipe names, or the one that the row's columns and labels decide.

A name is that of a benchmark (`benchmarks`), of a task in phrasings.yaml, or of a task in a YAML file of the user's.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pydantic

import harness
from harness.data import within
from harness.data.convert.fields import present_fields
from harness.errors import known_names, listed
from harness.nouns import Row
from harness_datasets.benchmarks import BENCHMARKS, OTHERS, Form, forms_of, is_filled
from harness_datasets.labelled import Use, first_value, known_columns, known_labels, says_its_label
from harness_datasets.phrasings import OURS, Task, TaskFile, load_tasks, plain_text, task_named

MOST_NAMED = 12  # tasks that a refusal lists


def task_of(row: Row, options: Any) -> Use:
    """Return the task of a row, as the recipe uses it."""
    if not options.task:
        return _recognised(row, options)
    if forms := BENCHMARKS.get(options.task):
        columns = _columns(row)
        fitting = [form for form in forms if form.accounts_for(columns)]
        fitting = fitting or [form for form in forms if form.reads.keys() <= columns]
        return _use_of(options.task, (fitting or forms)[0], options)
    file, name = load_task(options.task, getattr(options, "path", None))
    return Use(name, file.tasks[name], options, file)


def fields_of(row: Row, options: Any) -> tuple[tuple[str, ...], ...]:
    """Return the columns that a row's task reads: of several names for the answer or the rationale, the one used."""
    use = task_of(row, options)
    if use.form is not None:
        return use.form.alternatives
    answer, rationale = (first_value(row, names, options)[0] for names in (use.task.answer, use.task.rationale))
    return _fields(options.task, getattr(options, "path", None), use.name, answer, rationale)


@cache
def _fields(named: str | None, data: str | None, name: str, answer: str, rationale: str) -> tuple[tuple[str, ...], ...]:
    task = (load_task(named, data)[0] if named else load_tasks(OURS)).tasks[name]
    read = (*task.inputs, *task.optional, *task.choices, *within(answer, ("text", "-answer_start")), answer)
    parts = (part for column in task.choices for part in within(column, ("text", "label")))
    return (
        (*read, *parts, *([rationale] if rationale else []), *(f"-{column}" for column in (*task.metadata, OTHERS))),
    )


def _columns(row: Row) -> frozenset[str]:
    return frozenset(name for name, value in row.items() if name != OTHERS and is_filled(value))


def _use_of(name: str, form: Form, options: Any) -> Use:
    return Use(name, _task_for(form), options, load_tasks(OURS), form)


@cache
def _task_for(form: Form) -> Task:
    task = load_tasks(OURS).tasks[form.task]
    return task.model_copy(update={"options": dict(form.labels)}) if form.labels else task


# Named tasks


def file_and_name(task: str) -> tuple[str | None, str]:
    """Split `FILE.yaml`, `FILE.yaml:NAME` or `NAME` into (file or None, name)."""
    if match := re.fullmatch(r"(.+\.ya?ml)(?::([^:/\\]+))?", task, re.DOTALL):
        return match[1], match[2] or ""
    return None, task


def in_recipe(task: str, info: pydantic.ValidationInfo) -> str:
    """Return a recipe's `task` with an absolute path, resolved from the recipe's folder or from the data's folder."""
    named, name = file_and_name(task)
    if named is None:
        return task
    folder, data = Path(info.context["folder"]), info.data.get("path")
    folders = [folder, *([(folder / data).parent] if data and "://" not in data else [])]
    places = (place / os.path.expanduser(named) for place in folders)  # noqa: PTH111 - Path raises for an unknown user
    path = next((str(place) for place in places if place.is_file()), named)
    return f"{path}:{name}" if name else path


@cache
def load_task(task: str, data: str | None) -> tuple[TaskFile, str]:
    """Return the file that a `task` names, and the name of the task in it.

    A relative path starts at the working folder, or else at the data's folder. Paths in recipes are absolute by now.

    Raises:
        DataError: for a file or a task that does not exist.
    """
    named, name = file_and_name(task)
    if named is None:
        path = OURS
    else:
        places = [Path(os.path.expanduser(named))]  # noqa: PTH111 - Path raises for an unknown user
        if data and "://" not in data:
            places.append(Path(data).parent / named)
        path = next((place for place in places if place.is_file()), places[0])
        if not path.is_file():
            looked = " and ".join(str(place.absolute()) for place in places)
            raise harness.DataError(f"`task: {task}`: there is no such file; looked for {looked}")
    file = load_tasks(path)
    if named is None and name in BENCHMARKS:
        return file, BENCHMARKS[name][0].task
    if not name and len(file.tasks) > 1:
        raise harness.DataError(
            f"`task: {task}`: the file has several tasks: say which, as in "
            f"`task: {named}:{next(iter(file.tasks))}`. Tasks: {known_names(file.tasks)}"
        )
    name = name or next(iter(file.tasks))
    task_named(name, file, path, BENCHMARKS if named is None else ())
    return file, name


# Recognised tasks


def _recognised(row: Row, options: Any) -> Use:
    """Return the task that a row's columns belong to. The meaning of a numbered label is never guessed."""
    fitting_forms = forms_of(_columns(row)) or forms_of(present_fields(row) - {OTHERS})  # a label may be empty
    forms = [(name, form) for name, form in fitting_forms if _reads_label(row, form, options)]
    words = set(options.labels.values())
    certain = [(name, form) for name, form in forms if form.certain or (words and words <= {*form.labels.values()})]
    in_words = [] if certain else [(name, form) for name, form in forms if not _is_number(_label(row, form))]
    if certain or len(in_words) == 1:
        return _use_of(*(certain or in_words)[0], options)
    file = load_tasks(OURS)
    known = {name: count for name, task in file.tasks.items() if (count := known_columns(row, task, options))}
    fitting = {
        name: count + bool(file.tasks[name].options)
        for name, count in known.items()
        if not file.tasks[name].only_named and says_its_label(row, file.tasks[name], options)
    }
    best = [name for name, count in fitting.items() if count == max(fitting.values())]
    if len(best) == 1:
        return Use(best[0], file.tasks[best[0]], options, file)
    raise harness.DataError(_undecided(row, forms, best or list(known), file))


def _reads_label(row: Row, form: Form, options: Any) -> bool:
    """Return True if a form knows what the row's label means, or reads it as a text, a letter or a position."""
    task = _task_for(form)
    label = _label(row, form)
    if task.split:
        return isinstance(label, str) and task.split in label
    return (
        not task.options or bool(options.labels) or label.casefold() in {*known_labels(task.options), *task.leave_out}
    )


def _label(row: Row, form: Form) -> str:
    answers = _task_for(form).answer
    theirs = next((theirs for theirs, ours in form.reads.items() if ours in answers), "")
    return str(plain_text(row.get(theirs))).strip()


def _is_number(label: str) -> bool:
    return label.lstrip("-").isdigit()


def _undecided(row: Row, forms: list[tuple[str, Form]], best: list[str], file: TaskFile) -> str:
    """Say that the columns do not decide, with one line to paste for each task that it could be."""
    has = ", ".join(str(column) for column in row if column != OTHERS) or "nothing"
    if forms:
        lines = dict.fromkeys(f"\n    task: {name}  # {_meanings(form)}" for name, form in forms)
        return (
            f"the label is a number, and by the columns ({has}) it could mean this. Add the line of yours to the "
            f"source (`dataset: flan`; of a FILE: `--dataset flan --set task=NAME`):{''.join(lines)}\n"
            f"If it means something else, name a task and what its labels mean, "
            f"`labels: {{0: WORDS, 1: WORDS}}`"
        )
    reason = f"by its columns it could be {' or '.join(best)}" if best else "it has the columns of no task"
    if best and all(file.tasks[name].only_named for name in best):
        reason += ", but that is used by name only: a plain question with its answer is `dataset: prompt_completion`"
    like = {name for name, task in file.tasks.items() if {*task.inputs, *task.answer, *task.choices}.intersection(row)}
    like |= {name for name, forms in BENCHMARKS.items() if any(form.reads.keys() & row.keys() for form in forms)}
    names = listed(best or like or {*file.tasks, *BENCHMARKS}, MOST_NAMED)
    return (
        f"the row does not say what task it is: {reason}. The row has: {has}. Choose one with `task: NAME`: "
        f"{names}; other names of columns are given with `columns`"
    )


def _meanings(form: Form) -> str:
    return f"{form.task}: " + ", ".join(f"{value} is {words}" for value, words in form.labels.items())
