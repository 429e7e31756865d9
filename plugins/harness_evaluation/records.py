"""What was measured, on disk: `<task>.json` with scores and settings, `<task>.samples.jsonl` with every item.

A run keeps the records of its variants in `<run>/evaluations/<variant>/`; those of a plain model are in
`<runs folder>/evaluations/<variant>/`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.files import read_json, write_json, write_text
from harness.nouns import Result, Sample, Score

if TYPE_CHECKING:
    from harness.model.load import LoadedVariant
    from harness.variants import Variant

FORMAT = 1


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

    def samples(self) -> tuple[Sample, ...]:
        """The items. Raises HarnessError where their file is missing or is not the one this record was written with."""
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
        """What decides how the items were put and judged, by dotted name; the variant's weights left out."""
        chosen = {
            key: self.entries[key] for key in ("evaluation", "options", "details", "template", "dtype", "versions")
        }
        return dict(_flat(chosen))


def categories(samples: Sequence[Sample]) -> list[str]:
    """The categories of the items in order of appearance; none where there is only one to speak of."""
    found = list(dict.fromkeys(sample.category for sample in samples if sample.category))
    return found if len(found) > 1 else []


def folder_of(variant: Variant, runs_folder: Path) -> Path:
    """Where the records of a variant are."""
    root = variant.run.evaluations_folder if variant.run is not None else runs_folder / "evaluations"
    return root / variant.name


def read_records(variant: Variant, runs_folder: Path) -> dict[str, Record]:
    """The records of a variant by task; empty where it was never evaluated."""
    found = {}
    for path in sorted(folder_of(variant, runs_folder).glob("*.json")):
        entries = read_json(path)
        if not isinstance(entries, dict) or entries.get("format") != FORMAT:
            raise HarnessError(
                f"{path}: not a record of this version (format {FORMAT}); measure again with `harness evaluate`"
            )
        found[entries["task"]] = Record(path, entries)
    return found


def write_record(
    loaded: LoadedVariant,
    evaluation: str,
    options: Mapping[str, Any],
    result: Result,
    folder: Path,
    seconds: float,
) -> Record:
    """Write one result with all that decided it: items first, then the record that vouches for them by hash."""
    from harness.run import environment
    from harness.template import fingerprint

    variant = loaded.variant
    lines = "".join(json.dumps(dataclasses.asdict(sample), ensure_ascii=False) + "\n" for sample in result.samples)
    now = environment()
    entries: dict[str, Any] = {
        "format": FORMAT,
        "task": result.task,
        "variant": variant.name,
        "evaluation": evaluation,
        "options": dict(options),
        "details": dict(result.details),
        "scores": {name: dataclasses.asdict(score) for name, score in result.scores.items()},
        "template": {
            "name": loaded.template.name,
            "sha256": fingerprint(loaded.template),
            "stop_tokens": loaded.template.stop_tokens,
        },
        "dtype": variant.model.dtype,
        "weights": weights_of(variant),
        "samples": f"{result.task}.samples.jsonl",
        "samples_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "device": str(loaded.device),
        "seconds": round(seconds, 2),
        "versions": now.pop("versions"),
        "environment": now,
    }
    entries = _without_infinities(entries)
    write_text(folder / entries["samples"], lines)
    write_json(folder / f"{result.task}.json", entries)
    return Record(folder / f"{result.task}.json", entries)


def weights_of(variant: Variant) -> dict[str, Any]:
    """What was measured: the model by path or hub id, local weights and the adapter by hash, and the run's recipe."""
    weights: dict[str, Any] = {"model": variant.model.path, "revision": variant.model.revision}
    if variant.model.is_local:
        weights["model_sha256"] = _sha256_of(Path(variant.model.path))
    if variant.adapter is not None:
        weights["adapter_sha256"] = _sha256_of(variant.adapter)
    if variant.run is not None:
        weights |= {"run": variant.run.name, "recipe_sha256": variant.run.manifest.get("recipe_sha256")}
    return weights


def _sha256_of(folder: Path) -> str:
    """One hash of the safetensors files in a folder and their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _flat(item, f"{prefix}.{key}" if prefix else str(key))]
    return [(prefix, value)]


def _without_infinities(value: Any) -> Any:
    """JSON has neither infinity nor NaN: such a figure (an overflown perplexity) is written as null."""
    if isinstance(value, Mapping):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
