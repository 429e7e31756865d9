"""The result of a run on disk: the adapter or the model, the template, and the probes that serving must reproduce."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.checks.methods import require_saved
from harness.contract.events import Artefact
from harness.files import read_json, replacing, write_json
from harness.model.heads import save_head
from harness.model.load import load_adapted, load_model
from harness_tuning.checkpoint import best_checkpoint
from harness_tuning.methods.full import save_model
from harness_tuning.probes import mean_difference, measure_probes

if TYPE_CHECKING:
    from harness_tuning.loop import Tuner


def save_result(tuner: Tuner) -> None:
    """Leave adapter (or model), template and probes on disk, and let the checkpoints go."""
    run = tuner.run
    whole = tuner.merges or tuner.method.produces == "model"
    target = run.model_folder if whole else run.adapter_folder
    for leftover in (target, run.chat_folder):  # of an attempt that was killed after it had saved this much
        shutil.rmtree(leftover, ignore_errors=True)
    tuner.template.save(run.chat_folder)
    if tuner.merges:
        _merge(tuner)
    with replacing(target) as temporary:
        temporary.mkdir()
        (save_model if tuner.merges else tuner.method.save)(tuner.model, temporary)
        require_saved(temporary, "model" if whole else "adapter", tuner.method.name)
        if whole:  # so that the folder can be used by itself
            _complete(tuner, temporary)
    if tuner.head is not None:
        with replacing(run.head_path) as temporary:
            save_head(tuner.head, temporary)
    tuned = measure_probes(tuner.model, tuner.probes)
    if tuner.changes_base is not None and not whole:
        tuned = _measured_as_served(tuner, tuned)
    measured = [
        probe | {"base": base, "tuned": after}
        for probe, base, after in zip(tuner.probes, tuner.probes_of_base, tuned, strict=True)
    ]
    write_json(run.probes_path, {"dtype": tuner.recipe.model.dtype, "probes": measured})
    tuner.events.send(Artefact(run.name, "model" if whole else "adapter", target))
    for to_go_on_from in (run.checkpoints_folder, run.prepared_folder):
        shutil.rmtree(to_go_on_from, ignore_errors=True)


def keep_weights(tuner: Tuner) -> None:
    """Take the weights that the recipe keeps, and write down which they are and why the run ended.

    All processes call it where they have parts: the main one puts these together, on a whole model on the CPU.
    """
    best, step = tuner.progress.best, tuner.progress.step
    kept: dict[str, Any] = {"which": tuner.spec.keep, "step": step}
    if tuner.spec.keep == "best" and best.step != step:
        tuner.optimizer.load(best_checkpoint(tuner.run, best.step))
    if tuner.spec.keep == "best":
        kept |= {"step": best.step, "validation_loss": best.loss}
    if tuner.is_sharded:
        trained = tuner.optimizer.gathered_weights()
        if tuner.world.is_main:
            tuner.model = _whole_model(tuner, trained)
    if not tuner.world.is_main:
        return
    ended = {"step": step, "stale_validations": best.stale} if tuner.is_stopped_early else None
    tuner.run.update(kept=kept, stopped_early=ended)


def _whole_model(tuner: Tuner, trained: Mapping[str, Tensor]) -> Any:
    model = tuner.method.apply(load_model(tuner.recipe.model, for_tuning=True), tuner.spec.method)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in trained.items():
            weights[name].copy_(weight)
    return model


def _complete(tuner: Tuner, folder: Path) -> None:
    tuner.template.tokenizer.save_pretrained(folder)
    defaults = read_json(tuner.run.chat_folder / "generation_config.json")
    del defaults["temperature"]  # transformers warns of it beside do_sample: false
    write_json(folder / "generation_config.json", defaults)


def _measured_as_served(tuner: Tuner, trained: list[list[float]]) -> list[list[float]]:
    """Return the probes of the saved adapter on the base of the files. The difference goes into the manifest."""
    model = load_adapted(tuner.recipe.model, tuner.run.adapter_folder)
    tuned = measure_probes(model, tuner.probes)
    tuner.run.update(serving_changed_nats=mean_difference(tuned, trained))
    return tuned


def _merge(tuner: Tuner) -> None:
    """Merge base, adapter and rows into one model. The change by rounding to its dtype goes into the manifest."""
    before = measure_probes(tuner.model, tuner.probes)
    if tuner.rows is not None:
        tuner.rows.fold()
    tuner.model = tuner.model.merge_and_unload(safe_merge=True)
    tuner.run.update(merging_changed_nats=mean_difference(measure_probes(tuner.model, tuner.probes), before))
