"""A method in one file: IA3 (Liu et al. 2022, https://arxiv.org/abs/2205.05638), which scales activations by vectors.

harness --plugin examples/harness-ia3/method_ia3.py tune RECIPE --set 'tune.method={name: ia3}'

PEFT brings it; a method says which weights move and how they are saved. vLLM serves no IA3 adapter, and the plan says
so: `harness runs merge RUN` makes a model of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness


class Ia3Options(harness.Options):
    """Keys that `tune.method` accepts beside the name."""

    target_modules: tuple[str, ...] = ("k_proj", "v_proj", "down_proj")
    feedforward_modules: tuple[str, ...] = ("down_proj",)


def apply(model: Any, options: Ia3Options) -> Any:
    """Put a vector on each of the layers; only the vectors move."""
    import peft

    config = peft.IA3Config(
        target_modules=list(options.target_modules),
        feedforward_modules=list(options.feedforward_modules),
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(model, config, autocast_adapter_dtype=False)


def save(model: Any, folder: Path) -> None:
    """Write the vectors in PEFT's format."""
    config = model.peft_config["default"]
    config.target_modules, config.feedforward_modules = (
        sorted(config.target_modules),
        sorted(config.feedforward_modules),
    )
    model.save_pretrained(str(folder), safe_serialization=True)


@harness.hookimpl
def register_methods(register: Any) -> None:
    register(harness.Method("ia3", "IA3: vectors that scale activations", Ia3Options, apply, save, "adapter"))
