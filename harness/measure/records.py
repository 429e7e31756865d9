"""Records of measurements on disk: `<task>.json` with scores and settings, `<task>.samples.jsonl` with every item.

They are in `<run>/evaluations/<variant>/<key>/` for the variants of a run, and in
`<runs folder>/evaluations/<model>-<weights>/<key>/` for plain models. The key is a hash of weights, template and
settings: measuring the same again replaces the record, anything else gets one of its own beside it.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contract.backends import Identity
from harness.errors import HarnessError
from harness.files import read_json, write_json, write_text
from harness.measure import statistics
from harness.measure.endings import noise_of
from harness.measure.weights import are_same, identity
from harness.nouns import Result, Sample, Score

if TYPE_CHECKING:
    from harness.variants import Variant

# 1: one record a task, in the variant's folder itself; white space before an answer was scored as part of it.
FORMAT = 2


@dataclass(frozen=True, slots=True)
class Record:
    """One variant's measurement of one task, as it was written."""

    path: Path
    entries: Mapping[str, Any]

    @property
    def task(self) -> str:
        return str(self.entries["task"])

    @property
    def variant(self) -> str:
        return str(self.entries["variant"])

    @property
    def evaluation(self) -> str:
        return str(self.entries["evaluation"])

    @property
    def scores(self) -> dict[str, Score]:
        return {name: Score(**score) for name, score in self.entries["scores"].items()}

    @property
    def warnings(self) -> list[str]:
        return list(self.entries.get("warnings", []))

    @property
    def noise(self) -> str:
        """A sentence on the items that were asked twice; empty where there are none."""
        return str(self.entries.get("noise", ""))

    @property
    def unverified(self) -> str:
        """A sentence on an engine whose prompts could not be compared with training's; empty for any other."""
        parity = self.entries.get("asked", {}).get("parity")
        if not isinstance(parity, str):
            return ""
        return f"unverified: {parity}, so that its prompts are not compared with training's"

    @property
    def measured(self) -> str:
        """The time of the measurement, in ISO format; of a record in format 1, that of its file."""
        if (time := self.entries.get("measured")) is not None:
            return str(time)
        return _iso(datetime.datetime.fromtimestamp(self.path.stat().st_mtime, datetime.UTC))

    def samples(self) -> tuple[Sample, ...]:
        """Read the items. Raises HarnessError where their file is missing or is not the record's."""
        path = self.path.with_name(self.entries["samples"])
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise HarnessError(
                f"{path}: the items of this record are missing; measure again with `harness evaluate`"
            ) from None
        if hashlib.sha256(text.encode()).hexdigest() != self.entries["samples_sha256"]:
            raise HarnessError(f"{path}: these are not the items that {self.path.name} was written with; measure again")
        # Not splitlines(): an answer may hold U+2028 and its like, which JSON leaves as they are.
        return tuple(Sample(**json.loads(line)) for line in text.split("\n") if line)

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide how items were asked and judged, by dotted name; weights are left out."""
        keys = ("format", "evaluation", "options", "details", "template", "dtype", "engine", "versions")
        flat = dict(_flat({key: self.entries[key] for key in keys if key in self.entries}))
        flat.pop("options.tasks", None)  # this record is of one
        flat.pop("details.trained_on", None)  # of the weights, and the record's warnings speak of it
        return flat


def categories(samples: Sequence[Sample]) -> list[str]:
    """Return the categories of the items in order of appearance; none where there are fewer than two."""
    names = list(dict.fromkeys(sample.category for sample in samples if sample.category))
    return names if len(names) > 1 else []


@dataclass(frozen=True, slots=True)
class VariantRecords:
    """The records of one variant: of the weights that are on disk now, and of weights that were there before."""

    current: tuple[Record, ...]
    stale: tuple[Record, ...]

    def of(self, task: str) -> list[Record]:
        return [record for record in self.current if record.task == task]

    @property
    def tasks(self) -> list[str]:
        return sorted({record.task for record in self.current})


def folder_of(variant: Variant, runs_folder: Path, weights: Mapping[str, Any]) -> Path:
    """Return the folder for the records of a variant with these weights."""
    if variant.run is None:
        return runs_folder / "evaluations" / f"{variant.model.short_name}-{_short_hash(identity(weights))}"
    return variant.run.evaluations_folder / (variant.run.name + ("" if variant.is_tuned else "@base"))


def find_records(variant: Variant, runs_folder: Path, weights: Mapping[str, Any]) -> VariantRecords:
    """Read the records of a variant whose weights are now `weights`; of a plain model, those of equal copies too."""
    root = runs_folder / "evaluations" if variant.run is None else folder_of(variant, runs_folder, weights)
    records = [_read(path) for path in sorted(root.rglob("*.json"))]
    current = [record for record in records if are_same(record.entries["weights"], weights)]
    stale = [
        record
        for record in records
        if record not in current and (variant.run is not None or record.entries["weights"]["model"] == weights["model"])
    ]
    return VariantRecords(tuple(current), tuple(stale))


def _read(path: Path) -> Record:
    entries = read_json(path)
    if not isinstance(entries, dict) or entries.get("format") not in (1, FORMAT):
        raise HarnessError(
            f"{path}: not a record of this version (format {FORMAT}); "
            f"remove it and measure again with `harness evaluate`"
        )
    return Record(path, entries)


def write_record(
    variant: Variant,
    measured: Identity,
    evaluation: str,
    options: Mapping[str, Any],
    result: Result,
    folder: Path,
    seconds: float,
) -> Record:
    """Write one result with its settings, under `folder`: the items first, then the record with their hash."""
    from harness.run import environment

    lines = "".join(json.dumps(dataclasses.asdict(sample), ensure_ascii=False) + "\n" for sample in result.samples)
    now = environment()
    template = dict(measured.template)
    entries: dict[str, Any] = {
        "format": FORMAT,
        "task": result.task,
        "variant": variant.name,
        "evaluation": evaluation,
        "options": dict(options),
        "details": dict(result.details),
        "warnings": list(result.warnings),
        "scores": {name: dataclasses.asdict(_with_interval(result, name)) for name in result.scores},
        "noise": noise_of(result.samples),
        "template": template,
        "dtype": measured.dtype,
        "engine": measured.engine,
        "engine_version": measured.engine_version,
        "asked": dict(measured.more),
        "weights": dict(measured.weights),
        "samples": f"{result.task}.samples.jsonl",
        "samples_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "device": measured.device,
        "measured": _iso(datetime.datetime.now(datetime.UTC)),
        "seconds": round(seconds, 2),
        "versions": now.pop("versions"),
        "environment": now,
    }
    entries = _without_infinities(entries)
    settings = {key: value for key, value in options.items() if key != "tasks"}
    key = _short_hash(
        [evaluation, settings, template["sha256"], measured.dtype, measured.engine, identity(measured.weights)]
    )
    write_text(folder / key / entries["samples"], lines)
    write_json(folder / key / f"{result.task}.json", entries)
    return Record(folder / key / f"{result.task}.json", entries)


def _with_interval(result: Result, name: str) -> Score:
    """Return a score with its interval where it is a share of right items."""
    having, score = result.items_of(name), result.scores[name]
    metric = name if any(name in sample.metrics for sample in having) else name.partition("/")[0]
    weights = {sample.weight_of(metric) for sample in having}
    if len(weights) != 1 or not all(sample.metrics[metric] in (0, 1) for sample in having):
        return score
    clusters = len(set(statistics.numbered([sample.group for sample in having])))
    share = statistics.of_samples(having, metric)
    interval = statistics.share_interval(share, None if clusters == len(having) else clusters)
    return dataclasses.replace(score, interval=interval)


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _iso(time: datetime.datetime) -> str:
    return time.isoformat(timespec="microseconds")


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _flat(item, f"{prefix}.{key}" if prefix else str(key))]
    return [(prefix, value)]


def _without_infinities(value: Any) -> Any:
    """Replace infinity and NaN, which JSON has not, by None: an overflown perplexity is written as null."""
    if isinstance(value, Mapping):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
