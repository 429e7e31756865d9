"""Shared code of the benchmarks of serving: their arguments, their adapters, and where their figures go."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from harness.model.templates import load_template
from harness.plugins import Plugins
from harness.recipe import ModelSpec
from harness.variants import Variant

ROOT = Path(__file__).parents[1]
REAL_MODEL = ROOT / ".models/SmolLM2-135M-Instruct"


def arguments(about: str | None, results: str, rounds: int) -> argparse.Namespace:
    """Read the command line: a model, its template, the number of rounds, and where the figures go."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=REAL_MODEL, help="a model folder")
    parser.add_argument("--template", help="a template, for a model that has none of its own")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--into", type=Path, default=ROOT / "bench/results" / results, help="where the figures go")
    options = parser.parse_args()
    if not (options.model / "config.json").is_file():
        parser.exit(message=f"{options.model} is not there: `make real-model`\n")
    return options


def adapters(model: Path, template: str | None, folder: Path, count: int) -> tuple[Variant, ...]:
    """Return random adapters on every linear layer of the model."""
    spec = ModelSpec(path=str(model.resolve()))
    load_template(Variant("base", spec, template=template), Plugins()).save(folder / "chat")
    for number in range(count):
        torch.manual_seed(number)
        base = AutoModelForCausalLM.from_pretrained(spec.path, dtype=torch.bfloat16)
        config = LoraConfig(
            r=16, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
        )
        get_peft_model(base, config, autocast_adapter_dtype=False).save_pretrained(str(folder / f"adapter-{number}"))
    return tuple(Variant(f"adapter-{n}", spec, folder / f"adapter-{n}", folder / "chat") for n in range(count))


def keep(figures: dict[str, Any], path: Path) -> None:
    """Print the figures, and write them as JSON."""
    text = json.dumps(figures, indent=1)
    print(text)
    path.write_text(text + "\n")
