"""Every recipe in recipes/ tunes: with a random miniature of its model's architecture, from a local folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# `from-votes.yaml` goes on from a run and a votes database: tests/serve/test_votes_command.py tunes by it.
RECIPES = sorted(
    path
    for path in (ROOT / "recipes").rglob("*.yaml")
    if not {"tasks", "data"} & set(path.parts) and path.name != "from-votes.yaml"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n"
    "' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes"))


@pytest.fixture(scope="session")
def miniature(tmp_path_factory):
    """Return the function from a recipe to a folder with its architecture in small and its template's tokens."""
    from harness.model.tokenizer import add_tokens
    from harness.plugins import Plugins
    from harness.template import missing_tokens
    from harness.testing import tiny_model, tiny_tokenizer

    def make(recipe: Path) -> Path:
        spec = YAML(typ="safe").load(recipe)
        template, model = spec["template"], spec["model"]["path"].lower()
        architecture = next((name for name in ("Llama", "Mistral") if name.lower() in model), "Qwen2")
        folder = tmp_path_factory.mktemp(architecture)
        tokenizer = tiny_tokenizer()
        if template == "model":
            tokenizer.chat_template = CHATML
        else:
            tokenizer.bos_token = {"Llama": "<|begin_of_text|>", "Mistral": "<s>"}.get(architecture)
            tokenizer.eos_token = {"Mistral": "</s>"}.get(architecture, tokenizer.eos_token)
            add_tokens(tokenizer, missing_tokens(Plugins().templates[template], tokenizer))
        more = {"vocab_size": 700, "max_position_embeddings": 4096}
        return tiny_model(folder, architecture, tied=architecture == "Qwen2", tokenizer=tokenizer, **more)

    return make


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_the_recipe_tunes_a_miniature(recipe, miniature, harness_here, tmp_path):
    text = recipe.read_text()
    sets = [f"model.path={miniature(recipe)}", "tune.steps=2", "tune.step_tokens=16384", "data.max_tokens=8192"]
    for part in ("train", "validation"):
        sets += [f"data.{part}.0.limit=20"] if f"{part}:" in text else []
    sets += ["data.validation_share=0.5"] if "validation_share" in text else []
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
