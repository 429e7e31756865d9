"""The method `lora`: low-rank adapters, through PEFT."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

import harness
from harness.extras import require
from harness.options import Options

INITS = {"default": True, "gaussian": "gaussian", "orthogonal": "orthogonal", "mica": "mica", "pissa": "pissa",
         "olora": "olora"}  # fmt: skip
CHANGE_THE_BASE = {"pissa": "PiSSA", "olora": "OLoRA"}
REFUSED_INITS = {
    "loftq": "it trains on a base rounded to 4 bits, and the difference to the base that serving loads is no low-rank "
    "matrix: use `method: qlora`, whose probes are measured on that base",
    "eva": "it needs passes over the data before the adapter exists",
    "corda": "it needs passes over the data before the adapter exists",
    "lora_ga": "it needs gradients before the adapter exists",
}
EMBEDDINGS, HEAD = "embeddings", "head"


class LoraOptions(Options):
    """Low-rank adaptation (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

    rank: Annotated[int, Field(gt=0, le=512)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    experts: bool = True
    rslora: bool = False
    init: str = "default"
    b_rate_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    train_also: tuple[Literal["embeddings", "head"], ...] = ()

    @field_validator("init")
    @classmethod
    def _can_be_served(cls, init: str) -> str:
        if init in REFUSED_INITS:
            raise ValueError(f"{init!r} is not offered: {REFUSED_INITS[init]}")
        if init not in INITS:
            raise ValueError(f"expected one of {', '.join(INITS)}")
        return init


def apply_lora(model: Any, options: LoraOptions, **variant: Any) -> Any:
    """Put a fresh adapter on the model; its matrices move, and what `train_also` names.

    Raises:
        HarnessError: where no layer fits, or an option does not go with the experts of the model.
    """
    from harness_tuning.targets import choose

    peft = require("peft", "tuning")
    targets = choose(model, options.target_modules, options.experts)
    if targets.experts:
        _check_experts(options, variant)
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        use_rslora=options.rslora,
        init_lora_weights=INITS[options.init],
        task_type="CAUSAL_LM",
        **variant,
    )
    renamed = _renamed_by_peft(model, targets.layers)
    config.target_modules = [name for name in targets.layers if name not in renamed]
    config.target_parameters = [*(f"{name}.weight" for name in renamed), *targets.experts] or None
    try:
        # In the model's own dtype: the optimizer keeps float32 copies, and bf16 is twice as fast on a CPU.
        adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise harness.HarnessError(f"tune.method: PEFT cannot put this adapter on the model: {error}") from None
    if options.init in CHANGE_THE_BASE:
        adapted.start_of_adapter = _matrices(adapted)
    train_also(adapted, options)
    return adapted


def train_also(model: Any, options: LoraOptions) -> None:
    """Let the embeddings or the output head move with the adapter."""
    lm = model.get_base_model()
    parts = {EMBEDDINGS: lm.get_input_embeddings(), HEAD: lm.get_output_embeddings()}
    for part in options.train_also:
        if hasattr(parts[part], "get_base_layer"):
            raise harness.HarnessError(
                f"tune.method: train_also: [{part}] and target_modules name the same layer: leave it out of one of them"
            )
        parts[part].weight.requires_grad_(True)


def _check_experts(options: LoraOptions, variant: dict[str, Any]) -> None:
    """Raise HarnessError for an option that an adapter on a stack of experts cannot have."""
    wrong = f"dropout: {options.dropout:g}" if options.dropout else None
    wrong = f"init: {options.init}" if options.init not in ("default", "gaussian") else wrong
    wrong = "DoRA" if variant.get("use_dora") else wrong
    if wrong:
        raise harness.HarnessError(
            f"the model keeps its experts in one tensor a layer, and {wrong} does not go with an adapter on that. Set "
            f"tune.method.experts: false to leave them as they are"
            + ("" if wrong == "DoRA" else ", or leave that option out")
        )


def _renamed_by_peft(model: Any, layers: tuple[str, ...]) -> set[str]:
    """Return the layers that PEFT would take for experts of transformers 4 by their names, and leave out.

    A dense layer, or a shared expert's, has a `gate_proj` too. Named as weights, they get the same adapter.
    """
    peft, conversion = require("peft", "tuning"), require("peft.utils.transformers_weight_conversion", "tuning")
    renamed = set()
    for last in {name.rsplit(".", 1)[-1] for name in layers}:
        config = peft.LoraConfig(target_modules=[last])
        try:
            conversion.convert_peft_config_for_transformers(config, model, None)
        except ValueError:  # it names one of two layers that PEFT fuses
            config.target_modules = set()
        if last not in config.target_modules:
            renamed |= {name for name in layers if name.rsplit(".", 1)[-1] == last}
    return renamed


def save_lora(model: Any, folder: Path) -> None:
    """Write the adapter in PEFT's format. One whose start changed the base is written for the base as it was."""
    config = model.peft_config["default"]
    for field in ("target_modules", "target_parameters"):
        if isinstance(names := getattr(config, field), set | list):
            setattr(config, field, sorted(names) or None if field == "target_parameters" else sorted(names))
    start = getattr(model, "start_of_adapter", None)
    if start is None:
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    else:
        _save_difference(model, start, folder)


def _matrices(model: Any) -> dict[str, Any]:
    peft = require("peft", "tuning")
    tensors = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _save_difference(model: Any, start: dict[str, Any], folder: Path) -> None:
    """Write B A - B0 A0 as one adapter of twice the rank: [B, -B0] [A; A0].

    The base trained on was W - B0 A0 (times the scaling), so that this is the change of W.
    """
    torch, safetensors = require("torch", "tuning"), require("safetensors.torch", "tuning")
    now, config = _matrices(model), copy.deepcopy(model.peft_config["default"])
    config.r, config.init_lora_weights = 2 * config.r, True
    tensors, pad = {}, torch.nn.functional.pad
    for name, matrix in now.items():  # zeros where a layer is too narrow for the rank, as a gate with one output is
        if ".lora_B." in name or name.endswith(".lora_embedding_B"):
            both = torch.cat((matrix, -start[name]), 1)
            tensors[name] = pad(both, (0, config.r - both.shape[1])).contiguous()
        else:
            both = torch.cat((matrix, start[name]), 0)
            tensors[name] = pad(both, (0, 0, 0, config.r - both.shape[0])).contiguous()
    config.lora_alpha *= math.sqrt(2) if config.use_rslora else 2  # the same scaling
    config.inference_mode = True
    config.base_model_name_or_path = config.base_model_name_or_path or model.get_base_model().name_or_path
    safetensors.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def rate_factor(name: str, options: LoraOptions) -> float:
    """Return the factor of a weight's learning rate: LoRA+ (Hayou et al. 2024, https://arxiv.org/abs/2402.12354)."""
    return options.b_rate_ratio if ".lora_B." in name or ".lora_embedding_B." in name else 1.0


def whole(options: LoraOptions) -> str | None:
    """Return why the run saves a whole model, where it does."""
    return f"an adapter cannot carry the {' and the '.join(options.train_also)}" if options.train_also else None


def changes_base(options: LoraOptions) -> str | None:
    """Return how the start of the adapter changes the base, where it does."""
    if options.init not in CHANGE_THE_BASE:
        return None
    return (
        f"{CHANGE_THE_BASE[options.init]} takes the start of the adapter out of the base; the run saves the difference "
        f"to the base as it was, with twice the rank ({2 * options.rank})"
    )


LORA = harness.Method(
    "lora",
    "low-rank adapters on the chosen layers, in PEFT's format",
    LoraOptions,
    apply_lora,
    save_lora,
    "adapter",
    default=True,
    rate_factor=rate_factor,
    whole=whole,
    changes_base=changes_base,
)
