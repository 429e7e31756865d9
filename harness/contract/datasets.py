"""Datasets: declared sources of rows, and their conversion to conversations and preferences."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from harness.contract.checking import require_functions, require_options, require_paths, require_texts
from harness.errors import PluginError
from harness.nouns import Conversation, Match, Preference, Row

if TYPE_CHECKING:
    from harness.options import Options

Yields = Literal["conversations", "preferences", "either", "not stated"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A declared source. `convert(row, options)` turns one raw row into one or several Conversations or Preferences.

    To leave a row out, it returns `harness.data.LeftOut(reason)` or None, and for one item of several it yields the
    former; what is left out is counted. For a wrong row it
    raises `DataError` (or KeyError, TypeError, ValueError); the core adds the file and the row. `source` is the default
    path of a dataset that brings its own data; `licence` is the licence of that data.

    `options` is the source in the recipe (`dataset`, `path`, `columns`), with the keys that the declared `options` add.
    `gather(rows, options)` combines raw rows that belong together (the messages of a tree) before they are converted:
    it takes and yields (number, row).

    `fields` names every field that `convert` reads, in one tuple for each form of row (an alternative), with `?` after
    an optional one: `(("instruction", "input?", "output"),)`. Dots lead into objects and lists of objects:
    `"messages.role"` is a key of each entry of `messages`, `"nodes.*.text"` is a key of each value of `nodes`, whatever
    its key, and `"tools.*"` is all of `tools`. A name with `-` before it
    is metadata of that alternative (`"-url"`), which is known and not read; `metadata` is that of all alternatives. A
    row with another field that is not empty is refused, so that nothing is dropped unseen. `auto` recognises a file by
    `fields`; a dataset without it is never guessed, and its rows are not checked. `fields_of(row, options)` returns the
    alternatives of a row where they depend on the recipe or on the row; equal ones should be one object.

    `plain` are the columns of its plainest row, `("prompt", "completion")`: a file of as many texts under other names
    is refused with the lines that read these as them.

    Of two that fit a file equally well, `auto` takes the one of higher `rank`: 1 for one that refuses each row without
    marks of its own in the texts, -1 for one that also reads the rows of another.

    `resolve(path, datasets, options)` makes a dataset a stand-in for another, which is chosen for each file: it returns
    the `Match` that names it.

    `yields` says what `convert` returns; "either" where that depends on the rows or the options. `label` is the field
    by which a dataset of judged answers tells good from bad: messages about rows that may have such a field name it.

    Encoded data are cached, and used again while the rows, the code and the files that the code opens in Python are the
    same. `reads` names the files and folders that it reads in another way (a library's native code, another program).
    """

    name: str
    description: str
    convert: Callable[[Row, Any], Conversation | Preference | Iterable[Conversation | Preference] | None]
    source: str | Path | None = None
    licence: str = "not stated"
    options: type[Options] | None = None
    gather: Callable[[Iterable[tuple[int, Row]], Any], Iterable[tuple[int, Row]]] | None = None
    fields: tuple[tuple[str, ...], ...] = ()
    metadata: tuple[str, ...] = ()
    fields_of: Callable[[Row, Any], tuple[tuple[str, ...], ...]] | None = None
    rank: int = 0
    plain: tuple[str, ...] = ()
    resolve: Callable[[str, Mapping[str, Dataset], Any], Match] | None = None
    reads: tuple[str | Path, ...] = ()
    yields: Yields = "not stated"
    label: str = ""


def check_dataset(dataset: Dataset) -> None:
    """Raise PluginError for a declaration that would fail when a recipe uses it."""
    require_functions(dataset, convert="row, options")
    if dataset.gather is not None:
        require_functions(dataset, gather="rows, options")
    if dataset.fields_of is not None:
        require_functions(dataset, fields_of="row, options")
    if dataset.resolve is not None:
        require_functions(dataset, resolve="path, datasets, options")
    require_options(dataset, optional=True)
    require_texts(dataset, "description", "licence", "label")
    if dataset.yields not in get_args(Yields):
        expected = ", ".join(map(repr, get_args(Yields)))
        raise PluginError(f"{dataset.name!r}: yields should be one of {expected}, found {dataset.yields!r}")
    require_paths(dataset, "reads")
    _require_names(dataset)
    if not _are_names(dataset.plain):
        raise PluginError(f"{dataset.name!r}: plain should be a tuple of names, found {dataset.plain!r}")
    if dataset.source is not None and not isinstance(dataset.source, str | os.PathLike):
        raise PluginError(f"{dataset.name!r}: the source should be a path, found {dataset.source!r}")


def _require_names(dataset: Dataset) -> None:
    """Raise PluginError for `fields` or `metadata` that are not tuples of names."""
    fields = dataset.fields
    if not isinstance(fields, tuple) or not all(map(_are_names, fields)):
        expected = 'a tuple of tuples of names, as in `(("question", "answer"),)`'
        raise PluginError(f"{dataset.name!r}: fields should be {expected}, found {fields!r}")
    if not _are_names(dataset.metadata):
        expected = 'a tuple of names, as in `("id", "licence")`'
        raise PluginError(f"{dataset.name!r}: metadata should be {expected}, found {dataset.metadata!r}")


def _are_names(names: object) -> bool:
    return isinstance(names, tuple) and all(isinstance(name, str) and name for name in names)
