"""Our loop against TRL's SFTTrainer: same model, adapter, rows and batch tokens, in one run.

    python bench/tuning.py --trl-python .venv-trl/bin/python

The limit. A LoRA step moves about 4 FLOPs a base weight and token through the decoder (forward 2, gradient of the input
2; the frozen weights need no gradient), and 6 for the head where there is something to learn. Each side runs in a
process of its own, one after the other, and reports tokens that are no padding per second and its peak memory,
libraries and all. Ours also says what share of the time the machine's own bf16 matrix product would have needed for
those FLOPs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _sides import in_process

BATCH_TOKENS = 4096
RANK = 16
LEARNING_RATE = 1e-3
ROWS = 300
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main() -> None:
    """Make the model and the rows, run both sides, print the ratios, write bench/results/tuning-DEVICE.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", default=".venv-trl/bin/python", help="the Python of TRL's own environment")
    parser.add_argument("--rows", type=Path, help="an alpaca-type JSON file [default: rows made from the seedling's]")
    parser.add_argument("--side", choices=("ours", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps((ours if arguments.side == "ours" else trl)(arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder, arguments.rows)
        sides = {
            "ours": in_process(sys.executable, __file__, "ours", folder),
            "trl": in_process(arguments.trl_python, __file__, "trl", folder),
        }
    report(sides)


def make_inputs(folder: Path, rows_path: Path | None) -> None:
    """A 20 M-parameter Qwen2 with a 16k vocabulary, random weights, and 300 alpaca-type rows."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    rows = _alpaca_rows(rows_path)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=16384,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((f"{row['instruction']} {row['input']} {row['output']}" for row in rows), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=16384, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=2048,
        eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder / "model")
    fast.save_pretrained(folder / "model")
    rows = [row for row in rows if len(fast.encode(row["instruction"] + row["input"] + row["output"])) < 900][:ROWS]
    (folder / "rows.json").write_text(json.dumps(rows))
    print(
        f"model: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters; {len(rows)} rows", file=sys.stderr
    )


def ours(folder: Path) -> dict[str, Any]:
    """The harness's own loop, through its own public parts."""
    from harness_tuning.loop import Tuner, TuningData

    from harness.data import encode_sources
    from harness.model.load import pick_device
    from harness.model.templates import bind_template
    from harness.plugins import Plugins
    from harness.recipe import load_recipe
    from harness.run import Run

    (folder / "ours.yaml").write_text(
        f"name: ours\nmodel: {{path: {folder / 'model'}}}\ntemplate: chatml\n"
        f"data: {{max_tokens: 1024, train: [{{dataset: alpaca, path: {folder / 'rows.json'}}}]}}\n"
        f"tune: {{method: {{name: lora, rank: {RANK}, alpha: 32}}, learning_rate: {LEARNING_RATE}, "
        f"step_tokens: {BATCH_TOKENS}, epochs: 1, warmup_ratio: 0}}\n"
    )
    plugins, device = Plugins(), pick_device()
    recipe = load_recipe(folder / "ours.yaml", plugins)
    template = bind_template(recipe.template, recipe.model, plugins)
    train = encode_sources(recipe.data.train, recipe.data, plugins.datasets, template)
    run = Run.create(folder / "run", recipe, plugins)
    tuner = Tuner(run, plugins, template, TuningData(train, None), device)
    tuner.start()
    loss = tuner.learner.measure([tuner.source.batch(range(trl_batch_size(train.tokens)))]).loss
    before = _memory_bytes(device)
    began = time.perf_counter()
    metrics = list(tuner.steps(lambda: False))
    seconds = time.perf_counter() - began
    head = tuner.model.get_output_embeddings().weight.numel()
    needed = 4 * (tuner.parameters - head) * train.tokens + 6 * head * train.supervised
    return {
        "tokens": train.tokens, "supervised": train.supervised, "seconds": seconds, "steps": len(metrics),
        "loss_step_1": loss, "tokens_per_s": train.tokens / seconds, "peak_bytes": _memory_bytes(device),
        "grown_bytes": _memory_bytes(device) - before, "device": str(device),
        "share_of_limit": needed / matmul_flops_per_s(device) / seconds,
    }  # fmt: skip


def matmul_flops_per_s(device: Any, seconds: float = 2.0) -> float:
    """Measure a bf16 matrix product of the model's shapes here: [4096, 384] by [384, 1024]."""
    import torch

    a = torch.randn(BATCH_TOKENS, 384, dtype=torch.bfloat16, device=device)
    b = torch.randn(384, 1024, dtype=torch.bfloat16, device=device)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(20):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        done += 20
    return done * 2 * BATCH_TOKENS * 384 * 1024 / (time.perf_counter() - began)


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
        output_dir=str(folder / "trl"), per_device_train_batch_size=trl_batch_size(sum(lengths)), num_train_epochs=1,
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


def report(sides: dict[str, dict[str, Any]]) -> None:
    """Print the figures and the ratios, and keep them."""
    mine, theirs = sides["ours"], sides["trl"]
    figures = {
        "tokens_per_s_ratio": mine["tokens_per_s"] / theirs["tokens_per_s"],
        "peak_memory_ratio": mine["peak_bytes"] / theirs["peak_bytes"],
        "loss_step_1_difference": abs(mine["loss_step_1"] / theirs["loss_step_1"] - 1),
    }
    for name, side in sides.items():
        print(
            f"{name:5} {side['tokens_per_s']:>9,.0f} tokens/s   peak {side['peak_bytes'] / 2**20:>7,.0f} MiB "
            f"({side['grown_bytes'] / 2**20:,.0f} while training)   "
            f"loss at step 1 {side['loss_step_1']:.4f}   {side['steps']} steps"
        )
    print(
        f"ratio {figures['tokens_per_s_ratio']:>8.2f} x tokens/s   {figures['peak_memory_ratio']:.2f} x peak memory   "
        f"loss at step 1 differs by {figures['loss_step_1_difference']:.2%}"
    )
    print(
        f"limit {mine['share_of_limit']:>8.0%} of the time is what the products alone need at this machine's bf16 rate"
    )
    device = mine["device"].split(":")[0]
    target = Path(__file__).with_name("results") / f"tuning-{device}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"cores": os.cpu_count(), **figures, **sides}, indent=2) + "\n")
    print(f"written to {target}")


def trl_batch_size(total_tokens: int) -> int:
    """Rows in a batch, so that a batch holds as many tokens as ours does on average."""
    return max(1, round(BATCH_TOKENS / (total_tokens / ROWS)))


def _alpaca_rows(path: Path | None) -> list[dict[str, str]]:
    if path:
        return [{"input": "", **row} for row in json.loads(path.read_text())]
    source = Path(__file__).parents[1] / "recipes" / "seedling" / "data" / "train.alpaca.jsonl"
    short = [json.loads(line) for line in source.read_text().splitlines()]
    # Real rows are of very different lengths; join 1 to 40 short ones.
    rows, position = [], 0
    while len(rows) < ROWS + 50:
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
