"""Cells of tables: objects and lists that stand as text in them, decoded where they are meant, and written line ends.

A dataset declares the keys inside such a column. A column that may be text as well (a prompt, or its messages) is
decoded only if it holds objects of these keys with a role, a speaker or a type.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from harness.contract import Dataset
from harness.data.convert.identities import ByIdentity, Fields
from harness.data.read.jsontext import loads
from harness.nouns import Row

_Columns = tuple[tuple[str, frozenset[str] | None], ...]
_KINDS = ("role", "from", "type")  # keys that say what an object is
# A line end written as two characters, in prose: `\neq`, `C:\new` and the like are none.
_WRITTEN_END = re.compile(r"(?:[\w.!?:;,)\"'\]]|\\n)\\n(?=\\n|[A-Z0-9\s(*-]|$)")


def with_objects(dataset: Dataset, row: Row) -> Row:
    """Return the row with the columns decoded that hold objects as JSON, or as Python writes them."""
    decoded: dict[str, Any] = {}
    for name, keys in _columns_of_objects(dataset.fields):
        value = row.get(name)
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            inner = _decoded(value)
            if isinstance(inner, list | dict) and (keys is None or _are_objects(inner, keys)):
                decoded[name] = inner
    return {**row, **decoded} if decoded else row


def _are_objects(value: Any, keys: frozenset[str]) -> bool:
    """Return True for messages: not for an answer that is JSON itself, such as `{"from": "Oslo", "name": "Ada"}`."""
    if isinstance(value, Mapping) and "from" in value and "value" not in value:
        return False
    entries = value if isinstance(value, list) else [value]
    return bool(entries) and all(
        isinstance(one, Mapping) and one.keys() <= keys and any(kind in one for kind in _KINDS) for one in entries
    )


def _declared(fields: Fields) -> _Columns:
    """Return the columns that have declared keys inside, with these keys where the column may be text as well."""
    inside: dict[str, set[str]] = {}
    bare: set[str] = set()
    for name in (name for alternative in fields for name in alternative):
        column, _, rest = name.lstrip("-").removesuffix("?").partition(".")
        if not rest:
            bare.add(column)
        elif rest != "*":
            inside.setdefault(column, set()).add(rest.partition(".")[0])
    return tuple((column, frozenset(keys) if column in bare else None) for column, keys in inside.items())


_columns_of_objects = ByIdentity(_declared)


def _decoded(text: str) -> Any:
    """Return the value of JSON text or of a Python literal; None for any other text."""
    try:
        return loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes such as "\\d" in the text
            return json.loads(json.dumps(ast.literal_eval(text.strip())))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def writes_line_ends(row: Mapping[str, Any]) -> bool:
    """Return True where a text of a row has line ends written as `\\n`, by all signs: in prose, and no other ones.

    JSON in a cell is not prose: its line ends are written so.
    """
    return any(
        isinstance(cell, str)
        and "\\n" in cell
        and "\n" not in cell
        and _WRITTEN_END.search(cell)
        and not _is_json(cell)
        for cell in row.values()
    )


def _is_json(cell: str) -> bool:
    try:
        return isinstance(json.loads(cell), dict | list)
    except (ValueError, RecursionError):
        return False
