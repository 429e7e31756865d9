"""What happens to rows between reading and encoding: cleaning, decontamination, the split, and the mixture.

Rows stream through. Where a mixture must count them before it knows which it uses, they are read twice, and what is held in
between is one hash and one byte a row.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.data.convert.sources import Item, SourceReport, check_learnable, check_readable, load_rows, reports_of
from harness.data.prepare import mixture
from harness.data.prepare.cleaning import Cleaning
from harness.data.prepare.content import digest_of, keyed
from harness.data.prepare.decontamination import Decontamination, Overlap
from harness.data.prepare.splits import is_held_out
from harness.data.read.formats import OnError, stop
from harness.errors import DataError

if TYPE_CHECKING:
    from harness.plugins import Plugins
    from harness.recipe import DataSource, DataSpec

HELD_OUT = "held out for validation"
NOT_DRAWN = "not drawn by the mixture"
OVERLAPS = "overlaps with an evaluation item"
_LISTED = 1000  # overlaps that an account shows; the rest are counted
_OUT, _TRAIN, _VALIDATION = range(3)


@dataclass(slots=True)
class Account:
    """What became of every row of the training sources, complete once `prepare` has come to its end.

    Of each report, rows that became one item each are `kept` or in `left_out`. `held_out` are the rows for validation.
    """

    reports: tuple[SourceReport, ...]
    held_out: tuple[SourceReport, ...]
    overlapping: int = 0
    overlaps: list[Overlap] = field(default_factory=list)

    @classmethod
    def of(cls, spec: DataSpec, plugins: Plugins, *, list_ids: bool = False) -> Account:
        """An account of `data.train`, before anything is read. With `list_ids` it names what is left out, row by row."""

        train, held_out = (reports_of(spec.train, plugins.datasets, list_ids=list_ids) for _ in range(2))
        return cls(train, held_out)

    def lines(self) -> list[str]:
        """The mixture as it came out, and what overlaps with the evaluations, for people."""
        out = mixture_of(self.reports)
        if self.overlapping:
            out.append(f"{self.overlapping:,} rows overlap with evaluation items, such as {self.overlaps[0]}")
        return out


def mixture_of(reports: Sequence[SourceReport]) -> list[str]:
    """What each of several sources gives, for people: its share of all rows and, once they are encoded, of what is learnt."""
    if len(reports) < 2:
        return []
    used, learnt = (sum(getattr(report, what) for report in reports) for what in ("used", "supervised"))
    shares = (
        f"{report.source} {Path(report.path).name} {report.used / max(used, 1):.1%}"
        + (f" ({report.supervised / learnt:.1%})" if learnt else "")
        for report in reports
    )
    return [f"mixture, in rows{' (in learnt tokens)' if learnt else ''}: {', '.join(shares)}"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item that is used: in which part, how many times, and the report of its source."""

    item: Item
    part: Literal["train", "validation"]
    times: int
    report: SourceReport


def prepare(
    spec: DataSpec,
    plugins: Plugins,
    account: Account | None = None,
    *,
    evaluation: Iterable[tuple[str, str]] = (),
    on_error: OnError = stop,
) -> Iterator[Prepared]:
    """The items of `data.train` as they are learnt from, source by source, and those that are held out.

    Args:
        account: where what becomes of the rows is counted.
        evaluation: (id, text) of the evaluation items, for `data.decontaminate`.
        on_error: gets a DataError for each row that cannot be used; the default raises it.

    Raises:
        DataError: for a row that is wrong; for an overlap where the recipe says so; for a source that has no row left
            for its share.
    """
    account = account or Account.of(spec, plugins)
    judge = _Judge(spec, plugins, account, evaluation, on_error)
    if not mixture.needs_counts(spec.train, spec.temperature):
        for number, source in enumerate(spec.train):
            for item, fate in judge.fates(number):
                if fate != _OUT:
                    yield judge.used(number, item, fate, int(source.epochs))
        return

    fates: list[bytearray] = []
    keys: list[array[int]] = []
    for number in range(len(spec.train)):
        fates.append(bytearray())
        keys.append(array("Q"))
        for item, fate in judge.fates(number):
            fates[-1].append(fate)
            if fate == _TRAIN:
                keys[-1].append(keyed(digest_of(item), f"harness mixture {spec.seed}"))
    drawn = mixture.draws(spec.train, [len(part) for part in keys], spec.temperature)
    for number, source in enumerate(spec.train):
        repeats = mixture.repeats(keys[number], mixture.capped(source, len(keys[number])), drawn[number])
        for item, fate in _again(source, plugins, fates[number]):
            times = next(repeats) if fate == _TRAIN else 1
            if fate != _OUT and times:
                yield judge.used(number, item, fate, times)
            elif fate == _TRAIN:
                account.reports[number].kept -= 1
                account.reports[number].leave_out(item.id, NOT_DRAWN)


class _Judge:
    """Reads the sources and decides, item by item, what becomes of it; keeps the account."""

    def __init__(
        self,
        spec: DataSpec,
        plugins: Plugins,
        account: Account,
        evaluation: Iterable[tuple[str, str]],
        on_error: OnError,
    ) -> None:
        self.spec, self.plugins, self.account, self.on_error = spec, plugins, account, on_error
        self.cleaning = Cleaning(spec.clean, plugins.filters) if spec.clean else None
        self.decontamination = Decontamination(spec.decontaminate, evaluation) if spec.decontaminate else None

    def fates(self, number: int) -> Iterator[tuple[Item, int]]:
        """Every item of a source, and whether it is left out, learnt from, or held out."""
        report = self.account.reports[number]
        rows = load_rows(self.spec.train[number], self.plugins.datasets, report, self.on_error, check_readable)
        for row in rows:
            part = _VALIDATION if (share := self.spec.validation_share) and is_held_out(row, share) else _TRAIN
            for item in row.items:
                try:
                    fate, reason = self._fate(item, part)
                except DataError as error:
                    fate, reason = _OUT, ""
                    self.on_error(DataError(str(error), path=row.path, row=row.number))
                if fate != _TRAIN:
                    report.kept -= 1
                if reason:
                    report.leave_out(item.id, reason)
                yield item, fate

    def used(self, number: int, item: Item, fate: int, times: int) -> Prepared:
        """Put on the account that an item is used."""
        if fate == _VALIDATION:
            report = self.account.held_out[number]
            report.rows += 1
            report.kept += 1
            report.used += 1
            return Prepared(item, "validation", 1, report)
        self.account.reports[number].used += times
        return Prepared(item, "train", times, self.account.reports[number])

    def _fate(self, item: Item, part: int) -> tuple[int, str]:
        """What becomes of an item, and why where it is not learnt from."""
        if self.cleaning and (reason := self.cleaning.reason(item)):
            return _OUT, reason
        check_learnable(item)
        if part == _VALIDATION:
            return _VALIDATION, HELD_OUT
        if self.decontamination is None or (overlap := self.decontamination.overlap(item)) is None:
            return _TRAIN, ""
        assert self.spec.decontaminate is not None
        if self.spec.decontaminate.action == "error":
            raise DataError(
                f"{overlap}. Take the row out, or set data.decontaminate.action to drop (leave such rows out) or warn"
            )
        self.account.overlapping += 1
        if len(self.account.overlaps) < _LISTED:
            self.account.overlaps.append(overlap)
        return (_OUT, OVERLAPS) if self.spec.decontaminate.action == "drop" else (_TRAIN, "")


def _again(source: DataSource, plugins: Plugins, fates: bytearray) -> Iterator[tuple[Item, int]]:
    """The items of a source a second time, with what was decided about each the first time."""
    rows = load_rows(source, plugins.datasets, None, lambda error: None, check_readable)
    items = chain.from_iterable(row.items for row in rows)
    changed = DataError("the data changed while they were read", path=source.path or source.dataset)
    for fate in fates:
        if (item := next(items, None)) is None:
            raise changed
        yield item, fate
    if next(items, None) is not None:
        raise changed
