"""Runs of each method, as the command makes them: what is stated in the plan, saved, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from safetensors import safe_open

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def told(done: Any) -> str:
    assert done.code == 0, done.err
    return " ".join(done.out.split())


def of_run(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_a_run_on_4_bits_states_both_changes_of_the_base(tmp_path, recipe, harness):
    pytest.importorskip("bitsandbytes")
    out = told(harness("tune", recipe(method="qlora", steps=2)))
    assert "NF4, double quantisation): log-probabilities change by" in out
    assert "Probes are measured on the base that serving loads (bfloat16)" in out
    changed = of_run(tmp_path / "runs/small", "manifest.json")["serving_changed_nats"]
    assert changed > 0 and "differ by" in out


def test_dora_is_tuned_and_the_plan_says_that_the_engine_will_not_serve_it(recipe, harness):
    out = told(harness("tune", recipe(method="dora", steps=1)))
    assert "warning the engine vllm will not serve this adapter: vLLM does not serve DoRA adapters" in out
    assert "`harness runs merge small`" in out


def test_a_run_goes_on_from_an_earlier_runs_adapter(tmp_path, recipe, harness):
    assert harness("tune", recipe(steps=4), "--run", "first").code == 0
    path = recipe(method="from_run", steps=1, learning_rate=1e-9)
    section = f"tune.method={{name: from_run, path: {tmp_path / 'runs/first'}}}"
    assert harness("tune", path, "--run", "second", "--set", section).code == 0
    ends = []
    for name in ("first", "second"):
        with safe_open(tmp_path / "runs" / name / "adapter/adapter_model.safetensors", "pt") as file:
            ends.append({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    assert ends[0].keys() == ends[1].keys()
    assert all((ends[0][key] - ends[1][key]).abs().max() < 1e-6 for key in ends[0])
    assert "start_sha256" in of_run(tmp_path / "runs/second", "manifest.json")["identity"]


def test_going_on_from_a_run_of_another_base_or_none_at_all_is_refused(tmp_path, recipe, harness):
    assert harness("tune", recipe(steps=1), "--run", "first").code == 0
    section = f"tune.method={{name: from_run, path: {tmp_path / 'runs/first'}}}"
    manifest = tmp_path / "runs/first/manifest.json"
    changed = json.loads(manifest.read_text())
    key = next(key for key in changed["identity"] if key not in ("template_sha256", "settings"))
    changed["identity"][key] = "another"
    manifest.write_text(json.dumps(changed))
    done = harness("tune", recipe(), "--run", "second", "--set", section)
    assert done.code == 1 and "was tuned on another model" in " ".join(done.err.split())
    done = harness("tune", recipe(), "--run", "second", "--set", section.replace("first", "none"))
    assert done.code == 1 and "is no run's folder" in " ".join(done.err.split())


def test_embeddings_and_head_are_trained_and_saved_as_a_model(tmp_path, recipe, harness, tiny_model):
    path = recipe("float32", steps=2)
    out = told(harness("tune", path, "--set", "tune.method.train_also=[embeddings]"))
    assert "the adapter merged into it: an adapter cannot carry the embeddings" in out
    run = tmp_path / "runs/small"
    assert (run / "model/model.safetensors").is_file() and not (run / "adapter").exists()
    with (
        safe_open(run / "model/model.safetensors", "pt") as after,
        safe_open(tiny_model / "model.safetensors", "pt") as before,
    ):
        name = "model.embed_tokens.weight"
        assert (after.get_tensor(name) - before.get_tensor(name)).abs().max() > 0
    assert of_run(run, "manifest.json")["merging_changed_nats"] < 1e-4


def test_a_third_partys_method_is_one_file(tmp_path, recipe, harness):
    from harness_tuning.probes import mean_difference, measure_probes

    from harness.model.load import load_adapted
    from harness.recipe import ModelSpec

    plugin = ROOT / "examples/harness-ia3/method_ia3.py"
    path = recipe("float32", steps=3)
    path.write_text(path.read_text() + "evaluate: [{evaluation: val_loss}]\n")
    done = harness("--plugin", plugin, "tune", path, "--set", "tune.method={name: ia3}")
    out = told(done)
    assert "layers that move: k_proj 2, v_proj 2, down_proj 2" in out
    assert "will not serve this adapter: vLLM serves LoRA adapters only, and this one is IA3" in " ".join(out.split())
    assert "`harness runs merge small` makes a model of it" in " ".join(out.split())
    assert out.rstrip().endswith("runs merge small"), "it is what to type next"
    run = tmp_path / "runs/small"
    probes = of_run(run, "probes.json")["probes"]
    spec = ModelSpec(**of_run(run, "manifest.json")["model"])
    again = measure_probes(load_adapted(spec, run / "adapter"), probes)
    assert mean_difference(again, [probe["tuned"] for probe in probes]) < 1e-5
    assert mean_difference(again, [probe["base"] for probe in probes]) > 1e-4
    assert harness("evaluate", "small@base", "small").code == 0  # without the plugin


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("    return peft.get_peft_model(", "    peft.get_peft_model(", "the method 'ia3': apply returned None"),
        (
            "    model.save_pretrained(",
            "    dict(path=",
            "the method 'ia3': save wrote none, and `produces` says 'adapter'",
        ),
        ("    model.save_pretrained(", "    model.save(", "the method 'ia3': save failed: AttributeError"),
    ],
)
def test_a_method_that_forgets_its_result_is_refused_before_step_1(tmp_path, recipe, harness, line, instead, told):
    text = (ROOT / "examples/harness-ia3/method_ia3.py").read_text()
    assert line in text
    (tmp_path / "method_ia3.py").write_text(text.replace(line, instead))
    done = harness("--plugin", "method_ia3.py", "tune", recipe("float32", steps=3), "--set", "tune.method={name: ia3}")
    assert done.code == 1 and told in " ".join(done.err.split()) and "loss (smoothed)" not in done.out
    assert not (tmp_path / "runs/small/adapter").exists()


def test_a_third_partys_objective_is_one_file_and_its_run_is_used_without(tmp_path, recipe, harness):
    plugin = ROOT / "examples/harness-dft/objective_dft.py"
    path = recipe("float32", steps=3)
    path.write_text(path.read_text() + "evaluate: [{evaluation: val_loss}]\ntrack: [{tracker: csv}]\n")
    trackers = "--plugin", ROOT / "examples/harness-csv/tracker_csv.py"
    done = harness("--plugin", plugin, *trackers, "tune", path, "--set", "tune.objective={name: dft, floor: 0.1}")
    assert "dft: floor 0.1" in told(done)
    lines = [json.loads(line) for line in (tmp_path / "runs/small/metrics.jsonl").read_text().splitlines()]
    assert 0 < lines[-2]["probability"] < 1
    done = harness("evaluate", "small@base", "small")
    assert done.code == 0, done.err
    assert done.err.count("no plugin brings its objective 'objective_dft:dft' now; the run is used without") == 1
    assert "tracker 'tracker_csv:csv'" in done.err
    done = harness("compare", "small@base", "small")
    assert done.code == 0, done.err
