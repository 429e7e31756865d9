"""Figures of declared fields, kept by the identity of the fields: to hash them takes longer than to look at a row."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Fields = tuple[tuple[str, ...], ...]
MOST_KEPT = 4096


class ByIdentity(Generic[T]):
    """The outcome of a function for objects that are the very same ones, which are held, so that no id is another's."""

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function
        self._kept: dict[int, tuple[tuple[Any, ...], T]] = {}

    def __call__(self, *parts: Any) -> T:
        """Return the function of the parts, computed once for the same objects."""
        kept = self._kept.get(id(parts[0]))
        if kept is None or not all(map(operator.is_, kept[0], parts)):
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            kept = self._kept[id(parts[0])] = parts, self._function(*parts)
        return kept[1]
