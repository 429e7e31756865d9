"""Write docs/what-fits.md: model size x method x memory x time, by the harness's own estimate.

`python docs/what_fits.py`, a minute on a CPU. Memory is what a step holds, counted on tensors with shapes and no
contents (recipes/gpu/memory.py). Time is a token's arithmetic over what an H100 did a second in bench/results.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE, RECORD = ROOT / "docs" / "what-fits.md", ROOT / "bench" / "results" / "tuning-cuda.json"
WIDTH, STEP_TOKENS = 1024, 4096
CONTEXT_GIB = 1.0  # CUDA's own, and what the allocator loses
CARDS = (8, 12, 16, 24, 40, 48, 80, 141)
# The published sizes in billion weights; of each, the record of the shape that is nearest is taken.
MODELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": 0.135,
    "Qwen/Qwen2.5-0.5B-Instruct": 0.49,
    "meta-llama/Llama-3.2-1B-Instruct": 1.2,
    "Qwen/Qwen3-1.7B": 1.7,
    "Qwen/Qwen3-4B": 4.0,
    "mistralai/Mistral-7B-Instruct-v0.3": 7.2,
    "meta-llama/Llama-3.1-8B-Instruct": 8.0,
    "Qwen/Qwen3-14B": 14.8,
}
METHODS = {
    "LoRA": {"method": {"name": "lora", "rank": 16, "alpha": 32}, "gradient_checkpointing": False},
    "LoRA, layers computed twice": {
        "method": {"name": "lora", "rank": 16, "alpha": 32}, "gradient_checkpointing": True
    },
    "all weights, layers computed twice": {"method": {"name": "full"}, "gradient_checkpointing": True},
}  # fmt: skip
MARK = "<!-- table: {} -->\n"


class Row(NamedTuple):
    """One line of the table."""

    model: str
    method: str
    weights_gib: float
    peak_gib: float
    million_s: float


def rows() -> list[Row]:
    """Compute the table."""
    memory = _memory()
    speeds = [
        (float(row["shape"].rpartition("-")[2].removesuffix("B")), row["flops_per_s"])
        for row in json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
        if row["side"] == "ours" and row["length"] == 2048
    ]
    out = []
    for model, billions in MODELS.items():
        _, speed = min(speeds, key=lambda measured: abs(math.log(measured[0] / billions)))
        for method, tune in METHODS.items():
            recipe: dict[str, Any] = {
                "model": {"path": model},
                "data": {"max_tokens": WIDTH},
                "tune": {**tune, "step_tokens": STEP_TOKENS},
            }
            held = memory(recipe)
            again = 4 / 3 if tune["gradient_checkpointing"] else 1  # one more forward pass
            out.append(Row(model, method, held.weights_gib, held.peak_gib, 1e6 * held.token_flops * again / speed))
            print(out[-1], file=sys.stderr)
    return out


def _memory() -> Any:
    spec = importlib.util.spec_from_file_location("memory", ROOT / "recipes" / "gpu" / "memory.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["memory"] = module
    spec.loader.exec_module(module)
    return module.memory


def table(lines: list[Row]) -> str:
    """Return the table as Markdown."""
    out = [
        "| model | method | weights | a step's peak | fits on a card of | a million tokens |",
        "|---|---|---|---|---|---|",
    ]
    for row in lines:
        card = next((f"{size} GB" for size in CARDS if row.peak_gib + CONTEXT_GIB <= size * 1e9 / 2**30), "several")
        out.append(
            f"| {row.model.partition('/')[2]} | {row.method} | {row.weights_gib:.1f} GiB | {row.peak_gib:.1f} GiB | "
            f"{card} | {_time(row.million_s)} |"
        )
    return "\n".join(out) + "\n"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    begin, end = MARK.format("begin"), MARK.format("end")
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(begin)
    PAGE.write_text(f"{head}{begin}\n{table(rows())}\n{end}{rest.partition(end)[2]}", encoding="utf-8")
