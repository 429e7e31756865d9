"""Several processes tune one run: the gradient is that of one process, and the main one alone writes the run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from tests.conftest import ROOT  # noqa: E402
from tests.tuning.processes import together, tune  # noqa: E402

pytestmark = pytest.mark.slow


def adapter_of(runs: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(runs / name / "adapter" / "adapter_model.safetensors")


def test_two_processes_reach_the_adapter_of_one(tmp_path: Path, recipe: Callable[..., Path]) -> None:
    """Three batches a step: the second process has one of them, and an empty one."""
    path = recipe("float32", step_tokens=768, microbatch_tokens=256, steps=4, validate_every=2, checkpoint_every=2)
    code, output = tune(tmp_path, path, "--run", "alone")
    assert code == 0, output
    ends = together(tmp_path, "tune", path, "--run", "shared")
    assert [code for code, _ in ends] == [0, 0], ends

    alone, shared = adapter_of(tmp_path / "runs", "alone"), adapter_of(tmp_path / "runs", "shared")
    assert alone.keys() == shared.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(shared[name], weight, atol=1e-4, rtol=0)
    assert any(weight.abs().max() > 1e-2 for name, weight in alone.items() if "lora_B" in name)

    one, other = (
        [json.loads(line) for line in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("alone", "shared")
    )
    for a, b in zip(one, other, strict=True):
        for key in ("step", "loss", "validation_loss", "grad_norm", "tokens", "supervised_tokens"):
            assert b.get(key) == pytest.approx(a.get(key), abs=1e-4)
    manifest = json.loads((tmp_path / "runs/shared/manifest.json").read_text())
    assert [session["outcome"] for session in manifest["sessions"]] == ["finished"]
    assert "Tuned" in ends[0][1] and "Tuned" not in ends[1][1]


def test_an_interrupted_run_goes_on_in_two_processes(tmp_path: Path, recipe: Callable[..., Path]) -> None:
    path = recipe("float32", step_tokens=512, steps=4, checkpoint_every=2)
    code, output = tune(tmp_path, path, "--run", "alone")
    assert code == 0, output
    ends = together(tmp_path, "tune", path, "--run", "shared", signal_at=2)
    assert [code for code, _ in ends] == [130, 0], ends
    ends = together(tmp_path, "tune", "--resume", "shared")
    assert [code for code, _ in ends] == [0, 0], ends
    alone, shared = adapter_of(tmp_path / "runs", "alone"), adapter_of(tmp_path / "runs", "shared")
    for name, weight in alone.items():
        torch.testing.assert_close(shared[name], weight, atol=1e-4, rtol=0)


def test_one_file_knows_torch_distributed() -> None:
    folders = [ROOT / "harness", ROOT / "plugins", ROOT / "serve"]
    knows = re.compile(r"torch\.distributed|from torch import distributed|\bWORLD_SIZE\b")
    files = [path for folder in folders for path in folder.rglob("*.py") if knows.search(path.read_text())]
    assert [path.name for path in files] == ["world.py"]
