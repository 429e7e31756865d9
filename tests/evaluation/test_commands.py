"""`harness evaluate` and `harness compare` as a person types them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from harness.errors import HarnessError

pytestmark = pytest.mark.slow


def test_evaluate_prints_only_json_and_keeps_every_item(harness: Callable[..., Any], finished_run: Path) -> None:
    done = harness("evaluate", "demo@base", "demo", "--json")
    assert done.code == 0, done.err
    records = json.loads(done.out)
    assert [(record["variant"], record["task"]) for record in records] == [
        ("demo@base", "who"), ("demo@base", "val_loss"), ("demo", "who"), ("demo", "val_loss"),
    ]  # fmt: skip
    (path,) = finished_run.glob("evaluations/demo/*/who.json")
    record = json.loads(path.read_text())
    assert record["template"]["name"] == "chatml"
    assert record["template"]["stop_tokens"] == ["<|im_end|>"]
    assert record["options"]["limit"] is None
    assert record["details"]["num_fewshot"] == 0
    assert {"lm-eval", "torch", "transformers"} <= record["versions"].keys()
    assert len(record["weights"]["adapter_sha256"]) == 64
    assert "adapter_sha256" not in records[0]["weights"]
    assert len(path.with_name("who.samples.jsonl").read_text().splitlines()) == 4

    done = harness("compare", "demo@base", "demo", "--json")
    assert done.code == 0, done.err
    comparisons = {(c["task"], c["metric"]): c for c in json.loads(done.out)["comparisons"] if not c["category"]}
    assert comparisons["who", "exact_match"]["discordance"] == {"both": 0, "only_a": 0, "only_b": 0, "neither": 4}
    loss = comparisons["val_loss", "nll"]
    assert loss["method"] == "paired t, weighted" and loss["adjusted_p_value"] >= loss["p_value"]
    assert loss["difference"] == pytest.approx(loss["b"]["value"] - loss["a"]["value"])


def test_trackers_get_the_first_items_of_each_result_and_then_all_results(
    typed: Callable[..., Result], finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.contract import events
    from harness.run import Events

    seen: list[Any] = []
    monkeypatch.setattr(Events, "to", lambda *arguments: Events([("diary", seen.append)]))
    monkeypatch.setattr(events, "MOST_SAMPLES", 3)
    typed("evaluate", "demo@base", "demo")
    assert [(type(event).__name__, event.run, event.variant) for event in seen] == [
        (kind, "demo", variant)
        for variant in ("demo@base", "demo")
        for kind in ("Samples", "Samples", "Evaluated")
    ]  # fmt: skip
    first, evaluated = seen[0], seen[2]
    assert (first.task, seen[1].task) == ("who", "val_loss")
    assert len(evaluated.results[0].samples) == 4 and first.samples == evaluated.results[0].samples[:3]
    assert first.samples[0].prompt.endswith("Who keeps the key?") and first.samples[0].metrics["exact_match"] == 0.0


def test_tables_and_picture_are_for_people(typed: Callable[..., Result], finished_run: Path, tmp_path: Path) -> None:
    table = typed("evaluate", "demo@base", "demo").output
    assert "demo@base" in table and "exact_match ↑" in table and "nll ↓" in table
    assert table.count("0.000 (0.00–0.49)") == 2  # of four items none is right
    (path,) = finished_run.glob("evaluations/demo/*/who.json")
    scores = json.loads(path.read_text())["scores"]
    assert scores["exact_match"]["interval"] == [0.0, pytest.approx(0.4899, abs=1e-4)]
    told = typed("compare", "demo@base", "demo", "--plot", "picture.png").output
    assert "variant − demo@base" in told and "p is corrected by Holm for all 3 comparisons" in told
    assert re.search(
        r"demo +0.0 % \(0–49\) +\+0.0 +-49.0 … \+49.0 +1.000 +cannot tell apart \(could see ≥ \d\d.\d points\)", told
    )
    basis = "who exact_match, demo: 4 items; Newcombe interval, exact McNemar test; bootstrap +0.0 … +0.0"
    assert f"{basis}; both right 0, only demo@base 0, only demo 0, neither 4" in told
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_comparing_before_measuring_says_what_to_type(typed: Callable[..., Result], finished_run: Path) -> None:
    with pytest.raises(HarnessError, match="Measure both: harness evaluate demo@base demo"):
        typed("compare", "demo@base", "demo")


def test_different_items_are_not_compared(typed: Callable[..., Result], finished_run: Path) -> None:
    typed("evaluate", "demo@base", "--evaluation", "lm_eval")
    typed("evaluate", "demo", "--evaluation", "lm_eval", "--limit", "2")
    with pytest.raises(
        HarnessError, match=r"not measured on the same items \(4 and 2; 2 only the first has.*limit None and 2"
    ):
        typed("compare", "demo@base", "demo")


def test_an_edited_item_is_not_paired_with_its_old_self(
    typed: Callable[..., Result], finished_run: Path, task_folder: Path
) -> None:
    typed("evaluate", "demo@base", "--evaluation", "lm_eval")
    questions = task_folder / "questions.jsonl"
    questions.write_text(questions.read_text().replace("The wren", "The owl"))
    typed("evaluate", "demo", "--evaluation", "lm_eval")
    with pytest.raises(HarnessError, match=r"1 only the first has, 1 only the second; such as age:"):
        typed("compare", "demo@base", "demo")


def test_a_quick_look_stands_beside_the_full_measurement(typed: Callable[..., Result], finished_run: Path) -> None:
    typed("evaluate", "demo@base", "demo", "--evaluation", "val_loss")
    typed("evaluate", "demo", "--evaluation", "val_loss", "--limit", "2")
    paths = sorted(finished_run.glob("evaluations/demo/*/val_loss.json"))
    assert sorted(str(json.loads(path.read_text())["options"]["limit"]) for path in paths) == ["2", "None"]
    told = json.loads(typed("compare", "demo@base", "demo", "--json").output)  # the pair that was measured alike
    assert [comparison["a"]["n"] for comparison in told["comparisons"]] == [4, 4]
    assert len(told["left_aside"]) == 1 and not told["measured_unlike"]


def test_tampered_items_are_refused(typed: Callable[..., Result], finished_run: Path) -> None:
    typed("evaluate", "demo@base", "demo", "--evaluation", "val_loss")
    (samples,) = finished_run.glob("evaluations/demo/*/val_loss.samples.jsonl")
    samples.write_text(samples.read_text().replace('"nll": ', '"nll": 1'))
    with pytest.raises(HarnessError, match=r"not the items that val_loss\.json was written with"):
        typed("compare", "demo@base", "demo")


def test_any_text_survives_the_record(typed: Callable[..., Result], finished_run: Path, task_folder: Path) -> None:
    questions = task_folder / "questions.jsonl"
    questions.write_text(questions.read_text().replace("Who?", "Who\\u2028\\u0085\\r\\n[bold]?"))
    typed("evaluate", "demo@base", "demo", "--evaluation", "lm_eval")
    changed = json.loads(typed("compare", "demo@base", "demo", "--json").output)
    assert changed["comparisons"][0]["a"]["n"] == 4


def test_a_plain_model_is_measured_beside_the_runs(
    typed: Callable[..., Result], tmp_path: Path, tiny_model: Path, task_folder: Path
) -> None:
    with pytest.raises(HarnessError, match="--recipe FILE, or tasks with --tasks"):
        typed("evaluate", str(tiny_model), "--template", "chatml")
    typed(
        "evaluate",
        str(tiny_model),
        "--template",
        "chatml",
        "--tasks",
        "who",
        "--include-path",
        str(task_folder),
        "--limit",
        "1",
    )
    (folder,) = (tmp_path / "runs" / "evaluations").iterdir()
    assert folder.name.startswith(f"{tiny_model.name}-")
    assert sorted(path.name for path in folder.glob("*/*")) == ["who.json", "who.samples.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--evaluation", "lm_evil"), r"no evaluation is named 'lm_evil'. Did you mean 'lm_eval'\?"),
        (("--engine", "vllm"), "--engine starts one, which --backend local excludes: leave one out"),
        (("--engine", "vllm", "--endpoint", "http://127.0.0.1:9/v1"), "which --endpoint excludes"),
        (("--tasks", " , "), "no task is named"),
        (("--include-path", "tasks"), "--include-path belongs to --tasks"),
    ],
)
def test_a_mistyped_option_is_explained(
    typed: Callable[..., Result], finished_run: Path, arguments: tuple[str, ...], told: str
) -> None:
    with pytest.raises(HarnessError, match=told):
        typed("evaluate", "demo", *arguments)


def test_runs_are_measured_together_where_their_recipes_measure_alike(
    typed: Callable[..., Result], finished_run: Path
) -> None:
    shutil.copytree(finished_run, finished_run.with_name("again"))
    both = ("evaluate", "demo", "again", "--evaluation", "val_loss")
    records = json.loads(typed(*both, "--json").stdout)
    assert records[0]["scores"] == records[1]["scores"]
    recipe = finished_run.with_name("again") / "recipe.yaml"
    before, _, after = recipe.read_text().rpartition("limit:")  # of val_loss
    recipe.write_text(f"{before}limit: 2{after}")
    with pytest.raises(HarnessError, match=r"recipes of demo and again name different.*--recipe \S+recipe.yaml"):
        typed(*both)


def test_figures_are_whole_on_a_narrow_console(
    typed: Callable[..., Result], finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "a-run-with-a-rather-long-name-of-2026"
    finished_run.rename(finished_run.with_name(long))
    table = typed("evaluate", f"{long}@base", long, "--evaluation", "val_loss", columns="60").stdout
    told = typed("compare", f"{long}@base", long, columns="60").output
    assert "…" not in table and len(re.findall(r"\d ± \d", table)) == 6
    assert len(re.findall(r"\d … [+-]\d", told)) == told.count("…") == 4
