"""LoRA steps on random weights in the shapes of Qwen3 and Llama 3: ours beside plain transformers and PEFT.

Rank 16 on all linear layers, bfloat16, rows that a document of 2,048 or 4,096 tokens fills, every token trained on.
Real tokens a second (none of them padding), the share of the peak (model FLOPs a second over those of a plain large
bf16 product in the same run), and peak memory. Ours computes with the harness's own parts; the plain side does as the
libraries' guides show. Each side runs after the other on the same weights.
"""

from __future__ import annotations

import gc
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from _products import large_flops_per_s
from harness_tuning.fused import fuse_adapters
from harness_tuning.methods.lora import LoraOptions, apply_lora
from harness_tuning.optimizer import MasterAdamW

from harness.contract.batches import Batch
from harness.model.batching import padded
from harness.model.load import Attention, fastest_attention
from harness.model.logprobs import target_logprobs
from harness.nouns import Example, Item
from harness.recipe import TuneSpec

LENGTHS, STEP_TOKENS, WARM_UP, STEPS = (2048, 4096), 16384, 3, 10
QWEN3 = {"head_dim": 128, "vocab_size": 151936, "num_key_value_heads": 8}
# hidden size, inner size, layers, heads; and what is the same in all of a family.
SHAPES: dict[str, tuple[str, tuple[int, int, int, int], dict[str, Any]]] = {
    "Qwen3-0.6B": ("qwen3", (1024, 3072, 28, 16), QWEN3 | {"tie_word_embeddings": True}),
    "Qwen3-1.7B": ("qwen3", (2048, 6144, 28, 16), QWEN3 | {"tie_word_embeddings": True}),
    "Qwen3-4B": ("qwen3", (2560, 9728, 36, 32), QWEN3 | {"tie_word_embeddings": True}),
    "Qwen3-8B": ("qwen3", (4096, 12288, 36, 32), QWEN3),
    "Llama-3-8B": ("llama", (4096, 14336, 32, 32), {"vocab_size": 128256, "num_key_value_heads": 8}),
}
SMALL = ("qwen3", (64, 128, 2, 4), {"head_dim": 16, "vocab_size": 512, "num_key_value_heads": 2})


def measure(small: bool) -> None:
    """Measure every shape and length on the accelerator; with `small`, a tiny model on the CPU."""
    device = torch.device("cpu" if small else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no CUDA device here; --small shows the script on the CPU")
    shapes, lengths = ({"small": SMALL}, (64, 128)) if small else (SHAPES, LENGTHS)
    rows = []
    for name, (family, sizes, others) in shapes.items():
        for length in lengths:
            for side, prepare in (("ours", _ours), ("plain", _plain)):
                step_tokens = 256 if small else STEP_TOKENS
                row = {"shape": name, "length": length, "side": side}
                rows.append(row | _measured(_model(family, sizes, others, device), prepare, length, step_tokens))
                print(json.dumps(rows[-1]))
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu"
    versions = {library.__name__: library.__version__ for library in (torch, transformers, peft)}
    if not small:
        target = Path(__file__).with_name("results") / "tuning-cuda.json"
        target.write_text(json.dumps({"device": device_name, "versions": versions, "rows": rows}, indent=2) + "\n")
        print(f"written to {target}")


def _model(family: str, sizes: tuple[int, int, int, int], others: dict[str, Any], device: torch.device) -> Any:
    """Return a causal LM with random weights in bfloat16."""
    hidden, inner, layers, heads = sizes
    config = transformers.AutoConfig.for_model(
        family, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        max_position_embeddings=8192, use_cache=False, **others,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def _measured(model: Any, prepare: Callable[..., Any], length: int, step_tokens: int) -> dict[str, Any]:
    """Return the figures of STEPS optimizer steps after WARM_UP of them."""
    device = next(model.parameters()).device
    head = model.get_output_embeddings().weight.numel()
    decoder = sum(weight.numel() for weight in model.parameters()) - model.get_input_embeddings().weight.numel()
    decoder -= 0 if model.config.tie_word_embeddings else head
    vocabulary = model.get_output_embeddings().weight.shape[0]
    ids = torch.randint(3, vocabulary, (step_tokens // length, length), generator=torch.Generator().manual_seed(0))
    try:
        step = prepare(model, ids, device)
        for _ in range(WARM_UP):
            step()
        _synchronise(device)
        began = time.perf_counter()
        for _ in range(STEPS):
            loss = step()
        _synchronise(device)
        seconds = time.perf_counter() - began
        peak = _peak_bytes(device)
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    finally:
        del model
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    tokens = STEPS * ids.numel()
    needed = (4 * decoder + 4 * head) * tokens  # forward and the gradient of the input; weights are frozen
    return {
        "tokens_per_s": round(tokens / seconds), "loss": float(loss), "peak_bytes": peak,
        "share_of_peak": needed / seconds / large_flops_per_s(device, 8192 if device.type == "cuda" else 1024),
    }  # fmt: skip


def _ours(model: Any, ids: torch.Tensor, device: torch.device) -> Callable[[], torch.Tensor]:
    """Return an optimizer step of the harness's parts over rows that a document fills."""
    model.chosen_attention = Attention("sdpa")
    fastest_attention(model)
    model = apply_lora(model, LoraOptions(rank=16)).train()
    fuse_adapters(model)
    spec = TuneSpec(objective={"name": "sft"}, method={"name": "lora"})
    optimizer = MasterAdamW(model, spec)
    items = [Item((Example(row.tolist(), [True] * len(row)),), ("answer",)) for row in ids]
    batches: list[Batch] = [padded([item], 0, device) for item in items]
    targets = sum(batch.supervised for batch in batches)

    def step() -> torch.Tensor:
        total = torch.zeros((), device=device)
        for batch in batches:
            loss = -target_logprobs(model, batch).sum() / targets
            loss.backward()
            total += loss.detach()
        optimizer.step(spec.learning_rate, spec.max_grad_norm)
        return total

    return step


def _plain(model: Any, ids: torch.Tensor, device: torch.device) -> Callable[[], torch.Tensor]:
    """Return an optimizer step as the guides of transformers and PEFT show it: one document a row."""
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4)
    rows = ids.to(device).split(1)

    def step() -> torch.Tensor:
        total = torch.zeros((), device=device)
        for row in rows:
            loss = model(input_ids=row, labels=row).loss / len(rows)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
