"""Accounting for every field of a row: what a dataset neither reads nor lists as metadata is refused, never dropped.

The names that a dataset declares (see `harness.contract.Dataset`) are compiled to a tree for each alternative. Rows of
one file have few sets of keys, so the outcome for a set of keys is kept, and a row costs one look-up per object in it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from harness.contract import Dataset
from harness.data.convert.fields import alternatives_of, is_true_or_false, present_fields
from harness.data.convert.identities import ByIdentity, Fields
from harness.errors import DataError, listed, shown
from harness.nouns import Row

MOST_ALIKE = 0.8  # a name that is this much like a known one may be a slip of the pen
MARK = re.compile(r"mask|loss|train|learn|supervise|ignore|skip|exclude|weight", re.IGNORECASE)  # of what is trained on
_MEDIA = re.compile(r"(image|audio|video|picture|photo)(s|_(path|url|file)s?)?|pixel_values", re.IGNORECASE)
MOST_SHAPES = 4096  # sets of keys that are kept for one object; a file with more has rows of its own kind each


class UnreadError(DataError):
    """A row has fields that the dataset would drop; `columns` are their dotted names.

    `may_judge` is set where one of them is true or false, and may say which answers are bad.
    """

    def __init__(self, message: str, columns: tuple[str, ...], *, may_judge: bool = False) -> None:
        super().__init__(message)
        self.columns, self.may_judge = columns, may_judge


def within(name: str, keys: Iterable[str]) -> tuple[str, ...]:
    """Return the dotted names of `keys` inside `name`; metadata stay metadata: `-when` becomes `-name.when`."""
    return tuple(f"-{name}.{key[1:]}" if key.startswith("-") else f"{name}.{key}" for key in keys)


def check_accounted(dataset: Dataset, row: Row, options: Any) -> None:
    """Raise UnreadError for a row with a filled field that no single alternative of the dataset accounts for."""
    try:
        fields = dataset.fields if dataset.fields_of is None else dataset.fields_of(row, options)
    except DataError:  # `convert` refuses the row for the same reason
        return
    if not fields:
        return
    unread = _compiled(fields, dataset.metadata).unread(row)
    if not unread:
        return
    columns = tuple(dict.fromkeys(name for name, _ in unread))
    name, value = unread[0]
    inside = name.rpartition(".")[0]
    reads = (part for alternative in alternatives_of(fields, ()) for part in alternative.reads if part not in row)
    known = {part.rpartition(".")[2] for part in reads if part.rpartition(".")[0] == inside}
    last = name.rpartition(".")[2]
    near = "".join(
        f" Did you mean {f'{inside}.{meant}' if inside else meant!r}?"
        for meant in get_close_matches(last, known, 1, MOST_ALIKE)
    )
    plural, it = ("s", "them") if len(columns) > 1 else ("", "it")
    judging = next((name for name, value in unread if is_true_or_false(value)), None)
    if marking := next((name for name, value in unread if _may_be_a_mark(name, value)), None):
        way = (
            f"{marking!r} may say what is not trained on, and without it all would be. The mark that is read is "
            f"`train` of a message, true or false"
        )
    elif any(_MEDIA.fullmatch(name.rpartition(".")[2]) for name in columns):
        way = "Pictures, sounds and films are not trained on: `on_bad_row: drop` in the source leaves such rows out"
    elif judging:
        way = (
            f"{judging!r} is true or false: it may say which answers are bad, and without it these would be trained on"
        )
    else:
        names = ", ".join(map(as_yaml, columns))
        option = shlex.quote(f"unread=[{names}]")
        way = f"To train without {it}, say so in the source: `unread: [{names}]` (of a FILE: `--set {option}`)"
    raise UnreadError(
        f"the column{plural} {listed(map(repr, columns))} would be lost: the dataset {dataset.name!r} does not "
        f"read {it} ({name} is {shown(value)}).{near} {way}",
        columns,
        may_judge=judging is not None and marking is None,
    )


def _may_be_a_mark(name: str, value: Any) -> bool:
    """Return True for a name of marks, and for a key of a message that is true or false."""
    return bool(MARK.search(name.rpartition(".")[2])) or ("." in name and is_true_or_false(value))


_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def as_yaml(name: str) -> str:
    """Return a scalar as YAML; only plain words and paths need no quotes."""
    plain = name.replace("/", "").replace(".", "").replace("_", "").replace("-", "")
    is_word = plain.isalnum() and not plain.isdigit() and name[0] not in "-." and name.lower() not in _YAML_WORDS
    return name if is_word else json.dumps(name, ensure_ascii=False)


def without(row: Row, unread: Iterable[str]) -> Row:
    """Return the row without the fields of these dotted names; a name is also looked for as it stands."""
    for name in unread:
        if name in row:
            row = {key: value for key, value in row.items() if key != name}
        elif "." in name:
            row = _pruned(row, name.split("."))
    return row


def _pruned(value: Any, path: list[str]) -> Any:
    if isinstance(value, list):
        return [_pruned(one, path) for one in value]
    if not isinstance(value, Mapping) or path[0] not in value:
        return value
    if len(path) == 1:
        return {key: part for key, part in value.items() if key != path[0]}
    return {**value, path[0]: _pruned(value[path[0]], path[1:])}


class _Shape(NamedTuple):
    """The outcome for one set of keys: keys that may hold objects, with their trees, and keys that are not known."""

    nested: tuple[tuple[str, _Tree], ...]
    unknown: tuple[str, ...]


class _Tree:
    """The names that are known inside an object. `takes_all` ends the accounting: everything below is accounted for."""

    __slots__ = ("children", "shapes", "takes_all")

    def __init__(self) -> None:
        self.children: dict[str, _Tree] = {}
        self.shapes: dict[tuple[str, ...], _Shape] = {}
        self.takes_all = False

    def add(self, name: str, takes_all: bool) -> None:
        tree = self
        if name == "*":  # every column that is not named
            self.children.setdefault("*", _Tree()).takes_all = True
            return
        *parts, last = name.split(".")
        for part in parts:
            tree = tree.children.setdefault(part, _Tree())
        if last == "*":
            takes_all = True
        else:
            tree = tree.children.setdefault(last, _Tree())
        tree.takes_all = tree.takes_all or takes_all

    def unread(self, value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
        """Yield (dotted name, value) of each filled field that is not accounted for; lists are passed through."""
        if isinstance(value, list | tuple):
            for one in value:
                if type(one) is not str:
                    yield from self.unread(one, at)
        elif isinstance(value, Mapping):
            nested, unknown = self._shape(tuple(value))
            for key, tree in nested:
                inner = value[key]
                if type(inner) is not str and inner is not None:
                    yield from tree.unread(inner, f"{at}{key}.")
            for key in unknown:
                if not is_empty(value[key]):
                    yield f"{at}{key}", value[key]

    def accounts_for(self, value: Any) -> bool:
        """Return False where `unread` may yield something; for the common rows it decides in a fifth of the time."""
        kind = type(value)
        if kind is list:
            for one in value:  # noqa: SIM110 - `all` takes twice as long
                if type(one) is not str and not self.accounts_for(one):
                    return False
            return True
        if kind is not dict:
            return not isinstance(value, Mapping | tuple)
        nested, unknown = self.shapes.get(tuple(value)) or self._shape(tuple(value))
        for key, tree in nested:
            inner = value[key]
            if type(inner) is not str and inner is not None and not tree.accounts_for(inner):
                return False
        return not unknown

    def _shape(self, keys: tuple[str, ...]) -> _Shape:
        shape = self.shapes.get(keys)
        if shape is None:
            known = {key: self.children.get(key) or self.children.get("*") for key in keys}
            nested = ((key, tree) for key, tree in known.items() if tree is not None and not tree.takes_all)
            shape = _Shape(tuple(nested), tuple(key for key, tree in known.items() if tree is None))
            if len(self.shapes) < MOST_SHAPES:
                self.shapes[keys] = shape
        return shape


def is_empty(value: Any) -> bool:
    """Return True for a value that says nothing: null, an empty text, list or object, or a list of nothing else."""
    if isinstance(value, list | tuple):
        return all(map(is_empty, value))
    if isinstance(value, Mapping):
        return all(map(is_empty, value.values()))
    return value is None or value == ""


class _Reads:
    """The alternatives of one declaration, compiled."""

    def __init__(self, fields: Fields, metadata: tuple[str, ...]) -> None:
        self.alternatives: list[tuple[frozenset[str], _Tree]] = []
        for alternative in alternatives_of(fields, metadata):
            tree = _Tree()
            for name in alternative.reads:
                tree.add(name, takes_all=False)
            for name in alternative.metadata:
                tree.add(name, takes_all=True)
            self.alternatives.append((alternative.needed, tree))
        self.usual = self.alternatives[0]  # the alternative that accounted for the row before

    def unread(self, row: Row) -> list[tuple[str, Any]]:
        """Return (dotted name, value) of what is not accounted for by the alternative that leaves the least."""
        needed, tree = self.usual
        if tree.accounts_for(row):
            for name in needed:
                if row.get(name) is None:
                    break
            else:
                return []
        present = present_fields(row)
        fitting = [one for one in self.alternatives if one[0] <= present]
        outcomes: list[list[tuple[str, Any]]] = []
        for alternative in fitting or self.alternatives:
            unread = list(alternative[1].unread(row))
            if not unread:
                self.usual = alternative
                return []
            outcomes.append(unread)
        return min(outcomes, key=len)


_compiled = ByIdentity(_Reads)
