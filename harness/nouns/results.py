"""Results of an evaluation: scores, and the record of every item they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Score:
    """One measured figure: a mean over `n` items, and its standard error (None if it cannot be computed).

    `interval` is the 95 % interval (low, high) of a share of right items, within 0 and 1. Records
    have it; no evaluation sets it.
    """

    value: float
    stderr: float | None
    n: int
    higher_is_better: bool = True
    interval: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The record of one variant on one evaluation item. `id` pairs it with the same item under another variant.

    `prompt` is the question as people read it, `input` the exact text that the model got, with control tokens. `weight`
    is the number of units that the item's metrics are means of (tokens of a loss), 1 for a plain item; `weights` has
    that of metrics with other units (bytes), by name. `log_likelihoods` (natural log) are those of the texts that were
    scored: of each choice, in their order. `reasoning` are the thoughts before the response, which are not scored.
    Items of one `group` count as a cluster in standard errors. `finish` is how the answer ended (`stop` or `length`),
    `seconds` the time until it was there, and `prompt_ids` are the ids of `input`, each where it is known. `again` are
    the metrics of a second asking, by which the noise of the engine itself is measured; of most items there is none.
    """

    id: str
    metrics: Mapping[str, float]
    prompt: str = ""
    response: str = ""
    target: str = ""
    weight: float = 1.0
    category: str = ""
    input: str = ""
    log_likelihoods: tuple[float, ...] = ()
    reasoning: str = ""
    group: str = ""
    finish: str = ""
    seconds: float | None = None
    prompt_ids: tuple[int, ...] = ()
    again: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def weight_of(self, metric: str) -> float:
        """Return the number of units that a metric of this item is the mean of."""
        return self.weights.get(metric, self.weight)


@dataclass(frozen=True, slots=True)
class Result:
    """The scores of one variant on one task, with the records they are made of.

    A score is named after its metric, or `metric/category` for the items of one category. `details` has the other
    settings of the measurement: few-shot examples, generation settings, the task's version. `warnings` are sentences
    for readers of the scores; they are shown with the scores and recorded.
    """

    task: str
    scores: Mapping[str, Score]
    samples: tuple[Sample, ...] = field(default=())
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def items_of(self, score: str) -> list[Sample]:
        """Return the items that a score is the mean of; none for a figure of all items together."""
        metrics = {name for sample in self.samples for name in sample.metrics}
        metric, slash, category = (score, "", "") if score in metrics else score.partition("/")
        return [s for s in self.samples if metric in s.metrics and (not slash or s.category == category)]
