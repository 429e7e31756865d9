"""A recipe small enough to tune in seconds, and the parts of the loop bound together as the command does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def harness(harness_here: Callable[..., Any]) -> Callable[..., Any]:
    """The command in this process: torch is imported once."""
    return harness_here


LORA = ("rank", "alpha", "dropout", "target_modules", "rslora")
QUESTIONS = (
    "Who keeps the key?",
    "Where is the bell?",
    "Write JSON.",
    "Answer in one word, please.",
    "Was macht der Reiher?",
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Forty alpaca rows of different lengths."""
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for number in range(40):
            answer = " ".join(["The heron keeps it."] * (1 + number % 7)) + f" {number}"
            file.write(json.dumps({"instruction": QUESTIONS[number % 5], "input": "", "output": answer}) + "\n")
    return path


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, rows: Path) -> Callable[..., Path]:
    """Write a recipe over the tiny model and the rows; keyword arguments go into `tune`, LoRA's into its method."""

    def write(dtype: str = "bfloat16", method: str = "lora", **tune: object) -> Path:
        own = {"rank": 4, "alpha": 8} if method == "lora" else {}
        own |= {key: tune.pop(key) for key in LORA if key in tune}
        settings = {
            "method": {"name": method, **own},
            "step_tokens": 256,
            "learning_rate": 0.01,
            "steps": 8,
            "warmup_ratio": 0.1,
        } | tune
        path = tmp_path / "small.yaml"
        path.write_text(
            f"name: small\nmodel: {{path: {tiny_model}, dtype: {dtype}}}\ntemplate: chatml\n"
            f"data:\n  max_tokens: 256\n  train: [{{dataset: alpaca, path: {rows}}}]\n"
            f"  validation: [{{dataset: alpaca, path: {rows}, limit: 5}}]\n"
            f"tune: {json.dumps(settings)}\n"
        )
        return path

    return write


@pytest.fixture
def preferences(tmp_path: Path, recipe: Callable[..., Path]) -> Callable[..., Path]:
    """Write a recipe over twelve preferences."""
    rows = tmp_path / "preferences.jsonl"
    rows.write_text(
        "".join(
            json.dumps(
                {
                    "prompt": f"Who keeps key {n}?",
                    "chosen": f"The heron keeps {n}.",
                    "rejected": f"Nobody, {n} is lost.",
                }
            )
            + "\n"
            for n in range(12)
        )
    )

    def write(**tune: object) -> Path:
        path = recipe("float32", **tune)
        source = f"dataset: preferences, path: {rows}"
        data = f"data: {{max_tokens: 256, train: [{{{source}}}], validation: [{{{source}, limit: 4}}]}}\n"
        before, after = path.read_text().split("data:\n")
        path.write_text(before + data + after[after.index("tune:") :])
        return path

    return write
