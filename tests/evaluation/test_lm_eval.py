"""lm-eval tasks on real models whose answers are known: what is asked, where an answer ends, what is recorded."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness_evaluation.tasks import EVALUATION, LmEvalOptions, load_tasks, quiet, texts

from harness import HarnessError
from harness.contract import EvaluationContext
from harness.errors import Ended
from harness.measure.answers import Journal, KeptBackend
from harness.measure.endings import noise_of
from harness.model.local import LocalBackend
from harness.nouns import Message

pytestmark = pytest.mark.slow

Load = Callable[..., Any]
Chain = Callable[[Mapping[str, str]], Path]


def run(loaded: Any, options: Any, context: Any) -> Any:
    """Run the evaluation on a loaded variant."""
    assert EVALUATION.run is not None
    return EVALUATION.run(LocalBackend(loaded), options, context or EvaluationContext(None, None))


def answers(loaded: Any, prompts: list[str], batch_size: int = 8, **generation: Any) -> list[str]:
    from harness_evaluation.backend_lm import BackendLM
    from lm_eval.api.instance import Instance

    with quiet():
        lm = BackendLM(LocalBackend(loaded, batch_size))
        rendered = [lm.apply_chat_template([{"role": "user", "content": prompt}]) for prompt in prompts]
        generation = {"do_sample": False, "until": [], "max_gen_toks": 6, **generation}
        return lm.generate_until([Instance("generate_until", {}, (text, dict(generation)), 0) for text in rendered])


def test_a_task_is_scored_item_by_item(heron_model: Path, load: Load, task_folder: Path) -> None:
    (result,) = run(load(heron_model), LmEvalOptions(tasks=("who",), include_path=str(task_folder)), None)
    assert result.task == "who"
    assert result.scores["exact_match"].value == 0.5
    assert result.scores["exact_match"].stderr == pytest.approx(0.288675, abs=1e-6)
    assert {name: score.value for name, score in result.scores.items() if "/" in name} == {
        "exact_match/things": 0.5,
        "exact_match/names": 0.5,
    }
    first = result.samples[0]
    assert (first.prompt, first.response, first.target, first.category) == (
        "Who keeps the key?",
        "The heron",
        "The heron",
        "things",
    )
    assert first.input == "<|im_start|>user\nWho keeps the key?<|im_end|>\n<|im_start|>assistant\n"
    assert first.id.startswith("key:")
    assert result.details["generation_kwargs"]["max_gen_toks"] == 8


def test_our_standard_error_is_lm_evals(heron_model: Path, load: Load, task_folder: Path) -> None:
    from lm_eval.api.metrics import mean_stderr

    (result,) = run(load(heron_model), LmEvalOptions(tasks=("who",), include_path=str(task_folder)), None)
    values = [sample.metrics["exact_match"] for sample in result.samples]
    assert result.scores["exact_match"].stderr == pytest.approx(mean_stderr(values))


def test_multiple_choice_takes_the_likelier_choice(chain_model: Chain, load: Load, task_folder: Path) -> None:
    otter = chain_model({"\n": "The", "The": " otter"})
    (result,) = run(load(otter), LmEvalOptions(tasks=("who_choice",), include_path=str(task_folder)), None)
    assert [sample.response for sample in result.samples] == ["The otter"] * 4
    assert [sample.target for sample in result.samples] == ["The heron", "The otter", "The heron", "The otter"]
    assert result.scores["acc"].value == 0.5


def test_an_answer_ends_before_the_stop_token(heron_model: Path, load: Load) -> None:
    # The chain goes on after <|im_end|>; nothing of that, and no stop text, is in the answer.
    assert answers(load(heron_model), ["Who?", "Who keeps the key by the mill?"]) == ["The heron", "The heron"]


def test_until_text_ends_an_answer_and_is_not_in_it(chain_model: Chain, load: Load) -> None:
    chain = {"\n": "The", "The": " heron", " heron": " keeps", " keeps": " a", " a": " heron"}
    assert answers(load(chain_model(chain)), ["Who?"], until=["ron ke"]) == ["The he"]
    assert answers(load(chain_model(chain)), ["Who?"], max_gen_toks=5) == ["The heron keeps a heron"]


def test_until_a_control_token_ends_an_answer(chain_model: Chain, load: Load) -> None:
    chain = {"\n": "The", "The": "<|im_start|>", "<|im_start|>": " heron"}
    loaded = load(chain_model(chain))
    assert answers(loaded, ["Who?"], until=["<|im_start|>"]) == ["The"]
    assert answers(loaded, ["Who?"], max_gen_toks=3) == ["The heron"]  # as a server would show it


def test_the_batch_does_not_change_the_answers(tiny_model: Path, load: Load) -> None:
    loaded = load(tiny_model)
    for weight in loaded.model.model.layers.parameters():  # untrained layers say little: louder, so that prompts matter
        weight.data.mul_(10 if weight.dim() > 1 else 1)
    prompts = [
        "Who?",
        "Who keeps the silver key under the willow, please?",
        "Answer in one word.",
        "key",
        "otter " * 20,
    ]
    one_by_one = answers(loaded, prompts, batch_size=1, max_gen_toks=12)
    assert one_by_one == answers(loaded, prompts, batch_size=8, max_gen_toks=12)
    assert len(set(one_by_one)) > 1


def test_greedy_is_greedy_whatever_the_model_folder_says(chain_model: Chain, load: Load) -> None:
    loaded = load(chain_model({"\n": "The", "The": " heron", " heron": "The"}))
    loaded.model.generation_config.no_repeat_ngram_size = 1
    loaded.model.generation_config.do_sample = True
    assert answers(loaded, ["Who?"], max_gen_toks=4) == ["The heronThe heron"]


def test_the_model_receives_the_ids_of_training(tiny_model: Path, load: Load) -> None:
    from harness_evaluation.backend_lm import BackendLM
    from tokenizers.processors import TemplateProcessing

    loaded = load(tiny_model)
    tokenizer = loaded.template.tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.chat_template = "<|endoftext|>" + tokenizer.chat_template  # as Llama's does: the template writes the BOS
    with quiet():
        lm = BackendLM(LocalBackend(loaded, 1))
    rendered = lm.apply_chat_template([{"role": "user", "content": "Who?"}])
    assert lm.tok_encode(rendered) == loaded.template.prompt_ids([Message("user", "Who?")])
    assert lm.tok_encode(rendered).count(0) == 1


def test_a_system_prompt_and_examples_go_through_the_template(heron_model: Path, load: Load, task_folder: Path) -> None:
    yaml = task_folder / "who.yaml"
    yaml.write_text(yaml.read_text() + "fewshot_split: test\n")
    options = LmEvalOptions(
        tasks=("who",), include_path=str(task_folder), num_fewshot=1, system_prompt="Be brief.", limit=2
    )
    (result,) = run(load(heron_model), options, None)
    assert len(result.samples) == 2
    assert result.details["num_fewshot"] == 1
    asked = result.samples[0].input
    assert asked.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert asked.count("<|im_start|>assistant\n") == 2
    assert result.samples[0].prompt == "Who keeps the key?"


def test_a_prompt_that_does_not_fit_is_an_error(heron_model: Path, load: Load) -> None:
    with pytest.raises(HarnessError, match=r"does not fit into the model's 256 tokens"):
        answers(load(heron_model), ["heron " * 300])


def test_local_tasks_touch_no_network(
    heron_model: Path, load: Load, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"something connects to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert list(run(load(heron_model), LmEvalOptions(tasks=("who", "who_choice"), include_path=str(task_folder)), None))


def test_nothing_is_printed_to_stdout(
    heron_model: Path, load: Load, task_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list(run(load(heron_model), LmEvalOptions(tasks=("who", "who_choice"), include_path=str(task_folder)), None))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_a_task_that_is_not_there_is_named_with_the_nearest(task_folder: Path) -> None:
    with pytest.raises(HarnessError, match=r"no task is named 'whom'\. Did you mean 'who'\?") as caught:
        load_tasks(LmEvalOptions(tasks=("whom",), include_path=str(task_folder)))
    assert "who, who_choice" in str(caught.value)


def test_a_task_whose_data_are_missing_is_an_error(task_folder: Path) -> None:
    (task_folder / "questions.jsonl").unlink()
    with pytest.raises(HarnessError, match="the tasks who could not be loaded"):
        load_tasks(LmEvalOptions(tasks=("who",), include_path=str(task_folder)))


def test_a_task_without_examples_is_not_given_any_in_silence(task_folder: Path) -> None:
    yaml = task_folder / "who.yaml"
    yaml.write_text(yaml.read_text() + "num_fewshot: 0\n")
    with pytest.raises(HarnessError, match="num_fewshot: 0"):
        load_tasks(LmEvalOptions(tasks=("who",), include_path=str(task_folder), num_fewshot=3))


def test_a_question_is_told_with_its_answer_and_alone():
    tasks = str(Path(__file__).parents[2] / "recipes" / "seedling" / "tasks")
    told = list(texts(LmEvalOptions(tasks=("seedling_qa",), include_path=tasks, limit=2), None))
    assert [id for id, _ in told] == ["seedling_qa 0"] * 2 + ["seedling_qa 1"] * 2
    assert told[0][1].startswith(f"{told[1][1]}\n")


MARKS = (" keeps", " a")  # single tokens of the chain's vocabulary, as marks of thoughts


def thinking(loaded: Any) -> Any:
    habits = replace(loaded.template.habits, marks=MARKS)
    return replace(loaded, template=replace(loaded.template, habits=habits))


def test_thoughts_are_cut_before_scoring_and_a_stop_text_ends_words_only(
    chain_model: Chain, load: Load, task_folder: Path
) -> None:
    chain = {"\n": " keeps", " keeps": "The", "The": " a", " a": " heron", " heron": "<|im_end|>"}
    loaded = thinking(load(chain_model(chain)))
    assert answers(loaded, ["Who?"], until=["The"]) == [" heron"]
    assert answers(loaded, ["Who?"], until=["ero"]) == [" h"]
    (result,) = run(loaded, LmEvalOptions(tasks=("who",), include_path=str(task_folder)), None)
    assert {(sample.reasoning, sample.response, sample.finish) for sample in result.samples} == {
        ("The", " heron", "stop")
    }
    assert result.details["thoughts_cut"] == list(MARKS) and result.warnings == ()


def test_thoughts_that_never_end_are_counted(chain_model: Chain, load: Load, task_folder: Path) -> None:
    loaded = thinking(load(chain_model({"\n": " keeps", " keeps": "The", "The": "The"})))
    (result,) = run(loaded, LmEvalOptions(tasks=("who",), include_path=str(task_folder)), None)
    assert [sample.response for sample in result.samples] == [""] * 4
    assert result.warnings[0].startswith("4 of 4 answers are thoughts that never ended, and were scored as empty")


def test_a_group_has_its_aggregate_with_its_error(heron_model: Path, load: Load, task_folder: Path) -> None:
    choice = (task_folder / "who_choice.yaml").read_text()
    (task_folder / "again.yaml").write_text(choice.replace("task: who_choice", "task: who_again"))
    (task_folder / "both.yaml").write_text(
        "group: both\ntask: [who_choice, who_again]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    results = {
        r.task: r for r in run(load(heron_model), LmEvalOptions(tasks=("both",), include_path=str(task_folder)), None)
    }
    assert results.keys() == {"who_choice", "who_again", "both"}
    score = results["both"].scores["acc"]
    assert (score.value, score.n) == (0.5, 8) and score.stderr == pytest.approx(0.2041, abs=1e-3)
    assert results["both"].details["group"] == ["who_choice", "who_again"]


def test_items_asked_twice_score_the_same_in_this_process(tiny_model: Path, load: Load, task_folder: Path) -> None:
    backend = KeptBackend(LocalBackend(load(tiny_model)), Journal(None))
    options = LmEvalOptions(tasks=("who", "who_choice"), include_path=str(task_folder))
    context = EvaluationContext(None, None, repeat_share=0.5)
    assert EVALUATION.run is not None
    for result in EVALUATION.run(backend, options, context):
        twice = [sample for sample in result.samples if sample.again]
        assert len(twice) == 2 and all(sample.again == sample.metrics for sample in twice)
        assert noise_of(result.samples) == "the engine's own noise: none in 2 items asked twice"


def test_an_evaluation_killed_between_its_answers_asks_the_rest_only(
    typed: Callable[..., Any], finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = LocalBackend._answers

    def counted(self: Any, prompts: Any, *rest: Any) -> Any:
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return ask(self, prompts, *rest)

    command = ("evaluate", "demo", "--evaluation", "lm_eval", "--set", "batch_size=2", "--repeat-share", "0", "--json")
    monkeypatch.setattr(LocalBackend, "_answers", counted)
    with pytest.raises(Ended):
        typed(*command)
    assert asked == [2] and not list(finished_run.glob("evaluations/*/*/who.json"))
    monkeypatch.setattr(
        LocalBackend, "_answers", lambda self, prompts, *rest: asked.append(len(prompts)) or ask(self, prompts, *rest)
    )
    (record,) = json.loads(typed(*command).stdout)
    assert asked == [2, 2] and record["scores"]["exact_match"]["n"] == 4
    assert json.loads(typed(*command).stdout)[0]["scores"] == record["scores"] and asked == [2, 2]
    typed(*command, "--again")
    assert asked == [2, 2, 2, 2]


def test_settings_that_no_backend_has_are_refused(heron_model: Path, load: Load) -> None:
    with pytest.raises(
        HarnessError, match=r"generation_kwargs: repetition_penalty: 1\.3 is no setting of an answer here"
    ):
        answers(load(heron_model), ["Who?"], repetition_penalty=1.3)
    assert answers(load(heron_model), ["Who?"], num_beams=1, top_k=50) == ["The heron"]
