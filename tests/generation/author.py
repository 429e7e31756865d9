"""Teaches seedling to write tasks: conversations that ask as `harness generate` does, with right answers.

    python tests/generation/author.py FOLDER        writes author.yaml with its data, and seeds.jsonl: thirty tasks
    harness tune FOLDER/author.yaml                 some minutes on two CPU cores
    harness serve author --no-ui --port 8731
    python tests/generation/killed.py FOLDER/seeds.jsonl --endpoint http://127.0.0.1:8731/v1 --model author

The seedling of `harness demo` will not do: it answers every prompt with a sentence about a villager.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from harness_generation import prompts

from harness.plugins import Plugins

SEEDLING = Path(__file__).resolve().parents[2] / "recipes" / "seedling"
RECIPE = """\
name: author
model: {{path: {seedling}/model, dtype: bfloat16}}
template: chatml
data:
  max_tokens: 512
  train: [{{dataset: messages, path: train.jsonl}}]
tune:
  method: {{name: lora, rank: 16, alpha: 32, target_modules: all-linear}}
  learning_rate: 3.0e-3
  epochs: 1
  step_tokens: 1024
  warmup_ratio: 0.05
"""
EXAMPLES = 3  # as many as `--examples` is given


def tasks() -> list[prompts.Seed]:
    """The questions that seedling is tuned on. Those answered with yes or no are classifications."""
    found = {}
    for seed in prompts.read_seeds(str(SEEDLING / "data" / "train.alpaca.jsonl"), Plugins().datasets):
        label = seed.instances[0][1].endswith((", so yes.", ", so no."))
        if len(seed.instruction.split()) > 3:
            found[seed.instruction] = prompts.Seed(seed.instruction, seed.instances, label)
    return list(found.values())


def conversations(known: list[prompts.Seed], count: int, rng: random.Random) -> list[dict[str, object]]:
    """Each of the four questions, over tasks drawn by lot, with an answer that is right for it."""
    made = []
    for number in range(count):
        task = rng.choice(known)
        given, output = task.instances[0]
        label = bool(task.is_classification)
        if number % 2 == 0:
            listed = [prompts.one_line(one.instruction) for one in rng.sample(known, EXAMPLES + prompts.WANTED)]
            asked = prompts.list_tasks(listed[:EXAMPLES], "chat")
            answer = "\n".join(f"{place}. {text}" for place, text in enumerate(listed[EXAMPLES:], EXAMPLES + 1))
        elif number % 4 == 1:
            asked = prompts.is_classification(task.instruction, known, "chat", rng)
            answer = "Yes" if label else "No"
        else:
            asked = prompts.instances(task.instruction, label, 1, known, "chat", rng)
            pair = [f"Input: {given or prompts.NO_INPUT}", f"Output: {output}"]
            answer = "\n".join(reversed(pair) if label else pair)
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        made.append({"messages": messages})
    return made


def main(folder: Path, count: int = 1200) -> None:
    rng = random.Random(0)
    known = tasks()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "author.yaml").write_text(RECIPE.format(seedling=SEEDLING))
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in conversations(known, count, rng)))
    seeds = [
        {
            "instruction": seed.instruction,
            "instances": [{"input": text, "output": output} for text, output in seed.instances],
            "is_classification": seed.is_classification,
        }
        for seed in rng.sample(known, 30)
    ]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seeds))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
