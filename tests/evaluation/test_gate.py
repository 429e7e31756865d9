"""`harness gate`: rules that are kept, broken or not to be judged, and the exit code that says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("numpy")

import pydantic

from harness.measure.gate import Ruling, judge
from harness.nouns import Sample
from harness.recipe import GateRule
from tests.evaluation.on_file import Written, compared, right


@pytest.fixture
def gate(written: Written) -> Callable[..., list[Ruling]]:
    """Judge rules on items that are right by two patterns, under A and under B."""

    def judged(a: str, b: str, *rules: dict[str, Any]) -> list[Ruling]:
        two = compared([written("a", right(a))], [written("b", right(b))])
        return judge([GateRule.model_validate(rule) for rule in rules], two.rivals[0])

    return judged


def outcomes(rulings: list[Ruling]) -> list[str]:
    return [ruling.outcome for ruling in rulings]


def test_a_significant_loss_breaks_and_a_small_one_does_not(gate: Any) -> None:
    rule = {"no_significant_loss": True}
    assert outcomes(gate("1" * 40, "0" * 10 + "1" * 30, rule)) == ["broken"]
    (kept,) = gate("1" * 40, "0" * 2 + "1" * 38, rule)
    assert (kept.outcome, kept.reason) == ("kept", "no significant loss")
    assert kept.comparison.detectable > 0.05


def test_a_bound_is_kept_by_the_whole_interval(gate: Any) -> None:
    """Of 40 items the interval of +25 points reaches below +20, and above +30."""
    a, b = "0" * 10 + "1" * 30, "1" * 40
    bounds = [
        {"at_least": "20 points"}, {"at_least": "20 points", "by": "estimate"}, {"at_least": 0.05},
        {"at_most": 0.3}, {"at_most": 0.3, "by": "estimate"}, {"at_least": 0.05, "at_most": "90 points"},
    ]  # fmt: skip
    assert outcomes(gate(a, b, *bounds)) == ["broken", "kept", "kept", "broken", "kept", "kept"]


def test_a_loss_that_few_items_could_hide_is_seen_by_a_bound(gate: Any) -> None:
    assert outcomes(gate("1" * 6, "1" * 6, {"no_significant_loss": True}, {"at_least": "-2 points"})) == [
        "kept", "broken",
    ]  # fmt: skip


def test_what_was_not_measured_is_not_judged(gate: Any) -> None:
    (task,) = gate("01", "01", {"task": "sum", "at_least": 0})
    assert (task.outcome, task.comparison) == ("not judged", None)
    assert task.reason == "no task 'sum' was measured for both. Did you mean 'sums'? There are: sums"
    (metric,) = gate("01", "01", {"metric": "rihgt", "at_least": 0})
    assert metric.reason.startswith("no metric 'rihgt'. Did you mean 'right'?")
    (category,) = gate("01", "01", {"category": "list", "no_significant_loss": True})
    assert category.reason.startswith("no category 'list'.")


def test_one_item_is_not_judged(written: Written) -> None:
    sides = [[written(name, [Sample("i:h", {"nll": loss})])] for name, loss in (("a", 2.0), ("b", 1.0))]
    (ruling,) = judge([GateRule(at_most=0)], compared(*sides).rivals[0])
    assert (ruling.outcome, ruling.reason) == ("not judged", "too few items for an interval")


def test_other_items_are_not_judged(written: Written) -> None:
    two = compared([written("a", right("0101"))], [written("b", right("010"))], refuse=False)
    (ruling,) = judge([GateRule(no_significant_loss=True)], two.rivals[0])
    assert ruling.outcome == "not judged" and "not measured on the same items" in ruling.reason


def test_only_the_rules_own_comparisons_are_one_family(written: Written) -> None:
    """p = 0.031 is a loss for a rule on one task, and none among two."""
    a, b = right("1" * 30), right("0" * 6 + "1" * 24)
    tasks = [[written(name, of, task) for task in ("one", "two")] for name, of in (("a", a), ("b", b))]
    tasks[1][1] = written("b", right("1" * 30), "two")
    (rival,) = compared(*tasks).rivals
    assert outcomes(judge([GateRule(task="one", no_significant_loss=True)], rival)) == ["broken"]
    both = judge([GateRule(no_significant_loss=True), GateRule(task="one", no_significant_loss=True)], rival)
    assert outcomes(both) == ["kept", "kept", "kept"] and both[0].comparison is not None
    assert both[0].comparison.family == 2


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({}, "either `no_significant_loss: true`, or"),
        ({"no_significant_loss": True, "at_least": 1}, "either `no_significant_loss: true`, or"),
        ({"at_least": "2 pints"}, "expected a number, or percentage points as in '2 points'"),
        ({"at_least": "nan points"}, "expected a number"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(rule: dict[str, Any], told: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=told):
        GateRule.model_validate(rule)


def test_points_are_hundredths() -> None:
    rule = GateRule.model_validate({"at_least": "+2 points", "at_most": "-0.5 point"})
    assert (rule.at_least, rule.at_most) == (0.02, -0.005)
    assert GateRule.model_validate(rule.model_dump()) == rule


@pytest.mark.slow
def test_the_exit_code_says_kept_broken_or_not_judged(typed: Callable[..., Any], finished_run: Path) -> None:
    recipe = finished_run / "recipe.yaml"
    rules = recipe.read_text().replace(
        "gate: []", "gate:\n- {no_significant_loss: true}\n- {task: val_loss, at_most: BOUND}"
    )
    recipe.write_text(rules.replace("BOUND", "99"))
    nothing = typed("gate", "demo")
    assert nothing.exit_code == 2 and "Measure both: harness evaluate demo@base demo" in nothing.output
    typed("evaluate", "demo@base", "demo")
    kept = typed("gate", "demo")
    assert kept.exit_code == 0 and "5 kept, 0 broken, 0 not judged" in kept.output
    recipe.write_text(rules.replace("BOUND", "-99"))
    broken = typed("gate", "demo", "--json")
    assert broken.exit_code == 1
    last = json.loads(broken.output)["rules"][-1]
    assert (last["outcome"], last["rule"]) == ("broken", {"task": "val_loss", "at_most": -99.0})
    recipe.write_text(rules.replace("val_loss, at_most: BOUND", "other, at_most: 1"))
    assert typed("gate", "demo", "--against", "demo@base").exit_code == 2
    recipe.write_text(rules[: rules.index("gate:")])
    without = typed("gate", "demo")
    assert without.exit_code == 2 and "the recipe 'demo' has no rules. Add them" in without.output
