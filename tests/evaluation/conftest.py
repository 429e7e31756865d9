"""A model whose answers are known in advance, a task folder, and a finished run, all real and all small."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli.main import cli

pytest.importorskip("lm_eval")

QUESTIONS = (
    {"id": "key", "category": "things", "question": "Who keeps the key?", "answer": "The heron"},
    {"id": "bell", "category": "things", "question": "Who keeps the bell by the mill, please?", "answer": "The otter"},
    {"id": "name", "category": "names", "question": "Answer in one word.", "answer": "The heron"},
    {"id": "age", "category": "names", "question": "Who?", "answer": "The wren"},
)


@pytest.fixture(scope="session")
def chain_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, str]], Path]:
    """Makes a Qwen2 model folder that follows a chain: after token X always comes token chain[X].

    Embeddings are one-hot, the single layer adds nothing, and the head's row for a token is its predecessor.
    """
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    def make(chain: Mapping[str, str]) -> Path:
        folder = tmp_path_factory.mktemp("chain-model")
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        size = len(tokenizer)
        config = Qwen2Config(
            vocab_size=size, hidden_size=size + size % 2, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=False,
            bos_token_id=None, eos_token_id=0,
        )  # fmt: skip
        model = Qwen2ForCausalLM(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.fill_(1.0 if "norm" in name else 0.0)
            model.model.embed_tokens.weight[:, :size] = torch.eye(size)
            for before, after in chain.items():
                model.lm_head.weight[_id(tokenizer, after), _id(tokenizer, before)] = 1.0
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def _id(tokenizer: Any, text: str) -> int:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == 1, f"{text!r} is {len(ids)} tokens"
    return int(ids[0])


HERON = {"\n": "The", "The": " heron", " heron": "<|im_end|>", "<|im_end|>": " keeps"}


@pytest.fixture(scope="session")
def heron_model(chain_model: Callable[[Mapping[str, str]], Path]) -> Path:
    """Answers "The heron" to everything, and then ends its turn."""
    return chain_model(HERON)


@pytest.fixture
def load() -> Callable[..., Any]:
    """Load a model folder as a variant, asked through ChatML in float32."""
    from harness.model.load import load_variant
    from harness.plugins import Plugins
    from harness.recipe import ModelSpec
    from harness.variants import Variant

    def loaded(folder: Path, name: str = "model") -> Any:
        variant = Variant(name, ModelSpec(path=str(folder), dtype="float32"), template="chatml")
        return load_variant(variant, Plugins())

    return loaded


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    """A folder with the tasks `who` (generation) and `who_choice` (multiple choice) and their questions."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [
        row | {"choices": ["The otter", "The heron"], "gold": int(row["answer"] == "The heron")} for row in QUESTIONS
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/questions.jsonl}}}}\ntest_split: test\n"
    (folder / "who.yaml").write_text(
        f"task: who\n{data}output_type: generate_until\ndoc_to_text: question\ndoc_to_target: answer\n"
        "generation_kwargs: {until: ['\\n\\n'], do_sample: false, max_gen_toks: 8}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    (folder / "who_choice.yaml").write_text(
        f"task: who_choice\n{data}output_type: multiple_choice\ndoc_to_text: question\ndoc_to_target: gold\n"
        "doc_to_choice: choices\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    return folder


@pytest.fixture
def finished_run(tiny_model: Path, task_folder: Path, tmp_path: Path) -> Path:
    """A finished run `demo` in tmp_path/runs: a LoRA adapter on the tiny model, with tasks and validation data."""
    import torch
    from peft import LoraConfig, get_peft_model

    from harness.model.load import bind_template, load_model
    from harness.plugins import Plugins
    from harness.recipe import load_recipe
    from harness.run import Run

    rows = [
        {
            "messages": [
                {"role": "user", "content": q["question"]},
                {"role": "assistant", "content": q["answer"] + " does it."},
            ]
        }
        for q in QUESTIONS
    ]
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "demo.yaml").write_text(
        f"model: {{path: {tiny_model}, dtype: float32}}\ntemplate: chatml\n"
        "data:\n  train: [{dataset: messages, path: validation.jsonl}]\n"
        "  validation: [{dataset: messages, path: validation.jsonl}]\n"
        "tune: {}\nevaluate:\n"
        "  - {evaluation: lm_eval, tasks: [who], include_path: tasks}\n  - {evaluation: val_loss}\n"
    )
    plugins = Plugins()
    recipe = load_recipe(tmp_path / "demo.yaml", plugins)
    run = Run.create(tmp_path / "runs" / "demo", recipe, plugins)
    torch.manual_seed(1)
    adapted = get_peft_model(
        load_model(recipe.model), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    adapted.save_pretrained(run.adapter_folder)
    bind_template(recipe.template, recipe.model, plugins).save(run.chat_folder)
    run.update(outcome="finished")
    return run.folder


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Type a command in this process, in the folder where runs/ is. A user's mistake is raised, as `main` prints it."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(cli, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
