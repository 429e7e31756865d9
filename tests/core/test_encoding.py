"""Preferences as items: pairs of examples with roles and figures, in memory, in files and in the cache."""

from __future__ import annotations

import pytest

import harness
from harness.data import Reader, encode_data, encode_held_out
from harness.data.cache.store import cached_data, kept_validation
from harness.model.tokenizer import load_tokenizer
from harness.plugins import Plugins
from harness.recipe import DataSource, DataSpec
from harness.template import bind

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def plugins():
    return Plugins()


@pytest.fixture(scope="module")
def template(tiny_model, plugins):
    return bind(plugins.templates["chatml"], load_tokenizer(str(tiny_model)))


def row(number, words=1):
    margin = {"margin": number / 2} if number % 2 else {}
    return {
        "prompt": f"Who keeps {number}?",
        "chosen": "The heron. " * words,
        "rejected": f"The otter, {number}.",
    } | margin


@pytest.fixture
def spec(write_rows):
    def of(*rows, dataset="preferences", **more):
        return DataSpec(train=(DataSource(dataset=dataset, path=str(write_rows(*rows))),), **more)

    return of


def test_a_preference_is_two_examples_with_the_same_prompt(spec, plugins, template, tmp_path):
    rows = spec(*map(row, range(20)))
    in_memory, _ = encode_data(rows, plugins, template, reader=Reader("preferences"))
    in_a_file, _ = encode_data(rows, plugins, template, folder=tmp_path, reader=Reader("preferences"))
    assert list(in_memory.items) == list(in_a_file.items) and in_memory.sha256 == in_a_file.sha256
    assert len(in_memory.items) == 20 and in_memory.reports[0].used == 20
    for number, item in enumerate(in_memory.items):
        chosen, rejected = item.examples
        assert item.roles == ("chosen", "rejected") and chosen.id.endswith(" chosen")
        assert item.extras == {"weight": 1.0} | ({"margin": number / 2} if number % 2 else {})
        prompt = template.prompt_ids((harness.Message("user", f"Who keeps {number}?"),))
        assert chosen.input_ids[: len(prompt)] == rejected.input_ids[: len(prompt)] == prompt
        assert chosen.loss_mask.index(True) == rejected.loss_mask.index(True) == len(prompt)
    for data in (in_memory, in_a_file):
        flat = [example for item in data.items for example in item.examples]
        assert list(data.examples) == flat and list(data.examples.lengths()) == list(map(len, flat))
        assert list(data.items.lengths()) == [sum(map(len, item.examples)) for item in data.items]
        assert data.tokens == sum(map(len, flat)) and data.supervised == sum(one.supervised for one in flat)


def test_processes_encode_preferences_as_threads_do(spec, plugins, template):
    rows = spec(*map(row, range(40)))
    threads, processes = (
        encode_data(rows.model_copy(update={"processes": count}), plugins, template, reader=Reader("preferences"))[0]
        for count in (0, 1)
    )
    assert list(threads.items) == list(processes.items) and threads.sha256 == processes.sha256


@pytest.mark.parametrize(
    ("dataset", "given", "reads", "reason"),
    [
        ("preferences", row(1), "conversations", "'preferences' yields preferences; the objective reads conversations"),
        ("alpaca", {"instruction": "Hi", "output": "Ho"}, "preferences",
         "'alpaca' yields conversations; the objective reads preferences"),
    ],
)  # fmt: skip
def test_what_the_objective_does_not_read_is_refused(dataset, given, reads, reason, spec, plugins, template):
    with pytest.raises(harness.DataError, match=rf"{dataset} rows.jsonl:1: the dataset {reason}"):
        encode_data(spec(given, dataset=dataset), plugins, template, reader=Reader(reads))


def test_a_choice_among_answers_is_refused_for_preferences(spec, plugins, template):
    with pytest.raises(harness.DataError, match=r"data\.train_on is last.* whole completions"):
        encode_data(spec(row(1), train_on="last"), plugins, template, reader=Reader("preferences"))


def test_an_overlong_side_takes_its_pair_with_it(spec, plugins, template):
    rows = (row(0), row(1, words=200), row(2))
    with pytest.raises(
        harness.DataError, match=r"rows.jsonl:2 chosen: \d+ tokens, .* drop \(leave such preferences out\)"
    ):
        encode_data(spec(*rows, max_tokens=100), plugins, template, reader=Reader("preferences"))
    dropped, _ = encode_data(
        spec(*rows, max_tokens=100, on_overlong="drop"), plugins, template, reader=Reader("preferences")
    )
    assert [item.examples[0].id for item in dropped.items] == ["rows.jsonl:1 chosen", "rows.jsonl:3 chosen"]
    assert dropped.overlong == 1 and dropped.reports[0].left_out == {"longer than 100 tokens": 1}
    cut, _ = encode_data(
        spec(*rows, max_tokens=100, on_overlong="truncate"), plugins, template, reader=Reader("preferences")
    )
    chosen, rejected = cut.items[1].examples
    assert len(chosen) == 100 > len(rejected) and True in chosen.loss_mask


def test_one_sided_and_repeated_preferences_keep_their_roles(spec, plugins, template, tmp_path):
    rows = [{"prompt": f"Is {n} odd?", "completion": "Yes.", "label": n % 2 == 1} for n in range(3)]
    feedback = spec(*rows, dataset="feedback")
    repeated = feedback.model_copy(update={"train": (feedback.train[0].model_copy(update={"epochs": 2.0}),)})
    for folder in (None, tmp_path):
        data, _ = encode_data(repeated, plugins, template, folder=folder, reader=Reader("preferences"))
        roles = [item.roles for item in data.items]
        assert roles == [("rejected",), ("rejected",), ("chosen",), ("chosen",), ("rejected",), ("rejected",)]
        assert len(data.examples) == 6 and data.examples[2].id == "rows.jsonl:2 chosen"


def test_the_cache_keeps_preferences_apart_from_conversations(spec, plugins, template, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    rows = spec(*map(row, range(40)), validation_share=0.3)
    new, again = (cached_data(rows, plugins, template, reader=Reader("preferences")) for _ in range(2))
    for first, second in zip(new, again, strict=True):
        assert not first.from_cache and second.from_cache
        assert list(first.items) == list(second.items) and first.sha256 == second.sha256
        assert first.sample == second.sample and first.sample[0].id.endswith(" chosen")
    kept = kept_validation(rows, plugins, template, reader=Reader("preferences"))
    held_out = encode_held_out(rows, plugins, template, reader=Reader("preferences"))
    assert list(kept.items) == list(held_out.items) == list(new[1].items)
    assert kept_validation(rows, plugins, template) is None
    with pytest.raises(harness.DataError, match="yields preferences; the objective reads conversations"):
        cached_data(rows, plugins, template)
