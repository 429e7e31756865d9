"""Example prompts for the page, and sets of them to work through: a list of texts, or data of any kind."""

import pytest
from harness_serve.command import read_examples
from harness_serve.prompt_sets import read_prompts

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
    with pytest.raises(
        harness.HarnessError, match=r"--examples .*none.json: cannot be read: No such file or directory$"
    ):
        read_examples(tmp_path / "none.json", datasets)


def test_a_set_of_prompts_can_be_packed_data(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path, datasets = tmp_path / "rows.parquet", Plugins().datasets
    rows = [[{"role": "user", "content": f"Name a {what}."}, {"role": "assistant", "content": "Yes."}] for what in "ab"]
    parquet.write_table(pyarrow.table({"messages": rows}), path)
    assert [prompt.text for prompt in read_prompts(path, datasets).prompts] == ["Name a a.", "Name a b."]
    with pytest.raises(
        harness.HarnessError, match=r"--prompts .*none.json: cannot be read: No such file or directory$"
    ):
        read_prompts(tmp_path / "none.json", datasets)
