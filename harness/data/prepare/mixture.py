"""Mixtures: how much of each source is used, and which of its rows.

How much follows from `weight`, `cap` and `epochs` of each source and from `temperature`; which rows, from a hash of
what they say, so that neither the order of the rows nor the machine matters.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from harness.errors import DataError

if TYPE_CHECKING:
    from harness.recipe import DataSource


def needs_counts(sources: Sequence[DataSource], temperature: float | None) -> bool:
    """Return whether the rows must be counted before it is known which are used; else each is used `epochs` times."""
    return temperature is not None or any(
        source.weight is not None or source.cap is not None or source.epochs != int(source.epochs) for source in sources
    )


def draws(sources: Sequence[DataSource], rows: Sequence[int], temperature: float | None = None) -> list[int]:
    """Return how many rows to draw from each source that has `rows` of them; a row that is drawn twice counts twice.

    Without weights and temperature: all its rows (at most `cap`) times its `epochs`. Else the proportions are p_i ~
    s_i^(1/T), where s_i is the weight or, without weights, the number of rows, at most `cap`: examples-proportional
    mixing with a limit and a temperature, as in section 3.5.2 of Raffel et al. 2020 (T5) and in FLAN. The total is the
    largest at which no source is used more than `epochs` times.

    Raises:
        DataError: where a source that should have a share has no rows.
    """
    sizes = [capped(source, n) for source, n in zip(sources, rows, strict=True)]
    most = [size * source.epochs for size, source in zip(sizes, sources, strict=True)]
    weights = [source.weight for source in sources]
    if temperature is None and all(weight is None for weight in weights):
        return [_rounded(value) for value in most]
    for source, n in zip(sources, rows, strict=True):
        if n == 0:
            raise DataError(
                f"no row of {source.dataset} {source.path or ''} is left, so it cannot have its share of the mixture. "
                f"Take the source out of data.train, or loosen data.clean"
            )
    scores = [size if weight is None else weight for size, weight in zip(sizes, weights, strict=True)]
    logs = [math.log(score) / (temperature or 1.0) for score in scores]
    powers = [math.exp(log - max(logs)) for log in logs]  # relative to the largest, so that none overflows
    scale = min(
        (available / power for available, power in zip(most, powers, strict=True) if power > 0), default=math.inf
    )
    return [_rounded(min(available, scale * power)) for available, power in zip(most, powers, strict=True)]


def capped(source: DataSource, rows: int) -> int:
    """Return how many of its rows a source may use."""
    return rows if source.cap is None else min(rows, source.cap)


def repeats(keys: array[int], rows: int, drawn: int) -> Iterator[int]:
    """Yield how often each row is used, in the order of `keys` (64-bit hashes); `drawn` are drawn from `rows` of them.

    Every one of the `rows` rows of the lowest keys is used as often as any other, give or take one; the others never.
    """
    whole, extra = divmod(drawn, rows) if rows else (0, 0)
    eligible, once_more = _lowest(keys, rows), _lowest(keys, extra)
    for key in keys:
        yield whole * eligible(key) + once_more(key)


def _lowest(keys: array[int], count: int) -> Callable[[int], bool]:
    """Return the judge of each key in turn: True for one of the `count` lowest; of equal keys, the first are."""
    if count <= 0:
        return lambda key: False
    if count >= len(keys):
        return lambda key: True
    cut = _nth(keys, count - 1)
    ties = itertools.count(count - sum(key < cut for key in keys) - 1, -1)
    return lambda key: key < cut or (key == cut and next(ties) >= 0)


def _nth(keys: array[int], index: int) -> int:
    """Return the key at `index` in sorted order. By the first 16 bits first: sorting all takes 40 bytes a key."""
    counts = [0] * 65536
    for key in keys:
        counts[key >> 48] += 1
    for bucket, count in enumerate(counts):
        if index < count:
            return sorted(key for key in keys if key >> 48 == bucket)[index]
        index -= count
    raise IndexError(index)


def _rounded(value: float) -> int:
    return math.floor(value + 0.5)
