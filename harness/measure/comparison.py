"""Comparison of two variants' records, item by item. Items that cannot be paired are an error, never left out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import HarnessError, known_names, nearest
from harness.measure import statistics
from harness.measure.records import Record, categories
from harness.measure.statistics import PairedDifference
from harness.nouns import Sample


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one task (or one category of its items) under A and B. `paired` holds B minus A."""

    task: str
    metric: str
    category: str
    higher_is_better: bool
    paired: PairedDifference

    @property
    def better(self) -> str | None:
        """`a`, `b`, or None where they cannot be told apart."""
        if not self.paired.is_told_apart:
            return None
        return "b" if (self.paired.difference > 0) == self.higher_is_better else "a"


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """One task under A and B: the comparisons, the paired items, and the settings in which the two records differ."""

    task: str
    comparisons: tuple[Comparison, ...]
    pairs: tuple[tuple[Sample, Sample], ...]
    unpaired_metrics: tuple[str, ...]
    unlike: Mapping[str, tuple[object, object]]

    def changed(self, metric: str) -> tuple[list[tuple[Sample, Sample]], list[tuple[Sample, Sample]]]:
        """Return the pairs whose metric fell from A to B, and those whose metric rose, the greatest changes first.

        Equal changes come in the order of their content hashes: mixed, and the same every time.
        """
        changes = [
            (b.metrics[metric] - a.metrics[metric], a.id.rpartition(":")[2], (a, b))
            for a, b in self.pairs
            if metric in a.metrics
        ]
        changes.sort(key=lambda change: (-abs(change[0]), change[1]))
        return [pair for by, _, pair in changes if by < 0], [pair for by, _, pair in changes if by > 0]


def compare_task(a: Record, b: Record, metric: str | None = None) -> TaskComparison:
    """Compare two records of one task, by all metrics or by one.

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
        both = [(x, y) for x, y in pairs if name in x.metrics]
        up = a.scores[name].higher_is_better
        comparisons.append(Comparison(a.task, name, "", up, _paired(both, name)))
        for category in categories([x for x, _ in both]):
            among = [(x, y) for x, y in both if x.category == category]
            comparisons.append(Comparison(a.task, name, category, up, _paired(among, name)))
    return TaskComparison(a.task, tuple(comparisons), tuple(pairs), unpaired, unlike(a, b))


def unlike(a: Record, b: Record) -> dict[str, tuple[object, object]]:
    """Return the settings in which two records differ, by dotted name."""
    settings_a, settings_b = a.settings(), b.settings()
    return {
        key: (settings_a.get(key), settings_b.get(key))
        for key in dict.fromkeys((*settings_a, *settings_b))
        if settings_a.get(key) != settings_b.get(key)
    }


def choose(a: Sequence[Record], b: Sequence[Record]) -> tuple[Record, Record]:
    """Return the newest two records of one task under A and B with equal settings; else the newest of each."""

    def preferred(pair: tuple[Record, Record]) -> tuple[int, str, str]:
        differ = [key for key in unlike(*pair) if not key.startswith(("details.", "versions."))]
        earlier, later = sorted(record.measured for record in pair)
        return -bool(differ), earlier, later

    return max(itertools.product(a, b), key=preferred)


def pair(a: Record, b: Record) -> list[tuple[Sample, Sample]]:
    """Pair the items of A and B by id, which holds a hash of the item's content.

    Raises:
        HarnessError: where one has an item that the other has not, or an item counts differently for the two.
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
        if (x.weight, x.weights) != (y.weight, y.weights) or x.metrics.keys() != y.metrics.keys():
            raise HarnessError(
                f"{a.task}: the item {x.id} counts differently for "
                f"{a.variant} (weight {x.weight:g}, {known_names(x.metrics)}) and "
                f"{b.variant} (weight {y.weight:g}, {known_names(y.metrics)}); they were measured by different versions"
            )
    return pairs


def _paired(pairs: Sequence[tuple[Sample, Sample]], metric: str) -> PairedDifference:
    weights = [x.weight_of(metric) for x, _ in pairs]
    return statistics.compare(
        [x.metrics[metric] for x, _ in pairs],
        [y.metrics[metric] for _, y in pairs],
        None if all(weight == 1 for weight in weights) else weights,
    )


def _limits(a: Record, b: Record) -> str:
    limits = a.entries["options"].get("limit"), b.entries["options"].get("limit")
    templates = a.entries["template"]["name"], b.entries["template"]["name"]
    differences = []
    if limits[0] != limits[1]:
        differences.append(f"limit {limits[0]} and {limits[1]}")
    if templates[0] != templates[1]:
        differences.append(f"templates {templates[0]} and {templates[1]}")
    return f"; {', '.join(differences)}" if differences else ""
