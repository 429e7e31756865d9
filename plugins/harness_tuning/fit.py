"""Checks before the first step: the data fit the model, the model computes, and a resumed run is what it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import harness
from harness.errors import command, first_line, listed
from harness.hashing import read_sha256
from harness.measure.weights import hashes_of_model
from harness.model.folders import folder_of
from harness.recipe import Recipe
from harness.run import Run
from harness.template import BoundTemplate, Reasoning
from harness_tuning.learner import is_out_of_memory
from harness_tuning.world import is_lost_connection

if TYPE_CHECKING:
    from harness.data.encode.storage import Examples
    from harness.data.reports import SourceReport

# Keys that change nothing about the weights: they may be edited while a run rests.
FREE_KEYS = {
    "name", "plugins", "evaluate", "gate", "track", "serve", "data.processes", "tune.checkpoint_every",
    "tune.validate_every", "tune.samples", "tune.keep", "tune.on_spike", "tune.parallel",
}  # fmt: skip


ARCHITECTURE_HINT = "This architecture cannot be tuned here, or its configuration is not that of its weights"


@contextmanager
def computing(model: str, what: str, hint: str = ARCHITECTURE_HINT) -> Iterator[None]:
    """Turn what a model raises inside the block into a ModelError that names it; `what` is computed there."""
    try:
        yield
    except (harness.HarnessError, KeyboardInterrupt):
        raise
    except Exception as error:
        if is_lost_connection(error):
            raise
        if is_out_of_memory(error):
            raise harness.HarnessError(
                f"{what} does not fit into memory: lower tune.microbatch_tokens or data.max_tokens, or set "
                f"tune.gradient_checkpointing: true"
            ) from error
        raise harness.ModelError(
            f"{model}: {what} failed inside the model ({type(error).__name__}: {first_line(error)}). {hint}"
        ) from error


def check_data(base: Any, template: BoundTemplate, recipe: Recipe, parts: dict[str, Examples]) -> None:
    """Raise ModelError where an example has a token that the model has no embedding for."""
    rows = base.get_input_embeddings().weight.shape[0]
    for part, examples in parts.items():
        if (largest := examples.largest_id()) >= rows:
            token = template.tokenizer.convert_ids_to_tokens(largest)
            raise harness.ModelError(
                f"{recipe.model.path}: the tokenizer has {len(template.tokenizer):,} tokens and the model embeddings "
                f"for {rows:,}; the {part} data have the token {token!r} ({largest}), which it has no embedding for. "
                f"Tokenizer and weights are not of one model"
            )


def record_identity(run: Run, template_sha256: str, starts_from: Path | None = None) -> None:
    """Write into the manifest what a resumed run must have unchanged, or compare with what is there.

    `starts_from` is the folder of the adapter that is trained on.

    Raises:
        RunError: naming what changed: base weights, template or tokenizer, code of plugin files, keys of the recipe.
    """
    if (folder := folder_of(run.recipe.model)) is None:
        raise harness.ModelError(f"{run.recipe.model.path}: its files are not in the hub's cache folder")
    model = hashes_of_model(folder)
    now: dict[str, Any] = model | {"template_sha256": template_sha256, "settings": settings_of(run.recipe)}
    if run.recipe.plugins:  # where they are may change, what they do may not
        now["plugins_sha256"] = [read_sha256(Path(file)) for file in run.recipe.plugins if Path(file).is_file()]
    if starts_from is not None:
        now["start_sha256"] = read_sha256(starts_from / "adapter_model.safetensors")
    began = run.manifest.get("identity")
    if began is None:
        run.update(identity=now)
        return
    if not model.keys() <= began.keys():
        click.echo(
            f"warning: {run.folder} was begun by an earlier version: that its base model is unchanged is not checked",
            err=True,
        )
        began = began | model
    changed = []
    if any(began[key] != model[key] for key in model):
        changed.append(f"the base model's files ({run.recipe.model.path})")
    if began.get("start_sha256") != now.get("start_sha256"):
        changed.append(f"the adapter that it starts from ({starts_from})")
    if began["template_sha256"] != template_sha256:
        changed.append("the template or the tokenizer")
    if began.get("plugins_sha256") != now.get("plugins_sha256"):
        changed.append(f"the code of the recipe's plugins ({listed(run.recipe.plugins)})")
    settings = in_sections(began["settings"], now["settings"])
    for key in sorted(settings.keys() | now["settings"].keys()):
        if _differs(key, settings, now["settings"]):
            changed.append(f"{key} (was {settings.get(key)!r}, is {now['settings'].get(key)!r})")
    if changed:
        raise harness.RunError(
            f"{run.folder}: not the run that was stopped: changed since it began: {listed(changed)}. An exact "
            f"resume is not possible. Put it back, or start a new run: "
            f"`{command('tune', run.folder / 'recipe.yaml', '--run', 'NAME')}`"
        )


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Return the keys of the recipe that decide about the weights, each by its whole name."""
    return {
        key: value
        for section, values in recipe.model_dump(mode="json").items()
        if section not in FREE_KEYS
        for key, value in ({f"{section}.{name}": value for name, value in values.items()}).items()
        if key not in FREE_KEYS
    }


def in_sections(began: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded settings as they are named today, with the keys that the version which wrote them did not have.

    Version 0.1 had the options of method and objective flat, beside their names.
    """
    settings = dict(began)
    for section in ("tune.method", "tune.objective"):
        if isinstance(name := settings[section], str):
            flat = [key for key in now[section] if f"tune.{key}" in settings]
            settings[section] = {"name": name} | {key: settings.pop(f"tune.{key}") for key in flat}
    if "tune.batch_tokens" in settings:
        settings["tune.step_tokens"] = settings.pop("tune.batch_tokens") * settings.pop("tune.accumulate", 1)
    if settings.get("data.train_on") == "none-but-marked":
        settings["data.train_on"] = "marked"
    filled: dict[str, Any] = _with_new_keys(settings, now)
    return filled


def _with_new_keys(began: Any, now: Any) -> Any:
    """Return `began` with the keys of `now` that it lacks, at any depth."""
    if isinstance(began, Mapping) and isinstance(now, Mapping):
        return {**now, **{key: _with_new_keys(value, now.get(key)) for key, value in began.items()}}
    if isinstance(began, list) and isinstance(now, list) and len(began) == len(now):
        return [_with_new_keys(*pair) for pair in zip(began, now, strict=True)]
    return began


def _differs(key: str, began: dict[str, Any], now: dict[str, Any]) -> bool:
    missing = object()
    return bool(began.get(key, missing) != now.get(key, missing))


def asking_as_tuned(template: BoundTemplate, reports: Sequence[SourceReport], reasoning: Reasoning) -> BoundTemplate:
    """Return the template whose prompts are by default those of the rows, where all have thoughts, or none has.

    Where some have, the template's own default stays.
    """
    thinking = 0 if reasoning == "drop" else sum(report.with_thoughts for report in reports)
    if 0 < thinking < sum(report.kept for report in reports):
        return template
    return template.asking(thinks=thinking > 0)
