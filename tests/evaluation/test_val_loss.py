"""Validation loss: equal to token by token by hand, whatever the batches, with a token-weighted mean."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness_evaluation.held_out import paired_ids
from harness_evaluation.val_loss import EVALUATION, ValLossOptions

from harness import HarnessError
from harness.contract import EvaluationContext
from harness.measure import statistics
from harness.model.local import LocalBackend
from harness.model.logprobs import sequence_logprobs
from harness.nouns import Conversation
from harness.plugins import Plugins
from harness.recipe import DataSource

pytestmark = pytest.mark.slow

ALONE = EvaluationContext(None, Plugins())
TURNS = [
    [("user", "Who keeps the key?"), ("assistant", "The heron keeps it under the willow.")],
    [("user", "Who?"), ("assistant", "The otter.")],
    [
        ("system", "Be brief."),
        ("user", "Bell?"),
        ("assistant", "By the mill."),
        ("user", "Key?"),
        ("assistant", "Silver."),
    ],
]


def run(loaded: Any, options: Any, context: Any) -> Any:
    """Run the evaluation on a loaded variant."""
    assert EVALUATION.run is not None
    return EVALUATION.run(LocalBackend(loaded), options, context)


@pytest.fixture
def source(write_rows: Callable[..., Path]) -> DataSource:
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]} for turns in TURNS]
    return DataSource(dataset="messages", path=str(write_rows(*rows)))


def test_it_is_the_loss_computed_token_by_token(tiny_model: Path, load: Callable[..., Any], source: DataSource) -> None:
    loaded = load(tiny_model)
    (result,) = run(loaded, ValLossOptions(data=(source,)), ALONE)
    sums, tokens = [], []
    for turns in TURNS:
        example = loaded.template.encode(Conversation.of(*turns))  # type: ignore[arg-type]
        logprobs = sequence_logprobs(loaded.model, example.input_ids)
        sums.append(-sum(value for value, trained in zip(logprobs, example.loss_mask[1:], strict=True) if trained))
        tokens.append(example.supervised)
    assert [sample.weight for sample in result.samples] == tokens
    assert [sample.metrics["nll"] for sample in result.samples] == pytest.approx(
        [s / t for s, t in zip(sums, tokens, strict=True)], rel=1e-5
    )
    expected = statistics.mean([s / t for s, t in zip(sums, tokens, strict=True)], tokens)
    assert result.scores["nll"].value == pytest.approx(sum(sums) / sum(tokens), rel=1e-5)
    assert result.scores["nll"].stderr == pytest.approx(expected.stderr, rel=1e-3)
    assert result.scores["perplexity"].value == pytest.approx(math.exp(sum(sums) / sum(tokens)), rel=1e-4)
    assert not result.scores["nll"].higher_is_better
    sizes = [sum(len(text.encode()) for role, text in turns if role == "assistant") for turns in TURNS]
    assert [sample.weights["bits_per_byte"] for sample in result.samples] == sizes
    assert result.scores["bits_per_byte"].value == pytest.approx(sum(sums) / math.log(2) / sum(sizes), rel=1e-5)
    assert result.details["supervised_tokens"] == sum(tokens)


def test_rows_are_paired_by_what_they_say_and_not_by_their_rendering(
    tiny_model: Path, load: Callable[..., Any], source: DataSource, write_rows: Callable[..., Path]
) -> None:
    (first,) = run(load(tiny_model), ValLossOptions(data=(source,)), ALONE)
    (other,) = run(load(tiny_model, template="zephyr"), ValLossOptions(data=(source,)), ALONE)
    assert [sample.id for sample in first.samples] == [sample.id for sample in other.samples]
    assert all(a.input != b.input for a, b in zip(first.samples, other.samples, strict=True))
    write_rows(*[{"messages": [{"role": role, "content": f"{text}!"} for role, text in turns]} for turns in TURNS])
    (edited,) = run(load(tiny_model), ValLossOptions(data=(source,)), ALONE)
    assert not {sample.id for sample in first.samples} & {sample.id for sample in edited.samples}


def test_the_batches_do_not_change_it(tiny_model: Path, load: Callable[..., Any], source: DataSource) -> None:
    loaded = load(tiny_model)
    (alone,) = run(loaded, ValLossOptions(data=(source,), batch_tokens=1), ALONE)
    (together,) = run(loaded, ValLossOptions(data=(source,)), ALONE)
    assert [s.id for s in alone.samples] == [s.id for s in together.samples]
    assert [s.metrics["nll"] for s in alone.samples] == pytest.approx(
        [s.metrics["nll"] for s in together.samples], rel=1e-5
    )


def test_without_data_it_says_what_to_name(tiny_model: Path, load: Callable[..., Any]) -> None:
    with pytest.raises(HarnessError, match=r"data\.validation"):
        list(run(load(tiny_model), ValLossOptions(), ALONE))


def test_parts_of_rows_are_paired_by_the_row_that_they_are_of(tmp_path):
    """Files of one name in two folders give their rows the same ids, and each row may be in several parts."""
    for folder, answer in (("a", "one"), ("b", "two")):
        (tmp_path / folder).mkdir()
        row = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]}
        (tmp_path / folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    sources = [DataSource(dataset="messages", path=str(tmp_path / folder / "rows.jsonl")) for folder in "ab"]
    row, parts = "rows.jsonl:1", ["rows.jsonl:1 part 1", "rows.jsonl:1 part 2"]

    def owners(ids: list[str]) -> list[str]:
        digests = [id.rpartition(":")[2] for id in paired_ids(sources, ALONE, ids)]
        return ["a" if digest == digests[0] else "b" for digest in digests]

    assert owners([*parts, *parts]) == ["a", "a", "b", "b"]
    assert owners([row, *parts]) == ["a", "b", "b"] and owners([*parts, row]) == ["a", "a", "b"]
    assert owners([row, row]) == ["a", "b"]
