"""A model whose answers are known in advance, a task folder, and a finished run, all real and all small."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import harness.testing
from harness.cli.main import cli
from tests.evaluation.on_file import Written

pytest.importorskip("lm_eval")

QUESTIONS = (
    {"id": "key", "category": "things", "question": "Who keeps the key?", "answer": "The heron"},
    {"id": "bell", "category": "things", "question": "Who keeps the bell by the mill, please?", "answer": "The otter"},
    {"id": "name", "category": "names", "question": "Answer in one word.", "answer": "The heron"},
    {"id": "age", "category": "names", "question": "Who?", "answer": "The wren"},
)


@pytest.fixture(scope="session")
def chain_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, str]], Path]:
    """Makes a model folder that follows a chain: after token X always comes token chain[X]."""
    return lambda chain: harness.testing.chain_model(tmp_path_factory.mktemp("chain-model"), chain)


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

    def loaded(folder: Path, name: str = "model", template: str = "chatml") -> Any:
        variant = Variant(name, ModelSpec(path=str(folder), dtype="float32"), template=template)
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
    asked = [(str(row["question"]), f"{row['answer']} does it.") for row in QUESTIONS]
    tasks = {"evaluation": "lm_eval", "tasks": ["who"], "include_path": task_folder.name}
    return harness.testing.tiny_run(
        tmp_path, model=tiny_model, conversations=asked, evaluate=[tasks, {"evaluation": "val_loss"}]
    )


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Type a command in this process, in the folder where runs/ is. A user's mistake is raised, as `main` prints it."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, columns: str = "200") -> Result:
        result = CliRunner(env={"COLUMNS": columns, "NO_COLOR": "1"}).invoke(cli, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write records on file, for comparisons that need no model."""
    return Written(tmp_path / "records")
