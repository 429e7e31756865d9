"""LoRA steps on random weights in the shapes of Qwen3 and Llama 3: ours beside plain transformers and PEFT.

Rank 16 on all linear layers, bfloat16, documents of 2,048 or 4,096 tokens, every token trained on. Real tokens a second
(none of them padding), the share of the peak (model FLOPs a second over those of a plain large bf16 product in the same
run), and peak memory beside the estimate. Ours are the harness's own parts, from encoded items to the optimizer's step;
the other sides do as the libraries' guides show. Each side runs after the other on the same weights.
"""

from __future__ import annotations

import gc
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import peft
import torch
import transformers
from _products import large_flops_per_s, wait_for
from harness_tuning.device import peak_memory_bytes, taken_bytes
from harness_tuning.fused import fuse_adapters
from harness_tuning.fused_layers import FusedRotary, fuse_layers
from harness_tuning.layout import choose_layout
from harness_tuning.learner import Figures, Learner
from harness_tuning.memory import fit
from harness_tuning.methods.lora import LoraOptions, apply_lora
from harness_tuning.optimizer import MasterAdamW
from harness_tuning.sources import Epochs
from harness_tuning.world import World

from harness.data.encode.storage import ItemWriter
from harness.model.load import Attention, fastest_attention
from harness.model.policy import ModelPolicy
from harness.nouns import Example, Item
from harness.plugins import Plugins
from harness.recipe import TuneSpec

LENGTHS, STEP_TOKENS = (2048, 4096), 16384
# A side warms up, and is measured, for so many steps and seconds at the least: kernels are chosen, and memory is asked
# for, in the first ones.
WARM_UP, STEPS = (2, 2.0), (3, 3.0)
DRAWN_STEPS = 8  # of random documents; then they come again
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


def _profile(step: Callable[[int], Any], number: int, device: torch.device) -> dict[str, Any]:
    """Return the shares of a step's time that the device's kernels take, the longest first, and their sum."""
    kind = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kind.CPU, kind.CUDA] if device.type == "cuda" else [kind.CPU]) as profile:
        began = time.perf_counter()
        step(number)
        wait_for(device)
        seconds = time.perf_counter() - began
    events = [event for event in profile.key_averages() if event.device_type.name == device.type.upper()]
    times = {event.key[:80]: event.self_device_time_total * 1e-6 for event in events}
    longest = sorted(times, key=lambda key: -times[key])[:20]
    shares = {key: round(times[key] / seconds, 4) for key in longest}
    busy = sum(times.values())
    return {"profile": shares, "profiled_seconds": round(seconds, 4), "kernels_seconds": round(busy, 4)}


class Side(NamedTuple):
    """One way to do a step, and what is to be said about it; `step` returns the loss of the first."""

    step: Callable[[int], float | None]
    about: dict[str, Any]


def measure(small: bool, chosen: Sequence[str] = ()) -> None:
    """Measure the chosen shapes (all) in every length on the accelerator; with `small`, a tiny one on a CPU."""
    device = torch.device("cpu" if small else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no CUDA device here; --small shows the script on the CPU")
    shapes = {"small": SMALL} if small else {name: SHAPES[name] for name in chosen or SHAPES}
    sides = {"ours": _ours, "plain": _plain}
    large = large_flops_per_s(device, 8192 if device.type == "cuda" else 1024)
    rows = []
    for name, (family, sizes, others) in shapes.items():
        for length in (64, 128) if small else LENGTHS:
            for side, prepare in sides.items():
                row = {"shape": name, "length": length, "side": side}
                row |= _measured(_model(family, sizes, others, device), prepare, length, 256 if small else STEP_TOKENS)
                row["share_of_peak"] = row["flops_per_s"] / large if "flops_per_s" in row else None
                rows.append(row)
                _put_back_rotary(family)
                print(json.dumps(row), flush=True)
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu"
    versions = {library.__name__: library.__version__ for library in (torch, transformers, peft)}
    if not small:
        target = Path(__file__).with_name("results") / "tuning-cuda.json"
        about = {"device": device_name, "versions": versions, "large_product_flops_per_s": large}
        target.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")
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


def _measured(model: Any, prepare: Callable[..., Side], length: int, step_tokens: int) -> dict[str, Any]:
    """Return the figures of optimizer steps after a warm-up."""
    device = next(model.parameters()).device
    _reset_peak(device)
    head = model.get_output_embeddings().weight.numel()
    decoder = sum(weight.numel() for weight in model.parameters()) - model.get_input_embeddings().weight.numel()
    decoder -= 0 if model.config.tie_word_embeddings else head
    lengths = [length] * (step_tokens // length)
    config = model.config
    width = config.num_attention_heads * config.head_dim
    pair = 12 * width * config.num_hidden_layers / 2  # of two positions: see harness_tuning.flops
    side = None
    try:
        side = prepare(model, lengths, device)
        number, _, loss = _stepped(side, 0, WARM_UP, device)
        steps, seconds, _ = _stepped(side, number, STEPS, device)
        peak = peak_memory_bytes(device)
        profile = _profile(side.step, number + steps + 1, device) if "fused" in side.about else {}
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    tokens = steps * step_tokens
    # Forward and the gradient of the input; weights are frozen. Documents are causal.
    needed = (4 * decoder + 4 * head + pair * length) * tokens
    return {
        "tokens_per_s": round(tokens / seconds), "steps": steps, "loss_step_1": loss, "peak_bytes": peak,
        "flops_per_s": needed / seconds, **side.about, **profile,
    }  # fmt: skip


def _stepped(side: Side, after: int, least: tuple[int, float], device: torch.device) -> tuple[int, float, float | None]:
    """Do at least so many steps, for at least so many seconds; return their number, their time, and the first loss."""
    steps, loss, began = 0, None, time.perf_counter()
    while steps < least[0] or time.perf_counter() - began < least[1]:
        steps += 1
        loss = side.step(after + steps)
    wait_for(device)
    return steps, time.perf_counter() - began, loss


def _ours(model: Any, lengths: Sequence[int], device: torch.device) -> Side:
    """Return an optimizer step of the harness's own loop: packed rows, as many at once as its estimate lets it."""
    plugins = Plugins()
    model.chosen_attention = Attention("sdpa")
    fastest_attention(model)
    model = apply_lora(model, LoraOptions(rank=16)).train()
    fuse_adapters(model)
    fused = fuse_layers(model)
    spec = TuneSpec(objective={"name": "sft"}, method={"name": "lora"}, step_tokens=sum(lengths), warmup_ratio=0)
    objective = plugins.objectives["sft"]
    options = objective.options()
    random, writer = torch.Generator().manual_seed(0), ItemWriter()
    for number, length in enumerate(lengths * DRAWN_STEPS):
        ids = torch.randint(3, model.config.vocab_size, (length,), generator=random).tolist()
        writer.add(Item((Example(ids, [True] * length),), ("answer",)), str(number), 1)
    items = writer.finish()
    layout = choose_layout(model, items, device, "auto")
    source = Epochs(items, 0, device, step_tokens=spec.step_tokens, layout=layout.layout)
    source.split = layout.split(spec, source.sizes)
    optimizer = MasterAdamW(model, spec)
    learner = Learner(ModelPolicy(model), objective, options, optimizer, device, World(), is_adapter=True)
    before = taken_bytes(device)
    began = time.perf_counter()
    fitted = fit(learner, source, spec)
    about = {
        "layout": str(layout), "fused": str(fused), "split": str(fitted), "fit_seconds": time.perf_counter() - began,
        "estimated_bytes": None if fitted.growth_bytes is None else before + fitted.growth_bytes,
    }  # fmt: skip
    under_way: list[Callable[[], Figures]] = []
    losses = []

    def step(number: int) -> float | None:
        figures = learner.backward(source.step(number))
        if figures is None:
            raise torch.OutOfMemoryError
        under_way.append(figures)
        optimizer.step(spec.learning_rate, spec.max_grad_norm)
        if len(under_way) > 1:  # as the loop does: a step is under way before the one before is read
            losses.append(under_way.pop(0)().loss)
        return losses[0] if losses else None

    return Side(step, about)


def _plain(model: Any, lengths: Sequence[int], device: torch.device, at_once: int = 1) -> Side:
    """Return an optimizer step as the guides of transformers and PEFT show it: `at_once` documents a batch."""
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4)
    random = torch.Generator().manual_seed(0)
    losses = []

    def step(number: int) -> float:
        ids = torch.randint(3, model.config.vocab_size, (len(lengths), max(lengths)), generator=random)
        batches = ids.to(device).split(at_once)
        total = torch.zeros((), device=device)
        for batch in batches:
            loss = model(input_ids=batch, labels=batch).loss / len(batches)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(total))
        return losses[0]

    return Side(step, {"batch": at_once})


def _put_back_rotary(family: str) -> None:
    """Give transformers' module its own function back: it would be ours for the other side too."""
    module = sys.modules[f"transformers.models.{family}.modeling_{family}"]
    if isinstance(fused := module.apply_rotary_pos_emb, FusedRotary):
        module.apply_rotary_pos_emb = fused.plain


def _reset_peak(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
