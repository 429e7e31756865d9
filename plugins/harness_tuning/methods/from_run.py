"""The method `from_run`: goes on training the adapter of an earlier run, and saves it as its own.

The starting state is the earlier run's tuned model, so that an objective which compares with the start (DPO) compares
with that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import harness
from harness.errors import command, first_line
from harness.extras import require
from harness.files import read_json
from harness.measure.weights import hashes_of_model
from harness.model.folders import folder_of
from harness.options import Options
from harness_tuning.methods.lora import rate_factor, save_lora


class FromRunOptions(Options):
    """The run whose adapter is trained on: rank, layers and alpha are its own."""

    path: Path
    b_rate_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


def adapter_of(options: FromRunOptions) -> Path:
    """Return the adapter's folder. Raises HarnessError where the path is no finished run with an adapter."""
    run, key = options.path, "tune.method.path"
    manifest = read_json(run / "manifest.json") if (run / "manifest.json").is_file() else None
    if not isinstance(manifest, dict):
        raise harness.HarnessError(
            f"{key} = {str(run)!r} is no run's folder (it has no manifest.json). `harness runs list` shows the runs; a "
            f"path is relative to the recipe's folder"
        )
    if manifest.get("outcome") != "finished":
        raise harness.HarnessError(
            f"{key}: the run {run.name} has not finished (its outcome is {manifest.get('outcome')!r}): "
            f"`{command('tune', '--resume', run)}`"
        )
    if not (run / "adapter" / "adapter_config.json").is_file():
        raise harness.HarnessError(
            f"{key}: the run {run.name} saved a whole model, no adapter. To go on from it: model.path: {run / 'model'}"
        )
    return run / "adapter"


def check(recipe: Any) -> None:
    """Raise HarnessError where the run's adapter was not tuned on the recipe's base model, or cannot be trained on."""
    options = recipe.tune.method
    adapter = adapter_of(options)
    if recipe.template.add_tokens:
        raise harness.HarnessError("template.add_tokens trains embeddings, and `method: from_run` an adapter alone")
    config = read_json(adapter / "adapter_config.json")
    if config.get("peft_type") != "LORA":
        raise harness.HarnessError(
            f"tune.method.path: the adapter of {options.path.name} is {config.get('peft_type')}, and `from_run` "
            f"goes on with LoRA and DoRA"
        )
    began = read_json(options.path / "manifest.json").get("identity")
    folder = folder_of(recipe.model)
    if began is None:
        raise harness.HarnessError(
            f"tune.method.path: the run {options.path.name} has no record of its base model's files; an earlier "
            f"version wrote it. Tune it anew"
        )
    if folder is not None and any(began.get(key) != value for key, value in hashes_of_model(folder).items()):
        raise harness.HarnessError(
            f"tune.method.path: the run {options.path.name} was tuned on another model than {recipe.model.path} (by "
            f"the hashes of their files). Set model.path to that run's (it is in {options.path / 'recipe.yaml'})"
        )
    stretch = (began.get("settings") or {}).get("model.rope_scaling")
    if stretch != (recipe.model.rope_scaling and recipe.model.rope_scaling.model_dump()):
        raise harness.HarnessError(
            f"tune.method.path: the run {options.path.name} was tuned with model.rope_scaling {stretch}, and the "
            f"recipe has {recipe.model.rope_scaling}: an adapter goes on where it began"
        )


def apply_from_run(model: Any, options: FromRunOptions) -> Any:
    """Put the run's adapter on the model, to be trained. Raises HarnessError where its files are damaged."""
    peft, adapter = require("peft", "tuning"), adapter_of(options)
    try:
        return peft.PeftModel.from_pretrained(model, str(adapter), is_trainable=True, autocast_adapter_dtype=False)
    except Exception as error:
        raise harness.HarnessError(
            f"{adapter}: the adapter does not fit the model it was tuned on: {first_line(error)}"
        ) from error


FROM_RUN = harness.Method(
    "from_run",
    "the adapter of an earlier run, trained on",
    FromRunOptions,
    apply_from_run,
    save_lora,
    "adapter",
    check=check,
    rate_factor=rate_factor,
    starts_from=adapter_of,
)
