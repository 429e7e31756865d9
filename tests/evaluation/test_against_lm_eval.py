"""The real model by lm-eval's command line and by ours: equal with `as_lm_eval`, otherwise for stated reasons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness_evaluation.tasks import EVALUATION, LmEvalOptions

from harness.contract import EvaluationContext
from harness.model.likelihoods import likelihoods
from harness.model.local import LocalBackend
from harness.nouns import Result

pytestmark = pytest.mark.real_model

FACTS = (
    ("What is the capital of France?", "London", "Paris", "Rome", 1),
    ("What colour is the sky on a clear day?", "blue", "green", "red", 0),
    ("How many legs does a spider have?", "six", "seven", "eight", 2),
    ("What do bees make?", "milk", "honey", "wool", 1),
    ("Which animal barks?", "a dog", "a cat", "a fish", 0),
    ("What is 2 + 2?", "3", "4", "5", 1),
    ("Which planet do we live on?", "Mars", "Earth", "Venus", 1),
    ("What is frozen water called?", "steam", "sand", "ice", 2),
    ("Who wrote Hamlet?", "Shakespeare", "Dickens", "Homer", 0),
    ("What is the opposite of hot?", "warm", "cold", "dry", 1),
    ("Which season comes after winter?", "spring", "autumn", "summer", 0),
    ("What do we breathe?", "water", "air", "sand", 1),
)
METRICS = {
    "multiple_choice": "doc_to_target: gold\ndoc_to_choice: choices\n"
    "metric_list: [{metric: acc, aggregation: mean}, {metric: acc_norm, aggregation: mean}]\n",
    "loglikelihood": "doc_to_target: answer\n"
    "metric_list: [{metric: acc, aggregation: mean}, {metric: perplexity, aggregation: perplexity}]\n",
    "loglikelihood_rolling": "doc_to_target: text\nmetric_list:\n"
    "  - {metric: bits_per_byte, aggregation: bits_per_byte}\n"
    "  - {metric: word_perplexity, aggregation: weighted_perplexity}\n",
    "generate_until": "doc_to_target: answer\ngeneration_kwargs: {max_gen_toks: 24, do_sample: false}\n"
    "metric_list: [{metric: exact_match, aggregation: mean, ignore_case: true, ignore_punctuation: true}]\n",
}
TASKS = tuple(f"facts_{kind}" for kind in METRICS)
BATCH = 6


def run(loaded: Any, options: Any, context: Any) -> Any:
    """Run the evaluation on a loaded variant."""
    assert EVALUATION.run is not None
    return EVALUATION.run(LocalBackend(loaded), options, context or EvaluationContext(None, None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of twelve questions for each output type."""
    folder = tmp_path_factory.mktemp("facts")
    rows = [
        {"id": f"fact {number}", "question": question, "choices": choices, "gold": gold, "answer": choices[gold]}
        | {"text": f"{question} It is {choices[gold]}, as everybody knows."}
        for number, (question, *choices, gold) in enumerate(FACTS)
    ]
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for kind, metrics in METRICS.items():
        asked = "''" if kind == "loglikelihood_rolling" else "question"
        (folder / f"facts_{kind}.yaml").write_text(
            f"task: facts_{kind}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/facts.jsonl}}}}\n"
            f"test_split: test\noutput_type: {kind}\ndoc_to_text: {asked}\n{metrics}"
        )
    return folder


@pytest.fixture(scope="module")
def theirs(real_model: Path, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What `lm_eval run` logged of every item, by task."""
    out = folder / "out"
    done = subprocess.run(
        [
            sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", str(BATCH),
            "--model_args", f"pretrained={real_model},dtype=float32,softmax_dtype=float32", "--tasks", ",".join(TASKS),
            "--include_path", str(folder), "--apply_chat_template", "--log_samples", "--output_path", str(out),
        ],
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logged = {}
    for task in TASKS:
        (path,) = out.rglob(f"samples_{task}_2*.jsonl")  # the time follows; one task's name begins with another's
        lines = (json.loads(line) for line in path.read_text().split("\n") if line)
        logged[task] = sorted(lines, key=lambda entry: entry["doc_id"])
    return logged


@pytest.fixture(scope="module")
def loaded(real_model: Path) -> Any:
    from harness.model.load import load_variant
    from harness.plugins import Plugins
    from harness.recipe import ModelSpec
    from harness.variants import Variant

    return load_variant(Variant("real", ModelSpec(path=str(real_model), dtype="float32")), Plugins())


@pytest.fixture(scope="module")
def ours(loaded: Any, folder: Path) -> Callable[[bool], dict[str, Result]]:
    """The results by task, as lm-eval scores or as we do."""

    def measured(as_lm_eval: bool) -> dict[str, Result]:
        options = LmEvalOptions(
            tasks=TASKS, include_path=str(folder), batch_size=BATCH, as_lm_eval=as_lm_eval
        )  # fmt: skip
        return {result.task: result for result in run(loaded, options, None)}

    return measured


def log_likelihoods(entry: dict[str, Any]) -> list[float]:
    first = [answers[0] for answers in entry["resps"]]
    return [float(answer[0] if isinstance(answer, list) else answer) for answer in first]


def test_as_lm_eval_gives_lm_eval_s_figures(theirs: Any, ours: Callable[[bool], dict[str, Result]]) -> None:
    for task, result in ours(True).items():
        assert len(result.samples) == len(theirs[task]) == len(FACTS)
        for sample, entry in zip(result.samples, theirs[task], strict=True):
            assert sample.input == entry["arguments"]["gen_args_0"]["arg_0"]
            for metric in ("acc", "acc_norm", "exact_match"):
                assert sample.metrics.get(metric) == entry.get(metric)
            if task == "facts_generate_until":
                assert sample.response == entry["resps"][0][0]
            else:
                assert sample.log_likelihoods == pytest.approx(log_likelihoods(entry), abs=1e-5, rel=0)


def test_without_it_each_difference_has_its_reason(
    loaded: Any, theirs: Any, ours: Callable[[bool], dict[str, Result]]
) -> None:
    """Questions are put alike; the line break before an answer is not scored; an answer goes on after a blank line."""
    tokenizer = loaded.template.tokenizer
    (line_break,) = tokenizer.encode("\n", add_special_tokens=False)
    for task, result in ours(False).items():
        for sample, entry in zip(result.samples, theirs[task], strict=True):
            assert sample.input == entry["arguments"]["gen_args_0"]["arg_0"]
            if task == "facts_generate_until":
                assert sample.response.split("\n\n")[0] == entry["resps"][0][0]
                continue
            left_out = 0.0
            if task != "facts_loglikelihood_rolling":
                *prompt, last = tokenizer.encode(sample.input, add_special_tokens=False)
                assert last == line_break
                left_out = next(likelihoods(loaded, [(prompt, [line_break])], 1))[1].log_likelihood
            expected = [value - left_out for value in log_likelihoods(entry)]
            assert sample.log_likelihoods == pytest.approx(expected, abs=1e-4, rel=0)
