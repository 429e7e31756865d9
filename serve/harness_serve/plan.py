"""The plan of one engine: whether variants can share it, decided with reasons before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.errors import ModelError
from harness.recipe import ModelSpec
from harness.variants import Variant
from harness_serve.adapters import Adapter, read_adapter, require_fits
from harness_serve.options import VllmOptions

CHAT_FILES = ("tokenizer.json", "chat_template.jinja", "template.json")  # what decides prompt ids and stop tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """The model that one engine serves, the names it answers to, and the adapters by name."""

    model: ModelSpec
    dtype: str
    base_names: tuple[str, ...]
    adapters: dict[str, Adapter]
    chat_folder: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.base_names, *self.adapters)


def plan_engine(variants: Sequence[Variant], options: VllmOptions) -> Plan:
    """Plan one engine for the variants. Raises HarnessError if they do not share model, dtype and template."""
    first = variants[0]
    for variant in variants:
        if variant.added_ids:
            raise ModelError(
                f"{variant.name}: tuning added tokens to the vocabulary, and the files of {model_name(variant.model)} "
                f"have no embeddings for them, so vLLM cannot serve it. Serve the run by itself; "
                f"`harness evaluate {variant.name} {variant.name.removesuffix('@base')}` compares the two"
            )
    for other in variants[1:]:
        if _whole_name(other.model) != _whole_name(first.model):
            raise harness.HarnessError(
                f"one engine serves one base model, and these variants have two:\n"
                f"  {first.name}: {model_name(first.model)}\n  {other.name}: {model_name(other.model)}\n"
                f"A run that tuned every weight (method full) is a model of its own. "
                f"Serve them one by one, the second with another --port"
            )
        if options.dtype is None and other.model.dtype != first.model.dtype:
            raise harness.HarnessError(
                f"{first.name} was tuned in {first.model.dtype}, {other.name} in {other.model.dtype}; "
                f"one engine has one dtype: choose it with --dtype"
            )
        _require_same_chat(first, other)
    bases = tuple(variant.name for variant in variants if variant.adapter is None)
    adapters = {
        variant.name: read_adapter(variant.name, variant.adapter) for variant in variants if variant.adapter is not None
    }
    for name, adapter in adapters.items():
        require_fits(name, adapter, first.model)
    if not bases:
        bases = ("base",) if "base" not in adapters else (f"{first.model.short_name}@base",)
    return Plan(first.model, options.dtype or first.model.dtype, bases, adapters, first.chat_folder)


def _require_same_chat(first: Variant, other: Variant) -> None:
    if first.chat_folder is None or other.chat_folder is None:
        if first.chat_folder is other.chat_folder and first.template == other.template:
            return
        plain, tuned = (first, other) if first.chat_folder is None else (other, first)
        raise harness.HarnessError(
            f"{plain.name} would be asked through its own chat template and {tuned.name} through the one it was tuned "
            f"with; one engine has one template. "
            f"To ask the base model through the run's: {tuned.name.removesuffix('@base')}@base"
        )
    differing = [
        name
        for name in CHAT_FILES
        if (first.chat_folder / name).read_bytes() != (other.chat_folder / name).read_bytes()
    ]
    if differing:
        raise harness.HarnessError(
            f"{first.name} and {other.name} were tuned with different {' and '.join(differing)}; "
            f"one engine has one template:\n"
            f"  {first.chat_folder}\n  {other.chat_folder}\n"
            f"Serve them one by one, the second with another --port, or tune both with the same template"
        )


def model_name(model: ModelSpec) -> str:
    """Return path or hub id with revision and stretch: of two models that differ in one of them, two names."""
    stretch = "" if model.rope_scaling is None else f", stretched by {model.rope_scaling}"
    return model.path + (f" at revision {model.revision}" if model.revision else "") + stretch


def _whole_name(model: ModelSpec) -> str:
    """Return the name of a model, with a local folder as one path however it is written and linked."""
    return model_name(model.model_copy(update={"path": str(Path(model.path).resolve())}) if model.is_local else model)
