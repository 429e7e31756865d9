"""Every recipe in recipes/ tunes: with a random-weight model of the same architecture in miniature, from a local folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
RECIPES = [path for path in RECIPES if "tasks" not in path.parts]


def small(kind: str) -> dict[str, object]:
    return {
        "vocab_size": 700, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 4096, "tie_word_embeddings": kind == "qwen2",
    }  # fmt: skip


@pytest.fixture(scope="session")
def miniature(tmp_path_factory, tiny_model):
    """A function from an architecture's name to a model folder with random weights and the tokenizer of that family."""
    import torch
    import transformers

    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        for file in tiny_model.glob("token*"):
            shutil.copy(file, folder)
        architectures = {"qwen2": "Qwen2", "llama": "Llama", "mistral": "Mistral"}
        config = getattr(transformers, architectures[kind] + "Config")(**small(kind))
        torch.manual_seed(0)
        getattr(transformers, architectures[kind] + "ForCausalLM")(config).to(torch.bfloat16).save_pretrained(folder)
        if kind != "qwen2":  # Llama and Mistral have a beginning-of-text token, and no chat tokens
            saved = json.loads((folder / "tokenizer_config.json").read_text())
            (folder / "tokenizer_config.json").write_text(
                json.dumps(saved | {"bos_token": "<|im_start|>", "additional_special_tokens": []})
            )
        return folder

    return make


def architecture(recipe: Path) -> str:
    return next((kind for kind in ("llama", "mistral") if kind in recipe.name), "qwen2")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_the_recipe_tunes_a_miniature(recipe, miniature, harness_here, tmp_path):
    text = recipe.read_text()
    sets = [
        f"model.path={miniature(architecture(recipe))}",
        "tune.steps=2",
        "tune.batch_tokens=16384",
        "data.max_tokens=8192",
    ]
    for part in ("train", "validation"):
        sets += [f"data.{part}.0.limit=20"] if f"{part}:" in text else []
    if "corpus.jsonl" in text:  # generated when the seedling is rebuilt, too large to be committed
        rows = tmp_path / "corpus.jsonl"
        rows.write_text("".join(json.dumps({"text": f"The heron keeps {n} stones."}) + "\n" for n in range(20)))
        sets += [f"data.train.0.path={rows}", f"data.validation.0.path={rows}"]
    arguments = [part for override in sets for part in ("--set", override)]
    done = harness_here("tune", recipe, "--run", "small", *arguments)
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "small"
    assert (run / "adapter" / "adapter_model.safetensors").is_file() or (run / "model" / "model.safetensors").is_file()
    assert json.loads((run / "manifest.json").read_text())["outcome"] == "finished"
