"""Log-likelihoods: of the answer's tokens only, in float32, the same whatever the batch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness_evaluation.own_lm import Kept
from harness_evaluation.tasks import EVALUATION, LmEvalOptions

from harness import HarnessError
from harness.contract import EvaluationContext
from harness.measure.answers import Journal, KeptBackend
from harness.model.likelihoods import likelihoods
from harness.model.local import LocalBackend

Load = Callable[..., Any]
Chain = Callable[[Mapping[str, str]], Path]


def run(loaded: Any, options: Any, context: Any) -> Any:
    """Run the evaluation on a loaded variant."""
    assert EVALUATION.run is not None
    return EVALUATION.run(LocalBackend(loaded), options, context or EvaluationContext(None, None))


@pytest.fixture
def all_tasks(task_folder: Path) -> Path:
    """The task folder with a task of each other output type: `who_said` (loglikelihood) and `who_text` (rolling)."""
    data = (task_folder / "who.yaml").read_text().split("output_type")[0]
    (task_folder / "who_said.yaml").write_text(
        data.replace("task: who", "task: who_said") + "output_type: loglikelihood\ndoc_to_text: question\n"
        "doc_to_target: answer\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    (task_folder / "who_text.yaml").write_text(
        data.replace("task: who", "task: who_text") + "output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
        "doc_to_target: question\nmetric_list:\n"
        "  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}\n"
        "  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}\n"
    )
    return task_folder


def louder(loaded: Any) -> Any:
    """Untrained layers say little: louder, so that prompts matter."""
    for weight in loaded.model.model.layers.parameters():
        weight.data.mul_(10 if weight.dim() > 1 else 1)
    return loaded


def plain_logprobs(loaded: Any, ids: list[int]) -> list[float]:
    """The log-probability of each token but the first, from the model's own logits."""
    import torch

    with torch.no_grad():
        logprobs = loaded.model(torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)
    return [float(logprobs[at, token]) for at, token in enumerate(ids[1:])]


def by_hand(loaded: Any, prompt: str, answer: str) -> float:
    """The log-likelihood of the answer's tokens after those of the prompt, each in a text of its own."""
    encode = loaded.template.tokenizer.encode
    context, tokens = encode(prompt, add_special_tokens=False), encode(answer, add_special_tokens=False)
    return sum(plain_logprobs(loaded, context + tokens)[-len(tokens) :])


@pytest.mark.parametrize("ending", ["\n", " ", "", ": \n\n"])
def test_the_white_space_of_a_prompt_is_not_part_of_the_answer(
    tiny_model: Path, load: Load, task_folder: Path, ending: str
) -> None:
    loaded = louder(load(tiny_model))
    tokenizer = loaded.template.tokenizer
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\\n", "assistant" + ending.replace("\n", "\\n"))
    options = LmEvalOptions(tasks=("who_choice",), include_path=str(task_folder))
    (result,) = run(loaded, options, None)
    for sample in result.samples:
        assert sample.input.endswith("<|im_start|>assistant" + ending)
        expected = [by_hand(loaded, sample.input, answer) for answer in ("The otter", "The heron")]
        assert sample.log_likelihoods == pytest.approx(expected, abs=1e-4)
    (theirs,) = run(loaded, options.model_copy(update={"as_lm_eval": True}), None)
    moved = [
        a.log_likelihoods != pytest.approx(b.log_likelihoods, abs=0.1)
        for a, b in zip(result.samples, theirs.samples, strict=True)
    ]
    assert any(moved) == bool(ending)  # lm-eval scores it with each choice


def test_a_model_that_knows_the_answer_finds_it_certain(chain_model: Chain, load: Load, all_tasks: Path) -> None:
    loaded = load(chain_model({"\n": "The", "The": " heron"}))
    for weight in loaded.model.lm_head.parameters():
        weight.data.mul_(100)
    (result,) = run(loaded, LmEvalOptions(tasks=("who_said",), include_path=str(all_tasks)), None)
    assert [sample.log_likelihoods[0] > -1e-3 for sample in result.samples] == [True, False, True, False]
    assert result.scores["acc"].value == 0.5


def test_bfloat16_does_not_round_the_softmax(tiny_model: Path) -> None:
    from harness.model.load import load_variant
    from harness.plugins import Plugins
    from harness.recipe import ModelSpec
    from harness.variants import Variant

    loaded = load_variant(Variant("m", ModelSpec(path=str(tiny_model)), template="chatml"), Plugins())
    ids = loaded.template.tokenizer.encode("Who keeps the key?", add_special_tokens=False)
    ((_, found),) = likelihoods(loaded, [(ids[:1], ids[1:])], 1)
    assert found.log_likelihood == pytest.approx(sum(plain_logprobs(loaded, ids)), abs=1e-4)  # bf16 rounds to 0.03 here


def test_the_batch_changes_a_likelihood_by_rounding_only(tiny_model: Path, load: Load, all_tasks: Path) -> None:
    loaded = louder(load(tiny_model))
    tasks = ("who_choice", "who_said", "who_text")
    alone, together = (
        list(run(loaded, LmEvalOptions(tasks=tasks, include_path=str(all_tasks), batch_size=size), None))
        for size in (1, 16)
    )
    for one, other in zip(alone, together, strict=True):
        assert [s.id for s in one.samples] == [s.id for s in other.samples]
        for a, b in zip(one.samples, other.samples, strict=True):
            assert a.log_likelihoods == pytest.approx(b.log_likelihoods, abs=1e-4)


def test_answers_of_one_token_share_a_forward_pass(
    tiny_model: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = louder(load(tiny_model))
    decoder, rows = loaded.model.get_decoder(), []
    forward = decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda *a, **k: rows.append(len(k["input_ids"])) or forward(*a, **k))
    pairs = [([5, 6, 7], [1]), ([5, 6, 7], [2]), ([5, 6], [7, 2]), ([9], [4, 4])]
    found = [one for _, one in sorted(likelihoods(loaded, pairs, 8))]
    assert rows == [2]
    each = [plain_logprobs(loaded, ids) for ids in ([5, 6, 7, 1], [5, 6, 7, 2], [9, 4, 4])]
    expected = [each[0][-1], each[1][-1], sum(each[1][-2:]), sum(each[2])]
    assert [one.log_likelihood for one in found] == pytest.approx(expected, abs=1e-4)


def test_greedy_decoding_gives_the_likeliest_continuation_only(chain_model: Chain, load: Load) -> None:
    loaded = load(chain_model({"\n": "The", "The": " heron"}))
    line, the, heron = (loaded.template.tokenizer.encode(text)[0] for text in ("\n", "The", " heron"))
    pairs = [([line], [the]), ([line], [the, heron]), ([line], [heron]), ([line], [the, the])]
    assert [all(one.is_greedy) for _, one in sorted(likelihoods(loaded, pairs, 4))] == [True, True, False, False]


def test_a_text_is_scored_whole_and_weighs_by_its_bytes(tiny_model: Path, load: Load, all_tasks: Path) -> None:
    loaded = louder(load(tiny_model))
    (result,) = run(loaded, LmEvalOptions(tasks=("who_text",), include_path=str(all_tasks)), None)
    prefix = loaded.template.tokenizer.eos_token
    for sample in result.samples:
        assert sample.log_likelihoods == (pytest.approx(by_hand(loaded, prefix, sample.prompt), abs=1e-3),)
        assert sample.weight == len(sample.prompt.encode())
    bits = -sum(s.log_likelihoods[0] for s in result.samples) / sum(s.weight for s in result.samples) / math.log(2)
    assert result.scores["bits_per_byte"].value == pytest.approx(bits)
    assert "word_perplexity" in result.scores  # of all texts together, with no value an item


def test_an_empty_answer_is_refused(tiny_model: Path, load: Load, all_tasks: Path) -> None:
    questions = all_tasks / "questions.jsonl"
    questions.write_text(questions.read_text().replace('"answer": "The wren"', '"answer": ""'))
    with pytest.raises(HarnessError, match="nothing to score: an answer is empty"):
        list(run(load(tiny_model), LmEvalOptions(tasks=("who_said",), include_path=str(all_tasks)), None))


def test_a_task_without_stops_ends_at_the_template_s(chain_model: Chain, load: Load, task_folder: Path) -> None:
    yaml = task_folder / "who.yaml"
    yaml.write_text(yaml.read_text().replace("until: ['\\n\\n'], ", ""))
    loaded = load(chain_model({"\n": "\n"}))
    options = LmEvalOptions(tasks=("who",), include_path=str(task_folder), max_gen_toks=3)
    (result,) = run(loaded, options, None)
    assert result.samples[0].response == "\n\n\n" and result.details["generation_kwargs"]["until"] == []
    (theirs,) = run(loaded, options.model_copy(update={"as_lm_eval": True}), None)
    assert theirs.samples[0].response == "" and theirs.details["generation_kwargs"]["until"] == ["\n\n"]


def test_as_lm_eval_leaves_the_model_as_it_is(heron_model: Path, load: Load, all_tasks: Path) -> None:
    loaded = load(heron_model)
    before = loaded.model.generation_config.to_dict(), loaded.template.tokenizer.pad_token
    for as_lm_eval in (False, True):
        tasks = ("who", "who_choice", "who_said", "who_text")
        options = LmEvalOptions(tasks=tasks, include_path=str(all_tasks), as_lm_eval=as_lm_eval)
        assert len(list(run(loaded, options, None))) == 4
    assert (loaded.model.generation_config.to_dict(), loaded.template.tokenizer.pad_token) == before


@pytest.mark.parametrize("dies_after", [1, 6])
def test_as_lm_eval_killed_goes_on_where_it_was(
    heron_model: Path, load: Load, all_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after: int
) -> None:
    """Four tasks of four items, one at a time: every answer is there when the next one is asked."""
    backend = LocalBackend(load(heron_model))
    tasks = ("who", "who_choice", "who_said", "who_text")
    options = LmEvalOptions(tasks=tasks, include_path=str(all_tasks), as_lm_eval=True, batch_size=1)
    whole = [(result.scores, result.samples) for result in run(backend.loaded, options, None)]
    calls, keep = [0], Kept.add_partial

    def counted(kept: Kept, *answered: Any) -> None:
        calls[0] += 1
        if calls[0] > most:
            raise KeyboardInterrupt
        keep(kept, *answered)

    monkeypatch.setattr(Kept, "add_partial", counted)

    def asked(again: bool = False) -> list[Any]:
        calls[0], journal = 0, Journal(tmp_path / "answers.jsonl")
        kept: Any = KeptBackend(backend, journal, again=again)
        assert EVALUATION.run is not None
        results = EVALUATION.run(kept, options, EvaluationContext(None, None))
        return [(result.scores, result.samples) for result in results]

    most = dies_after
    with pytest.raises(KeyboardInterrupt):
        asked()
    most = 99
    assert asked() == whole and 20 - 2 * dies_after <= calls[0] <= 20 - dies_after  # two tasks share some choices
    assert asked() == whole and calls[0] == 0
    assert asked(again=True) == whole and calls[0] == 20  # 8 choices, 4 continuations, 4 answers, 4 texts
    options = options.model_copy(update={"system_prompt": "Be brief."})
    assert asked() and calls[0] == 16  # of texts nothing is rendered


def test_a_base_model_is_asked_without_a_template(
    typed: Callable[..., Any], tiny_model: Path, task_folder: Path
) -> None:
    common = ("--tasks", "who_choice", "--include-path", "tasks", "--dtype", "float32", "--json")
    with pytest.raises(HarnessError, match="template"):
        typed("evaluate", str(tiny_model), *common)
    done = typed("evaluate", str(tiny_model), *common, "--set", "as_lm_eval=true", "--set", "apply_chat_template=false")
    (record,) = json.loads(done.stdout)
    lines = Path(record["path"]).with_name(record["samples"]).read_text().splitlines()
    assert json.loads(lines[0])["input"] == "Who keeps the key?"
