"""Fields of raw rows: taking them, with errors that say what was there instead, and which datasets know them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from harness.errors import DataError, nearest, shown
from harness.nouns import Row

if TYPE_CHECKING:
    from harness.contract import Dataset

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


class OtherKindError(DataError):
    """A row is of another kind than the dataset reads: nothing is wrong with it, and `auto` does not mention it."""


class LeftOut(tuple[()]):
    """No item, with the reason: what `convert` returns for a row that it leaves out, or yields for a part of one.

    Rows and parts are counted by reason.
    """

    reason: str

    def __new__(cls, reason: str) -> LeftOut:
        left_out = super().__new__(cls)
        left_out.reason = reason
        return left_out


def take(row: Row, name: str, kind: type[T], default: T = _MISSING) -> T:
    """Return the field `name` of a row, checked for its type; null counts as absent.

    Raises:
        DataError: where it is absent and has no default, or is of another type.
    """
    value = row.get(name)
    if value is None:
        if default is _MISSING:
            if name in row:
                raise DataError(f"the field {name!r} is null")
            has = ", ".join(map(str, row)) or "nothing"
            raise DataError(f"the field {name!r} is missing.{nearest(name, row)} The row has: {has}")
        return default
    if not isinstance(value, kind):
        raise DataError(f"the field {name!r} should be {_NAMES.get(kind, kind.__name__)}, found {shown(value)}")
    return value


def is_true_or_false(value: object) -> bool:
    """Return True for true and false, and for these words, which a CSV has instead."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def having_fields(row: Row, datasets: Iterable[Dataset]) -> list[str]:
    """Return the datasets that need no field but what the row has; those that know most of its fields first."""
    known = {one.name: names for one in datasets if one.fields and (names := known_fields(one, row)) is not None}
    return sorted(known, key=lambda name: -len(known[name]))


def known_fields(dataset: Dataset, row: Row) -> frozenset[str] | None:
    """Return the fields of a row that the best fitting alternative of a dataset knows; None where none fits."""
    present = present_fields(row)
    best: frozenset[str] | None = None
    for alternative in alternatives_of(dataset.fields, dataset.metadata):
        if alternative.needed <= present:
            names = alternative.known(present)
            best = names if best is None or len(names) > len(best) else best
    return best


def present_fields(row: Row) -> frozenset[str]:
    """Return the fields that hold something; tables write null where a row has none."""
    return frozenset(str(name) for name, value in row.items() if value is not None)


class Alternative(NamedTuple):
    """One of the alternatives of a dataset's `fields`: the dotted names that it reads, and those of its metadata.

    `columns` are the columns of a row that it knows, `needed` those that a row must have; with `takes_rest`, declared
    as `*`, it knows all others too.
    """

    reads: tuple[str, ...]
    metadata: tuple[str, ...]
    columns: frozenset[str]
    needed: frozenset[str]
    takes_rest: bool = False

    def known(self, present: frozenset[str]) -> frozenset[str]:
        """Return those of a row's columns that it knows."""
        return present if self.takes_rest else present & self.columns

    @classmethod
    def of(cls, names: tuple[str, ...], metadata: tuple[str, ...]) -> Alternative:
        """Return the alternative of these declared names; `metadata` are those of every alternative."""
        reads = tuple(name.removesuffix("?") for name in names if not name.startswith("-"))
        metadata = (*(name[1:].removesuffix("?") for name in names if name.startswith("-")), *metadata)
        tops = {name.partition(".")[0] for name in names if not name.startswith("-") and not name.endswith("?")}
        return cls(
            reads,
            metadata,
            frozenset(name.partition(".")[0] for name in (*reads, *metadata)),
            frozenset(name for name in tops if f"{name}?" not in names and name != "*"),
            "*" in names,
        )


@cache
def alternatives_of(fields: tuple[tuple[str, ...], ...], metadata: tuple[str, ...]) -> tuple[Alternative, ...]:
    """Return the declared alternatives, each with the metadata that belong to all of them."""
    return tuple(Alternative.of(names, metadata) for names in fields)


class Nearness(NamedTuple):
    """Distance of a row from the nearest alternative of a dataset.

    `score` is the share of its needed fields that the row has, and the number of its fields that the row has. `missing`
    are the needed fields that the row lacks, `unknown` the row's columns that it does not know.
    """

    score: tuple[float, int]
    dataset: str
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def nearest_alternative(dataset: Dataset, row: Row) -> Nearness:
    """Return how near the nearest alternative of a dataset is to a row."""
    present = present_fields(row)
    similarity = cache(lambda name: 1.0 if name in present else 0.5 if nearest(name, present) else 0.0)

    def near(alternative: Alternative) -> tuple[float, int]:
        similar = sum(map(similarity, alternative.needed))
        return similar / max(1, len(alternative.needed)), len(alternative.known(present))

    best = max(alternatives_of(dataset.fields, dataset.metadata), key=near)
    missing, unknown = sorted(best.needed - present), sorted(present - best.known(present))
    return Nearness(near(best), dataset.name, tuple(missing), tuple(unknown))


def missing_fields(dataset: Dataset, row: Row) -> tuple[str, ...]:
    """Return the needed fields of a dataset's nearest alternative that a row lacks."""
    return nearest_alternative(dataset, row).missing
