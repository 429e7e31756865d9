"""Configurations of models: read without their weights, with the rotary embedding stretched as the recipe says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import transformers

from harness.errors import ModelError, first_line
from harness.model.tokenizer import hub_hint, require_place

if TYPE_CHECKING:
    from harness.recipe import ModelSpec


def load_config(spec: ModelSpec) -> Any:
    """Return the configuration of a model, with what `overrides_of` changes in it. Raises ModelError."""
    require_place(spec.path)
    try:
        config = transformers.AutoConfig.from_pretrained(
            spec.path, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except Exception as error:
        raise ModelError(
            f"{spec.path}: the configuration could not be loaded: {first_line(error)}{hub_hint(spec.path)}"
        ) from error
    for name, value in _stretched(spec, config).items():
        setattr(config.get_text_config(), name, value)
    return config


def overrides_of(spec: ModelSpec) -> dict[str, Any]:
    """Return what `model.rope_scaling` changes in the model's configuration, by its keys; empty without it."""
    return _stretched(spec, load_config(spec.model_copy(update={"rope_scaling": None}))) if spec.rope_scaling else {}


def positions_of(config: Any) -> int | None:
    """Return the longest sequence that a model's configuration states, in tokens; None where it states no limit.

    Recurrent layers and ALiBi have none. A rotary embedding that is stretched reaches `factor` times as far as it was
    trained.
    """
    text = config.get_text_config()
    stated = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    factor, trained = rope.get("factor"), rope.get("original_max_position_embeddings")
    if not isinstance(stated, int):
        return None
    if factor and rope.get("rope_type") == "linear":
        return int(factor * stated)
    return max(stated, int(factor * trained)) if factor and trained else stated


def _stretched(spec: ModelSpec, config: Any) -> dict[str, Any]:
    """Return the keys of a configuration that stretch its rotary embedding, as transformers and vLLM name them.

    Raises ModelError for a model without a plain one.
    """
    if (scaling := spec.rope_scaling) is None:
        return {}
    text = config.get_text_config()
    rope, trained = getattr(text, "rope_parameters", None), getattr(text, "max_position_embeddings", None)
    if not rope or not isinstance(trained, int) or "rope_theta" not in rope or rope.get("rope_type") != "default":
        has = "none" if not rope else rope.get("rope_type") or "one for each kind of layer"
        raise ModelError(
            f"{spec.path}: model.rope_scaling stretches a plain rotary embedding, and this model has {has}: leave it "
            f"out"
        )
    parameters = {**rope, "rope_type": scaling.type, "factor": scaling.factor}
    if scaling.type == "linear":
        return {"rope_parameters": parameters}
    reach = int(scaling.factor * trained)  # which transformers and vLLM want stated for YaRN, and not for linear
    parameters["original_max_position_embeddings"] = trained
    return {"max_position_embeddings": reach, "rope_parameters": parameters}
