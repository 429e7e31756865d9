"""The demo teaches the seedling to answer about things, and in wordings, that it was not tuned on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("tune", "evaluate demo@base demo", "compare demo@base demo")


def accuracy(runs: Path, variant: str) -> dict[str, Any]:
    (path,) = (runs / "demo" / "evaluations" / variant).glob("*/seedling_qa.json")
    return dict(json.loads(path.read_text())["scores"]["exact_match"])


def typed(runs: Path) -> list[str]:
    """The commands that the demo shows, as one types them for this runs folder."""
    return [f"$ harness --runs {runs} {command}" for command in COMMANDS]


@pytest.mark.slow
def test_the_demo_tunes_evaluates_and_compares(
    harness_here: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's own recipe, but for ten steps and ten questions."""
    recipe = ROOT / "recipes/seedling/demo.yaml"
    short = tmp_path / "recipes/seedling/demo.yaml"
    short.parent.mkdir(parents=True)
    for name in ("data", "model", "tasks"):
        (short.parent / name).symlink_to(recipe.parent / name)
    text = recipe.read_text()
    short.write_text(
        text.replace("epochs: 2", "steps: 10")
        .replace("tasks: [seedling_qa],", "tasks: [seedling_qa], limit: 10,")
        .replace("n: 20", "n: 1")
    )
    assert short.read_text().count("10") > text.count("10") + 1
    done = harness_here("--runs", tmp_path / "runs", "demo", "--no-serve")
    assert done.code == 0, done.err
    assert all(command in done.out for command in typed(tmp_path / "runs"))
    assert accuracy(tmp_path / "runs", "demo@base")["value"] == 0
    assert "demo compared with demo@base" in (tmp_path / "runs/demo/report.html").read_text()


@pytest.mark.soak
def test_the_demo_takes_the_seedling_from_rambling_to_answering(harness, tmp_path):
    runs = tmp_path / "runs"
    done = harness("--runs", runs, "demo", "--no-serve", cwd=ROOT, timeout=600)
    assert done.code == 0, done.err
    assert all(command in done.out for command in typed(runs))
    assert accuracy(runs, "demo@base")["value"] <= 0.15
    assert accuracy(runs, "demo")["value"] >= 0.80
    assert "demo, beside demo@base: better on" in done.out and "only demo@base" in done.out
