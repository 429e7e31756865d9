"""Bad input ends with a clear message and a non-zero status, shows no traceback, and leaves no half-made run."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.slow


def refused(done, *told: str) -> None:
    assert done.code == 1, done.out + done.err
    assert "Traceback" not in done.err
    for text in told:
        assert text in done.err


def test_a_wrong_key_names_file_line_and_the_nearest_key(harness, recipe):
    path = recipe()
    path.write_text(path.read_text().replace('"rank"', '"rnak"'))
    refused(harness("tune", path), "small.yaml, line 8", "'tune.method.rnak'", "Did you mean 'rank'?")


def test_a_wrong_type_says_what_was_found_and_expected(harness, recipe):
    refused(harness("tune", recipe(rank="many")), "'tune.method.rank' is 'many'", "valid integer")


def test_a_choice_of_types_is_told_as_one_problem(harness, recipe):
    refused(
        harness("tune", recipe(target_modules=5)),
        "'tune.method.target_modules' is 5: input should be a valid string, or input should be a list",
    )


def test_a_missing_data_file_is_named_before_anything_is_loaded(harness, recipe, rows):
    path = recipe()
    rows.rename(rows.with_name("raws.jsonl"))
    refused(harness("tune", path), "no such file", "rows.jsonl", "Did you mean 'raws.jsonl'?")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"instruction": "Hi"}, "the field 'output' is missing"),
        ({"instruction": "Hi", "output": 3}, "the field 'output' should be text, found 3"),
        (["Hi"], "a row should be an object"),
        ({"instruction": "Hi", "output": "  "}, "nothing to learn from"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_row(harness, recipe, rows, tmp_path, row, told):
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([*lines[:3], json.dumps(row), *lines[3:]]))
    refused(harness("tune", recipe()), "rows.jsonl, row 4: ", told)
    assert not (tmp_path / "runs" / "small").exists()


def test_an_empty_data_set_is_refused(harness, recipe, rows):
    rows.write_text("")
    refused(harness("tune", recipe()), "the dataset is empty")


def test_a_model_folder_without_weights_is_named(harness, recipe, tiny_model, tmp_path):
    empty = tmp_path / "empty"
    shutil.copytree(tiny_model, empty)
    (empty / "model.safetensors").unlink()
    path = recipe()
    path.write_text(path.read_text().replace(str(tiny_model), str(empty)))
    refused(harness("tune", path), str(empty), "without weights", "*.safetensors")
    (empty / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    refused(harness("tune", path), str(empty), "could not be loaded")


def test_a_template_that_the_tokenizer_cannot_encode_lists_its_control_tokens(harness, recipe, tiny_model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (other / file).write_text((other / file).read_text().replace("<|im_end|>", "<|end|>"))
    path = recipe()
    path.write_text(path.read_text().replace(str(tiny_model), str(other)))
    refused(
        harness("tune", path),
        "template 'chatml' writes <|im_end|>, which",
        "Its control tokens: ",
        "<|end|>",
        "The choices:",
    )


def test_a_model_without_a_template_of_its_own_says_so(harness, recipe):
    path = recipe()
    path.write_text(path.read_text().replace("template: chatml", "template: model"))
    refused(harness("tune", path), "brings no chat template of its own")


def test_an_overlong_conversation_is_an_error_unless_the_recipe_says_otherwise(harness, recipe):
    path = recipe()
    path.write_text(path.read_text().replace("max_tokens: 256", "max_tokens: 20"))
    refused(harness("tune", path), "data.max_tokens = 20", "on_overlong: drop", "truncate")


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(harness, recipe, tmp_path):
    done = harness("tune", recipe(learning_rate=1e30, max_grad_norm=None, checkpoint_every=1, steps=20))
    refused(done, "rows have no finite loss alone, none of them", "Lower tune.learning_rate")
    assert json.loads((tmp_path / "runs/small/manifest.json").read_text())["outcome"] == "failed"


def test_a_run_is_not_overwritten_unless_asked(harness, recipe):
    assert harness("tune", recipe(steps=1)).code == 0
    refused(harness("tune", recipe(steps=1)), "holds a run already")
    refused(harness("tune", "--resume", "small"), "has finished")
    assert harness("tune", recipe(steps=1), "--overwrite").code == 0


def test_target_modules_that_fit_no_layer_list_the_layers(harness, recipe):
    refused(harness("tune", recipe(target_modules=["query"])), "tune.method.target_modules", "q_proj")


@pytest.fixture
def altered(recipe, tiny_model, tmp_path):
    """Write the small recipe over a copy of the tiny model whose weights and configuration a function has changed."""
    from safetensors.torch import load_file, save_file

    def write(change, **tune):
        folder = shutil.copytree(tiny_model, tmp_path / "altered")
        weights, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
        change(weights, config)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config))
        path = recipe(**tune)
        path.write_text(path.read_text().replace(str(tiny_model), str(folder)))
        return path

    return write


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_one_weight_that_is_not_finite_is_named(harness, altered, tmp_path, value):
    name = "model.layers.1.mlp.up_proj.weight"

    def spoil(weights, config):
        weights[name][3, 5] = float(value)

    refused(harness("tune", altered(spoil)), "the weights are not finite: 1 of 32,768 in", name)
    assert not (tmp_path / "runs" / "small").exists()


@pytest.mark.parametrize(
    ("kept", "message"), [(0, "is missing"), (100, "has the shape [100, 128], expected [256, 128]")]
)
def test_a_weight_that_the_files_lack_is_not_drawn_at_random(harness, altered, tmp_path, kept, message):
    name = "model.layers.1.mlp.up_proj.weight"

    def cut(weights, config):
        weight = weights.pop(name)
        if kept:
            weights[name] = weight[:kept].clone()

    refused(harness("tune", altered(cut)), f"{name} {message}", "They would be random")
    assert not (tmp_path / "runs" / "small").exists()


def test_a_tokenizer_larger_than_the_embeddings_is_named(harness, altered, tmp_path):
    def cut(weights, config):
        config["vocab_size"] = 300
        weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:300].clone()

    refused(harness("tune", altered(cut)), "embeddings for 300; the train data have the token", "not of one model")
    assert not (tmp_path / "runs" / "small").exists()


@pytest.mark.parametrize("part", ["train", "validation"])
def test_rows_beyond_the_models_positions_are_refused(harness, altered, tmp_path, part):
    def shorten(weights, config):
        config["max_position_embeddings"] = 20

    path = altered(shorten)
    if part == "validation":  # of a train part that fits
        short = tmp_path / "short.jsonl"
        short.write_text(json.dumps({"instruction": "A", "output": "B"}) + "\n")
        path.write_text(
            path.read_text().replace(f"path: {tmp_path / 'rows.jsonl'}}}]\n  val", f"path: {short}}}]\n  val")
        )
    refused(harness("tune", path), "27 tokens, more than the model's 20 positions", "choose data.on_overlong: drop")
    assert not (tmp_path / "runs" / "small").exists()


def test_what_a_model_raises_is_a_message_and_the_next_try_is_free(harness, recipe, tmp_path, monkeypatch):
    from transformers import Qwen2ForCausalLM

    forward = Qwen2ForCausalLM.forward
    calls = []

    def broken(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 1:  # the first is the trial of the attention, in the load
            raise RuntimeError("The size of tensor a (32) must match the size of tensor b (16)")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", broken)
    refused(harness("tune", recipe(steps=1)), "failed inside the model (RuntimeError: The size of tensor a (32)")
    monkeypatch.setattr(Qwen2ForCausalLM, "forward", forward)
    assert harness("tune", recipe(steps=1)).code == 0


def test_a_crash_of_ours_before_the_first_step_leaves_the_name_free_too(harness, recipe, tmp_path, monkeypatch):
    from harness_tuning.loop import Tuner

    def crash(tuner, step):
        raise ZeroDivisionError

    monkeypatch.setattr(Tuner, "_launch", crash)
    with pytest.raises(ZeroDivisionError):
        harness("tune", recipe(steps=1))
    assert not (tmp_path / "runs" / "small").exists()


def test_layers_that_compute_in_a_way_of_their_own_get_no_adapter_and_the_plan_says_so(
    tmp_path, harness, recipe, tiny_model
):
    from transformers import AutoTokenizer, PhimoeConfig, PhimoeForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = PhimoeConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, num_local_experts=2,
    )  # fmt: skip
    PhimoeForCausalLM(config).save_pretrained(tmp_path / "moe")
    tokenizer.save_pretrained(tmp_path / "moe")
    path = recipe(steps=1)
    path.write_text(path.read_text().replace(str(tiny_model), str(tmp_path / "moe")))
    done = harness("tune", path)
    assert done.code == 0, done.err
    told = " ".join(done.out.split())
    assert "of these get no adapter: router (it computes in a way of its own) 2" in told
    assert "experts.gate_up_proj 2" in told
