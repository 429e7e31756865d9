"""Records on file without a model: items that are right by a pattern, and their comparison."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.measure import statistics
from harness.measure.records import Record, VariantRecords
from harness.measure.side_by_side import SideBySide, side_by_side
from harness.nouns import Sample

CHATML = {"name": "chatml", "sha256": "aa", "stop_tokens": ["<|im_end|>"]}


class Written:
    """Writes a record as `harness evaluate` does; keywords replace its entries."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0

    def __call__(self, variant: str, samples: Sequence[Sample], task: str = "sums", **entries: Any) -> Record:
        self.count += 1
        folder = self.root / variant / str(self.count)
        folder.mkdir(parents=True)
        lines = "".join(json.dumps(dataclasses.asdict(sample)) + "\n" for sample in samples)
        (folder / f"{task}.samples.jsonl").write_text(lines)
        names = dict.fromkeys(name for sample in samples for name in sample.metrics)
        scores = {
            name: statistics.of_samples(samples, name)._asdict() | {"higher_is_better": name not in ("nll", "bits")}
            for name in names
        }
        of_record = {
            "format": 2, "task": task, "variant": variant, "evaluation": "sums", "options": {"limit": None},
            "details": {}, "warnings": [], "template": CHATML, "dtype": "float32", "versions": {}, "scores": scores,
            "weights": {"model_sha256": "m", "adapter_sha256": f"adapter of {variant}"},
            "measured": f"2026-11-26T00:00:{self.count:02}", "samples": f"{task}.samples.jsonl",
            "samples_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        }  # fmt: skip
        path = folder / f"{task}.json"
        path.write_text(json.dumps(of_record | entries))
        return Record(path, of_record | entries)


def right(pattern: str, **more: Any) -> list[Sample]:
    """Items that are right where the pattern has a 1; the answer says which."""
    return [
        Sample(f"i{number}:h{number}", {"right": float(mark)}, f"question {number}", f"answer {mark}", "answer 1",
               input=f"<|user|>question {number}", **more)
        for number, mark in enumerate(pattern)
    ]  # fmt: skip


def compared(*records: Sequence[Record], **options: Any) -> SideBySide:
    names = [of[0].variant for of in records]
    return side_by_side(names, names, [VariantRecords(tuple(of), ()) for of in records], **options)
