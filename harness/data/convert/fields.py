"""Taking fields out of raw rows, with errors that say what was there instead."""

from __future__ import annotations

from typing import Any, TypeVar

from harness.errors import DataError, nearest, shown
from harness.nouns import Row

T = TypeVar("T")
_MISSING: Any = object()
_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


class LeftOut(tuple[()]):
    """No item, and why: what `convert` may return for a row that it leaves out. The reason is what is counted."""

    reason: str

    def __new__(cls, reason: str) -> LeftOut:
        made = super().__new__(cls)
        made.reason = reason
        return made


def take(row: Row, name: str, kind: type[T], default: T = _MISSING) -> T:
    """The field `name` of a row, checked for its type; null counts as absent.

    Raises:
        DataError: where it is absent and has no default, or is of another type.
    """
    value = row.get(name)
    if value is None:
        if default is _MISSING:
            if name in row:
                raise DataError(f"the field {name!r} is null")
            raise DataError(
                f"the field {name!r} is missing.{nearest(name, row)} The row has: {', '.join(map(str, row)) or 'nothing'}"
            )
        return default
    if not isinstance(value, kind):
        raise DataError(f"the field {name!r} should be {_NAMES.get(kind, kind.__name__)}, found {shown(value)}")
    return value
