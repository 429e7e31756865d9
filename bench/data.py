"""From a raw file to token ids and masks: ours, bare tokenizing of the rendered text, and TRL's preparation.

    python bench/data.py --trl-python .venv-trl/bin/python
    python bench/data.py --rows ROWS.json --tokenizer FOLDER

The limit is `tokenizers.encode_batch` on text that is rendered already, on all cores: `bare` in a process of its own,
the texts in memory and nothing done with the ids but counting them. `ours` is `encode_data` with all its checks, from
JSONL. `trl` is what SFTTrainer does with a JSONL file in its own environment before it trains: `load_dataset`, chat
template, tokenizing and mask, in one process as by default and (`trl-2`) in two. Each side runs --times times, taking
turns; the medians are compared. Libraries are loaded and the file is read once before the clock starts; nobody's cache
is used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _sides import in_process

ROWS = 5000
CHATML = (  # as ours renders it, with what TRL's `assistant_only_loss` needs
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SIDES = ("bare", "ours", "trl", "trl-2")


def main() -> None:
    """Make the rows, run the sides in turn, print the ratios, write bench/results/data-cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", default=".venv-trl/bin/python", help="the Python of TRL's own environment")
    parser.add_argument("--rows", type=Path, help="an alpaca-type JSON file [default: rows made from the seedling's]")
    parser.add_argument(
        "--tokenizer", type=Path, help="a folder with tokenizer.json [default: 16,384 tokens, trained on the rows]"
    )
    parser.add_argument("--times", type=int, default=3, help="how often each side runs [default: 3]")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side = {"bare": bare, "ours": ours, "trl": trl, "trl-2": lambda folder: trl(folder, 2)}[arguments.side]
        print(json.dumps(side(arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder, arguments.rows, arguments.tokenizer)
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(arguments.times):
            for side in SIDES:
                python = arguments.trl_python if side.startswith("trl") else sys.executable
                runs[side].append(in_process(python, __file__, side, folder))
    report(runs, str(arguments.rows.name) if arguments.rows else "joined")


def make_inputs(folder: Path, rows_path: Path | None, tokenizer_path: Path | None) -> None:
    """The rows as OpenAI-type JSONL, a model of no size for TRL to hold, and the tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    pairs = _pairs(rows_path)
    if tokenizer_path:
        fast = AutoTokenizer.from_pretrained(tokenizer_path)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=16384,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((" ".join(pair) for pair in pairs), trainer)
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    config = Qwen2Config(
        vocab_size=len(fast), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, bos_token_id=None, eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "model")
    fast.save_pretrained(folder / "model")
    with (folder / "rows.jsonl").open("w") as file:
        for user, assistant in pairs:
            messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
            file.write(json.dumps({"messages": messages}) + "\n")


def bare(folder: Path) -> dict[str, Any]:
    """The limit: text that is rendered already, through the tokenizer's own batch call, all at once."""
    from transformers import AutoTokenizer

    # As transformers loads it: of some models it takes the vocabulary and knows itself how a text is split into words.
    tokenizer = AutoTokenizer.from_pretrained(folder / "model").backend_tokenizer
    texts = []
    for line in (folder / "rows.jsonl").read_text().splitlines():
        turns = json.loads(line)["messages"]
        texts.append("".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns))
    tokenizer.encode_batch(texts[:64], add_special_tokens=False)
    began = time.perf_counter()
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    seconds = time.perf_counter() - began
    return {"rows": len(texts), "seconds": seconds, "tokens": sum(map(len, encodings))}


def ours(folder: Path) -> dict[str, Any]:
    """`encode_data`, as `harness tune` calls it where nothing is cached."""
    from harness.data import encode_data
    from harness.model.templates import bind_template
    from harness.plugins import Plugins
    from harness.recipe import DataSource, DataSpec, ModelSpec, TemplateSpec

    plugins = Plugins()
    template = bind_template(TemplateSpec(name="chatml"), ModelSpec(path=str(folder / "model")), plugins)
    source = DataSource(dataset="messages", path=str(folder / "rows.jsonl"))
    some = DataSpec(train=(source.model_copy(update={"limit": 64}),), max_tokens=1 << 20)
    with tempfile.TemporaryDirectory() as temporary:
        encode_data(some, plugins, template, (), Path(temporary))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        data, _ = encode_data(DataSpec(train=(source,), max_tokens=1 << 20), plugins, template, (), Path(temporary))
        seconds = time.perf_counter() - began
        return {
            "rows": len(data.examples), "seconds": seconds, "tokens": data.tokens, "supervised": data.supervised,
        }  # fmt: skip


def trl(folder: Path, processes: int | None = None) -> dict[str, Any]:
    """Prepare the file as SFTTrainer does before it trains, with a new folder as its cache."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HF_DATASETS_CACHE"] = cache
        import datasets
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import SFTConfig, SFTTrainer

        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        model = AutoModelForCausalLM.from_pretrained(folder / "model")
        datasets.disable_progress_bars()
        config = SFTConfig(
            output_dir=str(folder / "trl"), max_length=1 << 20, assistant_only_loss=True, dataset_num_proc=processes,
            report_to="none", use_cpu=True, bf16=False,
        )  # fmt: skip
        began = time.perf_counter()
        rows = datasets.load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train")
        trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
        seconds = time.perf_counter() - began
        prepared = trainer.train_dataset
        masks = "assistant_masks" if "assistant_masks" in prepared.column_names else "labels"
        return {
            "rows": len(prepared), "seconds": seconds, "tokens": sum(map(len, prepared["input_ids"])),
            "supervised": sum(value not in (0, -100) for mask in prepared[masks] for value in mask),
        }  # fmt: skip


def report(runs: dict[str, list[dict[str, Any]]], rows: str) -> None:
    """Print the rates and the ratios, and keep them."""
    rates = {side: statistics.median(run["rows"] / run["seconds"] for run in figures) for side, figures in runs.items()}
    for side, figures in runs.items():
        spread = ", ".join(f"{run['rows'] / run['seconds']:,.0f}" for run in figures)
        supervised = f"   {figures[0]['supervised']:,} supervised" if "supervised" in figures[0] else ""
        print(f"{side:6} {rates[side]:>8,.0f} rows/s   {figures[0]['tokens']:,} tokens{supervised}   ({spread})")
    best_trl = max(rates["trl"], rates["trl-2"])
    figures = {"of_bare": rates["ours"] / rates["bare"], "of_trl": rates["ours"] / best_trl}
    print(f"ours is {figures['of_bare']:.2f} of bare tokenizing and {figures['of_trl']:.2f} x TRL at its quicker")
    target = Path(__file__).with_name("results") / "data-cpu.json"
    target.parent.mkdir(exist_ok=True)
    kept = {"cores": os.cpu_count(), "rows": rows, **figures, "rows_per_s": rates, "runs": runs}
    target.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"written to {target}")


def _pairs(path: Path | None) -> list[tuple[str, str]]:
    """Return (question, answer) of each row; without a file, of rows of 1 to 40 joined sentences."""
    if path:
        rows = json.loads(path.read_text())
        pairs = (("\n".join(filter(None, (row["instruction"], row.get("input")))), _answer(row)) for row in rows)
        return [pair for pair in pairs if all(part.strip() for part in pair)]
    source = Path(__file__).parents[1] / "recipes" / "seedling" / "data" / "train.alpaca.jsonl"
    short = [json.loads(line) for line in source.read_text().splitlines()]
    pairs, position = [], 0
    for row in range(ROWS):
        some = [short[(position + i) % len(short)] for i in range(1 + (row * 7) % 40)]
        position += len(some)
        pairs.append((f"{row}: {some[0]['instruction']}", " ".join(one["output"] for one in some)))
    return pairs


def _answer(row: dict[str, str]) -> str:
    return row.get("output") or row.get("response") or ""


if __name__ == "__main__":
    main()
