"""The time that one example an answer takes in tuning, with and without shared beginnings, against one text.

    python bench/thoughts.py

The seedling's questions as conversations of 2 and of 5 exchanges, with a thought before each answer that is as long as
answers are: it is the answer of another row. A small Qwen3 is tuned on them for one epoch, each time on the same
conversations: as one text each, through a template that keeps all thoughts, which is what a template that grows costs;
and through `qwen3`, which drops the thoughts of earlier answers, so that each answer is an example of its own: in
padded rows, and in packed ones, where the examples of a conversation share what they begin with. Seconds are those of
the steps, the first counted as the others' mean, in the faster of two runs; the sides take turns.
"""

from __future__ import annotations

import json
import os
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from harness.testing import run
from harness.testing.models import tiny_model

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "results" / "thoughts-cpu.json"
CONVERSATIONS, TIMES = 50, 2
SHAPE = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "max_position_embeddings": 2048}
KEEPS_THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning %}<think>\n{{ m.reasoning }}\n</think>\n\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIDES = {  # template and layout
    "one text, padded": ("model", "padded"),
    "one text, packed": ("model", "packed"),
    "one an answer, padded": ("qwen3", "padded"),
    "one an answer, packed": ("qwen3", "packed"),
}


def main() -> None:
    """Tune each side on the same conversations, print the ratios, write bench/results/thoughts-cpu.json."""
    figures: dict[str, Any] = {"cores": os.cpu_count(), "conversations": CONVERSATIONS, "model": SHAPE}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizer = AutoTokenizer.from_pretrained(ROOT / "recipes/seedling/model")
        tokens = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
        tokenizer.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)
        tokenizer.chat_template = KEEPS_THOUGHTS
        tiny_model(folder / "model", "Qwen3", tokenizer=tokenizer, **SHAPE)
        for exchanges in (2, 5):
            write_rows(folder / f"{exchanges}.jsonl", exchanges)
            tuned(folder, exchanges, *SIDES["one text, padded"], "warm")  # the first run of a process takes longer
            runs = [
                {side: tuned(folder, exchanges, *how, f"{'-'.join(how)}-{time}") for side, how in SIDES.items()}
                for time in range(TIMES)
            ]
            sides = {side: min((one[side] for one in runs), key=lambda one: one["seconds"]) for side in SIDES}
            figures[f"{exchanges} exchanges"] = sides
            report(exchanges, sides)
    OUT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"written to {OUT}")


def write_rows(path: Path, exchanges: int) -> None:
    """Write conversations of so many exchanges, with the answer of the next row as the thought before each answer."""
    lines = (ROOT / "recipes/seedling/data/train.messages.jsonl").read_text().splitlines()
    talks = [json.loads(line)["messages"][-2:] for line in lines][: CONVERSATIONS * exchanges]
    thoughts = [answer["content"] for _, answer in talks[1:] + talks[:1]]
    turns = [
        [question, answer | {"reasoning": thought}] for (question, answer), thought in zip(talks, thoughts, strict=True)
    ]
    starts = range(0, len(turns), exchanges)
    rows = ({"messages": list(chain(*turns[first : first + exchanges]))} for first in starts)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tuned(folder: Path, exchanges: int, template: str, layout: str, name: str) -> dict[str, float]:
    """Tune for an epoch; return the tokens that the model computed, and the seconds of its steps."""
    (folder / "recipe.yaml").write_text(
        f"model: {{path: model, dtype: float32}}\ntemplate: {template}\n"
        f"data: {{train: [{{dataset: messages, path: {exchanges}.jsonl}}]}}\n"
        f"tune: {{method: full, learning_rate: 0.001, epochs: 1, step_tokens: 1024, layout: {layout}}}\n"
    )
    done = run("--runs", folder / "runs", "tune", folder / "recipe.yaml", "--run", f"{name}-{exchanges}", cwd=folder)
    if done.code:
        raise SystemExit(done.out + done.err)
    lines = (folder / "runs" / f"{name}-{exchanges}" / "metrics.jsonl").read_text().splitlines()
    steps = [step for step in map(json.loads, lines) if "tokens" in step]
    seconds = (steps[-1]["seconds"] - steps[0]["seconds"]) * len(steps) / (len(steps) - 1)
    return {"steps": len(steps), "tokens": steps[-1]["tokens"], "seconds": round(seconds, 3)}


def report(exchanges: int, sides: dict[str, dict[str, float]]) -> None:
    """Print tokens and seconds of each side, and how often the first side's that is."""
    first = sides["one text, padded"]
    for side, one in sides.items():
        times = {name: one[name] / first[name] for name in ("tokens", "seconds")}
        print(f"{exchanges} exchanges, {side}: {one['tokens']:,.0f} tokens, {times['tokens']:.2f} times", end="; ")
        print(f"{one['seconds']:.2f} s, {times['seconds']:.2f} times")


if __name__ == "__main__":
    main()
