"""The files of a run beside its metrics: the facts of its beginning, and its result."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.contract.events import Artefact
from harness.files import read_json, replacing, write_json
from harness.model.heads import save_head
from harness.template import fingerprint, source_fingerprint
from harness_tuning.checkpoint import best_checkpoint
from harness_tuning.methods.full import save_model
from harness_tuning.probes import mean_difference, measure_probes

if TYPE_CHECKING:
    from harness_tuning.loop import Tuner


def record(tuner: Tuner) -> None:
    """Write into the manifest what the data, the template and the model turned out to be."""
    tuner.run.update(
        data_sha256=tuner.data.train.sha256,
        attention={"name": tuner.attention.name, "reason": tuner.attention.reason},
        layout=asdict(tuner.layout),
        split=asdict(tuner.source.split),
        estimate=asdict(tuner.estimate),
        measured_flops=tuner.pace.peak_flops,
        template={
            "name": tuner.template.name,
            "stop_tokens": tuner.template.stop_tokens,
            "sha256": fingerprint(tuner.template),
            "source_sha256": source_fingerprint(tuner.template),
            "added_tokens": tuner.added,
        },
        data=[
            {
                "dataset": report.source,
                "path": report.path,
                "rows": report.rows,
                "kept": report.kept,
                "left_out": dict(report.left_out),
                "used": report.used,
                "tokens": report.tokens,
                "supervised_tokens": report.supervised,
                "control_tokens_said": dict(report.escaped),
            }
            for report in tuner.data.train.reports
        ],
        overlaps=[] if (report := tuner.data.train.report) is None else [str(overlap) for overlap in report.overlaps],
    )


def finish(tuner: Tuner) -> None:
    """Leave adapter (or model), template and probes on disk, in the main process, and let the checkpoints go."""
    if not tuner.world.is_main:
        return
    _keep(tuner)
    whole = tuner.merges or tuner.method.produces == "model"
    target = tuner.run.model_folder if whole else tuner.run.adapter_folder
    for leftover in (target, tuner.run.chat_folder):  # of an attempt that was killed after it had saved this much
        shutil.rmtree(leftover, ignore_errors=True)
    tuner.template.save(tuner.run.chat_folder)
    if tuner.merges:
        _merge(tuner)
    with replacing(target) as temporary:
        temporary.mkdir()
        (save_model if tuner.merges else tuner.method.save)(tuner.model, temporary)
        if whole:  # so that the folder can be used by itself
            tuner.template.tokenizer.save_pretrained(temporary)
            defaults = read_json(tuner.run.chat_folder / "generation_config.json")
            del defaults["temperature"]  # transformers warns of it beside do_sample: false
            write_json(temporary / "generation_config.json", defaults)
    if tuner.head is not None:
        with replacing(tuner.run.head_path) as temporary:
            save_head(tuner.head, temporary)
    tuned = measure_probes(tuner.model, tuner.probes)
    measured = [
        probe | {"base": base, "tuned": after}
        for probe, base, after in zip(tuner.probes, tuner.probes_of_base, tuned, strict=True)
    ]
    write_json(tuner.run.probes_path, {"dtype": tuner.recipe.model.dtype, "probes": measured})
    tuner.events.send(Artefact(tuner.run.name, "model" if whole else "adapter", target))
    for to_go_on_from in (tuner.run.checkpoints_folder, tuner.run.prepared_folder):
        shutil.rmtree(to_go_on_from, ignore_errors=True)


def _keep(tuner: Tuner) -> None:
    """Take the weights that the recipe keeps, and write down which they are and why the run ended."""
    best, step = tuner.progress.best, tuner.progress.step
    kept: dict[str, Any] = {"which": tuner.spec.keep, "step": step}
    if tuner.spec.keep == "best" and best.step != step:
        tuner.optimizer.load(best_checkpoint(tuner.run, best.step))
    if tuner.spec.keep == "best":
        kept |= {"step": best.step, "validation_loss": best.loss}
    ended = {"step": step, "stale_validations": best.stale} if tuner.is_stopped_early else None
    tuner.run.update(kept=kept, stopped_early=ended)


def _merge(tuner: Tuner) -> None:
    """Merge base, adapter and rows into one model. The change by rounding to its dtype goes into the manifest."""
    before = measure_probes(tuner.model, tuner.probes)
    assert tuner.rows is not None
    tuner.rows.fold()
    tuner.model = tuner.model.merge_and_unload(safe_merge=True)
    tuner.run.update(merging_changed_nats=mean_difference(measure_probes(tuner.model, tuner.probes), before))
