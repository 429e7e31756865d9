"""The evaluation `human`: the votes of a database as win rates and strengths."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from harness_evaluation import backends
from harness_evaluation.human import EVALUATION, HumanOptions
from ruamel.yaml import YAML

from harness import HarnessError
from harness.contract import EvaluationContext
from harness.measure.soundness import checked
from harness.measure.strengths import outcomes_of, strengths
from harness.model import load
from harness.nouns import Side, Verdict
from harness.plugins import Plugins
from harness.run import Run
from harness.variants import tuned_of
from harness.votes import Ballots


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def vote(votes: Ballots, names: list[str], verdict: Verdict, annotator: str, *, blind: bool = True) -> None:
    messages = [{"role": "user", "content": "Who keeps the key?"}]
    sides = [Side(name, None, messages) for name in names]
    id = votes.open(sides, seed=0, sampling={}, annotator=annotator, blind=blind)
    for place, name in enumerate(names):
        votes.record(id, place, f"{name}'s answer", "stop")
    votes.vote(id, verdict)


def measure(path: Path, name: str) -> Any:
    plugins = Plugins()
    assert EVALUATION.run is not None
    asked: Any = Named(name)
    outcome = EVALUATION.run(asked, HumanOptions(votes=str(path)), EvaluationContext(None, plugins))
    (result,) = checked(outcome, "human", plugins.evaluations.owner("human"))
    return result


def test_votes_become_win_rates_and_strengths(tmp_path: Path) -> None:
    votes, rng = Ballots(str(tmp_path / "votes.db")), random.Random(0)
    for number in range(60):
        names = rng.sample(["demo", "demo@base", "other"], 2 + number % 2)
        best = rng.choices(range(len(names)), [3 if name == "demo" else 1 for name in names])[0]
        verdict = Verdict("tie") if number % 7 == 0 else Verdict("best", best)
        vote(votes, names, verdict, f"person {number % 6}")
    result = measure(tmp_path / "votes.db", "demo")
    outcomes = outcomes_of(Ballots(str(tmp_path / "votes.db")))
    mine = [(o.score if o.first == "demo" else 1 - o.score, o.weight) for o in outcomes if "demo" in o[:2]]
    rate = result.scores["win_rate"]
    expected = sum(score * weight for score, weight in mine) / sum(weight for _, weight in mine)
    assert rate.value == pytest.approx(expected) and rate.n == len(mine)
    assert set(result.scores) == {"win_rate", "win_rate/demo@base", "win_rate/other", "strength"}
    fitted = strengths(outcomes)
    (strength,) = (one for one in fitted.ranked if one.variant == "demo")
    assert (result.scores["strength"].value, result.scores["strength"].stderr) == (strength.value, strength.stderr)
    assert strength.value > 0 and result.details["clusters"] == 6 and not result.warnings
    difference, (low, high) = result.details["stronger_than_by"]["other"]
    assert low < difference < high and difference == fitted.difference("demo", "other").value
    assert {sample.group for sample in result.samples} == {f"person person {n}" for n in range(6)}
    assert result.samples[0].response == "demo's answer" and result.samples[0].prompt == "Who keeps the key?"


def test_one_person_and_one_winner_give_rates_and_warnings(tmp_path: Path) -> None:
    votes = Ballots(str(tmp_path / "votes.db"))
    for _ in range(3):
        vote(votes, ["demo", "other"], Verdict("best", 0), "ann")
    result = measure(tmp_path / "votes.db", "demo")
    assert result.scores["win_rate"].value == 1 and result.scores["win_rate"].stderr is None
    assert "strength" not in result.scores
    assert [warning[:20] for warning in result.warnings] == ["all votes are one pe", "no strengths: other "]


def test_votes_on_named_variants_do_not_count(tmp_path: Path) -> None:
    votes = Ballots(str(tmp_path / "votes.db"))
    vote(votes, ["demo", "other"], Verdict("best", 1), "ann", blind=False)
    with pytest.raises(HarnessError, match="There are votes on none; left out: 1 where names were shown"):
        measure(tmp_path / "votes.db", "demo")
    vote(votes, ["demo", "other"], Verdict("best", 0), "ben")
    result = measure(tmp_path / "votes.db", "demo")
    assert result.scores["win_rate"].value == 1 and result.details["left_out"] == {"names were shown": 1}


def test_votes_are_counted_without_loading_a_model(
    tmp_path: Path, finished_run: Path, typed: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    votes = Ballots(str(tmp_path / "votes.db"))
    for _ in range(3):
        vote(votes, ["demo", "demo@base"], Verdict("best", 0), "ann")
    recipe, own = tmp_path / "votes.yaml", YAML(typ="safe").load(finished_run / "recipe.yaml")
    recipe.write_text(json.dumps(own | {"evaluate": [{"evaluation": "human", "votes": str(tmp_path / "votes.db")}]}))
    monkeypatch.setattr(load, "load_model", None)  # loading would fail
    command = ("evaluate", "demo", "demo@base", "--recipe", str(recipe), "--json", "--backend")
    for backend in ("auto", "engine", "local"):
        done = typed(*command, backend)
        assert "Asked through" not in done.stderr and "waiting" not in done.stderr
        rates = {one["variant"]: one["scores"]["win_rate"]["value"] for one in json.loads(done.stdout)}
        assert rates == {"demo": 1, "demo@base": 0}
    assert {one["engine"] for one in json.loads(done.stdout)} == {"none"}
    assert "asks no model anything" in typed(*command[:-2], "--dry-run").output
    with pytest.raises(HarnessError, match="the evaluation was declared with asks=False, and asks"):
        backends.Unasked(tuned_of(Run.open(finished_run, Plugins()))).ask(())


def test_a_variant_without_votes_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    vote(Ballots(str(tmp_path / "votes.db")), ["demo", "other"], Verdict("tie"), "ann")
    with pytest.raises(
        HarnessError, match=r"nobody voted on dem. Did you mean 'demo'\? There are votes on demo, other"
    ):
        measure(tmp_path / "votes.db", "dem")
    with pytest.raises(HarnessError, match="there is no votes database"):
        measure(tmp_path / "none.db", "demo")
    assert not (tmp_path / "none.db").exists()
