"""Loading models, tokenizers and adapters: the same code for a hub id, a local folder and a run.

torch, transformers and peft are imported when something is loaded, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError, TemplateError, first_line
from harness.extras import require
from harness.files import read_json
from harness.model.attention import why_not_sdpa
from harness.model.tokenizer import add_tokens, hub_hint, load_tokenizer
from harness.recipe import TemplateSpec, template_spec
from harness.template import BoundTemplate, bind, control_tokens, fitting, missing_tokens
from harness.variants import Variant, require_here

if TYPE_CHECKING:
    import torch

    from harness.contract import Template
    from harness.plugins import Plugins
    from harness.recipe import ModelSpec


@dataclass(frozen=True)
class LoadedVariant:
    """A variant in memory, ready to be asked: `model` is in eval mode on `device`."""

    variant: Variant
    model: Any
    template: BoundTemplate
    device: torch.device


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention a model computes with, as transformers calls it, and why it is not `sdpa`."""

    name: str
    reason: str | None = None

    def __str__(self) -> str:
        return self.name + (f" ({self.reason})" if self.reason else "")


def pick_device() -> torch.device:
    """The accelerator of this process where there is one, else the CPU."""
    pytorch = require("torch", "tuning")
    accelerator = pytorch.accelerator.current_accelerator() if pytorch.accelerator.is_available() else None
    return accelerator or pytorch.device("cpu")


def load_model(spec: ModelSpec, *, for_tuning: bool = False, added_ids: Sequence[int] = ()) -> Any:
    """The causal language model of `spec`, in its dtype, on the CPU.

    It computes with `sdpa` where that is the model's own attention, else with what the model has; `attention_of` says which.
    `added_ids` are tokens that its tokenizer was given and that it was not trained with: their embeddings begin as the mean of
    the others (https://nlp.stanford.edu/~johnhew/vocab-expansion.html), the same each time.

    Raises:
        ModelError: naming the folder or hub id, and what is missing or does not fit; a weight that is NaN or infinite.
    """
    if spec.is_local:
        check_folder(Path(spec.path))
    model = _from_pretrained(spec)
    _check_finite(spec, model)
    attention = _attention_for(spec, model)
    if attention.name != model.config._attn_implementation:
        model.set_attn_implementation(attention.name)
    if attention.name != model.config._attn_implementation:  # classes of its own for each, chosen when they are made
        model = _from_pretrained(spec, attention.name)
    model.chosen_attention = attention
    if added_ids:
        _begin_embeddings(model, list(added_ids))
    if for_tuning:
        model.config.use_cache = False
    return model


def attention_of(model: Any) -> Attention:
    """The attention that `load_model` chose for a model, wrapped by PEFT or not."""
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    chosen: Attention = causal_lm.chosen_attention
    return chosen


def positions_of(model: Any) -> int | None:
    """The longest sequence that the model's configuration states, in tokens; None where there is no limit (recurrent layers, ALiBi).

    A rotary embedding that is stretched (YaRN and the like) reaches `factor` times as far as it was trained.
    """
    config = model.config.get_text_config()
    stated = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    factor, trained = rope.get("factor"), rope.get("original_max_position_embeddings")
    if not isinstance(stated, int):
        return None
    return max(stated, int(factor * trained)) if factor and trained else stated


def model_folder(spec: ModelSpec) -> Path:
    """The folder of a model's files: the local one, or the snapshot of a hub id that was loaded. Raises ModelError."""
    if spec.is_local:
        return Path(spec.path)
    hub = require("huggingface_hub", "tuning")
    config = hub.try_to_load_from_cache(spec.path, "config.json", revision=spec.revision)
    if not isinstance(config, str):
        raise ModelError(f"{spec.path}: its files are not in the hub's cache folder")
    return Path(config).parent


def load_variant(variant: Variant, plugins: Plugins, device: torch.device | None = None) -> LoadedVariant:
    """The variant's model, adapter and template, as they were tuned."""
    require_here(variant, "loaded")
    model = load_model(variant.model, added_ids=variant.added_ids)
    if variant.adapter is not None:
        peft = require("peft", "tuning")
        try:
            model = peft.PeftModel.from_pretrained(model, str(variant.adapter), autocast_adapter_dtype=False)
        except Exception as error:
            raise ModelError(
                f"{variant.adapter}: the adapter does not fit {variant.model.path}: {first_line(error)}"
            ) from error
    device = device or pick_device()
    return LoadedVariant(variant, model.to(device).eval(), load_template(variant, plugins), device)


def load_template(variant: Variant, plugins: Plugins) -> BoundTemplate:
    """The template the variant is asked through: the run's own, or on the model's tokenizer what `Variant.template` says."""
    require_here(variant, "asked through a template")
    if variant.chat_folder is not None:
        return BoundTemplate.load(variant.chat_folder)
    spec = template_spec(variant.template or "model", plugins)
    if spec.add_tokens:
        raise TemplateError("add_tokens belongs into a recipe: tokens that nobody has trained cannot be asked with")
    return bind_template(spec, variant.model, plugins)


def with_chat_folders(variants: Sequence[Variant], plugins: Plugins, folder: Path) -> tuple[Variant, ...]:
    """Save the template of a plain model in `folder`, and return the variants with it as their `chat_folder`.

    Only where none of them brings one. A variant that is asked in another way than the first is left as it is.

    Raises:
        TemplateError: where the model brings no template that works; it names those that fit its tokenizer.
    """
    first = variants[0]
    if any(variant.chat_folder is not None for variant in variants):
        return tuple(variants)
    try:
        load_template(first, plugins).save(folder)
    except TemplateError as error:
        if first.template is not None:
            raise
        raise TemplateError(f"{first.name}: {error}\n{_fitting(first.model, plugins)}") from None
    asked_alike = (first.model.path, first.model.revision, first.template)
    return tuple(
        replace(one, chat_folder=folder) if (one.model.path, one.model.revision, one.template) == asked_alike else one
        for one in variants
    )


def _fitting(model: ModelSpec, plugins: Plugins) -> str:
    """Return the option that names a template for a model which brings none that works."""
    tokenizer = load_tokenizer(model.path, model.revision, trust_remote_code=model.trust_remote_code)
    names = [name for name in fitting(plugins.templates, tokenizer) if name != "model"]
    return f"Name one with --template NAME. These fit its tokenizer: {', '.join(names) or 'none'}"


def bind_template(spec: TemplateSpec, model: ModelSpec, plugins: Plugins) -> BoundTemplate:
    """A registered template, with its options, on the tokenizer of a model.

    Raises:
        TemplateError: where the tokenizer lacks control tokens of the template and `spec.add_tokens` is off; it names the choices.
    """
    template = plugins.templates[spec.name]
    tokenizer = load_tokenizer(model.path, model.revision, trust_remote_code=model.trust_remote_code)
    if missing := missing_tokens(template, tokenizer):
        if not spec.add_tokens:
            raise TemplateError(_choices(template, missing, tokenizer, model, plugins))
        add_tokens(tokenizer, missing)
    has_options = template.options is not None and isinstance(spec, template.options)  # a recipe's spec has them
    return bind(template, tokenizer, spec if has_options else None)


def added_tokens(template: BoundTemplate, model: ModelSpec) -> dict[str, int]:
    """The tokens that the template's tokenizer has and the model's own has not, with their ids, in the order of these."""
    own = load_tokenizer(model.path, model.revision, trust_remote_code=model.trust_remote_code).get_vocab()
    added = {token: id for token, id in template.tokenizer.get_vocab().items() if token not in own}
    return dict(sorted(added.items(), key=lambda item: item[1]))


def _choices(template: Template, missing: tuple[str, ...], tokenizer: Any, model: ModelSpec, plugins: Plugins) -> str:
    return (
        f"template {template.name!r} writes {', '.join(missing)}, which the tokenizer of {model.path} does not have. "
        f"Its control tokens: {', '.join(control_tokens(tokenizer)) or 'none'}. The choices:\n"
        f"  a template that fits it as it is: {', '.join(fitting(plugins.templates, tokenizer)) or 'there is none'}\n"
        f"  `template: {{name: {template.name}, add_tokens: true}}` in a recipe: they are added and their embeddings trained, and the "
        f"run saves a whole model instead of an adapter\n"
        f"  a model whose tokenizer has them, such as an instruct model of that family"
    )


def _begin_embeddings(model: Any, ids: list[int]) -> None:
    """Set the rows `ids` of the embeddings, and of an output head of its own, to the mean of the rows before them.

    Rows that the model has to spare (many vocabularies are padded) are used; where they do not suffice, it gets more.
    """
    torch = require("torch", "tuning")
    if max(ids) >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    with torch.no_grad():
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            for weight in (module.weight, getattr(module, "bias", None)):
                if weight is not None:  # in float64, so that the number of threads makes no difference
                    weight[ids] = weight[: min(ids)].mean(0, dtype=torch.float64).to(weight.dtype)


def _from_pretrained(spec: ModelSpec, attention: str | None = None) -> Any:
    """Load the model with an attention, or with the one that transformers picks: sdpa for a model that has it."""
    transformers = require("transformers", "tuning")
    torch = require("torch", "tuning")
    transformers.utils.logging.disable_progress_bar()
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(
            spec.path,
            revision=spec.revision,
            dtype=getattr(torch, spec.dtype),
            trust_remote_code=spec.trust_remote_code,
            attn_implementation=attention,
            use_safetensors=True,
        )
    except Exception as error:
        raise ModelError(
            f"{spec.path}: the model could not be loaded: {first_line(error)}{hub_hint(spec.path)}"
        ) from error


def _attention_for(spec: ModelSpec, model: Any) -> Attention:
    """The attention that is the model's own function: sdpa where a trial on the model shows no difference."""
    found = model.config._attn_implementation
    if found != "sdpa":
        return Attention(found, "the model has no sdpa")
    try:
        reason = why_not_sdpa(model)
    except Exception as error:
        raise ModelError(
            f"{spec.path}: {type(model).__name__} cannot compute a few tokens: {type(error).__name__}: {first_line(error)}"
        ) from error
    return Attention("eager", reason) if reason else Attention("sdpa")


def _check_finite(spec: ModelSpec, model: Any) -> None:
    """Raise ModelError where a weight is NaN or infinite, naming the first such tensor."""
    torch = require("torch", "tuning")
    plain = (torch.bfloat16, torch.float16, torch.float32)
    for name, weight in model.named_parameters():
        if weight.dtype not in plain or not weight.numel() or weight.is_meta:
            continue
        if not torch.isfinite(torch.stack(torch.aminmax(weight.detach()))).all():  # one pass: 4 GB/s on a core
            count = int((~torch.isfinite(weight)).sum())
            raise ModelError(
                f"{spec.path}: the weights are not finite: {count:,} of {weight.numel():,} in {name} are NaN or infinite"
                + (f" in {spec.dtype}; float16 cannot hold numbers above 65,504" if spec.dtype == "float16" else "")
            )


def check_folder(folder: Path) -> None:
    """Raise ModelError where the folder has no config.json, no safetensors or not all that its index names."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: not a model folder: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        found = sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".gguf"})
        hint = f"; it has {', '.join(found)}, but only safetensors are loaded" if found else ""
        raise ModelError(f"{folder}: a model folder without weights: no *.safetensors in it{hint}")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weights = read_json(index)
        weights = weights.get("weight_map") if isinstance(weights, dict) else None
        if not isinstance(weights, dict):
            raise ModelError(f"{index}: not an index of weight files: it has no `weight_map`")
        shards = set(weights.values())
        if missing := sorted(shard for shard in shards if not (folder / shard).is_file()):
            raise ModelError(
                f"{folder}: {len(missing)} of {len(shards)} weight files are missing: {', '.join(missing[:3])}"
            )
