"""The figures of a run for people: losses, evaluations and data, read from its folder; no plugin of it is needed."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files import read_json
from harness.run.folder import Run


def recipe_of(run: Run) -> dict[str, Any]:
    """Return the run's resolved recipe as plain data. Raises HarnessError where it cannot be read."""
    from ruamel.yaml import YAML

    path = run.folder / "recipe.yaml"
    try:
        recipe = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except Exception as error:
        raise HarnessError(f"{path}: cannot be read: {error}") from None
    if not isinstance(recipe, dict):
        raise HarnessError(f"{path}: not a recipe")
    return recipe


def metrics_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; none where there is no file, and without one cut off in mid-write."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def recipe_yaml(recipe: Mapping[str, Any]) -> str:
    """Return a recipe as YAML to send on: of a folder of this machine only the last part is left."""
    from ruamel.yaml import YAML

    out = io.StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.dump(_without_folders(recipe), out)
    return out.getvalue()


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of a run over its steps, and `smoothed` those of training: what a picture of it shows."""

    steps: list[int]
    losses: list[float]
    smoothed: list[float]
    rates: list[float]
    validation: list[tuple[int, float]]


def curve_of(lines: Sequence[Mapping[str, Any]]) -> Curve:
    """Return the loss curve that a run's metrics hold."""
    steps = [line for line in lines if "loss" in line]
    losses = [line["loss"] for line in steps]
    validation = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
    rates = [line["learning_rate"] for line in steps]
    return Curve([line["step"] for line in steps], losses, _smoothed(losses), rates, validation)


def _smoothed(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """Return the exponential moving average, corrected for its start (Kingma & Ba 2015, section 3)."""
    out, average = [], 0.0
    for step, value in enumerate(values, 1):
        average = keep * average + (1 - keep) * value
        out.append(average / (1 - keep**step))
    return out


def figures_of(run: Run) -> dict[str, float]:
    """Return steps, tokens, seconds, and the last and lowest loss of training and validation."""
    lines = metrics_of(run.metrics_path)
    figures: dict[str, float] = {}
    steps = [line for line in lines if "loss" in line]
    if steps:
        figures |= {"steps": steps[-1]["step"], "last loss": steps[-1]["loss"]}
        figures |= {name: steps[-1][name] for name in ("tokens", "seconds") if name in steps[-1]}
    for name in sorted({key for line in lines for key in line if key.startswith("validation_")}):
        values = [line[name] for line in lines if name in line]
        figures |= {f"{name.replace('_', ' ')}, at first": values[0], f"{name.replace('_', ' ')}, at last": values[-1]}
        if name == "validation_loss":
            figures["validation loss, lowest"] = min(values)
    return figures


def scores_of(run: Run) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Return (value, standard error) of each score, by `task/metric` and variant; of several records the newest."""
    records: list[dict[str, Any]] = []
    for path in sorted(run.evaluations_folder.rglob("*.json")):
        entries = read_json(path)
        if isinstance(entries, dict) and "scores" in entries:
            records.append(entries)
    table: dict[str, dict[str, tuple[float, float | None]]] = {}
    for entries in sorted(records, key=lambda record: str(record.get("measured", ""))):
        for metric, score in entries["scores"].items():
            if score["value"] is not None and "/" not in metric:
                row = table.setdefault(f"{entries['task']}/{metric}", {})
                row[str(entries["variant"])] = (score["value"], score["stderr"])
    return table


def shown(score: tuple[float, float | None] | None) -> str:
    """Return a score for people: value ± standard error."""
    if score is None:
        return "–"
    return f"{score[0]:.4g}" + (f" ± {score[1]:.2g}" if score[1] is not None else "")


def probe_ids(run: Run) -> list[list[int]]:
    """Return the token ids of the run's probes."""
    return [probe["input_ids"] for probe in read_json(run.probes_path)["probes"]]


def base_name(recipe: Mapping[str, Any]) -> tuple[str, bool]:
    """Return how others name the base model, and True where that is a hub id and not a folder of this machine."""
    path = str(recipe["model"]["path"])
    is_folder = Path(path).is_absolute() or path.startswith((".", "~"))
    return (Path(path).name, False) if is_folder else (path, True)
