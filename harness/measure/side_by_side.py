"""Everything that variants share, side by side: each compared with the first, the verdicts corrected as one family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import HarnessError, known_names, nearest
from harness.measure.comparison import Comparison, TaskComparison, choose, compare_task
from harness.measure.records import Record, VariantRecords
from harness.measure.remarks import unapplied
from harness.measure.statistics import holm


@dataclass(frozen=True, slots=True)
class Rival:
    """One variant beside the first: the tasks that both were measured on, and why others are not compared."""

    name: str
    tasks: tuple[TaskComparison, ...]
    alone: tuple[str, ...]
    refused: tuple[str, ...]
    unapplied: str | None

    @property
    def wholes(self) -> list[Comparison]:
        """The comparisons over all items."""
        return [comparison for task in self.tasks for comparison in task.wholes]

    @property
    def categories(self) -> list[Comparison]:
        """The comparisons over the items of one category."""
        return [comparison for task in self.tasks for comparison in task.comparisons if comparison.category]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """The first variant and its rivals. `family` is the number of comparisons with a verdict, all corrected together.

    `warnings` are those of the records, `aside` names newer records that were not taken.
    """

    first: str
    rivals: tuple[Rival, ...]
    family: int
    warnings: tuple[str, ...]
    aside: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [self.first, *(rival.name for rival in self.rivals)]

    @property
    def tasks(self) -> list[str]:
        """The tasks of which there is a comparison."""
        return list(dict.fromkeys(task.task for rival in self.rivals for task in rival.tasks))

    @property
    def metrics(self) -> dict[tuple[str, str], list[tuple[Rival, TaskComparison, Comparison]]]:
        """The comparisons over all items by task and metric, one for each rival that has it."""
        rows: dict[tuple[str, str], list[tuple[Rival, TaskComparison, Comparison]]] = {}
        for name in self.tasks:
            for rival in self.rivals:
                for task in rival.tasks:
                    for comparison in task.wholes if task.task == name else ():
                        rows.setdefault((name, comparison.metric), []).append((rival, task, comparison))
        return rows


def side_by_side(
    names: Sequence[str],
    given: Sequence[str],
    records: Sequence[VariantRecords],
    task: str | None = None,
    metric: str | None = None,
    *,
    refuse: bool = True,
) -> SideBySide:
    """Compare the first of the variants with each of the others, on every task that both were measured on.

    Holm's correction is over all comparisons of whole tasks: each metric of each task for each rival. `task` and
    `metric` narrow the comparison, and so the family. The categories of a task are corrected among themselves.

    Args:
        names: of the variants as results show them; `given` as they are typed.
        refuse: raise for items that cannot be paired; otherwise the reason is kept in `Rival.refused`.

    Raises:
        HarnessError: where two have no task in common, the items of one differ, or no task has the metric.
    """
    common = [
        _common_tasks(records[0], of, (given[0], typed), task) for of, typed in zip(records[1:], given[1:], strict=True)
    ]
    chosen: dict[str, dict[int, Record]] = {}
    for name in dict.fromkeys(name for of in common for name in of):
        having = [number for number, of in enumerate(common, 1) if name in of]
        first, *others = choose(records[0].of(name), [records[number].of(name) for number in having])
        chosen[name] = {0: first} | dict(zip(having, others, strict=True))
    rivals = []
    for number, name in enumerate(names[1:], 1):
        pairs = [(of[0], of[number]) for of in chosen.values() if number in of]
        alone = () if task else tuple(sorted({*records[0].tasks} ^ {*records[number].tasks}))
        rivals.append(_rival(names[0], name, pairs, alone, metric if not task else None, metric, refuse))
    if not any(rival.tasks or rival.refused for rival in rivals):
        metrics = {name for of in chosen.values() for name in of[0].scores if "/" not in name}
        raise HarnessError(
            f"--metric {metric}: no task has it.{nearest(metric or '', metrics)} Measured: {known_names(metrics)}"
        )
    rivals, family = _corrected(rivals)
    warnings = [
        f"{names[number]}, {record.task}: {warning}"
        for of in chosen.values()
        for number, record in of.items()
        for warning in record.warnings
    ]
    return SideBySide(names[0], tuple(rivals), family, tuple(warnings), tuple(_left_aside(chosen, records)))


def _rival(
    first: str,
    name: str,
    pairs: Sequence[tuple[Record, Record]],
    alone: tuple[str, ...],
    only_with: str | None,
    metric: str | None,
    refuse: bool,
) -> Rival:
    """Compare one rival on all tasks, or on those that have the metric `only_with`."""
    tasks, refused = [], []
    for a, b in pairs:
        if only_with is not None and only_with not in a.scores:
            continue
        try:
            tasks.append(compare_task(a, b, metric))
        except HarnessError as error:
            if refuse:
                raise
            refused.append(str(error))
    both = [(x, y) for task in tasks for x, y in task.pairs]
    warning = unapplied(first, name, [task.records for task in tasks], both)
    return Rival(name, tuple(tasks), alone, tuple(refused), None if metric else warning)


def _corrected(rivals: Sequence[Rival]) -> tuple[list[Rival], int]:
    """Return the rivals with adjusted p-values, and the size of the family of whole comparisons.

    The comparisons over all items are one family. The categories of each task are another: they say where.
    """
    families = [[comparison for rival in rivals for comparison in rival.wholes]]
    families += [[c for c in task.comparisons if c.category] for rival in rivals for task in rival.tasks]
    values: dict[int, tuple[float | None, int]] = {}
    for family in families:
        adjusted = holm([comparison.paired.p_value for comparison in family])
        size = sum(p is not None for p in adjusted)
        values |= {id(comparison): (p, size) for comparison, p in zip(family, adjusted, strict=True)}

    def corrected(comparison: Comparison) -> Comparison:
        p, size = values[id(comparison)]
        return replace(comparison, adjusted=p, family=max(size, 1))

    def of(rival: Rival) -> Rival:
        tasks = [replace(task, comparisons=tuple(map(corrected, task.comparisons))) for task in rival.tasks]
        return replace(rival, tasks=tuple(tasks))

    return [of(rival) for rival in rivals], sum(c.paired.p_value is not None for c in families[0])


def _common_tasks(first: VariantRecords, other: VariantRecords, given: tuple[str, str], task: str | None) -> list[str]:
    """Return the tasks measured for both. Raises HarnessError, with the command to type, where there are none."""
    together = f"Measure both: harness evaluate {given[0]} {given[1]}"
    for name, records in zip(given, (first, other), strict=True):
        stale = [record for record in records.stale if task in (None, record.task) and record.task not in records.tasks]
        if stale and (task is not None or not records.current):
            raise HarnessError(
                f"the weights of {name} are others than those that {stale[0].path} was measured with, "
                f"so that record does not apply to them. {together}"
            )
        if not records.current:
            raise HarnessError(f"{name} has not been evaluated yet. {together}")
        if task is not None and task not in records.tasks:
            raise HarnessError(
                f"{name} was not measured on {task!r}.{nearest(task, records.tasks)} "
                f"It has: {known_names(records.tasks)}. {together}"
            )
    common = [name for name in first.tasks if name in other.tasks]
    if not common:
        raise HarnessError(
            f"{given[0]} and {given[1]} have no task in common: "
            f"{known_names(first.tasks)}, and {known_names(other.tasks)}. {together}"
        )
    return [task] if task else common


def _left_aside(chosen: dict[str, dict[int, Record]], records: Sequence[VariantRecords]) -> list[str]:
    """Return a sentence for each record that is newer than the compared one and was measured with other settings."""
    return [
        f"left aside: {other.path}, newer, because the other variant was not measured with its settings"
        for task, of in chosen.items()
        for number, record in of.items()
        for other in records[number].of(task)
        if other.measured > record.measured
    ]
