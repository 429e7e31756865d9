"""From converted rows to what is trained on: cleaning, decontamination, the validation split, and the mixture.

Rows stream through. Where a mixture must count them before it knows which it uses, they are read twice, and what is
held in between is one hash and one byte an item.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Literal

from harness.data.convert.sources import load_rows, reports_of
from harness.data.convert.validity import check_item, check_readable
from harness.data.prepare import mixture
from harness.data.prepare.cleaning import Cleaning, require_learnable
from harness.data.prepare.content import digest_of, keyed
from harness.data.prepare.decontamination import Decontamination
from harness.data.prepare.splits import is_held_out
from harness.data.read.formats import OnError, raise_error
from harness.data.reports import DataReport, SourceReport
from harness.errors import DataError
from harness.nouns import DataItem

if TYPE_CHECKING:
    from harness.contract import Dataset
    from harness.plugins import Plugins, Registry
    from harness.recipe import DataSource, DataSpec

Part = Literal["train", "validation"]

HELD_OUT = "held out for validation"
NOT_DRAWN = "not drawn by the mixture"
OVERLAPS = "overlaps with an evaluation item"
_LISTED = 1000  # overlaps that a report lists; the rest are counted


class Decision(Enum):
    """The decision about an item of the training sources."""

    TRAIN = 0
    VALIDATE = 1
    LEAVE_OUT = 2


_DECISIONS = tuple(Decision)  # by value


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item that is used: in which part, how many times, and the report of its source."""

    item: DataItem
    part: Part
    times: int
    report: SourceReport


def begin_report(spec: DataSpec, plugins: Plugins, *, list_ids: bool = False) -> DataReport:
    """Begin the report on `data.train`, before anything is read. With `list_ids` it lists what is left out."""
    train, held_out = (reports_of(spec.train, plugins.datasets, list_ids=list_ids) for _ in range(2))
    return DataReport(train, held_out)


def prepare_items(
    spec: DataSpec,
    plugins: Plugins,
    report: DataReport | None = None,
    *,
    evaluation: Iterable[tuple[str, str]] = (),
    on_error: OnError = raise_error,
) -> Iterator[Prepared]:
    """Yield the items of `data.train` that are trained on, source by source, and those that are held out.

    Args:
        report: where what becomes of the rows is counted.
        evaluation: (id, text) of the evaluation items, for `data.decontaminate`.
        on_error: gets a DataError for each row that cannot be used; the default raises it.

    Raises:
        DataError: for a row that is wrong; for an overlap where the recipe says so; for a source that has no row left
            for its share.
    """
    report = report or begin_report(spec, plugins)
    screening = _Screening(spec, plugins, report, evaluation, on_error)
    if mixture.needs_counts(spec.train, spec.temperature):
        yield from _mixed(spec, plugins, screening, report)
        return
    for number, source in enumerate(spec.train):
        for item, decision in screening.decided(number):
            if decision is not Decision.LEAVE_OUT:
                yield _used(report, number, item, decision, int(source.epochs))


def unprepared(
    sources: Iterable[DataSource],
    datasets: Registry[Dataset],
    reports: Iterable[SourceReport],
    part: Part = "validation",
    on_error: OnError = raise_error,
    check: Callable[[DataItem], None] = check_item,
) -> Iterator[Prepared]:
    """Yield every item of the sources that passes `check` as it is: nothing is cleaned, split or mixed."""
    for source, report in zip(sources, reports, strict=True):
        for row in load_rows(source, datasets, report, on_error, check):
            for item in row.items:
                report.used += 1
                yield Prepared(item, part, 1, report)


def _mixed(spec: DataSpec, plugins: Plugins, screening: _Screening, report: DataReport) -> Iterator[Prepared]:
    """Decide about every item first, then read the sources again and yield each as often as the mixture draws it."""
    decisions: list[bytearray] = []
    keys: list[array[int]] = []
    for number in range(len(spec.train)):
        decisions.append(bytearray())
        keys.append(array("Q"))
        for item, decision in screening.decided(number):
            decisions[-1].append(decision.value)
            if decision is Decision.TRAIN:
                keys[-1].append(keyed(digest_of(item), f"harness mixture {spec.seed}"))
    drawn = mixture.draws(spec.train, [len(part) for part in keys], spec.temperature)
    for number, source in enumerate(spec.train):
        repeats = mixture.repeats(keys[number], mixture.capped(source, len(keys[number])), drawn[number])
        for item, decision in _read_again(source, plugins, decisions[number]):
            times = next(repeats) if decision is Decision.TRAIN else 1
            if decision is not Decision.LEAVE_OUT and times:
                yield _used(report, number, item, decision, times)
            elif decision is Decision.TRAIN:
                report.train[number].kept -= 1
                report.train[number].leave_out(item.id, NOT_DRAWN)


def _used(report: DataReport, number: int, item: DataItem, decision: Decision, times: int) -> Prepared:
    """Report that an item of a source is used."""
    if decision is Decision.VALIDATE:
        held_out = report.held_out[number]
        held_out.rows += 1
        held_out.kept += 1
        held_out.used += 1
        return Prepared(item, "validation", 1, held_out)
    report.train[number].used += times
    return Prepared(item, "train", times, report.train[number])


class _Screening:
    """Reads the sources and decides about each item; reports what is left out, and why."""

    def __init__(
        self,
        spec: DataSpec,
        plugins: Plugins,
        report: DataReport,
        evaluation: Iterable[tuple[str, str]],
        on_error: OnError,
    ) -> None:
        self.spec, self.plugins, self.report, self.on_error = spec, plugins, report, on_error
        self.cleaning = Cleaning(spec.clean, plugins.filters) if spec.clean else None
        self.decontamination = Decontamination(spec.decontaminate, evaluation) if spec.decontaminate else None

    def decided(self, number: int) -> Iterator[tuple[DataItem, Decision]]:
        """Yield every item of a source with the decision about it."""
        report, share = self.report.train[number], self.spec.validation_share
        rows = load_rows(self.spec.train[number], self.plugins.datasets, report, self.on_error, check_readable)
        for row in rows:
            holds_out = share is not None and is_held_out(row, share)
            for item in row.items:
                try:
                    decision, reason = self._decide(item, holds_out)
                except DataError as error:
                    decision, reason = Decision.LEAVE_OUT, ""
                    if self.spec.train[number].on_bad_row == "drop":
                        report.drop_bad(item.id, report.source, error.reason)
                    else:
                        self.on_error(DataError(str(error), path=row.path, row=row.number))
                if decision is not Decision.TRAIN:
                    report.kept -= 1
                if reason:
                    report.leave_out(item.id, reason)
                yield item, decision

    def _decide(self, item: DataItem, holds_out: bool) -> tuple[Decision, str]:
        """Return the decision about an item, and the reason where it is not trained on."""
        if self.cleaning and (reason := self.cleaning.reason(item)):
            return Decision.LEAVE_OUT, reason
        require_learnable(item, self.plugins.filters)
        if holds_out:
            return Decision.VALIDATE, HELD_OUT
        if self.decontamination is None or (overlap := self.decontamination.overlap(item)) is None:
            return Decision.TRAIN, ""
        assert self.spec.decontaminate is not None
        if self.spec.decontaminate.action == "error":
            raise DataError(
                f"{overlap}. Take the row out, or set data.decontaminate.action to drop (leave such rows out) or warn"
            )
        self.report.overlapping += 1
        if len(self.report.overlaps) < _LISTED:
            self.report.overlaps.append(overlap)
        return (Decision.LEAVE_OUT, OVERLAPS) if self.spec.decontaminate.action == "drop" else (Decision.TRAIN, "")


def _read_again(source: DataSource, plugins: Plugins, decisions: bytearray) -> Iterator[tuple[DataItem, Decision]]:
    """Yield the items of a source a second time, with the decision that was taken about each."""
    rows = load_rows(source, plugins.datasets, None, lambda error: None, check_readable)
    items = chain.from_iterable(row.items for row in rows)
    changed = DataError("the data changed while they were read", path=source.path or source.dataset)
    for decision in decisions:
        if (item := next(items, None)) is None:
            raise changed
        yield item, _DECISIONS[decision]
    if next(items, None) is not None:
        raise changed
