"""The same models by lm-eval's command line and by ours: equal with `as_lm_eval`, otherwise for stated reasons."""

from __future__ import annotations

import json
import sys
import unittest.mock
from pathlib import Path
from typing import Any

import pytest
from harness_evaluation.tasks import EVALUATION, LmEvalOptions, quiet
from lm_eval._cli import HarnessCLI

from harness.contract import EvaluationContext
from harness.model.likelihoods import likelihoods
from harness.model.local import LocalBackend
from harness.nouns import Result

SEEDLING = Path(__file__).resolve().parents[2] / "recipes/seedling/model"
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
    "filter_list:\n"
    "  - {name: whole, filter: [{function: take_first}]}\n"
    "  - {name: last, filter: [{function: regex, regex_pattern: '(\\w+)', group_select: -1}, {function: take_first}]}\n"
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


def of_lm_eval(folder: Path, out: Path, model: str, shots: int, *more: str) -> tuple[Any, Any]:
    """Run `lm_eval run`, and return its figures by task and what it logged of every item, by task and place."""
    arguments = [
        "run", "--model", "hf", "--device", "cpu", "--batch_size", str(BATCH), "--model_args",
        f"{model},dtype=float32,softmax_dtype=float32", "--tasks", ",".join(TASKS), "--num_fewshot", str(shots),
        "--include_path", str(folder), "--log_samples", "--output_path", str(out), *more,
    ]  # fmt: skip
    with quiet(), unittest.mock.patch.object(sys, "argv", ["lm_eval", *arguments]):
        parser = HarnessCLI()
        parser.execute(parser.parse_args())
    (figures,) = (json.loads(path.read_text())["results"] for path in out.rglob("results_*.json"))
    logged: dict[str, list[dict[str, Any]]] = {}
    for task in TASKS:
        (path,) = out.rglob(f"samples_{task}_2*.jsonl")  # the time follows; one task's name begins with another's
        lines = (json.loads(line) for line in path.read_text().split("\n") if line)
        logged[task] = sorted(lines, key=lambda entry: entry["doc_id"])  # once for each filter
    return figures, logged


def variant_of(model: Path, template: str | None) -> Any:
    from harness.model.load import load_variant
    from harness.plugins import Plugins
    from harness.recipe import ModelSpec
    from harness.variants import Variant

    return load_variant(Variant("it", ModelSpec(path=str(model), dtype="float32"), template=template), Plugins())


def ours(loaded: Any, folder: Path, **options: Any) -> dict[str, Result]:
    """Return our results by task."""
    given = LmEvalOptions(tasks=TASKS, include_path=str(folder), batch_size=BATCH, **options)
    return {result.task: result for result in run(loaded, given, None)}


def log_likelihoods(entry: dict[str, Any]) -> list[float]:
    first = [answers[0] for answers in entry["resps"]]
    return [float(answer[0] if isinstance(answer, list) else answer) for answer in first]


def assert_equal(results: dict[str, Result], figures: Any, logged: Any) -> None:
    """Prompts, 0/1 metrics and answers equal item by item, log-likelihoods to 1e-5, and the figures of each task."""
    assert results.keys() == set(TASKS)
    for task, result in results.items():
        filters = list(dict.fromkeys(entry["filter"] for entry in logged[task]))
        assert len(result.samples) * len(filters) == len(logged[task]) == len(FACTS) * len(filters)
        for number, entry in enumerate(logged[task]):
            sample = result.samples[number // len(filters)]
            assert sample.input == entry["arguments"]["gen_args_0"]["arg_0"]
            for metric in ("acc", "acc_norm", "exact_match"):
                name = metric if len(filters) == 1 else f"{metric},{entry['filter']}"
                assert sample.metrics.get(name) == entry.get(metric)
            if task == "facts_generate_until":
                assert sample.response == entry["resps"][0][0]
            else:
                assert sample.log_likelihoods == pytest.approx(log_likelihoods(entry), abs=1e-5, rel=0)
        for name, score in result.scores.items():
            theirs = figures[task][name if "," in name else f"{name},none"]
            assert score.value == pytest.approx(theirs, rel=1e-5), (task, name)


@pytest.fixture(scope="module")
def theirs(real_model: Path, folder: Path) -> Any:
    """What `lm_eval run` gives for the real model, asked through its template."""
    return of_lm_eval(folder, folder / "real", f"pretrained={real_model}", 0, "--apply_chat_template")


@pytest.fixture(scope="module")
def loaded(real_model: Path) -> Any:
    return variant_of(real_model, None)


@pytest.mark.real_model
def test_as_lm_eval_gives_lm_eval_s_figures(loaded: Any, folder: Path, theirs: Any) -> None:
    assert_equal(ours(loaded, folder, as_lm_eval=True, num_fewshot=0), *theirs)


@pytest.mark.soak
@pytest.mark.real_model
def test_examples_without_a_template_are_lm_eval_s(loaded: Any, real_model: Path, folder: Path, tmp_path: Path) -> None:
    results = ours(loaded, folder, as_lm_eval=True, apply_chat_template=False, num_fewshot=2)
    assert_equal(results, *of_lm_eval(folder, tmp_path, f"pretrained={real_model}", 2))
    assert results["facts_generate_until"].samples[0].input.count("\n\n") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("is_chat", "shots"),
    [
        (True, 2),
        (False, 2),
        pytest.param(True, 0, marks=pytest.mark.soak),
        pytest.param(False, 0, marks=pytest.mark.soak),
    ],
)
def test_the_seedling_has_lm_eval_s_figures(folder: Path, tmp_path: Path, is_chat: bool, shots: int) -> None:
    """With and without a template, with and without examples: as turns where there is a template."""
    seedling = variant_of(SEEDLING, "chatml" if is_chat else "plain")
    results = ours(seedling, folder, as_lm_eval=True, apply_chat_template=is_chat, num_fewshot=shots)
    model, more = f"pretrained={SEEDLING}", ()
    if is_chat:
        seedling.template.save(tmp_path / "chat")
        model, more = f"{model},tokenizer={tmp_path / 'chat'}", ("--apply_chat_template",)
    assert_equal(results, *of_lm_eval(folder, tmp_path / "out", model, shots, *more))
    if is_chat:
        assert results["facts_multiple_choice"].samples[0].input.count("<|im_start|>assistant") == shots + 1


@pytest.mark.real_model
def test_without_it_each_difference_has_its_reason(loaded: Any, folder: Path, theirs: Any) -> None:
    """Questions are put alike; the line break before an answer is not scored; an answer goes on after a blank line."""
    tokenizer, (_, logged) = loaded.template.tokenizer, theirs
    (line_break,) = tokenizer.encode("\n", add_special_tokens=False)
    for task, result in ours(loaded, folder, num_fewshot=0).items():
        entries = logged[task][:: len(logged[task]) // len(FACTS)]
        for sample, entry in zip(result.samples, entries, strict=True):
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
