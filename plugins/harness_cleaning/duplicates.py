"""`exact_duplicates`: of rows that say the same, the first stays."""

from __future__ import annotations

from collections.abc import Callable

import harness
from harness.data import digest_of
from harness.nouns import DataItem


class ExactOptions(harness.Options):
    """Runs of blanks count as one; tools that are offered, ids and sources do not count. Nothing can be set."""


def exact(options: ExactOptions) -> Callable[[DataItem], str | None]:
    """Remembers 16 bytes of each row it has seen."""
    seen: set[bytes] = set()

    def judge(item: DataItem) -> str | None:
        digest = digest_of(item)
        if digest in seen:
            return "says the same as an earlier row"
        seen.add(digest)
        return None

    return judge


FILTERS = (harness.Filter("exact_duplicates", "rows that say the same, but for blanks", ExactOptions, exact),)
