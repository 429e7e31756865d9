"""Cleaning: the filters of `data.clean`, in order. What each leaves out is counted, and listed where asked for.

What a filter looks at is its plugin's; here they are started, asked, and kept from taking the command down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.data.convert.validity import check_learnable
from harness.errors import ENDINGS, DataError, HarnessError
from harness.nouns import DataItem

if TYPE_CHECKING:
    from harness.contract import Filter
    from harness.plugins.registry import Registry
    from harness.recipe import CleanStep


class Cleaning:
    """The filters of one pass over the data. Some remember what they saw, so each pass needs its own."""

    def __init__(self, steps: Sequence[CleanStep], filters: Registry[Filter]) -> None:
        """Start the filters. Raises HarnessError for a filter that no plugin registers or that cannot start."""
        declared = [(filters[step.filter], step) for step in steps]
        self._filters = [(filter.name, _started(filter, step)) for filter, step in declared]

    def reason(self, item: DataItem) -> str | None:
        """Return why the first filter that objects leaves the item out, as `FILTER: REASON`; None if none does."""
        for name, judge in self._filters:
            try:
                reason = judge(item)
            except (HarnessError, *ENDINGS):
                raise
            except BaseException as error:  # whatever a plugin's filter trips over is about this item
                raise DataError(f"the filter {name!r} failed: {type(error).__name__}: {error}") from error
            if reason is None:
                continue
            if not isinstance(reason, str) or not reason:
                raise DataError(f"the filter {name!r} returned {reason!r}: expected a reason as text, or None")
            return f"{name}: {reason}"
        return None


def require_learnable(item: DataItem, filters: Registry[Filter]) -> None:
    """Raise DataError for an item that has nothing to train on, naming the filter that leaves it out."""
    try:
        check_learnable(item)
    except DataError as error:
        raise DataError(f"{error}{leaving_out(item, filters)}") from None


def leaving_out(item: DataItem, filters: Registry[Filter]) -> str:
    """Say which filter leaves out an item that cannot be trained on; an empty string where none does."""
    name = filter_for(item, filters)
    hint = f". The filter `{name}` leaves such rows out and counts them: add `- {{filter: {name}}}` to data.clean"
    return hint if name else ""


def filter_for(item: DataItem, filters: Registry[Filter]) -> str:
    """Return the first filter that objects to an item with its defaults; an empty string where none does.

    A filter that needs options, or that fails, is passed over: this is a hint behind an error about the row.
    """
    for name, declared in filters.items():
        try:
            objects = declared.create(declared.options())(item) is not None
        except ENDINGS:
            raise
        except BaseException:
            continue
        if objects:
            return name
    return ""


def _started(declared: Filter, options: Any) -> Callable[[DataItem], str | None]:
    try:
        return declared.create(options)
    except (HarnessError, *ENDINGS):
        raise
    except BaseException as error:
        raise DataError(
            f"data.clean: the filter {declared.name!r} cannot start: {type(error).__name__}: {error}"
        ) from error
