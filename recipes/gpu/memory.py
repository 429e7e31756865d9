"""Compute the GPU memory that tuning by a recipe takes: `python recipes/gpu/memory.py recipes/gpu/*.yaml`.

The step of the harness is run on tensors that have shapes and no contents (torch's FakeTensorMode): its forward pass,
loss and backward pass. What they would hold at once is counted, byte by byte. Not counted: CUDA's own context and
libraries (half a GiB to one), what the allocator loses between blocks, and the workspaces of kernels.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import peft.tuners.tuners_utils
import torch
import transformers
from harness_tuning.flops import Work
from harness_tuning.memory import Held, one_sequence_a_row
from harness_tuning.methods.lora import LoraOptions, apply_lora
from ruamel.yaml import YAML
from torch._subclasses.fake_tensor import FakeTensorMode

from harness.model import kernels, logprobs
from harness.model.buffers import Buffers
from harness.model.forward import causal_lm, output_head

# fmt: off
# The shapes of the models, from their published config.json.
SHAPES: dict[str, tuple[type, dict[str, Any]]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": (transformers.LlamaConfig, {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True}),
    "Qwen/Qwen2.5-0.5B-Instruct": (transformers.Qwen2Config, {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True}),
    "meta-llama/Llama-3.2-1B-Instruct": (transformers.LlamaConfig, {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True}),
    "Qwen/Qwen3-1.7B": (transformers.Qwen3Config, {
        "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True}),
    "Qwen/Qwen3-4B": (transformers.Qwen3Config, {
        "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True}),
    "Qwen/Qwen3-14B": (transformers.Qwen3Config, {
        "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 40, "num_attention_heads": 40,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": False}),
    "meta-llama/Llama-3.1-8B-Instruct": (transformers.LlamaConfig, {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False}),
    "mistralai/Mistral-7B-Instruct-v0.3": (transformers.MistralConfig, {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32768, "tie_word_embeddings": False, "sliding_window": None}),
}
# fmt: on
# Of a weight that moves, beside the model's own copy: float32 master, gradient, and AdamW's two means.
MASTER_BYTES = 4 + 4 + 4 + 4


class Memory(NamedTuple):
    """The memory that a step takes, in GiB, and the operations of a token whose document has `data.max_tokens`."""

    parameters: int
    trained: int
    weights_gib: float
    optimizer_gib: float
    peak_gib: float
    token_flops: float


def memory(recipe: dict[str, Any]) -> Memory:
    """Return the memory of a step by `recipe`: `tune.step_tokens` supervised tokens in rows of `data.max_tokens`."""
    architecture, shape = SHAPES[recipe["model"]["path"]]
    tune, width = recipe["tune"], recipe["data"]["max_tokens"]
    config = architecture(**shape)
    method = tune["method"]
    # PEFT moves what it adds to the device of the layer, which empty tensors cannot and need not do. The chunks of
    # logits are a GPU's, and a CPU's kernels and lasting buffers are left out.
    stays_put = (
        patch.object(peft.tuners.tuners_utils.BaseTunerLayer, "_move_adapter_to_device_of_base_layer"),
        patch.object(torch.nn.Module, "to", lambda module, *args, **kwargs: module),
    )
    with (
        FakeTensorMode(),
        stays_put[0],
        stays_put[1],
        patch.dict(logprobs.LOGITS_AT_ONCE, cpu=logprobs.LOGITS_AT_ONCE["other"]),
        patch.object(kernels, "compiled", lambda x: False),
        patch.object(Buffers, "get", lambda buffers, name, dtype, *shape, device: torch.empty(shape, dtype=dtype)),
    ):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
            if tune.get("gradient_checkpointing"):
                model.gradient_checkpointing_enable({"use_reentrant": False})
                model.enable_input_require_grads()
            if method["name"] == "full":
                model.train()
            else:
                options = LoraOptions(rank=method["rank"], alpha=method["alpha"])
                model = apply_lora(model, options).train()
        finally:
            torch.set_default_dtype(before)
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        with one_sequence_a_row(), Held() as held:
            for weight in model.parameters():
                held.add(weight)
            weights, base = held.now, causal_lm(model)
            ids = torch.zeros((tune["step_tokens"] // width, width), dtype=torch.long)
            hidden = base.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
            head = base.get_output_embeddings()
            logprobs.predictions(hidden, ids.flatten(), output_head(base), head).logprobs.sum().neg().backward()
        work = Work.of(model)
    adapted = trained if method["name"] == "lora" else 0
    parameters = sum(weight.numel() for weight in base.parameters()) - adapted
    token_flops = work.flops(1, 1, width)
    optimizer = MASTER_BYTES * trained
    return Memory(parameters, trained, weights / 2**30, optimizer / 2**30, (held.most + optimizer) / 2**30, token_flops)


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        held = memory(YAML(typ="safe").load(path))
        print(
            f"{path.name}: {held.parameters:,} parameters, {held.trained:,} "
            f"trained; weights {held.weights_gib:.1f} GiB, "
            f"optimizer {held.optimizer_gib:.1f} GiB, all with a batch's activations at most {held.peak_gib:.1f} GiB"
        )


if __name__ == "__main__":
    main()
