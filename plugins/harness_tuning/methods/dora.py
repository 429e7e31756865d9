"""The method `dora`: low-rank adapters with a trained magnitude for each output, through PEFT."""

from __future__ import annotations

from typing import Any

import harness
from harness_tuning.methods.lora import LoraOptions, apply_lora, rate_factor, save_lora, whole


class DoraOptions(LoraOptions):
    """Weight-decomposed low-rank adaptation (Liu et al. 2024, https://arxiv.org/abs/2402.09353)."""

    experts: bool = False


def apply_dora(model: Any, options: DoraOptions) -> Any:
    """Put a fresh DoRA adapter on the model. Raises HarnessError where no layer fits or a start does not."""
    if options.init not in ("default", "gaussian"):
        raise harness.HarnessError(
            f"tune.method.init: {options.init} changes the weights whose magnitudes DoRA begins with: expected default "
            f"or gaussian"
        )
    return apply_lora(model, options, use_dora=True)


DORA = harness.Method(
    "dora",
    "low-rank adapters with trained magnitudes (DoRA), in PEFT's format",
    DoraOptions,
    apply_dora,
    save_lora,
    "adapter",
    rate_factor=rate_factor,
    whole=whole,
)
