"""The facts of a run's beginning, written into its manifest."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from harness.template import fingerprint, source_fingerprint

if TYPE_CHECKING:
    from harness_tuning.loop import Tuner


def record(tuner: Tuner) -> None:
    """Write into the manifest what the data, the template and the model turned out to be."""
    tuner.run.update(
        data_sha256=tuner.data.train.sha256,
        attention={"name": tuner.attention.name, "reason": tuner.attention.reason},
        fused=asdict(tuner.fused),
        layout=asdict(tuner.layout),
        split=asdict(tuner.source.split),
        processes={"count": tuner.world.size, "weights": "shared out" if tuner.is_sharded else "whole in each"},
        checkpointed=tuner.fit.checkpointed,
        estimate=asdict(tuner.estimate),
        measured_flops=tuner.pace.peak_flops,
        template={
            "name": tuner.template.name,
            "stop_tokens": tuner.template.stop_tokens,
            "text_marks": tuner.template.text_marks,
            "spelt_marks": tuner.template.spelt_marks,
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
                "with_thoughts": report.with_thoughts,
                "one_an_answer": report.one_an_answer,
                "tokens": report.tokens,
                "supervised_tokens": report.supervised,
                "control_tokens_said": dict(report.escaped),
            }
            | ({"lengths": dict(report.lengths)} if report.lengths else {})
            for report in tuner.data.train.reports
        ],
        overlaps=[] if (report := tuner.data.train.report) is None else [str(overlap) for overlap in report.overlaps],
    )
