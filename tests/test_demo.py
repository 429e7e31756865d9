"""The demo teaches the seedling to answer about things, and in wordings, that it was not tuned on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

ROOT = Path(__file__).resolve().parents[1]


def test_the_demo_takes_the_seedling_from_rambling_to_answering(harness, tmp_path):
    runs = tmp_path / "runs"
    done = harness("--runs", runs, "demo", "--no-serve", cwd=ROOT, timeout=600)
    assert done.code == 0, done.err
    for command in ("$ harness tune", "$ harness evaluate demo@base demo", "$ harness compare demo@base demo"):
        assert command in done.out

    def accuracy(variant: str) -> float:
        (path,) = (runs / "demo" / "evaluations" / variant).glob("*/seedling_qa.json")
        record = json.loads(path.read_text())
        return float(record["scores"]["exact_match"]["value"])

    assert accuracy("demo@base") <= 0.15
    assert accuracy("demo") >= 0.80
    assert "demo is better" in done.out and "only demo@base" in done.out
