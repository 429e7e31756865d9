"""Objectives over preferences: their losses are the published ones, and a run of them comes back as any other."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

pytest.importorskip("torch")

from tests.tuning.processes import start, tune
from tests.tuning.test_resume import fingerprint, losses

pytestmark = pytest.mark.slow


def test_a_stopped_dpo_run_goes_on_to_the_same_bytes_with_its_reference_or_without(tmp_path, preferences):
    path = preferences(objective={"name": "dpo", "beta": 0.2}, steps=6, step_tokens=512)
    code, told = tune(tmp_path, path, "--run", "whole")
    assert code == 0, told
    whole = tmp_path / "runs/whole"
    assert losses(whole)[0] == pytest.approx(0.6931, abs=1e-4) and losses(whole)[-1] < 0.6
    assert not (whole / "prepared").exists(), "what only resuming needs is removed"

    process = start(tmp_path, "tune", path, "--run", "stopped", signal_at=(3, signal.SIGINT))
    assert process.communicate(timeout=120) and process.returncode == 130
    stopped = tmp_path / "runs/stopped"
    assert sorted(path.name for path in (stopped / "prepared").iterdir()) == [
        "train.safetensors", "validation.safetensors",
    ]  # fmt: skip
    shutil.copytree(stopped, tmp_path / "runs/bare")
    shutil.rmtree(tmp_path / "runs/bare/prepared")  # it is computed again, of weights that have not moved
    for name in ("stopped", "bare"):
        code, told = tune(tmp_path, "--resume", name)
        assert code == 0 and "goes on" in told, told
        assert fingerprint(tmp_path / "runs" / name) == fingerprint(whole)
        assert losses(tmp_path / "runs" / name) == losses(whole)


def test_a_kept_reference_of_another_start_is_not_used(tmp_path, preferences):
    from harness_tuning.prepared import load_prepared

    path = preferences(objective="dpo", steps=4)
    process = start(tmp_path, "tune", path, "--run", "stopped", signal_at=(2, signal.SIGINT))
    process.communicate(timeout=120)
    file = tmp_path / "runs/stopped/prepared/train.safetensors"
    from safetensors import safe_open

    with safe_open(file, "pt") as kept:
        key = json.loads(kept.metadata()["about"])["key"]
    assert key.keys() >= {"model_sha256", "weights_sha256", "data_sha256", "dtype", "objective"}

    class Twelve:
        def example_counts(self):
            return [2] * 12

    assert load_prepared(file, key, Twelve()) is not None
    assert load_prepared(file, key | {"dtype": "bfloat16"}, Twelve()) is None
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    assert load_prepared(file, key, Twelve()) is None


def test_a_completion_judged_alone_is_refused_where_pairs_are_read(tmp_path, preferences, harness):
    path = preferences(objective="dpo", steps=1)
    rows = tmp_path / "alone.jsonl"
    rows.write_text(json.dumps({"prompt": "Who?", "completion": "The heron.", "label": True}) + "\n")
    path.write_text(
        path.read_text().replace(
            f"dataset: preferences, path: {tmp_path}/preferences", f"dataset: feedback, path: {tmp_path}/alone"
        )
    )
    done = harness("tune", path)
    assert done.code == 1
    assert "has no rejected completion; the objective 'dpo' reads pairs" in " ".join(done.err.split())


def test_a_reward_model_is_saved_scores_answers_and_is_measured(tmp_path, preferences, harness):
    path = preferences(objective="reward", steps=12, learning_rate=0.01, step_tokens=512)
    path.write_text(path.read_text() + "evaluate: [{evaluation: preferences}]\n")
    done = harness("tune", path)
    assert done.code == 0, done.out + done.err
    run = tmp_path / "runs/small"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["validation_reward_accuracy"] == 1.0

    pairs, answers = tmp_path / "preferences.jsonl", tmp_path / "answers.jsonl"
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    answers.write_text(
        "".join(
            json.dumps(
                {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": text}]}
            )
            + "\n"
            for row in rows
            for text in (row["chosen"], row["rejected"])
        )
    )
    scored = harness("score", "small", pairs)
    assert scored.code == 0, scored.err
    lines = [json.loads(line) for line in scored.out.splitlines()]
    assert len(lines) == 12 and all(line["chosen"] > line["rejected"] for line in lines)
    assert "the chosen one is higher in 12 of 12 pairs (100.0%)" in scored.err
    alone = harness("score", "small", answers, "--out", tmp_path / "scores.jsonl")
    assert alone.code == 0 and alone.out == ""
    scores = [json.loads(line)["score"] for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert scores == pytest.approx([line[side] for line in lines for side in ("chosen", "rejected")], abs=1e-4)

    measured = harness("evaluate", "small@base", "small", "--json")
    assert measured.code == 0, measured.err
    compared = harness("compare", "small@base", "small")
    assert compared.code == 0 and "win_rate" in compared.out
    served = harness("serve", "small")
    assert served.code == 1 and "it is a reward model, which scores answers and writes none" in " ".join(
        served.err.split()
    )
    base = harness("score", "small@base", pairs)
    assert base.code == 1 and "is no reward model: it has no head that scores" in " ".join(base.err.split())
