"""The gate: rules of a recipe that a variant has to keep beside another one, for continuous integration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from harness.errors import known_names, nearest
from harness.measure.comparison import Comparison
from harness.measure.side_by_side import Rival
from harness.measure.statistics import holm

if TYPE_CHECKING:
    from harness.recipe import GateRule

Outcome = Literal["kept", "broken", "not judged"]


@dataclass(frozen=True, slots=True)
class Ruling:
    """One rule on one metric: kept, broken, or not to be judged, with the reason. `comparison` is what was judged."""

    rule: GateRule
    outcome: Outcome
    reason: str
    comparison: Comparison | None = None


def judge(rules: Sequence[GateRule], rival: Rival) -> list[Ruling]:
    """Return the outcome of each rule, for each metric that it speaks of.

    The family that Holm's correction is over are the comparisons that `no_significant_loss` rules speak of: these were
    chosen before anything was measured. A bound is kept where the whole 95 % interval keeps it, which needs no
    correction to be strict; with `by: estimate` the difference itself has to.
    """
    chosen = [(rule, comparison) for rule in rules for comparison in _meant(rule, rival)]
    tested = list({id(c): c for rule, c in chosen if rule.no_significant_loss}.values())
    adjusted = holm([comparison.paired.p_value for comparison in tested])
    family = len([p for p in adjusted if p is not None])
    of = {id(c): replace(c, adjusted=p, family=max(family, 1)) for c, p in zip(tested, adjusted, strict=True)}
    rulings = []
    for rule in rules:
        meant = [comparison for its, comparison in chosen if its is rule]
        if not meant:
            rulings.append(Ruling(rule, "not judged", _missing(rule, rival)))
        rulings += [_judged(rule, of.get(id(comparison), comparison)) for comparison in meant]
    return rulings


def _meant(rule: GateRule, rival: Rival) -> list[Comparison]:
    """Return the comparisons that a rule speaks of: all metrics of all tasks, but for what it names."""
    return [
        comparison
        for task in rival.tasks
        for comparison in task.comparisons
        if rule.task in (None, task.task)
        and rule.metric in (None, comparison.metric)
        and comparison.category == (rule.category or "")
    ]


def _missing(rule: GateRule, rival: Rival) -> str:
    """Return why a rule speaks of nothing that was compared."""
    tasks = [task.task for task in rival.tasks]
    if refused := [reason for reason in rival.refused if rule.task is None or reason.startswith(f"{rule.task}:")]:
        return refused[0]
    if rule.task is not None and rule.task not in tasks:
        return (
            f"no task {rule.task!r} was measured for both.{nearest(rule.task, tasks)} There are: {known_names(tasks)}"
        )
    of = [task for task in rival.tasks if rule.task in (None, task.task)]
    metrics = list(dict.fromkeys(c.metric for task in of for c in task.comparisons))
    if rule.metric is not None and rule.metric not in metrics:
        return f"no metric {rule.metric!r}.{nearest(rule.metric, metrics)} There are: {known_names(metrics)}"
    categories = list(dict.fromkeys(c.category for task in of for c in task.comparisons if c.category))
    near = nearest(rule.category or "", categories)
    return f"no category {rule.category!r}.{near} There are: {known_names(categories)}"


def _judged(rule: GateRule, comparison: Comparison) -> Ruling:
    paired = comparison.paired
    if paired.interval is None or paired.p_value is None:
        return Ruling(rule, "not judged", "too few items for an interval", comparison)
    if rule.no_significant_loss:
        if comparison.better == "a":
            return Ruling(rule, "broken", "significantly worse", comparison)
        return Ruling(rule, "kept", "no significant loss", comparison)
    low, high = paired.interval if rule.by == "interval" else (paired.difference, paired.difference)
    of = {"interval": "the interval", "estimate": "the difference"}[rule.by]
    if rule.at_least is not None and low < rule.at_least:
        return Ruling(rule, "broken", f"{of} does not lie above the bound", comparison)
    if rule.at_most is not None and high > rule.at_most:
        return Ruling(rule, "broken", f"{of} does not lie below the bound", comparison)
    return Ruling(rule, "kept", f"{of} keeps the bound", comparison)
