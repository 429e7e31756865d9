"""Trajectories of our loop beside TRL's: the same model, adapter and batches, 50 steps of SFT and 30 of DPO in float32.

    python bench/trajectories.py --trl-python .venv-trl/bin/python

writes bench/results/trajectories.json: the loss of each step on both sides, and how far apart the adapters end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from _sides import in_process

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "results" / "trajectories.json"
STEPS = {"sft": 50, "dpo": 30}
ROWS = 8  # in a batch
LEARNING_RATE = 1e-3
BETA = 0.1
LARGEST = 1e-3
DATA = {"sft": ("messages", "train.messages.jsonl"), "dpo": ("preferences", "train.preferences.jsonl")}


def main() -> None:
    """Run both sides, one after the other, and write their losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", default=".venv-trl/bin/python", help="the Python of TRL's own environment")
    parser.add_argument("--side", choices=("ours", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side = ours if arguments.side == "ours" else trl
        print(json.dumps({name: side(arguments.folder / name, name) for name in STEPS} | versions(arguments.side)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        own = in_process(sys.executable, __file__, "ours", folder)  # which writes the batches and the adapter
        theirs = in_process(arguments.trl_python, __file__, "trl", folder)
        results = {name: compared(folder / name, own[name], theirs[name]) for name in STEPS}
    OUT.write_text(json.dumps({"versions": own["versions"] | theirs["versions"], **results}, indent=1) + "\n")
    for name, result in results.items():
        print(
            f"{name}: {STEPS[name]} steps, losses at most {result['largest_difference']:.1e} apart, adapters "
            f"{result['adapters_apart']:.1e} (relative to the update)"
        )
    if any(result["largest_difference"] > LARGEST for result in results.values()):
        raise SystemExit(f"more than {LARGEST:g}")


def versions(side: str) -> dict[str, Any]:
    """Return the versions of a side's own libraries."""
    from importlib.metadata import version

    names = ("torch", "transformers", "peft") if side == "ours" else ("trl",)
    return {"versions": {name: version(name) for name in names}}


def compared(folder: Path, own: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return both curves, their largest difference, and the adapters' over the size of the update."""
    from safetensors.torch import load_file

    begin, one, other = (
        load_file(folder / name / "adapter_model.safetensors") for name in ("adapter", "ours-done", "trl-done")
    )
    update = sum(float((one[key] - begin[key]).norm() ** 2) for key in begin) ** 0.5
    apart = sum(float((one[key] - other[key]).norm() ** 2) for key in begin) ** 0.5
    return {
        "steps": len(own),
        "largest_difference": max(abs(a - b) for a, b in zip(own, theirs, strict=True)),
        "adapters_apart": apart / update,
        "ours": own,
        "trl": theirs,
    }


def ours(folder: Path, name: str) -> list[float]:
    """Tune with the harness's own parts on the first rows in their order, and leave batches and adapters behind."""
    import torch
    from harness_tuning.loop import Tuner, TuningData

    from harness.data import encode_sources
    from harness.model.templates import bind_template
    from harness.plugins import Plugins
    from harness.recipe import load_recipe
    from harness.run import Run

    folder.mkdir()
    dataset, file = DATA[name]
    rows = STEPS[name] * ROWS
    objective = f"{{name: dpo, beta: {BETA}}}" if name == "dpo" else name
    (folder / "ours.yaml").write_text(
        f"name: {name}\nmodel: {{path: {ROOT}/recipes/seedling/model, dtype: float32}}\ntemplate: chatml\n"
        f"data: {{max_tokens: 256, train: [{{dataset: {dataset}, path: {ROOT}/recipes/seedling/data/{file}, "
        f"limit: {rows}}}]}}\n"
        f"tune: {{objective: {objective}, method: {{name: lora, rank: 8, alpha: 16}}, step_tokens: 4096}}\n"
    )
    plugins = Plugins()
    recipe = load_recipe(folder / "ours.yaml", plugins)
    template = bind_template(recipe.template, recipe.model, plugins)
    reads = plugins.objectives[name].reads
    train = encode_sources(recipe.data.train, recipe.data, plugins.datasets, template, reads=reads)
    tuner = Tuner(
        Run.create(folder / "run", recipe, plugins), plugins, template, TuningData(train, None), torch.device("cpu")
    )
    tuner.start()
    tuner.prepare()
    tuner.method.save(tuner.model, folder / "adapter")
    items = list(train.items)[:rows]
    encoded = [[(list(one.input_ids), list(map(int, one.loss_mask))) for one in item.examples] for item in items]
    (folder / "items.json").write_text(json.dumps({"pad_id": template.pad_id, "items": encoded}))
    losses = []
    for step in range(STEPS[name]):
        batch = tuner.source.batch(tuner.source.part(range(step * ROWS, (step + 1) * ROWS)))
        losses.append(tuner.learner.backward([batch]).loss)
        tuner.optimizer.step(LEARNING_RATE, 1.0)
    tuner.method.save(tuner.model, folder / "ours-done")
    return losses


def trl(folder: Path, name: str) -> list[float]:
    """Tune with TRL's trainer on the same ids, beginning with the same adapter."""
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    path = ROOT / "recipes" / "seedling" / "model"
    kept = json.loads((folder / "items.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(kept["pad_id"])
    base = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    model = PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)
    shared = {
        "output_dir": str(folder / "trl"), "per_device_train_batch_size": ROWS, "max_steps": STEPS[name],
        "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "warmup_steps": 0, "weight_decay": 0.0,
        "max_grad_norm": 1.0, "logging_steps": 1, "save_strategy": "no", "report_to": [], "bf16": False,
        "gradient_checkpointing": False, "use_cpu": True, "train_sampling_strategy": "sequential", "max_length": 256,
        "optim": "adamw_torch", "adam_beta2": 0.999, "disable_tqdm": True,
    }  # fmt: skip
    trainer: Any
    if name == "sft":
        rows = [{"input_ids": ids, "completion_mask": mask} for ((ids, mask),) in kept["items"]]
        config = SFTConfig(**shared, completion_only_loss=True)
        trainer = SFTTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    else:
        rows = []
        for (chosen, chosen_mask), (rejected, _) in kept["items"]:
            start = chosen_mask.index(1)
            rows.append({"prompt_ids": chosen[:start], "chosen_ids": chosen[start:], "rejected_ids": rejected[start:]})
        config = DPOConfig(**shared, beta=BETA)
        with patch.object(DPOTrainer, "_prepare_dataset", lambda self, dataset, *rest: dataset):  # it is ids already
            trainer = DPOTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    model.save_pretrained(folder / "trl-done", selected_adapters=["default"])
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    main()
