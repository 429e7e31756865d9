"""A filter in one file: rows that are mostly capitals are left out, and counted under the reason.

harness --plugin examples/harness-shouting/filter_shouting.py data stats RECIPE
"""

from __future__ import annotations

from collections.abc import Callable

import harness
from harness.data import messages_of
from harness.nouns import DataItem


class ShoutingOptions(harness.Options):
    """Keys that a step of `data.clean` accepts beside the name."""

    most_capitals: float = 0.5  # of the letters


def create(options: ShoutingOptions) -> Callable[[DataItem], str | None]:
    """Return a function that says why an item is left out, or None."""

    def reason(item: DataItem) -> str | None:
        letters = [sign for message in messages_of(item) for sign in message.content if sign.isalpha()]
        return "shouts" if sum(map(str.isupper, letters)) > options.most_capitals * len(letters) else None

    return reason


@harness.hookimpl
def register_filters(register: Callable[[harness.Filter], None]) -> None:
    register(harness.Filter("shouting", "rows that are mostly capitals", ShoutingOptions, create))
