"""The recipes for one GPU: valid without the hub, and the memory that they state is what is computed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML

pytest.importorskip("peft")

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "recipes" / "gpu"
RECIPES = sorted(GPU.glob("*.yaml"))
PUBLISHED_PARAMETERS = {  # as the hub counts them in the models' safetensors
    "qwen2.5-0.5b": 494_032_768,
    "llama3.2-1b": 1_235_814_400,
    "llama3.1-8b": 8_030_261_248,
    "mistral-7b": 7_248_023_552,
}


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memory", GPU / "memory.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_without_the_hub(path: Path) -> None:
    from harness.plugins import Plugins
    from harness.recipe import load_recipe

    recipe = load_recipe(path, Plugins())
    assert recipe.name == path.stem and not recipe.model.is_local


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_memory_that_is_stated_is_what_a_step_is_computed_to_hold(path: Path, memory: ModuleType) -> None:
    recipe: dict[str, Any] = YAML(typ="safe").load(path)
    held = memory.memory(recipe)
    assert held.parameters == PUBLISHED_PARAMETERS[path.stem]
    stated = re.search(r"^# Memory: at most ([\d.]+) GiB, .*: a GPU with (\d+) GiB", path.read_text(), re.MULTILINE)
    assert stated is not None and float(stated[1]) == round(held.peak_gib, 1)
    assert held.peak_gib + 1 < int(stated[2])
    row = f"| {recipe['model']['path']} | {held.weights_gib:.1f} GiB | {held.peak_gib:.1f} GiB |"
    assert row in (ROOT / "docs" / "real-model.md").read_text()


@pytest.mark.slow
def test_a_step_holds_less_with_gradient_checkpointing_and_more_with_more_tokens(memory: ModuleType) -> None:
    recipe: dict[str, Any] = YAML(typ="safe").load(GPU / "qwen2.5-0.5b.yaml")
    plain = memory.memory(recipe).peak_gib
    recipe["tune"]["step_tokens"] *= 2
    doubled = memory.memory(recipe).peak_gib
    recipe["tune"]["gradient_checkpointing"] = True
    assert memory.memory(recipe).peak_gib < plain < doubled < 2 * plain
