"""Comparison of two variants' records, item by item. Items that cannot be paired are an error, never left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import HarnessError, known_names, nearest
from harness.measure import statistics
from harness.measure.records import Record, categories
from harness.measure.remarks import remarks
from harness.measure.statistics import CONFIDENCE, Interval, Noise, PairedDifference
from harness.measure.statistics.bootstrap import bootstrap_interval
from harness.nouns import Sample

Pair = tuple[Sample, Sample]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one task (or one category of its items) under A and B. `paired` holds B minus A.

    `adjusted` is the p-value after Holm's correction in a family of `family` comparisons. `noise` is that of the engine
    under A and B, where it was measured.
    """

    task: str
    metric: str
    category: str
    higher_is_better: bool
    paired: PairedDifference
    bootstrap: Interval | None = None
    noise: tuple[Noise | None, Noise | None] = (None, None)
    adjusted: float | None = None
    family: int = 1

    @property
    def better(self) -> str | None:
        """`a`, `b`, or None where they cannot be told apart."""
        if self.adjusted is None or self.adjusted >= 1 - CONFIDENCE or not self.paired.is_told_apart:
            return None
        return "b" if (self.paired.difference > 0) == self.higher_is_better else "a"

    @property
    def detectable(self) -> float | None:
        """The smallest difference that would have been seen in 80 of 100 cases; None of one item."""
        return statistics.detectable(self.paired, self.family)

    @property
    def is_share(self) -> bool:
        """True for 0/1 items, whose mean is a percentage."""
        return self.paired.table is not None


@dataclass(frozen=True, slots=True)
class Flip:
    """One item whose metric is worse or better under B."""

    metric: str
    a: Sample
    b: Sample

    @property
    def change(self) -> float:
        """The metric under B minus that under A."""
        return self.b.metrics[self.metric] - self.a.metrics[self.metric]


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """One task under A and B: comparisons, paired items, settings in which the records differ, remarks for readers."""

    task: str
    records: tuple[Record, Record]
    comparisons: tuple[Comparison, ...]
    pairs: tuple[Pair, ...]
    unpaired_metrics: tuple[str, ...]
    unlike: Mapping[str, tuple[object, object]]
    remarks: tuple[str, ...]

    @property
    def wholes(self) -> list[Comparison]:
        """The comparisons over all items."""
        return [comparison for comparison in self.comparisons if not comparison.category]

    def flips(self) -> tuple[list[Flip], list[Flip]]:
        """Return the items that became worse with B, and those that became better, the greatest changes first.

        An item counts by the first metric that it changed in. Equal changes come in the order of their content hashes:
        mixed, and the same every time.
        """
        up = {comparison.metric: comparison.higher_is_better for comparison in self.wholes}
        flips = []
        for a, b in self.pairs:
            changed = [name for name in up if name in a.metrics and a.metrics[name] != b.metrics[name]]
            flips += [Flip(name, a, b) for name in changed[:1]]
        flips.sort(key=lambda flip: (-abs(flip.change), flip.a.id.rpartition(":")[2]))
        worse = [flip for flip in flips if (flip.change < 0) == up[flip.metric]]
        return worse, [flip for flip in flips if (flip.change > 0) == up[flip.metric]]


def compare_task(a: Record, b: Record, metric: str | None = None) -> TaskComparison:
    """Compare two records of one task, by all metrics or by one; nothing is corrected for their number yet.

    Raises:
        HarnessError: where the items differ, or the metric is not there or cannot be paired.
    """
    pairs = pair(a, b)
    names = list(dict.fromkeys(name for sample, _ in pairs for name in sample.metrics))
    unpaired = tuple(name for name in a.scores if "/" not in name and name not in names)
    if metric is not None and metric not in names:
        if metric in unpaired:
            raise HarnessError(f"{a.task}: {metric!r} is a figure of all items together, with no value an item to pair")
        raise HarnessError(
            f"{a.task}: no metric is named {metric!r}.{nearest(metric, names)} It has: {known_names(names)}"
        )
    comparisons = []
    for name in [metric] if metric else names:
        having = [(x, y) for x, y in pairs if name in x.metrics]
        up = a.scores[name].higher_is_better
        for category in ["", *categories([x for x, _ in having])]:
            among = [(x, y) for x, y in having if category in ("", x.category)]
            comparisons.append(_compared(a.task, name, category, up, among))
    return TaskComparison(
        a.task, (a, b), tuple(comparisons), tuple(pairs), unpaired, unlike(a, b), remarks(a, b, pairs)
    )


def _compared(task: str, metric: str, category: str, up: bool, pairs: Sequence[Pair]) -> Comparison:
    """Compare the items that have a metric, with the engine's noise added where the items do not vary by it."""
    a, b = ([side.metrics[metric] for side in of] for of in zip(*pairs, strict=True))
    weights_a, weights_b = ([side.weight_of(metric) for side in of] for of in zip(*pairs, strict=True))
    weights = None if all(weight == 1 for weight in weights_a) else weights_a
    other = None if weights_a == weights_b else weights_b
    groups = [x.group for x, _ in pairs]
    paired = statistics.compare(a, b, weights, groups, other)
    noise = _noise([x for x, _ in pairs], metric), _noise([y for _, y in pairs], metric)
    added = [(side.common_variance, 1.0) for side in noise if side is not None]
    if (of_a := noise[0] or noise[1]) is not None and all(is_shared(*pair) for pair in pairs):
        added = [(statistics.shared_variance(of_a, weights, len(pairs)), float(of_a.n))]
    bootstrap = None if category else bootstrap_interval(a, b, weights, groups, other)
    return Comparison(task, metric, category, up, statistics.with_noise(paired, added), bootstrap, noise)


def _noise(samples: Sequence[Sample], metric: str) -> Noise | None:
    twice = [sample for sample in samples if metric in sample.again]
    return statistics.noise_of(
        [sample.metrics[metric] for sample in twice],
        [sample.again[metric] for sample in twice],
        [sample.group for sample in twice],
    )


def is_shared(a: Sample, b: Sample) -> bool:
    """Return True where both sides hold the answer of one asking: the same words after the same time, to the digit."""
    return a.seconds is not None and (a.seconds, a.response) == (b.seconds, b.response)


def unlike(a: Record, b: Record) -> dict[str, tuple[object, object]]:
    """Return the settings in which two records differ, by dotted name."""
    settings_a, settings_b = a.settings(), b.settings()
    return {
        key: (settings_a.get(key), settings_b.get(key))
        for key in dict.fromkeys((*settings_a, *settings_b))
        if settings_a.get(key) != settings_b.get(key)
    }


def are_alike(a: Record, b: Record) -> bool:
    """Return True for records whose settings are equal, but for details and versions."""
    return all(key.startswith(("details.", "versions.")) for key in unlike(a, b))


def choose(of_first: Sequence[Record], of_rivals: Sequence[Sequence[Record]]) -> tuple[Record, ...]:
    """Return one record of a task for the first variant and for each rival: those measured alike, the newest of these.

    The record of the first is the one that most rivals have the like of.
    """

    def beside(first: Record) -> list[Record]:
        return [max(records, key=lambda other: (are_alike(first, other), other.measured)) for records in of_rivals]

    def preferred(chosen: tuple[Record, ...]) -> tuple[int, list[str]]:
        alike = sum(are_alike(chosen[0], other) for other in chosen[1:])
        return alike, sorted(record.measured for record in chosen)

    return max(((first, *beside(first)) for first in of_first), key=preferred)


def pair(a: Record, b: Record) -> list[Pair]:
    """Pair the items of A and B by id, which holds a hash of the item's content and not of its rendering.

    Raises:
        HarnessError: where one has an item that the other has not, or an item has other metrics for the two.
    """
    items_a = {sample.id: sample for sample in a.samples()}
    items_b = {sample.id: sample for sample in b.samples()}
    only_a, only_b = items_a.keys() - items_b.keys(), items_b.keys() - items_a.keys()
    if only_a or only_b:
        example = sorted(only_a or only_b)[0]
        raise HarnessError(
            f"{a.task}: {a.variant} and {b.variant} were not measured on the same items "
            f"({len(items_a)} and {len(items_b)}; "
            f"{len(only_a)} only the first has, {len(only_b)} only the second; such as {example}){_limits(a, b)}. "
            f"Measure both again, in one command"
        )
    pairs = [(sample, items_b[id]) for id, sample in items_a.items()]
    for x, y in pairs:
        if x.metrics.keys() != y.metrics.keys():
            raise HarnessError(
                f"{a.task}: the item {x.id} counts differently for "
                f"{a.variant} ({known_names(x.metrics)}) and "
                f"{b.variant} ({known_names(y.metrics)}); they were measured by different versions"
            )
    return pairs


def _limits(a: Record, b: Record) -> str:
    limits = a.entries["options"].get("limit"), b.entries["options"].get("limit")
    templates = a.entries["template"]["name"], b.entries["template"]["name"]
    differences = []
    if limits[0] != limits[1]:
        differences.append(f"limit {limits[0]} and {limits[1]}")
    if templates[0] != templates[1]:
        differences.append(f"templates {templates[0]} and {templates[1]}")
    return f"; {', '.join(differences)}" if differences else ""
