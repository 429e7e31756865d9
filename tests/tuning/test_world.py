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


def weights_of(runs: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors that a run has saved: its adapter's, or its model's."""
    (file,) = [*(runs / name).glob("adapter/*.safetensors"), *(runs / name).glob("model/*.safetensors")]
    return load_file(file)


def lines_of(runs: Path, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]


def assert_same_curve(runs: Path, one: str, other: str) -> None:
    """Losses, norms, counts and weights are equal to 1e-4."""
    alone, shared = weights_of(runs, one), weights_of(runs, other)
    assert alone.keys() == shared.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(shared[name], weight, atol=1e-4, rtol=0)
    for a, b in zip(lines_of(runs, one), lines_of(runs, other), strict=True):
        for key in ("step", "loss", "validation_loss", "grad_norm", "tokens", "supervised_tokens", "kl"):
            assert b.get(key) == pytest.approx(a.get(key), abs=1e-4), key


SETTINGS = {"step_tokens": 768, "microbatch_tokens": 256, "steps": 3, "validate_every": 2, "checkpoint_every": 2}


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto"])
def test_two_processes_reach_the_adapter_of_one(
    tmp_path: Path, recipe: Callable[..., Path], preferences: Callable[..., Path], objective: str
) -> None:
    """Each with the whole model, and each with a part of it. Of three batches the second process has one or none."""
    settings = SETTINGS | {"objective": {"name": objective}}
    path = recipe("float32", **settings) if objective == "sft" else preferences(**settings)
    code, output = tune(tmp_path, path, "--run", "alone")
    assert code == 0, output
    for parallel in ("data", "fsdp"):
        ends = together(tmp_path, "tune", path, "--run", parallel, "--set", f"tune.parallel={parallel}")
        assert [code for code, _ in ends] == [0, 0], ends
        assert_same_curve(tmp_path / "runs", "alone", parallel)
        assert "Tuned" in ends[0][1] and "Tuned" not in ends[1][1]
    assert any(weight.abs().max() > 1e-2 for name, weight in weights_of(tmp_path / "runs", "alone").items())
    assert "the weights are shared out among them" in ends[0][1]
    manifest = json.loads((tmp_path / "runs/fsdp/manifest.json").read_text())
    assert [session["outcome"] for session in manifest["sessions"]] == ["finished"]
    assert manifest["processes"] == {"count": 2, "weights": "shared out"}


def test_a_whole_model_that_is_shared_out_is_saved_and_resumed_alone(
    tmp_path: Path, recipe: Callable[..., Path]
) -> None:
    """Stopped after two of four steps in two processes, finished in one: and the other way round."""
    settings = SETTINGS | {"steps": 4, "parallel": "fsdp", "samples": 2, "keep": "best", "gradient_checkpointing": True}
    path = recipe("float32", "full", **settings, learning_rate=1e-3)
    code, output = tune(tmp_path, path, "--run", "alone")
    assert code == 0, output
    ends = together(tmp_path, "tune", path, "--run", "first", signal_at=2)
    assert [code for code, _ in ends] == [130, 130], ends
    code, output = tune(tmp_path, "--resume", "first")
    assert code == 0, output
    assert_same_curve(tmp_path / "runs", "alone", "first")
    ends = together(tmp_path, "tune", path, "--run", "whole")
    assert [code for code, _ in ends] == [0, 0], ends
    assert_same_curve(tmp_path / "runs", "alone", "whole")


# Runs in every process, and lets the second run out of memory, once.
TOO_MUCH = """
from harness import hookimpl
from harness_tuning.learner import Learner

added, times = Learner._added, []

def too_much(self, batches, units):
    if (self.world.rank, self.world.restarts, len(times)) == (1, 0, 0):
        times.append(1)
        raise RuntimeError("can't allocate memory: you tried to allocate 12 bytes")
    return added(self, batches, units)

Learner._added = too_much

@hookimpl
def register_commands(register):
    pass
"""


def test_one_that_runs_out_of_memory_halves_the_batches_of_all(
    tmp_path: Path, recipe: Callable[..., Path], preferences: Callable[..., Path]
) -> None:
    """With an objective that observes, so that there are sums to agree on before each gradient."""
    path = preferences(objective={"name": "kto"}, step_tokens=512, steps=2)
    code, output = tune(tmp_path, path, "--run", "alone")
    assert code == 0, output
    (tmp_path / "too_much.py").write_text(TOO_MUCH)
    ends = together(tmp_path, "--plugin", tmp_path / "too_much.py", "tune", path, "--run", "shared")
    assert [code for code, _ in ends] == [0, 0], ends
    assert ends[0][1].count("out of memory") == 1
    assert_same_curve(tmp_path / "runs", "alone", "shared")


def test_an_interrupted_run_goes_on_in_two_processes(tmp_path: Path, recipe: Callable[..., Path]) -> None:
    path = recipe("float32", step_tokens=512, steps=4, checkpoint_every=2)
    code, output = tune(tmp_path, path, "--run", "alone")
    assert code == 0, output
    ends = together(tmp_path, "tune", path, "--run", "shared", signal_at=2)
    assert [code for code, _ in ends] == [130, 130], ends
    ends = together(tmp_path, "tune", "--resume", "shared")
    assert [code for code, _ in ends] == [0, 0], ends
    assert_same_curve(tmp_path / "runs", "alone", "shared")


def test_two_files_know_torch_distributed() -> None:
    folders = [ROOT / "harness", ROOT / "plugins", ROOT / "serve"]
    knows = re.compile(r"torch\.distributed|from torch import distributed|\bWORLD_SIZE\b")
    files = [path for folder in folders for path in folder.rglob("*.py") if knows.search(path.read_text())]
    assert sorted(path.name for path in files) == ["launch.py", "world.py"]
