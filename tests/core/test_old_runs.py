"""A run of version 0.1, with its evaluations, in `tests/data/run-0.1`: it opens, compares and is measured anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from harness_tuning.fit import in_sections, settings_of
from safetensors.torch import load_file

from harness.plugins import Plugins
from harness.run import Run
from harness.testing import Done

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[1] / "data" / "run-0.1"
WHERE_IT_WAS_MADE = "/tmp/before"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The run's folder, its model and rows beside it, with the paths of this machine."""
    shutil.copytree(DATA / "model", tmp_path / "model")
    shutil.copy(DATA / "rows.jsonl", tmp_path)
    folder = tmp_path / "runs" / "old"
    shutil.copytree(DATA / "run", folder)
    for name in ("recipe.yaml", "manifest.json"):
        (folder / name).write_text((folder / name).read_text().replace(WHERE_IT_WAS_MADE, str(tmp_path)))
    return folder


def test_its_options_stand_in_the_sections_of_method_and_objective(old: Path) -> None:
    tune = Run.open(old, Plugins()).recipe.tune
    assert (tune.method.name, tune.method.rank, tune.method.alpha, tune.objective.name) == ("lora", 2, 4.0, "sft")


def test_a_resume_compares_its_settings_as_they_are_named_today(old: Path) -> None:
    run = Run.open(old, Plugins())
    recorded, now = run.manifest["identity"]["settings"], settings_of(run.recipe)
    assert recorded != now and in_sections(recorded, now) == now
    assert in_sections(recorded | {"tune.rank": 3}, now)["tune.method"]["rank"] == 3


def test_it_is_listed_shown_and_compared_by_what_was_recorded(old: Path, harness_command: Callable[..., Done]) -> None:
    listed = harness_command("runs list")
    assert listed.code == 0 and "finished" in listed.out and "val_loss" in listed.out
    assert harness_command("runs show old").code == 0
    compared = harness_command("compare old@base old")
    assert compared.code == 0 and "better" in compared.out and "paired t, weighted" in compared.out, compared.err


def test_it_measures_as_it_did(old: Path, harness_command: Callable[..., Done]) -> None:
    shutil.rmtree(old / "evaluations")
    measured = harness_command("evaluate old@base old")
    assert measured.code == 0 and "6.369 ± 0.012" in measured.out and "6.354 ± 0.011" in measured.out, measured.err


def test_its_template_is_the_one_it_was_tuned_with(old: Path, harness_command: Callable[..., Done]) -> None:
    verified = harness_command("template verify old")
    assert verified.code == 0 and "as it was when the run was tuned" in verified.out, verified.out


def test_it_is_tuned_again_from_its_own_recipe(old: Path, harness_command: Callable[..., Done]) -> None:
    again = harness_command("tune", old / "recipe.yaml", "--set", "name=again")
    assert again.code == 0, again.err
    before, after = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (old, old.parent / "again"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)  # exactly, on the machine that made it
