"""The method `qlora`: low-rank adapters on a base in 4 bits (NF4), through bitsandbytes and PEFT.

What is served is the adapter on the base as its files have it. So the run's probes are measured there, and the change
from the 4-bit base to that one is stated.
"""

from __future__ import annotations

from typing import Any

import harness
from harness.extras import require
from harness_tuning.methods.lora import LoraOptions, apply_lora, rate_factor, save_lora


class QloraOptions(LoraOptions):
    """LoRA on a 4-bit base (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314)."""

    double_quant: bool = True


def check(recipe: Any) -> None:
    """Raise HarnessError where bitsandbytes is missing, or the recipe does not go with a 4-bit base."""
    require("bitsandbytes", "quantization")
    options = recipe.tune.method
    if recipe.template.add_tokens or options.train_also:
        key = "template.add_tokens" if recipe.template.add_tokens else "tune.method.train_also"
        raise harness.HarnessError(
            f"{key} makes a run save a whole model, and `method: qlora` trains on a base in 4 bits, which is not what "
            f"should be saved: use `method: lora`"
        )
    if options.init not in ("default", "gaussian", "orthogonal"):
        raise harness.HarnessError(
            f"tune.method.init: {options.init} reads or changes the base's weights, which are in 4 bits with `method: "
            f"qlora`: expected default, gaussian or orthogonal"
        )


def quantize(model: Any, options: QloraOptions, device: Any) -> Any:
    """Put the linear layers into 4 bits, one at a time, and the whole model on the device.

    The output head, the embeddings and stacks of experts stay as they are.

    Raises:
        HarnessError: where bitsandbytes does not compute on the device.
    """
    bnb, torch = require("bitsandbytes", "quantization"), require("torch", "tuning")
    head = model.get_output_embeddings()
    layers = [
        (name, layer) for name, layer in model.named_modules() if type(layer) is torch.nn.Linear and layer is not head
    ]
    try:
        for name, layer in layers:
            stored = bnb.nn.Linear4bit(
                layer.in_features, layer.out_features, bias=False, compute_dtype=layer.weight.dtype,
                compress_statistics=options.double_quant, quant_type="nf4", device="meta",
            )  # fmt: skip
            stored.weight = bnb.nn.Params4bit(
                layer.weight.detach(), requires_grad=False, compress_statistics=options.double_quant,
                quant_type="nf4", module=stored,
            )  # fmt: skip
            stored.bias = layer.bias
            # On some CPUs it would repack the weight in evaluation, for a kernel that has no gradient.
            stored.support_avx512bf16_for_cpu = False
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, stored.to(device))
        model = model.to(device)
        model.is_loaded_in_4bit = True  # as PEFT asks
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device), use_cache=False)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise harness.HarnessError(
            f"bitsandbytes {bnb.__version__} cannot compute a 4-bit layer on {device}: {error}. Use `method: lora`, or "
            f"a device that it supports (NVIDIA, AMD and Intel GPUs, x86 CPUs)"
        ) from error
    return model


def changes_base(options: QloraOptions) -> str:
    """Return how the base is stored while the adapter is trained."""
    return "the base is in 4 bits (NF4" + (", double quantisation)" if options.double_quant else ")")


QLORA = harness.Method(
    "qlora",
    "low-rank adapters on a base in 4 bits (NF4), in PEFT's format",
    QloraOptions,
    apply_lora,
    save_lora,
    "adapter",
    check=check,
    quantize=quantize,
    rate_factor=rate_factor,
    changes_base=changes_base,
)
