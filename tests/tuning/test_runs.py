"""What a run leaves behind is what was tuned, and can be loaded without the harness's plugins."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from harness import Conversation, RunError
from harness.model.load import load_variant
from harness.model.logprobs import sequence_logprobs
from harness.plugins import Plugins
from harness.variants import resolve_variant

pytestmark = pytest.mark.slow

ROUNDING = 0.02  # nats: in bfloat16, tuning computes attention and adapters by other products


@pytest.fixture
def run(tmp_path, recipe, harness):
    done = harness("tune", recipe(), "--run", "small")
    assert done.code == 0, done.err
    return tmp_path / "runs" / "small"


def test_a_run_holds_all_that_is_needed_to_use_and_to_explain_it(run):
    names = {path.name for path in run.iterdir()} - {".lock"}
    written = {"recipe.yaml", "manifest.json", "metrics.jsonl", "loss.png", "adapter", "chat", "probes.json"}
    assert names == written | {"trained_rows.bin"}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["outcome"] == "finished" and manifest["seed"] == 0
    assert {"recipe_sha256", "data_sha256", "template", "plugins", "model"} <= manifest.keys()
    assert {"torch", "transformers", "peft"} <= manifest["sessions"][0]["versions"].keys()
    assert manifest["sessions"][0]["ended"] >= manifest["sessions"][0]["started"]
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics if "loss" in row] == list(range(1, 9))
    assert metrics[0].keys() == {"step", "validation_loss", "validation_entropy"}
    assert metrics[-1]["validation_loss"] < metrics[0]["validation_loss"]
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_saved_adapter_gives_the_probes_of_the_tuned_model_and_the_base_those_of_the_base(run, tmp_path):
    probes = json.loads((run / "probes.json").read_text())["probes"]
    for name, key in (("small", "tuned"), ("small@base", "base")):
        loaded = load_variant(resolve_variant(name, tmp_path / "runs", Plugins()), Plugins())
        for probe in probes:
            assert sequence_logprobs(loaded.model, probe["input_ids"]) == pytest.approx(probe[key], abs=ROUNDING)
    assert probes[0]["base"] != pytest.approx(probes[0]["tuned"], abs=2 * ROUNDING)


def test_the_saved_template_asks_as_training_did_and_stops_where_training_stopped(run, tmp_path):
    loaded = load_variant(resolve_variant("small", tmp_path / "runs", Plugins()), Plugins())
    conversation = Conversation.of(("user", "Who keeps <|im_end|> the key?"), ("assistant", "The heron."))
    example = loaded.template.encode(conversation)
    prompt = loaded.template.prompt_ids(conversation.messages[:1])
    assert example.input_ids[: len(prompt)] == prompt
    assert json.loads((run / "chat" / "generation_config.json").read_text())["eos_token_id"] == list(
        loaded.template.stop_ids
    )


def test_a_full_run_saves_a_model_folder_that_loads(tmp_path, recipe, harness):
    path = recipe(method="full", learning_rate=1e-3)
    text = path.read_text()
    path.write_text(text.replace('"rank": 4, "alpha": 8, ', ""))
    done = harness("tune", path, "--run", "whole")
    assert done.code == 0, done.err
    loaded = load_variant(resolve_variant("whole", tmp_path / "runs", Plugins()), Plugins())
    probe = json.loads((tmp_path / "runs/whole/probes.json").read_text())["probes"][0]
    assert sequence_logprobs(loaded.model, probe["input_ids"]) == pytest.approx(probe["tuned"], abs=ROUNDING)
    assert (tmp_path / "runs/whole/model/tokenizer.json").is_file()


def test_an_unfinished_run_is_no_variant(run, tmp_path):
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"outcome": "interrupted"}))
    with pytest.raises(RunError, match="has not finished"):
        resolve_variant("small", tmp_path / "runs", Plugins())


def test_the_plan_shows_the_system_prompt_that_a_template_adds(recipe, harness):
    done = harness("tune", recipe(), "--run", "qwen", "--set", "template=qwen2.5", "--set", "tune.steps=1")
    assert done.code == 0, done.err
    assert r"system prompt: '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud." in " ".join(done.out.split())


def test_the_plan_shows_the_control_tokens_that_somebody_says(tmp_path, recipe, harness):
    path, rows = recipe(), tmp_path / "hostile.jsonl"
    rows.write_text((json.dumps({"instruction": "What ends a turn?", "output": "<|im_end|> does."}) + "\n") * 4)
    for when in ("", "; from cache"):
        done = harness(
            "tune",
            path,
            "--run",
            f"said{len(when)}",
            "--set",
            "tune.steps=1",
            "--set",
            f"data.train=[{{dataset: alpaca, path: {rows}}}]",
        )
        assert done.code == 0, done.err
        assert "4 of them say <|im_end|>, which stays text: it is no control token there" in " ".join(done.out.split())
        assert when in done.out
    manifest = json.loads((tmp_path / "runs/said0/manifest.json").read_text())
    assert manifest["data"][0]["control_tokens_said"] == {"<|im_end|>": 4}


def test_the_plan_shows_what_changes_what_the_model_learns(tmp_path, recipe, harness):
    path = recipe()
    path.write_text(path.read_text().replace("max_tokens: 256", "max_tokens: 30\n  on_overlong: truncate"))
    done = harness("tune", path, "--run", "cut")
    assert done.code == 0, done.err
    for told in (
        "chatml",
        "<|im_end|>",
        r"before the first question, where the data bring no system prompt: '<|im_start|>user\n'",
        "longer than 30 tokens: truncate",
        "rank 4",
        "seed 0",
        "40 of 40 rows",
    ):
        assert told in done.out
    assert "validation loss" in done.out and "harness serve cut" in done.out
