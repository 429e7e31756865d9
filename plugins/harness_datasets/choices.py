"""Options that choose rows by a name in them: a name that no row has is a mistake, not an empty choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import harness
from harness.errors import known_names, nearest
from harness.nouns import Row


def seen_names(
    rows: Iterable[tuple[int, Row]], field: str, asked: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[int, Row]]:
    """The rows as they are, streaming. `asked` are the options (name -> the names they list) that choose by `field`.

    Raises:
        DataError: after the last row, where a name that is asked for is in no row.
    """
    seen: set[str] = set()
    for number, row in rows:
        if isinstance(name := row.get(field), str):
            seen.add(name)
        yield number, row
    for option, names in asked.items():
        for name in names:
            if name not in seen:
                raise harness.DataError(
                    f"{option}: no row has the {field} {name!r}.{nearest(name, seen)} The rows have: {known_names(seen)}"
                )
