"""`harness recipe`: what is listed can be copied, what is written can be tuned, what is imported is accounted for."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness_commands.recipe.drafting import WISHED_STEPS, schedule_of
from harness_commands.recipe.shipped import shipped_recipes

from harness.recipe import load_recipe
from harness.testing import plugins

pytestmark = pytest.mark.slow

QUESTIONS = [(f"How warm is room {n}?", f"Room {n} has {15 + n % 9} degrees.") for n in range(80)]


def test_each_recipe_is_listed_with_its_model_and_a_sentence(harness_here: Callable[..., Any]) -> None:
    rows = json.loads(harness_here("recipe", "list", "--json").out)
    assert {"seedling/demo", "smollm2/json", "from-votes"} <= {row["name"] for row in rows}
    assert all(row["model"] and row["summary"].count(" ") >= 3 and Path(row["path"]).is_file() for row in rows)


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_a_copy_has_all_that_its_recipe_reads(
    name: str, harness_here: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for models, runs and votes, which are a user's own: these are looked for in the working directory."""
    monkeypatch.chdir(tmp_path)
    done = harness_here("recipe", "copy", name, "copy")
    assert done.code == 0, done.err
    (copy,) = Path("copy").glob("*.yaml")
    for own in (".models/SmolLM2-135M-Instruct", "runs/demo"):
        Path(own).mkdir(parents=True)
    Path("votes.db").touch()
    recipe = load_recipe(copy, plugins(first_party=True))
    read = [source.path for source in (*recipe.data.train, *recipe.data.validation)]
    assert all(str(path).startswith(str(tmp_path)) for path in read)
    assert harness_here("recipe", "copy", name, "copy").code == 1  # and is not written over


def test_a_name_of_no_recipe_is_answered_with_the_nearest(harness_here: Callable[..., Any]) -> None:
    assert "Did you mean 'seedling/demo'?" in harness_here("recipe", "copy", "seedlin/demo").err


def write(path: Path, rows: list[Any], header: tuple[str, ...] = ()) -> Path:
    """Write rows in the format that the file's name says."""
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("\n\n".join(answer for _, answer in QUESTIONS))
    return path


def turns(*pairs: tuple[str, str], keys: tuple[str, str]) -> list[dict[str, str]]:
    return [dict(zip(keys, pair, strict=True)) for pair in pairs]


FILES: dict[str, tuple[str, list[Any], tuple[str, ...], str, str]] = {
    "foreign": ("f.csv", list(QUESTIONS), ("Frage", "Antwort"), "prompt_completion", "sft"),
    "known": ("k.tsv", list(QUESTIONS), ("question", "answer"), "prompt_completion", "sft"),
    "more": ("m.csv", [(*pair, "x") for pair in QUESTIONS], ("Question", "Answer", "Notes"), "question_answer", "sft"),
    "alpaca": ("a.json", [{"instruction": q, "output": a} for q, a in QUESTIONS], (), "alpaca", "sft"),
    "sharegpt": (
        "s.jsonl",
        [{"conversations": turns(("human", q), ("gpt", a), keys=("from", "value"))} for q, a in QUESTIONS],
        (),
        "sharegpt",
        "sft",
    ),
    "messages": (
        "m.jsonl",
        [{"messages": turns(("user", q), ("assistant", a), keys=("role", "content"))} for q, a in QUESTIONS],
        (),
        "messages",
        "sft",
    ),
    "parquet": ("p.parquet", [{"prompt": q, "completion": a} for q, a in QUESTIONS], (), "prompt_completion", "sft"),
    "pairs": (
        "d.jsonl",
        [{"prompt": q, "chosen": a, "rejected": "Who knows?"} for q, a in QUESTIONS],
        (),
        "preferences",
        "dpo",
    ),
    "judged": (
        "j.jsonl",
        [{"prompt": q, "completion": a, "label": n % 2 == 0} for n, (q, a) in enumerate(QUESTIONS)],
        (),
        "feedback",
        "kto",
    ),
    "text": ("t.txt", [], (), "text", "pretrain"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_recipe_is_written_for_a_file_of_each_kind(
    kind: str, harness_here: Callable[..., Any], tmp_path: Path, tiny_model: Path
) -> None:
    name, rows, header, dataset, objective = FILES[kind]
    data = write(tmp_path / name, rows, header)
    out = tmp_path / "sub" / "my.yaml"
    out.parent.mkdir()
    done = harness_here("recipe", "new", "--data", data, "--model", tiny_model, "--out", out)
    assert done.code == 0, done.err
    recipe = load_recipe(out, plugins(first_party=True))
    (source,) = recipe.data.train
    assert (source.dataset, source.path, recipe.tune.objective.name) == (dataset, str(data), objective)
    assert recipe.template.name == ("plain" if objective == "pretrain" else "chatml")  # the tiny model brings none
    assert dataset in done.out and objective in done.out and "harness tune" in done.out
    assert ("Notes" in source.unread) == (kind == "more") == ("LEFT OUT" in done.out)
    assert harness_here("data", "validate", out).code == 0


def test_rows_that_cannot_be_trained_on_are_left_out_and_counted(
    harness_here: Callable[..., Any], tmp_path: Path, tiny_model: Path
) -> None:
    data = write(tmp_path / "holes.csv", [*QUESTIONS, ("And?", "")], ("question", "answer"))
    done = harness_here("recipe", "new", "--data", data, "--model", tiny_model, "--out", tmp_path / "my.yaml")
    assert "80 of 81 rows" in done.out and "empty_turns (1)" in done.out, done.err
    assert harness_here("data", "validate", tmp_path / "my.yaml").code == 0


def test_a_file_of_unknown_columns_is_asked_about(
    harness_here: Callable[..., Any], tmp_path: Path, tiny_model: Path
) -> None:
    data = write(tmp_path / "odd.csv", [(*pair, "x") for pair in QUESTIONS], ("Sache", "Bescheid", "Tag"))
    words = ("recipe", "new", "--data", data, "--model", tiny_model, "--out", tmp_path / "my.yaml")
    refused = harness_here(*words)
    assert refused.code == 1 and "--columns prompt=COLUMN --columns completion=COLUMN" in refused.err
    done = harness_here(*words, "--columns", "prompt=Sache", "--columns", "completion=Bescheid")
    assert done.code == 0, done.err
    (source,) = load_recipe(tmp_path / "my.yaml", plugins(first_party=True)).data.train
    assert (source.columns, source.unread) == ({"prompt": "Sache", "completion": "Bescheid"}, ("Tag",))


@pytest.mark.parametrize(
    ("tokens", "items", "epochs", "step_tokens"),
    [(7_000, 120, 5, 512), (120_000, 1_000, 3, 4096), (10**8, 200_000, 1, 4096), (300, 6, 10, 512)],
)
def test_a_small_file_gets_smaller_steps_and_more_passes(
    tokens: int, items: int, epochs: int, step_tokens: int
) -> None:
    schedule = schedule_of(tokens, items, longest=100)
    assert schedule[:2] == (epochs, step_tokens)
    assert schedule.steps >= WISHED_STEPS or schedule.epochs == 10
    assert schedule_of(tokens, items, longest=3000).step_tokens >= 3000


def test_the_commands_that_are_printed_work(
    harness_here: Callable[..., Any], tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the last, which serves until Ctrl-C; the recipe tunes for the steps that it says."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rooms.csv", QUESTIONS, ("Frage", "Antwort"))
    done = harness_here("recipe", "new", "--data", "rooms.csv", "--model", tiny_model)
    commands = [shlex.split(line, comments=True) for line in done.out.partition("next:")[2].strip().splitlines()]
    verbs = [words[1] for words in commands]
    assert verbs == ["data", "tune", "tune", "evaluate", "compare", "ask", "serve"]
    for program, *words in commands[:-1]:
        assert program == "harness"
        step = harness_here(*words)
        assert step.code == 0, (words, step.err)
    metrics = [json.loads(line) for line in Path("runs/rooms/metrics.jsonl").read_text().splitlines()]
    assert max(line.get("step", 0) for line in metrics) >= WISHED_STEPS * 0.8


AXOLOTL = """\
base_model: ./model
load_in_4bit: {four}
datasets:
  - path: rows.jsonl
    ds_type: json
    type: {type}
val_set_size: 0.05
sequence_len: 1024
sample_packing: {packing}
{adapter}
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 3
optimizer: adamw_bnb_8bit
learning_rate: 0.0002
bf16: auto
flash_attention: true
warmup_steps: 10
wandb_project:
unheard_of: 7
"""
LORA = "adapter: lora\nlora_r: 32\nlora_alpha: 16\nlora_dropout: 0.05\nlora_target_linear: true"


@pytest.mark.parametrize(
    ("type", "four", "packing", "adapter", "wanted"),
    [
        ("alpaca", "false", "true", LORA, ("alpaca", "sft", "lora", 8 * 1024)),
        ("alpaca", "true", "false", LORA.replace("lora\n", "qlora\n", 1), ("alpaca", "sft", "qlora", 8 * 512)),
        ("chat_template", "false", "true", "", ("messages", "sft", "full", 8 * 1024)),
        (
            "chat_template\n    message_property_mappings: {role: from, content: value}",
            "false",
            "true",
            LORA,
            ("sharegpt", "sft", "lora", 8 * 1024),
        ),
        ("chat_template.default", "false", "false", f"rl: dpo\n{LORA}", ("preferences", "dpo", "lora", 8 * 512)),
        ("completion", "false", "true", LORA, ("text", "pretrain", "lora", 8 * 1024)),
    ],
)
def test_an_axolotl_configuration_is_carried_over_line_by_line(
    type: str, four: str, packing: str, adapter: str, wanted: tuple[Any, ...], harness_here: Any, tmp_path: Path
) -> None:
    file = tmp_path / "axolotl.yml"
    file.write_text(AXOLOTL.format(type=type, four=four, packing=packing, adapter=adapter))
    (tmp_path / "model").mkdir()
    (tmp_path / "rows.jsonl").touch()
    report = json.loads(harness_here("recipe", "import", file, "--out", tmp_path / "my.yaml", "--json").out)
    assert report["problem"] is None and report["tool"] == "Axolotl"
    recipe = load_recipe(tmp_path / "my.yaml", plugins(first_party=True))
    tune = recipe.tune
    assert (recipe.data.train[0].dataset, tune.objective.name, tune.method.name, tune.step_tokens) == wanted
    assert (tune.learning_rate, tune.epochs, recipe.data.max_tokens) == (2e-4, 3, 1024)
    outcomes = {line["key"]: line["outcome"] for line in report["lines"]}
    keys = [line.partition(":")[0] for line in file.read_text().splitlines() if line[:1].isalpha()]
    assert set(outcomes) == {*keys} - {"wandb_project"}  # which has no value
    assert outcomes["unheard_of"] == "unknown" and outcomes["warmup_steps"] == "changed"


LLAMA_FACTORY = """\
model_name_or_path: ./model
trust_remote_code: true
stage: {stage}
finetuning_type: lora
lora_rank: 8
lora_target: {target}
dataset: {dataset}
template: {template}
cutoff_len: 1024
max_samples: 100
output_dir: saves
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
unheard_of: 7
"""
INFO = {
    "plain": {"file_name": "rows.jsonl", "columns": {"prompt": "ask", "response": "reply"}},
    "chat": {
        "file_name": "rows.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "pictures"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    },
    "turns": {"file_name": "rows.jsonl", "formatting": "sharegpt"},
    "pairs": {"file_name": "rows.jsonl", "ranking": True},
    "judged": {"file_name": "rows.jsonl", "columns": {"kto_tag": "good"}},
    "texts": {"file_name": "rows.jsonl", "columns": {"prompt": "body"}},
}


@pytest.mark.parametrize(
    ("stage", "dataset", "template", "wanted"),
    [
        ("sft", "plain", "llama3", ("alpaca", {"instruction": "ask", "output": "reply"}, "sft", "llama3")),
        ("sft", "chat", "qwen", ("messages", {}, "sft", "qwen2.5")),
        ("sft", "turns", "qwen3_nothink", ("sharegpt", {}, "sft", "qwen3")),
        ("dpo", "pairs", "gemma2", ("preferences", {}, "dpo", "gemma")),
        ("kto", "judged", "phi", ("feedback", {"kto_tag": "good"}, "kto", "phi3")),
        ("rm", "pairs", "mistral", ("preferences", {}, "reward", "mistral-v1")),
        ("pt", "texts", "default", ("text", {"text": "body"}, "pretrain", "model")),
    ],
)
def test_a_llama_factory_configuration_is_carried_over_with_its_dataset_info(
    stage: str, dataset: str, template: str, wanted: tuple[Any, ...], harness_here: Any, tmp_path: Path
) -> None:
    file = tmp_path / "examples" / "lf.yaml"
    for folder in ("examples/model", "data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data" / "rows.jsonl").touch()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(INFO))
    file.write_text(LLAMA_FACTORY.format(stage=stage, dataset=dataset, template=template, target="q_proj,v_proj"))
    out = tmp_path / "examples" / "my.yaml"
    report = json.loads(harness_here("recipe", "import", file, "--out", out, "--json").out)
    assert report["problem"] is None and report["tool"] == "LLaMA-Factory"
    recipe = load_recipe(out, plugins(first_party=True))
    (source,) = recipe.data.train
    assert (source.dataset, source.columns, recipe.tune.objective.name, recipe.template.name) == wanted
    assert (source.path, source.limit) == (str(tmp_path / "data" / "rows.jsonl"), 100)
    method: Any = recipe.tune.method
    assert (method.rank, method.alpha, method.target_modules) == (8, 16, ("q_proj", "v_proj"))
    lines = {line["key"]: line for line in report["lines"]}
    assert set(lines) == {line.partition(":")[0] for line in file.read_text().splitlines()}
    assert lines["unheard_of"]["outcome"] == "unknown" and lines["trust_remote_code"]["outcome"] == "left"
    assert ("images cannot be trained on" in lines["dataset"]["became"]) == (dataset == "chat")


# Of each tool: keys that change the result beside keys that do not, with their outcome.
OUTCOMES = {
    "Axolotl": (
        AXOLOTL.format(type="alpaca", four="false", packing="true", adapter=LORA),
        {
            "s2_attention": ("true", "left"),
            "eager_attention": ("true", "needless"),
            "train_on_inputs": ("true", "left"),
            "tokenizer_config": ("other/tokenizer", "left"),
            "plugins": ("[axolotl.integrations.kd.KDPlugin, axolotl.integrations.liger.LigerPlugin]", "left"),
            "special_tokens": ("{pad_token: <pad>}", "needless"),
            "tokens": ("[<one>]", "left"),
            "shuffle_merged_datasets": ("false", "left"),
            "lora_model_dir": ("./adapter", "left"),
            "lora_modules_to_save": ("[embed_tokens, lm_head]", "carried"),
            "loss_watchdog_threshold": ("5.0", "left"),
            "load_in_8bit": ("false", "needless"),
        },
    ),
    "LLaMA-Factory": (
        LLAMA_FACTORY.format(stage="sft", target="all", dataset="plain", template="llama3"),
        {
            "shift_attn": ("true", "left"),
            "flash_attn": ("fa2", "needless"),
            "pure_bf16": ("true", "left"),
            "train_on_prompt": ("true", "left"),
            "dataset_exact_deduplication": ("true", "carried"),
            "packing": ("true", "changed"),
            "additional_target": ("embed_tokens,extra", "left"),
            "adapter_name_or_path": ("./adapter", "left"),
            "enable_thinking": ("false", "left"),
            "load_best_model_at_end": ("true", "carried"),
            "metric_for_best_model": ("rouge", "left"),
            "eval_steps": ("10", "carried"),
            "val_size": ("0.1", "carried"),
            "resize_vocab": ("false", "needless"),
        },
    ),
}


@pytest.mark.parametrize("tool", OUTCOMES)
def test_a_key_that_changes_the_result_is_never_called_needless(tool: str, harness_here: Any, tmp_path: Path) -> None:
    text, keys = OUTCOMES[tool]
    (tmp_path / "theirs.yaml").write_text(text + "".join(f"{key}: {value}\n" for key, (value, _) in keys.items()))
    (tmp_path / "model").mkdir()
    for rows in ("rows.jsonl", "plain.json"):
        (tmp_path / rows).touch()
    report = json.loads(harness_here("recipe", "import", tmp_path / "theirs.yaml", "--out", "my.yaml", "--json").out)
    found = {line["key"]: line["outcome"] for line in report["lines"]}
    assert {key: found[key] for key in keys} == {key: outcome for key, (_, outcome) in keys.items()}
    assert report["tool"] == tool and report["problem"] is None
    recipe = load_recipe(tmp_path / "my.yaml", plugins(first_party=True))
    if tool == "Axolotl":
        assert recipe.tune.method.train_also == ("embeddings", "head")  # type: ignore[attr-defined]
    else:
        assert [step.filter for step in recipe.data.clean] == ["exact_duplicates"] and recipe.tune.keep == "best"


def test_the_weight_of_the_chosen_answers_is_carried_over(harness_here: Any, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text('{"pairs": {"file_name": "../rows.jsonl", "ranking": true}}')
    theirs = {
        "lf": "model_name_or_path: ./model\nstage: dpo\ndataset: pairs\npref_ftx: 0.5\n",
        "ax": "base_model: ./model\nrl: dpo\nrpo_alpha: 0.5\ndatasets: [{path: rows.jsonl, type: chatml.intel}]\n",
    }
    for name, text in theirs.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        assert harness_here("recipe", "import", f"{name}.yaml", "--out", f"my-{name}.yaml").code == 0
        objective: Any = load_recipe(tmp_path / f"my-{name}.yaml", plugins(first_party=True)).tune.objective
        assert (objective.name, objective.nll_weight) == ("dpo", 0.5)


def test_defaults_of_the_other_tool_are_written_down(harness_here: Any, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "rows.json").touch()
    (tmp_path / "few.yaml").write_text("model_name_or_path: ./model\nstage: sft\ndataset: rows\n")
    assert harness_here("recipe", "import", "few.yaml", "--out", "my.yaml").code == 0
    tune = load_recipe(tmp_path / "my.yaml", plugins(first_party=True)).tune
    assert (tune.learning_rate, tune.schedule, tune.epochs, tune.warmup_ratio) == (5e-5, "linear", 3.0, 0.0)


def test_a_file_of_neither_tool_is_refused(harness_here: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("learning_rate: 1\n")
    done = harness_here("recipe", "import", tmp_path / "other.yaml", "--out", tmp_path / "x.yaml")
    assert done.code == 1 and "neither Axolotl's" in done.err and not (tmp_path / "x.yaml").exists()


@pytest.mark.parametrize(
    "text", ["base_model: ./model\ndatasets: []\nrl: grpo\n", "model_name_or_path: ./model\nstage: ppo\n"]
)
def test_a_way_of_training_without_a_counterpart_is_refused(text: str, harness_here: Any, tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(text)
    done = harness_here("recipe", "import", tmp_path / "theirs.yaml", "--out", tmp_path / "mine.yaml")
    assert done.code == 1 and "trains in a way that no objective here does; read are configurations of dpo" in done.err
    assert not (tmp_path / "mine.yaml").exists()
