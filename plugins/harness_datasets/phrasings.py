"""Reading and checking the YAML of `flan`: tasks, each with its columns, its answers and several phrasings.

`flan` applies the tasks to rows. The built-in tasks are in phrasings.yaml; a user's file has the same keys.
"""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

import harness
from harness.errors import known_names, nearest

OURS = Path(__file__).with_name("phrasings.yaml")
OPTION_PLACES = ("options", "lettered", "listed")  # the possible answers: one a line, with letters, in one line
ANSWER_PLACES = ("answer", "letter")
_RESERVED = (*ANSWER_PLACES, *OPTION_PLACES)


def plain_text(value: Any) -> Any:
    """Return a scalar as the text that labels are compared by: `true` for True, `1` for 1 and 1.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


def _texts(value: Any) -> Any:
    """Return YAML's scalars as text, so that the labels 0 and "0" are equal."""
    if isinstance(value, Mapping):
        return {plain_text(key): plain_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(plain_text, value))
    return plain_text(value)


def _names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else _texts(value)


Text = Annotated[str, pydantic.BeforeValidator(plain_text)]
Texts = Annotated[dict[str, str], pydantic.BeforeValidator(_texts)]
Names = Annotated[tuple[str, ...], pydantic.BeforeValidator(_names)]


class Phrasing(harness.Options):
    """One way to phrase a task: a prompt and its answer, with places in braces. `words` rewords the possible answers.

    A `standalone` phrasing is never put inside a layout: it has its own "Answer:", or forbids an explanation.
    """

    prompt: Text
    answer: Text = "{answer}"
    words: Texts = Field(default_factory=dict)
    standalone: bool = False

    @cached_property
    def places(self) -> frozenset[str]:
        return places(self.prompt) | places(self.answer)


class Exemplars(harness.Options):
    """The layout of a prompt with exemplars: an opening, `shot` for each exemplar, and the question itself."""

    opening: Text = ""
    shot: Text
    question: Text


class Task(harness.Options):
    """A kind of labelled row and the ways to phrase it.

    `inputs` are columns that a row must have, `optional` columns that it may have. `answer`, `rationale` and `choices`
    are columns too. Of several names for the answer or the rationale, the first that the row has is used. `choices` is
    one column with a list, or several columns with one choice each; a label may be a position counted from `first`.
    `options` gives the meaning of each value of the label. `split` is the text between rationale and answer in one
    column. `remove` is a regular expression; its matches are deleted from the rationale. `metadata` are columns that a
    row may have and that are not used: ids, languages, licences. A task that is `only_named` is used where a recipe
    names it: rows with its columns may as well be something else.
    """

    description: str = ""
    inputs: Names = Field(min_length=1)
    optional: Names = ()
    answer: Names = Field(min_length=1)
    options: Texts = Field(default_factory=dict)
    choices: Names = ()
    first: int = 0
    leave_out: Names = ()
    rationale: Names = ()
    metadata: Names = ()
    only_named: bool = False
    split: str = ""
    remove: str = ""
    phrasings: tuple[Phrasing, ...] = Field(min_length=1)
    inverted: tuple[Phrasing, ...] = ()


class TaskFile(harness.Options):
    """The content of a file of phrasings. A file without layouts uses the built-in ones."""

    tasks: dict[str, Task] = Field(min_length=1)
    chain_of_thought: tuple[Phrasing, ...] = ()
    few_shot: tuple[Exemplars, ...] = ()


@cache
def places(text: str) -> frozenset[str]:
    """Return the names of the places in braces."""
    return frozenset(name for _, name in parts(text) if name is not None)


@cache
def parts(text: str) -> tuple[tuple[str, str | None], ...]:
    """Split a phrasing at its places into (text, name of the place after it or None). `{{` is a literal brace.

    Raises:
        ValueError: for braces that are not a place.
    """
    cut = []
    for literal, name, spec, conversion in string.Formatter().parse(text):
        if name is not None and (spec or conversion or not name.strip()):
            raise ValueError("a place is {column}, and a brace that is none is doubled: {{")
        cut.append((literal, name))
    return tuple(cut)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return the text with its places filled. The filled-in values are not searched for places again."""
    return "".join(literal if name is None else literal + values[name] for literal, name in parts(text))


@cache
def load_tasks(path: Path) -> TaskFile:
    """Read and check a file of phrasings.

    Raises:
        DataError: listing every problem of the file with its line, its key and the nearest valid name.
    """
    tree = _read(path)
    try:
        file = TaskFile.model_validate(tree)
    except pydantic.ValidationError as error:
        problems = [_problem(problem) for problem in error.errors()]
    else:
        problems = list(_wrong_places(file))
    if problems:
        lines = _Lines(path)
        messages = dict.fromkeys(f"{path}{lines.of(where)}: {message}" for where, message in problems)
        raise harness.DataError("\n".join(messages))
    if path == OURS:
        return file
    ours = load_tasks(OURS)
    return file.model_copy(
        update={
            "chain_of_thought": file.chain_of_thought or ours.chain_of_thought,
            "few_shot": file.few_shot or ours.few_shot,
        }
    )


def _read(path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        tree = YAML(typ="safe").load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise harness.DataError(f"cannot be read: {error.strerror}", path=path) from None
    except UnicodeDecodeError as error:
        raise harness.DataError(f"not UTF-8 text: {error}", path=path) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        hint = ""
        if "'{'" in str(error) or "flow mapping" in str(error) or "found unhashable key" in str(error):
            hint = '. A text that begins with a brace needs quotes, as in "{question}"'
        raise harness.DataError(f"{path}{line}: not valid YAML: {error.problem or error.context}{hint}") from None
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        raise harness.DataError(f"not valid YAML: {error}", path=path) from None
    if not isinstance(tree, Mapping):
        raise harness.DataError(f"expected a mapping with `tasks`, found {tree!r:.60}", path=path)
    return tree


def _problem(problem: Any) -> tuple[tuple[Any, ...], str]:
    """Return the place and the message of a problem that pydantic found."""
    where = problem["loc"]
    key = ".".join(map(str, where))
    if problem["type"] == "extra_forbidden":
        known = _model_at(where[:-1]).model_fields
        near = nearest(str(where[-1]), known)
        return where, f"unknown key {key!r}.{near} Known here: {known_names(known)}"
    if problem["type"] == "missing":
        return where, f"{key!r} is missing"
    expected = problem["msg"][0].lower() + problem["msg"][1:].replace("valid tuple", "list")
    return where, f"{key!r} is {problem['input']!r:.80}: {expected}"


def _model_at(where: tuple[Any, ...]) -> type[harness.Options]:
    if not where:
        return TaskFile
    if where[0] == "tasks":
        return Task if len(where) == 2 else Phrasing
    return Exemplars if where[0] == "few_shot" else Phrasing


def _wrong_places(file: TaskFile) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield the problems of places: unknown places, prompts that reveal their answer, words for unknown answers."""
    for name, task in file.tasks.items():
        columns = (*task.inputs, *task.optional)
        for column in columns:
            if column in _RESERVED:
                yield ("tasks", name), f"{column!r} cannot be a column to fill in: {{{column}}} means the answer's"
        if task.remove and (wrong := _bad_pattern(task.remove)):
            yield ("tasks", name, "remove"), f"'tasks.{name}.remove' is {task.remove!r}: {wrong}"
        for kind in ("phrasings", "inverted"):
            for index, phrasing in enumerate(getattr(task, kind)):
                at = ("tasks", name, kind, index)
                yield from _unknown_places(at, phrasing, {"prompt", "answer"}, (*columns, *_RESERVED))
                words = set(task.options.values())
                if words and (unknown := [word for word in phrasing.words if word not in words]):
                    near = nearest(unknown[0], words)
                    yield (
                        (*at, "words"),
                        f"{unknown[0]!r} is not among the answers.{near} They are: {known_names(words)}",
                    )
                yield from _given_away(at, phrasing, task, kind == "inverted")
    for index, phrasing in enumerate(file.chain_of_thought):
        at = ("chain_of_thought", index)
        yield from _unknown_places(at, phrasing, {"prompt"}, ("prompt",), {"prompt"})
        yield from _unknown_places(at, phrasing, {"answer"}, ("rationale", "answer"), {"rationale", "answer"})
        last = phrasing.answer.rstrip().rpartition("\n")[2]
        if _is_well_formed(last) and (places(last) != {"answer"}):
            yield (*at, "answer"), "the last line of a chain of thought should have {answer}, and no {rationale}"
    for index, layout in enumerate(file.few_shot):
        at = ("few_shot", index)
        yield from _unknown_places(at, layout, {"opening"}, ())
        yield from _unknown_places(at, layout, {"shot"}, ("prompt", "answer"), {"prompt", "answer"})
        yield from _unknown_places(at, layout, {"question"}, ("prompt",), {"prompt"})


def _unknown_places(
    at: tuple[Any, ...],
    holder: Any,
    fields: set[str],
    known: tuple[str, ...],
    needed: set[str] = frozenset(),  # type: ignore[assignment]
) -> Iterator[tuple[tuple[Any, ...], str]]:
    for field in sorted(fields):
        text = getattr(holder, field)
        where = (*at, field)
        try:
            used = places(text)
        except ValueError as error:
            yield where, f"{'.'.join(map(str, where))!r} is {text!r:.80}: {error}"
            continue
        for place in sorted(used.difference(known)):
            near = nearest(place, known)
            yield where, f"nothing fills the place {{{place}}}.{near} It may be one of: {known_names(known)}"
        for place in sorted(needed - used):
            yield where, f"{'.'.join(map(str, where))!r} lacks the placeholder {{{place}}}"


def _given_away(
    at: tuple[Any, ...], phrasing: Phrasing, task: Task, inverted: bool
) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield the problems of a prompt that contains its own answer."""
    if not (_is_well_formed(phrasing.prompt) and _is_well_formed(phrasing.answer)):
        return
    prompt_places, answer_places = places(phrasing.prompt), places(phrasing.answer)
    columns = set(task.inputs) | set(task.optional)
    if inverted:
        if not answer_places & columns:
            yield (*at, "answer"), "an inverted phrasing answers with an input: put one of its columns in braces"
        secret = answer_places & columns
    else:
        if not answer_places & set(ANSWER_PLACES):
            yield (*at, "answer"), "the answer of a phrasing has {answer} or {letter} in it"
        secret = set(ANSWER_PLACES)
    for place in sorted(prompt_places & secret):
        yield (*at, "prompt"), f"the prompt gives the answer away: {{{place}}} is what is asked for"


def _is_well_formed(text: str) -> bool:
    try:
        parts(text)
    except ValueError:
        return False
    return True


def _bad_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"not a regular expression: {error}"
    return ""


class _Lines:
    """The lines of the keys in a YAML file. The file is read for this only after a problem was found."""

    def __init__(self, path: Path) -> None:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            self._tree = YAML().load(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, YAMLError):
            self._tree = None

    def of(self, where: tuple[Any, ...]) -> str:
        """Return `, line N` for the innermost part of `where` that the file has."""
        node, line = self._tree, None
        for part in where:
            try:
                position = node.lc.key(part) if isinstance(node, Mapping) else node.lc.item(part)
                line, node = position[0] + 1, node[part]
            except (AttributeError, KeyError, TypeError, IndexError):
                break
        return f", line {line}" if line is not None else ""


def task_named(name: str, file: TaskFile, path: Path, others: Iterable[str] = ()) -> Task:
    """Return the task of that name. Raises DataError with the nearest name, `others` too, if it does not exist."""
    try:
        return file.tasks[name]
    except KeyError:
        known = {*file.tasks, *others}
        near = nearest(name, known) or _described(name, file)
        raise harness.DataError(
            f"there is no task {name!r} in {path.name}.{near} Tasks: {known_names(known)}"
        ) from None


def _described(name: str, file: TaskFile) -> str:
    """Return a hint at the task whose description has the word, for users who know the task by another name."""
    for known, task in file.tasks.items():
        if difflib.get_close_matches(name.lower(), task.description.lower().split(), n=1, cutoff=0.8):
            return f" Did you mean {known!r}?"
    return ""
