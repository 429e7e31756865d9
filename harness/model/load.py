"""Loading models and adapters: the same code for a hub id, a local folder and a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from harness.errors import ModelError, first_line
from harness.extras import require
from harness.model.attention import compute_by_blocks, why_not_sdpa
from harness.model.configs import load_config
from harness.model.folders import check_folder
from harness.model.forward import causal_lm, check_forward
from harness.model.heads import load_head
from harness.model.kernels import CPU
from harness.model.templates import load_template
from harness.model.tokenizer import hub_hint, require_place
from harness.template import BoundTemplate
from harness.variants import Variant, require_here

if TYPE_CHECKING:
    from harness.plugins import Plugins
    from harness.recipe import ModelSpec


@dataclass(frozen=True)
class LoadedVariant:
    """A variant in memory, ready to be asked: `model` is in eval mode on `device`."""

    variant: Variant
    model: Any
    template: BoundTemplate
    device: torch.device
    head: Any = None  # of a reward model


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention a model computes with, as transformers calls it, and why it is not `sdpa`."""

    name: str
    reason: str | None = None

    def __str__(self) -> str:
        return self.name + (f" ({self.reason})" if self.reason else "")


def pick_device() -> torch.device:
    """Return the accelerator of this process where there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def free_memory() -> None:
    """Release what no longer has a name: models hold themselves in circles, and the accelerator's memory is kept."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def load_model(
    spec: ModelSpec, *, for_tuning: bool = False, added_ids: Sequence[int] = (), device: torch.device = CPU
) -> Any:
    """Load the causal language model of `spec`, in its dtype, on a device: tensor by tensor from its files.

    It computes with `sdpa` where that is the model's own attention, else with another; `attention_of` returns it.
    `added_ids` are tokens that its tokenizer was given and that it was not trained with: their embeddings begin as the
    mean of the others (https://nlp.stanford.edu/~johnhew/vocab-expansion.html), the same each time.

    Raises:
        ModelError: naming the folder or hub id, and what is missing or does not fit; a weight that is NaN or infinite.
    """
    if spec.is_local:
        check_folder(Path(spec.path))
    if spec.dtype == "float32":  # an environment may have switched TF32 on, which keeps 10 bits of 23
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    model = _from_pretrained(spec, device)
    _check_finite(spec, model)
    attention = _attention_for(spec, model)
    if attention.name != model.config._attn_implementation:
        model.set_attn_implementation(attention.name)
    if attention.name != model.config._attn_implementation:  # a class for each, chosen in its constructor
        del model  # two may not fit beside each other
        free_memory()
        model = _from_pretrained(spec, device, attention.name)
    model.chosen_attention = attention
    if added_ids:
        _begin_embeddings(model, list(added_ids))
    if for_tuning:
        model.config.use_cache = False
    return model


def attention_of(model: Any) -> Attention:
    """Return the attention that `load_model` chose for a model, wrapped by PEFT or not."""
    chosen: Attention = causal_lm(model).chosen_attention
    return chosen


def fastest_attention(model: Any) -> Attention:
    """Let a model on its device compute with the fastest attention that is its own function, and return it."""
    if compute_by_blocks(model):
        model.chosen_attention = Attention("sdpa", "computed in blocks of products, faster on this CPU")
    return attention_of(model)


def load_variant(variant: Variant, plugins: Plugins, device: torch.device | None = None) -> LoadedVariant:
    """Load the variant's model, adapter and template, as they were tuned.

    Raises:
        ModelError: where the adapter does not fit, or the log-probabilities of this architecture cannot be computed.
    """
    require_here(variant, "loaded")
    device = device or pick_device()
    model = load_adapted(variant.model, variant.adapter, variant.added_ids, device)
    return _ready(variant, model, plugins, device)


def load_in_turn(variants: Sequence[Variant], plugins: Plugins) -> Iterator[LoadedVariant]:
    """Load variants one after the other; neighbours of one base share it, and only their adapters are loaded.

    The variant before is gone when the next one is loaded: its adapter is taken off its base, or both are let go.

    Raises:
        ModelError: as `load_variant`.
    """
    device, base, shared = pick_device(), None, None
    for variant in variants:
        require_here(variant, "loaded")
        if base is None or shared != (variant.model, variant.added_ids):
            base, shared = None, (variant.model, variant.added_ids)
            free_memory()  # that of the variant before: two may not fit beside each other
            base = load_model(variant.model, added_ids=variant.added_ids, device=device).eval()
        before = _state(base)
        model = base if variant.adapter is None else _adapted(base, variant.adapter, variant.model)
        yield _ready(variant, model, plugins, device)
        if variant.adapter is not None:
            base = _taken_off(model)
        del model
        if base is not None and _state(base) != before:
            base = None


def _ready(variant: Variant, model: Any, plugins: Plugins, device: torch.device) -> LoadedVariant:
    model = model.eval()
    check_forward(model, torch.arange(16, device=device)[None] % model.get_input_embeddings().weight.shape[0])
    head = None if variant.head is None else load_head(variant.head).to(device)
    return LoadedVariant(variant, model, load_template(variant, plugins), device, head)


def load_adapted(
    spec: ModelSpec, adapter: Path | None, added_ids: Sequence[int] = (), device: torch.device = CPU
) -> Any:
    """Load the model of `spec` with an adapter in PEFT's format on it. Raises ModelError where it does not fit."""
    model = load_model(spec, added_ids=added_ids, device=device)
    return model if adapter is None else _adapted(model, adapter, spec)


def _adapted(model: Any, adapter: Path, spec: ModelSpec) -> Any:
    peft = require("peft", "tuning")
    try:
        return peft.PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)
    except Exception as error:
        raise ModelError(f"{adapter}: the adapter does not fit {spec.path}: {first_line(error)}") from error


def _taken_off(model: Any) -> Any:
    """Return the base of a model with an adapter without it; None where PEFT cannot take it off."""
    try:
        base = model.unload()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None
    if hasattr(base, "peft_config"):  # of which PEFT warns, as of an adapter that is still there
        del base.peft_config
    return base


def _state(model: Any) -> dict[str, tuple[int, int]]:
    """Return where each weight of a model lies in memory, and how often it was written to."""
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name: (tensor.data_ptr(), tensor._version) for name, tensor in named}


def _begin_embeddings(model: Any, ids: list[int]) -> None:
    """Set the rows `ids` of the embeddings, and of an output head of its own, to the mean of the rows before them.

    Rows that the model has to spare (many vocabularies are padded) are used; where they do not suffice, it gets more.
    """
    if max(ids) >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    with torch.no_grad():
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            for weight in (module.weight, getattr(module, "bias", None)):
                if weight is not None:  # in float64 on the CPU, so that neither threads nor devices make a difference
                    weight[ids] = weight[: min(ids)].cpu().mean(0, dtype=torch.float64).to(weight)


def _from_pretrained(spec: ModelSpec, device: torch.device, attention: str | None = None) -> Any:
    """Load the model with an attention, or with the one that transformers picks: sdpa for a model that has it."""
    require_place(spec.path)
    transformers.utils.logging.disable_progress_bar()
    try:
        model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
            spec.path,
            revision=spec.revision,
            dtype=getattr(torch, spec.dtype),
            trust_remote_code=spec.trust_remote_code,
            attn_implementation=attention,
            use_safetensors=True,
            device_map=_with_index(device),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # which `_check_whole` refuses by name and size
            **({"config": load_config(spec)} if spec.rope_scaling else {}),
        )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{spec.path}: the model could not be loaded: {first_line(error)}{hub_hint(spec.path)}"
        ) from error
    _check_whole(spec, model, loaded)
    return model


def _check_whole(spec: ModelSpec, model: Any, loaded: Mapping[str, Any]) -> None:
    """Raise ModelError where the files lack a weight, or have one of another size: transformers draws it at random."""
    wrong = [f"{name} is missing" for name in sorted(loaded["missing_keys"])] + [
        f"{name} has the shape {list(stored)}, expected {list(wanted)}"
        for name, stored, wanted in sorted(loaded["mismatched_keys"])
    ]
    if wrong:
        raise ModelError(
            f"{spec.path}: the files do not hold all weights of {type(model).__name__} as config.json describes it: "
            f"{'; '.join(wrong[:3])}{f' ({len(wrong)} in all)' if len(wrong) > 3 else ''}. They would be random: the "
            f"files are incomplete, or the configuration is another model's"
        )


def _with_index(device: torch.device) -> torch.device | None:
    """Return an accelerator with its number, which a thread does not know that reads weights; None for a CPU."""
    if device.type == "cpu":
        return None
    return device if device.index is not None else torch.device(device.type, torch.accelerator.current_device_index())


def _attention_for(spec: ModelSpec, model: Any) -> Attention:
    """Return the attention that is the model's own function: sdpa where a trial on the model shows no difference."""
    if (own := model.config._attn_implementation) != "sdpa":
        return Attention(own, "the model has no sdpa")
    try:
        reason = why_not_sdpa(model)
    except Exception as error:
        raise ModelError(
            f"{spec.path}: {type(model).__name__} cannot compute a few tokens: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    return Attention("eager", reason) if reason else Attention("sdpa")


def _check_finite(spec: ModelSpec, model: Any) -> None:
    """Raise ModelError where a weight is NaN or infinite, naming the first such tensor."""
    plain = (torch.bfloat16, torch.float16, torch.float32)
    for name, weight in model.named_parameters():
        if weight.dtype not in plain or not weight.numel() or weight.is_meta:
            continue
        if not torch.isfinite(torch.stack(torch.aminmax(weight.detach()))).all():  # one pass: 4 GB/s on a core
            count = int((~torch.isfinite(weight)).sum())
            raise ModelError(
                f"{spec.path}: the weights are not finite: {count:,} of {weight.numel():,} in {name} are NaN or "
                f"infinite"
                + (f" in {spec.dtype}; float16 cannot hold numbers above 65,504" if spec.dtype == "float16" else "")
            )
