"""The served variants are those that were tuned, and a person is told when they are not."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import HarnessError
from harness.checks import agreement, serving
from harness.checks.agreement import Agreement, judge_base, judge_tuned, verify
from harness.checks.parity import Parity
from harness.client.asking import post
from harness.contract import Endpoint
from harness.files import write_json
from harness.plugins import Plugins
from harness.recipe import ModelSpec
from harness.run import Run
from harness.testing import FakeEndpoint
from harness.variants import Variant, resolve_variants


def _verify(endpoint, variants) -> list[Agreement]:  # type: ignore[no-untyped-def]
    """As if the engine served these variants (and the base) only."""
    return verify(dataclasses.replace(endpoint, models=("base", *(variant.name for variant in variants))), variants)


@pytest.mark.vllm
def test_tuned_runs_agree_with_their_probes(endpoint, runs_folder: Path) -> None:  # type: ignore[no-untyped-def]
    agreements = _verify(endpoint, resolve_variants(("alpha", "beta"), runs_folder, Plugins()))
    assert [found.variant for found in agreements] == ["base", "alpha", "beta"]
    for found in agreements:
        assert found.tokens > 50 and found.mean < 0.02 and found.tells_apart


@pytest.mark.vllm
def test_an_adapter_that_does_nothing_is_refused(endpoint, runs_folder: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(HarnessError, match=r"(?s)unapplied answers like its base model.*nats: \d"):
        _verify(endpoint, resolve_variants(("unapplied",), runs_folder, Plugins()))


@pytest.mark.vllm
def test_another_runs_adapter_is_refused(endpoint, runs_folder: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(HarnessError, match=r"swapped does not answer as it did when it was tuned"):
        _verify(endpoint, resolve_variants(("swapped",), runs_folder, Plugins()))


@pytest.mark.vllm
def test_a_run_without_probes_is_refused(  # type: ignore[no-untyped-def]
    endpoint, runs_folder: Path, tmp_path: Path
) -> None:
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


@pytest.fixture
def verify_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Agreement]]:
    """Run `verify` with served log-probabilities off by `base` or `adapter`, on a run that tuning moved by `apart`."""

    def check(base: float, adapter: float, apart: float, dtype: str = "bfloat16") -> list[Agreement]:
        measured = {"base": [-2.0, -3.0], "tuned": [-2.0 + apart, -3.0 + apart]}
        write_json(tmp_path / "probes.json", {"dtype": dtype, "probes": [{"input_ids": [1, 2, 3]} | measured]})
        served = {
            "base": [value - base for value in measured["base"]],
            "a": [value - adapter for value in measured["tuned"]],
        }
        monkeypatch.setattr(agreement, "scores", lambda _, asked, limits: [served[name] for name, _ in asked])
        run = Run(tmp_path, {"name": "a"}, Plugins())
        endpoint = Endpoint("http://nowhere/v1", ("base", "a"), capabilities=frozenset(("score",)))
        return verify(endpoint, [Variant("a", ModelSpec(path="m"), tmp_path, run=run)])

    return check


@pytest.mark.parametrize(("base", "adapter"), [(0.07, 0.11), (0.02, 0.05), (0.001, 0.01), (0.15, 0.4)])
def test_an_adapter_may_be_off_by_as_much_as_its_bases_rounding_explains(
    verify_figures: Callable[..., list[Agreement]], base: float, adapter: float
) -> None:
    assert [found.tells_apart for found in verify_figures(base, adapter, apart=2)] == [True, True]


@pytest.mark.parametrize(("base", "adapter"), [(0.02, 0.1), (0.001, 0.03), (0.07, 0.3)])
def test_an_adapter_that_is_off_by_more_than_its_bases_rounding_is_refused(
    verify_figures: Callable[..., list[Agreement]], base: float, adapter: float
) -> None:
    with pytest.raises(HarnessError, match=r"a does not answer as it did when it was tuned"):
        verify_figures(base, adapter, apart=1)


def test_a_base_beyond_rounding_excuses_no_adapter(verify_figures: Callable[..., list[Agreement]]) -> None:
    with pytest.raises(HarnessError, match=r"base does not answer as the base model did"):
        verify_figures(base=0.5, adapter=0.5, apart=2)


@pytest.mark.parametrize(("apart", "tells_apart"), [(0.27, False), (0.29, True)])
def test_a_variant_is_told_apart_where_its_base_in_its_place_is_refused(
    verify_figures: Callable[..., list[Agreement]], apart: float, tells_apart: bool
) -> None:
    assert verify_figures(0.07, 0.07, apart)[1].tells_apart is tells_apart
    if tells_apart:
        with pytest.raises(HarnessError, match="a answers like its base model"):
            verify_figures(0.07, adapter=apart + 0.07, apart=apart)


def test_a_base_that_changed_is_refused() -> None:
    with pytest.raises(HarnessError, match="model folder been changed"):
        judge_base(Agreement("base", 100, 0.4, 2.0), bound=0.1)


def test_each_copy_of_the_model_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []
    parity = Parity(("base",), ())
    monkeypatch.setattr(serving, "require_parity", lambda to, *_: asked.append(("parity", to.headers)) or parity)
    monkeypatch.setattr(serving, "verify", lambda to, *_: asked.append(("answers", to.headers)) or [])
    one, two = {"X-data-parallel-rank": "0"}, {"X-data-parallel-rank": "1"}
    endpoint = Endpoint("http://nowhere/v1", ("base",))
    serving.checked(dataclasses.replace(endpoint, replicas=(one, two)), ())
    assert asked == [("parity", one), ("answers", one), ("parity", two), ("answers", two)]
    asked.clear()
    serving.checked(endpoint, ())
    assert asked == [("parity", {}), ("answers", {})]


def test_the_headers_of_an_endpoint_are_sent(fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answer = lambda asked: "Hello"
    headers = {"X-data-parallel-rank": "1"}
    post(Endpoint(fake_endpoint.url, ("m",), headers=headers), "/completions", {"model": "m", "prompt": "x"})
    sent = {name.lower(): value for name, value in fake_endpoint.requests[0].headers.items()}
    assert sent["x-data-parallel-rank"] == "1"
