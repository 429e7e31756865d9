"""Laws of evaluations, asked of backends whose answers are known: exact scores, unique ids, items that stay."""

from __future__ import annotations

from typing import Any

from harness.contract.evaluations import EvaluationContext, EvaluationItem
from harness.contract.kinds import Kind
from harness.errors import HarnessError, listed
from harness.measure import runner
from harness.nouns import Result
from harness.plugins.registry import Entry
from harness.testing.backends import FakeBackend
from harness.testing.laws.law import Doubtful, Kit, NotTried

MOST_ITEMS = 200


def ids_are_unique(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require an id for each item, given once, and the same items at the second asking."""
    items = _items(kit, kind, entry)
    ids = [item.id for item in items]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise HarnessError(f"the item ids {listed(twice)} are given twice: an id is what pairs two variants")
    again = _items(kit, kind, entry)
    if [runner.content_hash(item) for item in items] != [runner.content_hash(item) for item in again]:
        raise HarnessError("its items are others at the second asking: two variants would not be compared on the same")


def score_is_exact(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require the mean of what `score` says of known answers, and a better one for right answers than for none."""
    items = _items(kit, kind, entry)
    targets = {request: item.target for item in items for request in item.requests}
    right, wrong = (
        _measured(kit, kind, entry, FakeBackend(answer)) for answer in (lambda one: targets.get(one, ""), "")
    )
    names = list(right.scores)
    if any(item.target for item in items) and names and all(right.scores[n] == wrong.scores[n] for n in names):
        raise Doubtful(
            f"an answer that is the target scores as an empty one does: {listed(names)} do not tell them apart"
        )


def answers_decide(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require the same scores of the same answers."""
    one, other = (_measured(kit, kind, entry, FakeBackend("The heron keeps it.")) for _ in range(2))
    if one.scores != other.scores:
        raise HarnessError(f"the same answers have other scores the second time: {one.scores} and {other.scores}")


LAWS = {
    "ids are unique and items stay": ids_are_unique,
    "its score is exact": score_is_exact,
    "equal answers score alike": answers_decide,
}


def _context(kit: Kit) -> EvaluationContext:
    return EvaluationContext(None, kit.plugins)


def _items(kit: Kit, kind: Kind, entry: Entry[Any]) -> list[EvaluationItem]:
    evaluation, options = entry.item, kit.options(kind, entry)
    if evaluation.items is None:
        raise NotTried("it drives itself (`run`)")
    if lacking := set(evaluation.needed(options)) - FakeBackend("").capabilities:
        raise NotTried(f"it needs {listed(lacking)} of a backend: `harness evaluate` on a model gives them")
    backend = FakeBackend("")
    items, _ = runner.askable(evaluation, evaluation.items(options, _context(kit)), backend)
    return items[:MOST_ITEMS]


def _measured(kit: Kit, kind: Kind, entry: Entry[Any], backend: FakeBackend) -> Result:
    evaluation, options = entry.item, kit.options(kind, entry)
    if evaluation.items is not None:
        _items(kit, kind, entry)
    elif lacking := set(evaluation.needed(options)) - backend.capabilities:
        raise NotTried(f"it needs {listed(lacking)} of a backend: `harness evaluate` on a model gives them")
    result, *_ = [result for _, result in runner.measure(evaluation, [backend], options, _context(kit), entry.plugin)]
    return result
