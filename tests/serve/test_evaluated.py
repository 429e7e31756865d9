"""A real engine measures its variants: the figures of this process within the rounding of the dtype, and its checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.contract import Endpoint
from harness.testing import run

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ROWS = (("Who keeps the key?", "heron"), ("Where is the bell?", "otter"), ("Answer in one word, please.", "heron"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of each output type."""
    pytest.importorskip("lm_eval")
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"id": str(number), "question": question, "choices": [" the heron", " the otter"], "gold": number % 2}
        | {"answer": answer, "text": f"{question} The {answer} keeps it."}
        for number, (question, answer) in enumerate(ROWS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = {
        "multiple_choice": "doc_to_target: gold\ndoc_to_choice: choices\nmetric_list: [{metric: acc}]\n",
        "loglikelihood": "doc_to_target: answer\nmetric_list: [{metric: acc, aggregation: mean}]\n",
        "loglikelihood_rolling": "doc_to_target: text\n"
        "metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte}]\n",
        "generate_until": "doc_to_target: answer\ngeneration_kwargs: {max_gen_toks: 12, do_sample: false}\n"
        "metric_list: [{metric: exact_match, aggregation: mean}]\n",
    }
    for kind, its in metrics.items():
        asked = "''" if kind == "loglikelihood_rolling" else "question"
        (folder / f"{kind}.yaml").write_text(
            f"task: of_{kind}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}}}\n"
            f"test_split: test\noutput_type: {kind}\ndoc_to_text: {asked}\n{its}"
        )
    return folder


def evaluated(runs: Path, tasks: Path, *arguments: str, key: str = "") -> Any:
    names = ",".join(f"of_{path.stem}" for path in sorted(tasks.glob("*.yaml")))
    env = {"HARNESS_RUNS": str(runs), "HARNESS_API_KEY": key}
    return run("evaluate", *arguments, "--tasks", names, "--include-path", tasks, "--json", env=env)


def test_variants_of_one_engine_have_the_figures_of_this_process(
    endpoint: Endpoint, runs_folder: Path, tasks: Path
) -> None:
    joined = ("alpha", "beta", "--endpoint", endpoint.url, "--repeat-share", "0.5")
    done = evaluated(runs_folder, tasks, *joined, key=str(endpoint.api_key))
    assert done.code == 0, done.err
    there = json.loads(done.out)
    here = json.loads(evaluated(runs_folder, tasks, "alpha", "beta", "--backend", "local").out)
    assert [(one["variant"], one["task"]) for one in there] == [(one["variant"], one["task"]) for one in here]
    for one, other in zip(there, here, strict=True):
        assert (one["engine"], other["engine"]) == ("vllm", "transformers")
        assert one["asked"]["adapters"][one["variant"]]["tells_apart"] and one["asked"]["parity"]
        assert "the engine's own noise" in one["noise"]
        for mine, theirs in zip(*(samples(record) for record in (other, one)), strict=True):
            assert mine["id"] == theirs["id"] and mine["input"] == theirs["input"]
            assert theirs["log_likelihoods"] == pytest.approx(mine["log_likelihoods"], abs=0.25, rel=0.02)
            if one["task"] == "of_generate_until":  # these runs were tuned until they repeat one answer
                assert mine["response"] == theirs["response"] and mine["finish"] == theirs["finish"]


def samples(record: dict[str, Any]) -> list[dict[str, Any]]:
    path = Path(record["path"]).with_name(f"{record['task']}.samples.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_adapter_that_does_nothing_is_not_measured(endpoint: Endpoint, runs_folder: Path, tasks: Path) -> None:
    done = evaluated(runs_folder, tasks, "unapplied", "--endpoint", endpoint.url, key=str(endpoint.api_key))
    assert done.code == 1 and "unapplied" in done.err
