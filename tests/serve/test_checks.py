"""The served variants are those that were tuned, and a person is told when they are not."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from harness import HarnessError
from harness.checks.agreement import Agreement, judge_base, judge_tuned, verify
from harness.plugins import Plugins
from harness.variants import resolve_variants


def _verify(endpoint, variants) -> list[Agreement]:  # type: ignore[no-untyped-def]
    """As if the engine served these variants (and the base) only."""
    return verify(dataclasses.replace(endpoint, models=("base", *(variant.name for variant in variants))), variants)


@pytest.mark.vllm
def test_tuned_runs_agree_with_their_probes(endpoint, runs_folder: Path) -> None:  # type: ignore[no-untyped-def]
    agreements = _verify(endpoint, resolve_variants(("alpha", "beta"), runs_folder, Plugins()))
    assert [agreement.variant for agreement in agreements] == ["base", "alpha", "beta"]
    for agreement in agreements:
        assert agreement.tokens > 50 and agreement.mean < 0.02 and agreement.tells_apart


@pytest.mark.vllm
def test_an_adapter_that_does_nothing_is_refused(endpoint, runs_folder: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(HarnessError, match=r"(?s)unapplied answers like its base model.*nats: \d"):
        _verify(endpoint, resolve_variants(("unapplied",), runs_folder, Plugins()))


@pytest.mark.vllm
def test_another_runs_adapter_is_refused(endpoint, runs_folder: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(HarnessError, match=r"swapped does not answer as it did when it was tuned"):
        _verify(endpoint, resolve_variants(("swapped",), runs_folder, Plugins()))


@pytest.mark.vllm
def test_a_run_without_probes_is_refused(endpoint, runs_folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(runs_folder / "alpha", tmp_path / "alpha")
    (tmp_path / "alpha/probes.json").unlink()
    with pytest.raises(HarnessError, match=r"no probes.json.*harness tune"):
        _verify(endpoint, resolve_variants((str(tmp_path / "alpha"),), runs_folder, Plugins()))


def _tuned(mean: float, to_base: float, apart: float, tells_apart: bool = True) -> Agreement:
    return Agreement("a", 100, mean, mean * 9, to_base, apart, tells_apart)


def test_an_applied_adapter_passes() -> None:
    judge_tuned(_tuned(0.002, 1.0, 1.0), bound=0.1)


def test_an_adapter_that_tuning_hardly_moved_passes_but_is_not_told_apart() -> None:
    judge_tuned(_tuned(0.002, 0.0015, 0.001, tells_apart=False), bound=0.1)


def test_an_adapter_a_little_away_from_its_base_must_still_be_nearer_to_what_was_tuned() -> None:
    with pytest.raises(HarnessError, match="the adapter is not applied"):
        judge_tuned(_tuned(0.05, 0.002, 0.05), bound=0.1)


@pytest.mark.parametrize("mean", [0.5, float("nan"), float("inf")])
def test_an_adapter_far_from_both_is_refused(mean: float) -> None:
    with pytest.raises(HarnessError, match=r"does not answer as it did when it was tuned(.|\n)*rounding explains 0.1"):
        judge_tuned(_tuned(mean, 2.0, 1.0), bound=0.1)


def test_a_base_that_changed_is_refused() -> None:
    with pytest.raises(HarnessError, match="model folder been changed"):
        judge_base(Agreement("base", 100, 0.4, 2.0), bound=0.1)
