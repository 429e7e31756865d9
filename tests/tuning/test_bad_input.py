"""Bad input ends with a clear message and a non-zero status, shows no traceback, and leaves no half-made run."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("torch")


def refused(done, *told: str) -> None:
    assert done.code == 1, done.out + done.err
    assert "Traceback" not in done.err
    for text in told:
        assert text in done.err


def test_a_wrong_key_names_file_line_and_the_nearest_key(harness, recipe):
    path = recipe(rnak=3)
    refused(harness("tune", path), "small.yaml, line 8", "'tune.rnak'", "Did you mean 'rank'?")


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
    refused(harness("tune", recipe()), "the data set is empty")


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
    refused(done, "Lower tune.learning_rate")
    assert json.loads((tmp_path / "runs/small/manifest.json").read_text())["outcome"] == "failed"


def test_a_run_is_not_overwritten_unless_asked(harness, recipe):
    assert harness("tune", recipe(steps=1)).code == 0
    refused(harness("tune", recipe(steps=1)), "holds a run already")
    refused(harness("tune", "--resume", "small"), "has finished")
    assert harness("tune", recipe(steps=1), "--overwrite").code == 0


def test_target_modules_that_fit_no_layer_list_the_layers(harness, recipe):
    refused(harness("tune", recipe(target_modules=["query"])), "tune.method.target_modules", "q_proj")
