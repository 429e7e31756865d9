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
from harness.data import SourceReport, load_source
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


@pytest.fixture
def alike(tmp_path: Path) -> list[DataSource]:
    """Two files of one name with two rows each: a short answer, and one that does not fit into 24 tokens."""
    for folder, lengths in (("a", (3, 60)), ("b", (60, 3))):
        (tmp_path / folder).mkdir()
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"{folder}?"},
                    {"role": "assistant", "content": "heron " * length},
                ]
            }
            for length in lengths
        ]
        (tmp_path / folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return [DataSource(dataset="messages", path=str(tmp_path / folder / "rows.jsonl")) for folder in "ab"]


def digests_by_text(result: Any) -> dict[str, str]:
    """The hash in the id of each sample, by the first letter of its question: the folder."""
    return {sample.input.split("?")[0][-1]: sample.id.rpartition(":")[2] for sample in result.samples}


def test_rows_of_files_of_one_name_are_paired_by_the_row_that_they_are_of(
    tiny_model: Path, load: Callable[..., Any], alike: list[DataSource]
) -> None:
    """Also where a file has lost the row that the other one keeps: each `rows.jsonl:1` has the hash of its own row."""
    loaded = load(tiny_model)
    dropped = ValLossOptions(data=tuple(alike), max_tokens=60, on_overlong="drop")
    (some,) = run(loaded, dropped, ALONE)
    assert [sample.id.rpartition(":")[0] for sample in some.samples] == ["rows.jsonl:1", "rows.jsonl:2"]
    expected = {
        name: run_alone.samples[0].id.rpartition(":")[2]
        for name, source in zip("ab", alike, strict=True)
        for run_alone in run(loaded, dropped.model_copy(update={"data": (source,)}), ALONE)
    }
    assert digests_by_text(some) == expected and len(set(expected.values())) == 2


def test_a_part_of_a_row_has_the_hash_of_its_row(alike: list[DataSource]) -> None:
    """One file is whole, one in parts, as pretraining cuts long rows."""
    reports = [
        SourceReport("messages", source.path or "", examples=count) for source, count in zip(alike, (2, 3), strict=True)
    ]
    ids = ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:1 part 1", "rows.jsonl:1 part 2", "rows.jsonl:2"]
    first, second, *others = (id.rpartition(":")[2] for id in paired_ids(alike, ALONE, reports, ids))
    assert others[0] == others[1] and len({first, second, others[0], others[2]}) == 4
    assert paired_ids(alike, ALONE, reports, ids[:3]) == paired_ids(alike, ALONE, reports, ids)[:3], "with a limit"


def test_files_of_one_name_that_a_pattern_matches_have_names_with_their_folders(
    tmp_path: Path, alike: list[DataSource]
) -> None:
    source = DataSource(dataset="messages", path=str(tmp_path / "*" / "rows.jsonl"))
    ids = [item.id for item in load_source(source, ALONE.plugins.datasets)]
    assert ids == ["a/rows.jsonl:1", "a/rows.jsonl:2", "b/rows.jsonl:1", "b/rows.jsonl:2"]
