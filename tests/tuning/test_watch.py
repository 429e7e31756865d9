"""What is watched while a run goes on: spikes, validations, pace, sampled answers, and figures that are not finite."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from harness_tuning import loop, samples, watch
from harness_tuning.flops import Work, measured_peak
from harness_tuning.watch import Best, Spikes
from torch.utils.flop_counter import FlopCounterMode

from harness.contract.objectives import Loss
from harness.testing.models import tiny_model

slow = pytest.mark.slow


def test_a_loss_that_only_varies_is_no_spike_and_one_far_above_is():
    rng, spikes = random.Random(0), Spikes()
    assert [spikes.exceeded(abs(rng.gauss(2.0, 0.3))) for _ in range(2000)] == [None] * 2000
    median = spikes.exceeded(6.0)
    assert median == pytest.approx(2.0, abs=0.1)
    assert spikes.exceeded(2.1) is None


def test_too_few_losses_call_nothing_a_spike():
    spikes = Spikes.after([2.0] * (watch.FEWEST - 1))
    assert spikes.exceeded(100.0) is None
    assert Spikes.after([2.0] * watch.FEWEST).exceeded(100.0) == 2.0


def test_the_best_validation_is_the_lowest_and_patience_counts_those_that_gain_less_than_min_delta():
    best = Best()
    for step, loss in ((10, 2.0), (20, 1.0), (30, 0.95), (40, 1.5), (50, 0.7)):
        best = best.after(step, loss, min_delta=0.1)
        if step == 40:
            assert (best.step, best.loss, best.stale) == (30, 0.95, 2)
    assert (best.step, best.loss, best.stale) == (50, 0.7, 0)


@pytest.mark.parametrize("trained", [True, False])
def test_the_work_of_a_step_is_what_torch_counts(tmp_path, trained):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path / "tiny"), dtype=torch.float32)
    model.requires_grad_(trained)
    model.get_input_embeddings().weight.requires_grad_(True)
    ids = torch.randint(0, 100, (4, 32))
    with FlopCounterMode(display=False) as counted:
        model(input_ids=ids, labels=ids).loss.backward()
    # Every position has logits; a document's pairs are the square of its length.
    assert Work.of(model).flops(128, 128, 4 * 32**2) == pytest.approx(counted.get_total_flops(), rel=0.1)


def test_the_peak_is_that_of_a_product_of_the_dtype():
    assert measured_peak(torch.device("cpu"), torch.float32) > 1e9


def adapter(run: Path) -> str:
    return hashlib.sha256((run / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_TOKENS", 6)


@slow
@pytest.mark.usefixtures("short_answers")
def test_sampled_answers_are_a_page_and_leave_no_trace_in_the_adapter(runs, recipe, harness):
    path = recipe(steps=4, dropout=0.1, validate_every=2)
    assert harness("tune", path, "--run", "plain").code == 0
    done = harness("tune", path, "--run", "asked", "--set", "tune.samples=2")
    assert done.code == 0, done.err
    assert adapter(runs / "asked") == adapter(runs / "plain")
    asked = [json.loads(line) for line in (runs / "asked" / "samples.jsonl").read_text().splitlines()]
    assert [line["step"] for line in asked] == [0, 2, 4]
    prompts = [{row["prompt"] for row in line["samples"]} for line in asked]
    assert len(prompts[0]) == 2 and prompts[0] == prompts[1] == prompts[2]
    page = (runs / "asked" / "samples.html").read_text()
    assert "before tuning" in page and "after step 4" in page and "1 answer between" in page
    assert not re.search(r"<script|https?://", page)


@slow
@pytest.mark.usefixtures("short_answers")
def test_prompts_of_the_recipe_are_asked_as_they_are(runs, recipe, harness):
    done = harness("tune", recipe(steps=1, samples=["Who keeps <|im_end|> the key?"]), "--run", "own")
    assert done.code == 0, done.err
    (row,) = json.loads((runs / "own" / "samples.jsonl").read_text().splitlines()[-1])["samples"]
    assert row["prompt"] == "Who keeps <|im_end|> the key?" and row["target"] == ""
    assert "&lt;|im_end|&gt;" in (runs / "own" / "samples.html").read_text()


@slow
def test_early_stopping_keeps_the_best_weights_as_the_run_that_ends_there_has_them(runs, recipe, harness):
    """Without warm-up and decay, N steps of a longer run are those of a run of N."""
    plain = {"schedule": "constant", "warmup_ratio": 0.0, "learning_rate": 8.0, "validate_every": 1}
    rule = {"early_stopping": {"patience": 2}, "keep": "best"}
    done = harness("tune", recipe(steps=400, **plain, **rule), "--run", "early")
    assert done.code == 0, done.err
    manifest = json.loads((runs / "early" / "manifest.json").read_text())
    validations = {
        line["step"]: line["validation_loss"] for line in metrics(runs / "early") if "validation_loss" in line
    }
    trained = {step: loss for step, loss in validations.items() if step}
    best = min(trained, key=lambda step: trained[step])
    assert manifest["kept"] == {"which": "best", "step": best, "validation_loss": trained[best]}
    assert manifest["stopped_early"] == {"step": max(trained), "stale_validations": 2} and max(trained) < 400
    assert f"stopped early after step {max(trained)}" in done.out and f"the weights after step {best}," in done.out
    assert not (runs / "early" / "checkpoints").exists()
    assert harness("tune", recipe(steps=best, **plain), "--run", "short").code == 0
    assert adapter(runs / "early") == adapter(runs / "short")


@pytest.mark.parametrize("key", ["keep=best", "early_stopping={patience: 2}"])
def test_what_goes_by_validations_is_refused_without_them(recipe, harness, key):
    path = recipe()
    done = harness("tune", path, "--set", f"tune.{key}")
    assert done.code == 1 and "set tune.validate_every" in done.err
    path.write_text(re.sub(r"  validation: .*\n", "", path.read_text()))
    done = harness("tune", path, "--set", f"tune.{key}", "--set", "tune.validate_every=2")
    assert done.code == 1 and "there are no validation rows" in done.err


@slow
def test_a_spike_names_its_rows_and_stops_where_the_recipe_says_so(runs, recipe, harness, monkeypatch):
    monkeypatch.setattr(watch, "FEWEST", 3)  # so that every step after the third is one
    monkeypatch.setattr(watch, "DEVIATIONS", -1e6)
    monkeypatch.setattr(watch, "SHARE", -1e6)
    path = recipe(steps=5)
    done = harness("tune", path, "--run", "warned")
    assert done.code == 0 and re.search(
        r"is a spike above the usual .* its rows, by their own loss now: \S+ \(", done.out
    )
    spiked = [line["step"] for line in metrics(runs / "warned") if "spike_above" in line]
    done = harness("tune", path, "--run", "stopped", "--set", "tune.on_spike=stop")
    assert done.code == 130 and "the run stops, as tune.on_spike says" in done.out
    assert spiked == [4, 5] and metrics(runs / "stopped")[-1]["step"] == 4
    done = harness("tune", path, "--run", "ignored", "--set", "tune.on_spike=ignore")
    assert done.code == 0 and "is a spike" not in done.out
    assert adapter(runs / "warned") == adapter(runs / "ignored")


@pytest.fixture
def as_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make batches ahead in a thread, and read the figures of a step once the next is under way."""
    begin, name = loop.Tuner.__init__, "batches of a test"

    def begin_behind(self: loop.Tuner, *arguments: Any, **settings: Any) -> None:
        begin(self, *arguments, **settings)
        self.behind = 1

    monkeypatch.setattr(loop.Tuner, "__init__", begin_behind)
    monkeypatch.setattr(loop, "thread_for", lambda device: partial(ThreadPoolExecutor, 1, name))
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(name)], "each ends with its loop"


@slow
def test_batches_made_ahead_and_figures_read_a_step_later_change_nothing(runs, recipe, harness, request):
    path = recipe(steps=7, dropout=0.1, checkpoint_every=3, validate_every=2)
    assert harness("tune", path, "--run", "at-once").code == 0
    request.getfixturevalue("as_on_an_accelerator")
    assert harness("tune", path, "--run", "behind").code == 0
    assert adapter(runs / "behind") == adapter(runs / "at-once")
    keys = ("step", "loss", "validation_loss", "grad_norm", "tokens")
    one, other = ([[line.get(key) for key in keys] for line in metrics(runs / name)] for name in ("at-once", "behind"))
    assert one == other


@slow
@pytest.mark.usefixtures("as_on_an_accelerator")
def test_a_run_stopped_between_batches_made_ahead_is_resumed_to_the_same_bytes(runs, recipe, harness, monkeypatch):
    """The batches of step 5 were there when the run stopped after step 4, or were being made."""
    path = recipe(steps=7, dropout=0.1)
    assert harness("tune", path, "--run", "whole").code == 0
    with monkeypatch.context() as until:
        steps = loop.Tuner.steps
        until.setattr(loop.Tuner, "steps", lambda tuner, stop: steps(tuner, lambda: tuner.progress.step >= 3))
        assert harness("tune", path, "--run", "stopped").code == 130
    assert metrics(runs / "stopped")[-1]["step"] == 4
    assert harness("tune", "--resume", "stopped").code == 0
    assert adapter(runs / "stopped") == adapter(runs / "whole")


@pytest.fixture
def broken_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the gradient of a step be NaN."""

    def break_at(step: int) -> None:
        launch, mean = loop.Tuner._launch, Loss.mean
        now = [0]

        def launching(self: loop.Tuner, number: int) -> Any:
            now[0] = number
            return launch(self, number)

        monkeypatch.setattr(loop.Tuner, "_launch", launching)
        nan = math.nan

        def broken(loss: Loss, units: Any) -> Any:
            return mean(loss, units) * (nan if now[0] == step else 1.0)

        monkeypatch.setattr(Loss, "mean", broken)

    return break_at


@slow
@pytest.mark.usefixtures("as_on_an_accelerator")
def test_a_gradient_that_is_not_finite_stops_with_the_state_before_it(runs, recipe, harness, broken_step, monkeypatch):
    """Step 6 was under way when step 5 was seen to be broken, and has moved nothing."""
    path = recipe(steps=9, dropout=0.1, seed=3)
    assert harness("tune", path, "--run", "whole").code == 0
    with monkeypatch.context():
        broken_step(5)
        done = harness("tune", path, "--run", "broken")
        monkeypatch.undo()
    assert done.code == 1 and "step 5: the loss is" in done.err and "Traceback" not in done.err, done.err
    assert "the state after step 4 is kept" in done.err and "rows, by their own loss now: " in done.err
    assert [path.name for path in (runs / "broken" / "checkpoints").iterdir()] == ["step-0000004"]
    assert harness("tune", "--resume", "broken").code == 0, "the machine's mistake, say, is gone"
    assert adapter(runs / "broken") == adapter(runs / "whole")


@slow
def test_the_first_step_that_is_not_finite_leaves_nothing(runs, recipe, harness, broken_step):
    broken_step(1)
    done = harness("tune", recipe(steps=3), "--run", "broken")
    assert done.code == 1 and "nothing was trained before it" in done.err
    assert not (runs / "broken").exists()


@slow
def test_metrics_say_how_fast_and_how_full_a_step_was(runs, recipe, harness):
    assert harness("tune", recipe(steps=3), "--run", "small").code == 0
    steps = [line for line in metrics(runs / "small") if "loss" in line]
    for line in steps:
        assert 0 < line["supervised_tokens_per_s"] < line["tokens_per_s"] <= line["padded_tokens_per_s"]
        assert 0 < line["model_flops_use"] < 1 and line["peak_memory_bytes"] > 2**20
    assert [line["seconds_left"] > 0 for line in steps] == [True, True, False]
    assert json.loads((runs / "small" / "manifest.json").read_text())["measured_flops"] > 1e9
