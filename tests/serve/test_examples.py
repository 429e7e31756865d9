"""Example prompts for the page: a list of texts, or data of any kind."""

import pytest
from harness_serve.command import read_examples

import harness
from harness.plugins import Plugins


def test_example_prompts_are_a_list_of_texts_or_the_first_questions_of_data(tmp_path, write_rows):
    datasets = Plugins().datasets
    texts = tmp_path / "texts.json"
    texts.write_text('["Name a river.", "Name a lake."]')
    assert read_examples(texts, datasets) == ["Name a river.", "Name a lake."]
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}]
    verl = {"data_source": "x", "prompt": asked, "reward_model": {"ground_truth": "Arle"}}
    assert read_examples(write_rows(*[verl] * 9), datasets) == ["Name a river."] * 4
    with pytest.raises(harness.HarnessError, match="expected a JSON list of strings, or a file of data"):
        read_examples(write_rows({"a": 1}), datasets)
