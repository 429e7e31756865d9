"""The dataset that a file is for: each one that declares `fields` is tried on a sample of the file's rows.

A dataset fits a row (its columns renamed as the source says) that has the fields it needs, that its `convert` takes
with default options, and of which it accounts for every column. Where two fit equally well, nothing is guessed. `hints`
words the refusals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from harness.contract import Dataset
from harness.data.convert import hints
from harness.data.convert.accounting import UnreadError, check_accounted
from harness.data.convert.conversion import convert_row
from harness.data.convert.fields import LeftOut, OtherKindError, known_fields, missing_fields
from harness.data.convert.sample import NONE_RENAMED, SampledRows
from harness.data.convert.validity import check_item
from harness.errors import DataError, HarnessError, listed
from harness.nouns import DataItem, Match

# A dataset is chosen if it reads at least this share of the sampled rows. Two are equal if both of the others hold:
LEAST = 0.5
MARGIN_READ = 0.05  # they read the same share of the rows, to within this
MARGIN_NAMED = 0.5  # they know equally many fields of a row, on average, to within this


def choose(
    path: str,
    datasets: Mapping[str, Dataset],
    columns: Mapping[str, str] = NONE_RENAMED,
    unread: tuple[str, ...] = (),
    rows: str | None = None,
    check: Callable[[DataItem], None] = check_item,
) -> Match:
    """Return the one dataset that fits a file. `columns`, `unread` and `rows` are those of the source.

    `check` raises DataError for an item that cannot be used.

    Raises:
        DataError: where there is nothing to read at `path`; see `best_of` too.
    """
    seen = SampledRows.of(path, columns, unread, rows=rows)
    return best_of(recognise(seen, datasets, check), seen, datasets)


def recognise(
    seen: SampledRows, datasets: Mapping[str, Dataset], check: Callable[[DataItem], None] = check_item
) -> list[Match]:
    """Return how well each dataset that declares `fields` fits some rows, the best first."""
    matches = [match_of(dataset, seen, check) for dataset in guessable(datasets)]
    return sorted(matches, key=lambda match: (bool(match.unread), -match.sureness, -match.named, match.dataset))


def best_of(matches: list[Match], seen: SampledRows, datasets: Mapping[str, Dataset]) -> Match:
    """Return the one that fits, of the matches that `recognise` returned.

    Raises:
        DataError: where none fits (naming the nearest, and what is missing or would be lost), or several fit equally
            well (naming them).
    """
    fitting = [match for match in matches if match.read >= LEAST and not match.unread]
    if not fitting:
        raise DataError(_nothing_fits(matches, seen, datasets), path=seen.path)
    equal = [match for match in fitting if _equal(fitting[0], match)]
    highest = max(datasets[match.dataset].rank for match in equal)
    first, *rivals = [match for match in equal if datasets[match.dataset].rank == highest]
    if rivals:
        raise DataError(hints.several_fit(datasets, [first, *rivals], seen), path=seen.path)
    return first


def guessable(datasets: Mapping[str, Dataset]) -> list[Dataset]:
    """Return the datasets that `auto` may choose."""
    return [dataset for dataset in datasets.values() if dataset.fields and dataset.resolve is None]


def _equal(one: Match, other: Match) -> bool:
    return abs(one.read - other.read) < MARGIN_READ and abs(one.named - other.named) < MARGIN_NAMED


def _nothing_fits(matches: list[Match], seen: SampledRows, datasets: Mapping[str, Dataset]) -> str:
    if differ := _by_file(seen, datasets):
        return f"its files are of different kinds: {differ}. Give each kind a source of its own"
    return hints.nothing_fits(matches, seen, guessable(datasets), match_of, partial(recognised, datasets))


def recognised(datasets: Mapping[str, Dataset], seen: SampledRows) -> str | None:
    """Return the dataset that fits some rows; None where none or several do."""
    try:
        return best_of(recognise(seen, datasets), seen, datasets).dataset
    except DataError:
        return None


def _by_file(seen: SampledRows, datasets: Mapping[str, Dataset]) -> str:
    """Say which dataset fits each of several files, where that differs; an empty string where it does not."""
    kinds: dict[str, list[str]] = {}
    for file in seen.files if len(seen.files) > 1 else ():
        try:
            kinds.setdefault(choose(file, datasets, seen.columns, seen.unread, seen.key).dataset, []).append(file)
        except HarnessError:
            kinds.setdefault("nothing known", []).append(file)
    return "; ".join(f"{listed(names, 2)}: {kind}" for kind, names in kinds.items()) if len(kinds) > 1 else ""


def match_of(dataset: Dataset, seen: SampledRows, check: Callable[[DataItem], None] = check_item) -> Match:
    """Return how well a dataset fits some rows."""
    tried = len(seen.rows)
    known = [known_fields(dataset, row) for _, row in seen.rows]
    fits = [names for names in known if names is not None]
    if not fits:
        missing = ", ".join(sorted(missing_fields(dataset, seen.rows[0][1])))
        return Match(dataset.name, 0.0, f"no row has the fields it needs (missing: {missing})", tried)
    tally = _Tally(check)
    tally.read(dataset, seen, known)
    if tally.other_kind and not tally.share:
        return Match(dataset.name, 0.0, f"no row is of its kind ({tally.other_kind})", tried)
    named = sum(map(len, fits)) / len(fits)
    fields = listed(dict.fromkeys(name for names in fits for name in names))
    of_all = f", of which it would lose {listed(tally.unread)}" if tally.unread else ""
    why = f"it reads {tally.share:.0%} of the {tried} rows looked at; they have {fields}{of_all}"
    return Match(dataset.name, round(tally.share, 3), why, tried, tally.error, tally.share, named, tuple(tally.unread))


class _Tally:
    """The outcome of trying a dataset on rows: the share it reads, the first refusal, the columns it loses."""

    def __init__(self, check: Callable[[DataItem], None]) -> None:
        self.check = check
        self.share = 0.0
        self.other_kind = ""
        self.error: str | None = None
        self.unread: dict[str, None] = {}

    def read(self, dataset: Dataset, seen: SampledRows, known: list[frozenset[str] | None]) -> None:
        """Try the dataset on the rows; `known` are the fields that it knows of each, None where it lacks some."""
        from pydantic import ValidationError

        from harness.recipe import source_model

        try:
            options = source_model(dataset)(dataset=dataset.name, columns=dict(seen.columns), unread=seen.unread)
        except ValidationError as problem:
            needed = ", ".join(str(part["loc"][0]) for part in problem.errors())
            self.error = f"it cannot be used without being told: {needed}"
            return
        try:
            for number, row in seen.rows if dataset.gather is not None else ():
                try:
                    check_accounted(dataset, row, options)
                except UnreadError as problem:
                    self._note(number, problem)
            rows = list(seen.gathered(dataset, options))
        except Exception as problem:  # `gather` is a plugin's, and was given rows that may not be its own
            self.error = str(problem)
            return
        fit = dict(zip((id(row) for _, row in seen.rows), known, strict=True))
        read = converted = 0
        reasons: dict[str, None] = {}
        for number, row in rows:
            if fit.get(id(row), True) is None:
                self.error = self.error or f"row {number}: it lacks {listed(missing_fields(dataset, row))}"
                continue
            try:
                items = convert_row(dataset, row, options, self.check, is_gathered=dataset.gather is not None)
                converted += sum(not isinstance(item, LeftOut) for item in items)
                reasons |= dict.fromkeys(one.reason for one in (items, *items) if isinstance(one, LeftOut))
                read += 1
            except DataError as problem:
                self._note(number, problem)
        # A dataset may leave rows out, but one that makes nothing of any row does not read the file.
        self.share = read / len(rows) if converted else 0.0
        self.error = self.error or (None if converted else ": ".join(("it leaves every row out", *reasons)))

    def _note(self, number: int, problem: DataError) -> None:
        if isinstance(problem, OtherKindError):
            self.other_kind = self.other_kind or problem.reason
        self.error = self.error or f"row {number}: {problem.reason}"
        self.unread |= dict.fromkeys(problem.columns if isinstance(problem, UnreadError) else ())
