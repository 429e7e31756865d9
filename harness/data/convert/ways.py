"""The way to read a file as it is: the dataset, the columns to rename for it, and those that are left out.

`recognise` guesses nothing, and refuses a file that would need a choice. Here the choice is made and explained, for a
recipe that a person reads before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.contract import Dataset
from harness.data.convert.hints import plain_ways, renaming_ways
from harness.data.convert.recognise import LEAST, best_of, guessable, match_of, recognise
from harness.data.convert.sample import NONE_RENAMED, SampledRows
from harness.data.convert.validity import check_readable
from harness.errors import DataError, listed
from harness.nouns import Match

PLAINEST = ("prompt", "completion")  # the columns of a question and its answer


@dataclass(frozen=True, slots=True)
class Way:
    """A dataset, the columns of the file that it reads under other names, those that it does not read, and why."""

    dataset: str
    columns: Mapping[str, str]
    unread: tuple[str, ...]
    why: str


def way_to_read(
    path: str,
    datasets: Mapping[str, Dataset],
    *,
    dataset: str | None = None,
    columns: Mapping[str, str] = NONE_RENAMED,
    rows: str | None = None,
) -> Way:
    """Return how to read a file: as `dataset` where it is given, else as the one that reads most of the columns.

    Args:
        columns: those that are renamed already, `{ours: theirs}`.
        rows: the key under which a JSON object holds the rows.

    Raises:
        DataError: where no dataset reads the rows, or several do equally well.
    """
    seen = SampledRows.of(path, columns, rows=rows)
    some = datasets if dataset is None else {dataset: datasets[dataset]}
    matches = recognise(seen, some, check_readable)
    try:
        best = best_of(matches, seen, some)
        return Way(best.dataset, columns, (), best.why)
    except DataError as error:
        refusal = error
    if any(match.read >= LEAST and not match.unread for match in matches):
        raise refusal  # several fit, and each reads the rows in another way
    return _leaving_out(seen, some, columns) or _renaming(seen, some, columns) or _stop(refusal, seen)


def _leaving_out(seen: SampledRows, datasets: Mapping[str, Dataset], columns: Mapping[str, str]) -> Way | None:
    """Return the dataset that reads the rows but for the fewest columns, which are then left out; None without one."""
    ways = []
    for one in guessable(datasets):
        match = match_of(one, seen, check_readable)
        if match.unread:
            trial = match_of(one, seen.without(match.unread), check_readable)
            if trial.read >= LEAST and not trial.unread:
                ways.append((len(match.unread), abs(one.rank), -trial.named, one.name, match.unread))
    if not ways:
        return None
    *_, name, unread = min(ways)
    return Way(name, columns, unread, f"it reads the rows, but for {listed(unread)}")


def _renaming(seen: SampledRows, datasets: Mapping[str, Dataset], columns: Mapping[str, str]) -> Way | None:
    """Return a dataset with columns to rename: those of like names, or the two of a file, in their order."""

    def attempt(dataset: Dataset, rows: SampledRows) -> Match:
        return match_of(dataset, rows, check_readable)

    some = guessable(datasets)
    for dataset, renamed, lost in renaming_ways(seen, some, attempt):
        return Way(dataset, {**columns, **renamed}, lost, f"its {_meant(renamed)}")
    ordered = tuple(seen.rows[0][1])
    for dataset, renamed in plain_ways(seen, some, attempt):
        if tuple(renamed) == PLAINEST and tuple(renamed.values()) == ordered:
            return Way(dataset, {**columns, **renamed}, (), f"of its two columns the first is the {PLAINEST[0]}")
    return None


def _meant(renamed: Mapping[str, str]) -> str:
    return " and ".join(f"{theirs!r} is the {ours}" for ours, theirs in renamed.items())


def _stop(refusal: DataError, seen: SampledRows) -> Way:
    """Raise what `recognise` says, with the option that names the columns."""
    names = [name for _, row in seen.rows[:1] for name, value in row.items() if isinstance(value, str)]
    if len(names) < len(PLAINEST):
        raise refusal
    raise DataError(
        f"{refusal.reason}\nOr name the columns of the question and the answer, of {listed(names, 12)}: "
        f"--columns {PLAINEST[0]}=COLUMN --columns {PLAINEST[1]}=COLUMN",
        path=refusal.path,
    )
