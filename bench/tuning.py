"""Our loop against TRL's SFTTrainer and LLaMA-Factory: same model, adapter, rows and batch tokens, in one run.

    python bench/tuning.py --trl-python .venv-trl/bin/python --lf-python .venv-lf/bin/python --rows ROWS.json
    python bench/tuning.py --shape 135M
    python bench/tuning.py --device cuda

LLaMA-Factory's environment: `pip install torch==2.13.0 llamafactory==0.9.5`. Where torchvision and torchaudio are not
built for that torch, uninstall the first and remove the second's `lib/*.so`: text needs neither. Without that Python,
the side is left out.

The limit. Two figures say how near ours comes: the time that the step's own matrix products need when run alone over
the step's time (medians of interleaved rounds), and the model's FLOP/s (those that a LoRA step needs by the formula of
harness_tuning/flops.py) over those of a plain large bf16 product. A ratio to another side divided by them is what it
could be at most: if nothing but the products took time, and if each of them were as fast as a large one. Each side runs
in a process of its own, one after the other, and reports tokens that are no padding per second, and how much its memory
grows while it trains. With `--device cuda`, random weights in the shapes of Qwen3 and Llama 3 (see
bench/_accelerator.py).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from _sides import in_process

ROOT = Path(__file__).resolve().parents[1]
RANK = 16
LEARNING_RATE = 1e-3
ROUNDS = 7  # of a few steps and of their products alone, one after the other
LIMITS = ("products_over_step", "flops_over_large_product")
# Rows, tokens of a batch, and the sizes of a Qwen2 with random weights; None: the real model.
SHAPES: dict[str, dict[str, Any]] = {
    "2M": {
        "rows": 150,
        "batch_tokens": 4096,
        "vocab": 4096,
        "hidden": 128,
        "inner": 384,
        "layers": 6,
        "heads": 4,
        "shared": 2,
    },
    "20M": {
        "rows": 120,
        "batch_tokens": 4096,
        "vocab": 16384,
        "hidden": 384,
        "inner": 1024,
        "layers": 8,
        "heads": 6,
        "shared": 2,
    },
    "135M": {"rows": 36, "batch_tokens": 2048, "vocab": None},
}
REAL_MODEL = ROOT / ".models" / "SmolLM2-135M-Instruct"
CHATML = (  # transformers drops a line break behind a block: the one behind each turn is written out
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main() -> None:
    """Make the models and the rows, run the sides, print the ratios, write bench/results/tuning-DEVICE.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", default=".venv-trl/bin/python", help="the Python of TRL's own environment")
    parser.add_argument("--lf-python", default=".venv-lf/bin/python", help="that of LLaMA-Factory's, if it is there")
    parser.add_argument("--rows", type=Path, help="an alpaca-type JSON file [default: rows made from the seedling's]")
    parser.add_argument("--shape", action="append", help=f"one or more of {', '.join(SHAPES)} [default: all]")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: random weights in larger shapes"
    )
    parser.add_argument("--small", action="store_true", help="with --device cuda: tiny shapes, on the CPU")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.folder)))
        return
    if arguments.device == "cuda":
        from _accelerator import measure

        measure(arguments.small, arguments.shape or ())
        return
    if unknown := set(arguments.shape or ()) - SHAPES.keys():
        parser.error(f"--shape {', '.join(sorted(unknown))}: expected some of {', '.join(SHAPES)}")
    pythons = {"ours": sys.executable, "trl": arguments.trl_python}
    if Path(arguments.lf_python).exists():
        pythons["llamafactory"] = arguments.lf_python
    for shape in arguments.shape or SHAPES:
        if SHAPES[shape]["vocab"] is None and not REAL_MODEL.exists():
            print(f"{shape}: {REAL_MODEL} is not there: `make real-model` fetches it", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            make_inputs(folder, shape, arguments.rows)
            report(shape, {side: in_process(python, __file__, side, folder) for side, python in pythons.items()})


def make_inputs(folder: Path, shape: str, rows_path: Path | None) -> None:
    """Write a model, with random weights or the real one, and alpaca-type rows of fewer than 900 tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    sizes, rows = SHAPES[shape], _alpaca_rows(rows_path)
    if sizes["vocab"] is None:
        shutil.copytree(REAL_MODEL, folder / "model")
        (folder / "model" / "chat_template.jinja").unlink(missing_ok=True)
        fast = AutoTokenizer.from_pretrained(folder / "model")
        fast.pad_token = "<|endoftext|>"
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=sizes["vocab"], special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        )  # fmt: skip
        tokenizer.train_from_iterator((f"{row['instruction']} {row['input']} {row['output']}" for row in rows), trainer)
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=sizes["vocab"], hidden_size=sizes["hidden"], intermediate_size=sizes["inner"],
            num_hidden_layers=sizes["layers"], num_attention_heads=sizes["heads"], num_key_value_heads=sizes["shared"],
            tie_word_embeddings=True, max_position_embeddings=2048, eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id, bos_token_id=None,
        )  # fmt: skip
        Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "model")
    fast.chat_template = CHATML
    fast.save_pretrained(folder / "model")
    short = [row for row in rows if len(fast.encode(row["instruction"] + row["input"] + row["output"])) < 900]
    (folder / "rows.json").write_text(json.dumps(short[: sizes["rows"]]))
    (folder / "batch_tokens").write_text(str(sizes["batch_tokens"]))


def ours(folder: Path) -> dict[str, Any]:
    """The harness's own loop, through its own public parts."""
    import torch
    from _products import Products, large_flops_per_s
    from harness_tuning.loop import Tuner, TuningData

    from harness.data import encode_sources
    from harness.model.load import pick_device
    from harness.model.templates import bind_template
    from harness.plugins import Plugins
    from harness.recipe import load_recipe
    from harness.run import Run

    batch_tokens = int((folder / "batch_tokens").read_text())
    (folder / "ours.yaml").write_text(
        f"name: ours\nmodel: {{path: {folder / 'model'}}}\ntemplate: chatml\n"
        f"data: {{max_tokens: 1024, train: [{{dataset: alpaca, path: {folder / 'rows.json'}}}]}}\n"
        f"tune: {{method: {{name: lora, rank: {RANK}, alpha: 32}}, learning_rate: {LEARNING_RATE}, "
        f"step_tokens: {batch_tokens}, epochs: 1, warmup_ratio: 0}}\n"
    )
    plugins, device = Plugins(), pick_device()
    recipe = load_recipe(folder / "ours.yaml", plugins)
    template = bind_template(recipe.template, recipe.model, plugins)
    train = encode_sources(recipe.data.train, recipe.data, plugins.datasets, template)
    run = Run.create(folder / "run", recipe, plugins)
    tuner = Tuner(run, plugins, template, TuningData(train, None), device)
    before_start = _memory_bytes(device)
    tuner.start()
    first = range(rows_of_a_batch(folder, train.tokens))
    loss = tuner.learner.measure([tuner.source.batch(tuner.source.part(first))]).loss
    began = time.perf_counter()
    steps = len(list(tuner.steps(lambda: False)))
    seconds = time.perf_counter() - began
    peak = _memory_bytes(device)
    grown = peak - before_start - tuner.size_bytes  # the others' model is loaded when they begin
    learner, source = tuner.learner, tuner.source
    chosen = range(1, tuner.total_steps + 1, max(1, tuner.total_steps // 3))

    def step(number: int) -> None:
        learner.backward(source.step(number))
        learner.optimizer.adamw.zero_grad(set_to_none=True)

    with Products() as products:
        for number in chosen:
            step(number)
    rounds = [(_seconds(lambda: [step(number) for number in chosen]), products.seconds(device)) for _ in range(ROUNDS)]
    alone, of_products = (median(seconds) for seconds in zip(*rounds, strict=True))
    squares = sum(length**2 for length in train.items.lengths())
    needed = tuner.pace.work.flops(train.tokens, train.supervised, squares)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step(1)
    spent = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)[:16]
    total = sum(event.self_cpu_time_total for event in profile.key_averages())
    return {
        "tokens": train.tokens, "supervised": train.supervised, "seconds": seconds, "steps": steps,
        "loss_step_1": loss, "tokens_per_s": train.tokens / seconds, "peak_bytes": peak,
        "grown_bytes": grown, "device": str(device), "attention": str(tuner.attention),
        "products_over_step": of_products / alone, "product_calls": len(products.calls),
        "flops_over_large_product": needed / seconds / large_flops_per_s(device),
        "profile": {event.key: round(event.self_cpu_time_total / total, 4) for event in spent},
    }  # fmt: skip


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def trl(folder: Path) -> dict[str, Any]:
    """Run TRL's SFTTrainer at its quickest: bf16 weights, no gradient checkpointing, loss on the completion only."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = json.loads((folder / "rows.json").read_text())
    conversations = [
        {
            "prompt": [
                {"role": "user", "content": row["instruction"] + ("\n\n" + row["input"] if row["input"] else "")}
            ],
            "completion": [{"role": "assistant", "content": row["output"]}],
        }
        for row in rows
    ]
    lengths = [
        len(tokenizer.apply_chat_template(c["prompt"] + c["completion"], tokenize=True)["input_ids"])
        for c in conversations
    ]
    config = SFTConfig(
        output_dir=str(folder / "trl"), num_train_epochs=1,
        per_device_train_batch_size=rows_of_a_batch(folder, sum(lengths)),
        learning_rate=LEARNING_RATE, lr_scheduler_type="cosine", max_length=1024, gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no", report_to="none", model_init_kwargs={"dtype": "bfloat16"}, completion_only_loss=True,
        bf16=torch.cuda.is_available(), use_cpu=not torch.cuda.is_available(), disable_tqdm=True, seed=0,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = SFTTrainer(
        model=str(folder / "model"), args=config, train_dataset=Dataset.from_list(conversations),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    device = trainer.args.device
    before = _memory_bytes(device)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "tokens": sum(lengths), "seconds": seconds, "steps": trainer.state.global_step,
        "loss_step_1": logged[0]["loss"], "tokens_per_s": sum(lengths) / seconds, "peak_bytes": _memory_bytes(device),
        "grown_bytes": _memory_bytes(device) - before, "device": str(device),
    }  # fmt: skip


def llamafactory(folder: Path) -> dict[str, Any]:
    """LLaMA-Factory's own training of the same, in bf16, without gradient checkpointing."""
    from llamafactory.train.tuner import run_exp
    from transformers import AutoTokenizer, TrainerCallback

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = json.loads((folder / "rows.json").read_text())
    conversations = [
        [
            {"role": "user", "content": row["instruction"] + ("\n" + row["input"] if row["input"] else "")},
            {"role": "assistant", "content": row["output"]},
        ]
        for row in rows
    ]
    lengths = [len(tokenizer.apply_chat_template(each, tokenize=True)["input_ids"]) for each in conversations]
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
    marks: dict[str, Any] = {}

    class Marks(TrainerCallback):  # type: ignore[misc]
        """Time and memory when training begins and ends."""

        def on_train_begin(self, *given: Any, **more: Any) -> None:
            marks.update(began=time.perf_counter(), before=_memory_bytes("cpu"))

        def on_train_end(self, arguments: Any, state: Any, *given: Any, **more: Any) -> None:
            marks.update(seconds=time.perf_counter() - marks["began"], state=state)

    out = sys.stdout
    sys.stdout = sys.stderr  # it prints; the last line of this side is its result
    run_exp(
        {
            "stage": "sft", "do_train": True, "model_name_or_path": str(folder / "model"), "finetuning_type": "lora",
            "lora_rank": RANK, "lora_alpha": 32, "lora_dropout": 0.0, "lora_target": "all", "template": "chatml",
            "dataset": "rows", "dataset_dir": str(folder), "cutoff_len": 1024, "output_dir": str(folder / "lf"),
            "per_device_train_batch_size": rows_of_a_batch(folder, sum(lengths)), "gradient_accumulation_steps": 1,
            "num_train_epochs": 1.0, "learning_rate": LEARNING_RATE, "lr_scheduler_type": "cosine", "bf16": True,
            "use_cpu": True, "disable_gradient_checkpointing": True, "disable_shuffling": True, "logging_steps": 1,
            "save_strategy": "no", "report_to": "none", "overwrite_cache": True, "preprocessing_num_workers": 1,
            "seed": 0,
        },
        callbacks=[Marks()],
    )  # fmt: skip
    sys.stdout = out
    logged = [entry for entry in marks["state"].log_history if "loss" in entry]
    return {
        "tokens": sum(lengths), "seconds": marks["seconds"], "steps": marks["state"].global_step,
        "loss_step_1": logged[0]["loss"], "tokens_per_s": sum(lengths) / marks["seconds"],
        "peak_bytes": _memory_bytes("cpu"), "grown_bytes": _memory_bytes("cpu") - marks["before"], "device": "cpu",
    }  # fmt: skip


SIDES = {"ours": ours, "trl": trl, "llamafactory": llamafactory}


def report(shape: str, sides: dict[str, dict[str, Any]]) -> None:
    """Print the figures and the ratios, and keep them beside those of the other shapes."""
    mine = sides["ours"]
    figures: dict[str, Any] = {share: mine[share] for share in LIMITS}
    print(f"\n{shape}, attention {mine['attention']}")
    for name, side in sides.items():
        print(
            f"{name:12} {side['tokens_per_s']:>9,.0f} tokens/s   peak {side['peak_bytes'] / 2**20:>7,.0f} MiB "
            f"({side['grown_bytes'] / 2**20:,.0f} while training)   loss at step 1 {side['loss_step_1']:.4f}   "
            f"{side['steps']} steps"
        )
        if name != "ours":
            figures[name] = ratios = {
                "tokens_per_s_ratio": mine["tokens_per_s"] / side["tokens_per_s"],
                "grown_memory_ratio": mine["grown_bytes"] / side["grown_bytes"],
                "peak_memory_ratio": mine["peak_bytes"] / side["peak_bytes"],
                "loss_step_1_difference": abs(mine["loss_step_1"] / side["loss_step_1"] - 1),
            }
            for share in LIMITS:
                ratios[f"limit_by_{share}"] = ratios["tokens_per_s_ratio"] / mine[share]
            print(
                f"  ours/{name}: {ratios['tokens_per_s_ratio']:.2f} x tokens/s, {ratios['grown_memory_ratio']:.2f} x "
                f"memory while training, loss at step 1 differs by {ratios['loss_step_1_difference']:.2%}\n"
                f"  at most {ratios['limit_by_products_over_step']:.2f} x, with its products alone, and "
                f"{ratios['limit_by_flops_over_large_product']:.2f} x with each as fast as a large one"
            )
    print(
        f"  limit: its matrix products alone take {mine['products_over_step']:.0%} of a step; "
        f"{mine['flops_over_large_product']:.2f} of the FLOP/s of a large product"
    )
    target = Path(__file__).with_name("results") / f"tuning-{mine['device'].split(':')[0]}.json"
    before = json.loads(target.read_text()) if target.exists() else {}
    shapes = before.get("shapes", {}) | {shape: figures | {"sides": sides}}
    target.write_text(json.dumps({"cores": os.cpu_count(), "shapes": shapes}, indent=2) + "\n")
    print(f"  written to {target}")


def rows_of_a_batch(folder: Path, total_tokens: int) -> int:
    """Return the rows of a batch, so that it holds as many tokens as one of ours does on average."""
    rows = len(json.loads((folder / "rows.json").read_text()))
    return max(1, round(int((folder / "batch_tokens").read_text()) / (total_tokens / rows)))


def _alpaca_rows(path: Path | None) -> list[dict[str, str]]:
    if path:
        return [{"input": "", **row} for row in json.loads(path.read_text())]
    source = Path(__file__).parents[1] / "recipes" / "seedling" / "data" / "train.alpaca.jsonl"
    short = [json.loads(line) for line in source.read_text().splitlines()]
    # Real rows are of very different lengths; join 1 to 40 short ones.
    rows, position = [], 0
    while len(rows) < 350:
        count = 1 + (len(rows) * 7) % 40
        some = [short[(position + i) % len(short)] for i in range(count)]
        position += count
        rows.append(
            {"instruction": some[0]["instruction"], "input": "", "output": " ".join(row["output"] for row in some)}
        )
    return rows


def _memory_bytes(device: Any) -> int:
    import torch

    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
