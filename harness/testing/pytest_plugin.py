"""Fixtures for pytest: `pytest_plugins = ["harness.testing.pytest_plugin"]` in the conftest.py at the root."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness.testing
from harness.contract import Engine
from harness.testing import Done, FakeEndpoint


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level BPE of some 600 tokens with Qwen's control tokens. Skips without transformers."""
    pytest.importorskip("transformers")
    return harness.testing.tiny_tokenizer()


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that builds a model folder: `miniature("Llama", tied=False)`; see `harness.testing.tiny_model`."""

    def build(architecture: str = "Qwen2", **settings: Any) -> Path:
        pytest.importorskip("torch")
        return harness.testing.tiny_model(tmp_path_factory.mktemp("tiny-model"), architecture, **settings)

    return build


@pytest.fixture(scope="session")
def tiny_model(miniature: Callable[..., Path]) -> Path:
    """The folder of a Qwen2 in small: 2 layers, hidden 128, heads of 64, random bf16 weights, no template."""
    return miniature()


@pytest.fixture
def tiny_run(tiny_model: Path, tmp_path: Path) -> Path:
    """The folder of a finished run of the tiny model: `demo` in `tmp_path / "runs"`."""
    pytest.importorskip("peft")
    return harness.testing.tiny_run(tmp_path, model=tiny_model)


@pytest.fixture
def fake_endpoint() -> Iterator[FakeEndpoint]:
    """An OpenAI-compatible endpoint; the test sets its `answer`, or answers what `next()` gives it."""
    with FakeEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def fake_engine() -> Engine:
    """An engine that answers every request with `The heron.`; see `harness.testing.fake_engine` for another."""
    return harness.testing.fake_engine()


@pytest.fixture
def harness_command(tmp_path: Path) -> Callable[..., Done]:
    """Run `harness_command("data preview", path)` in this process, in an empty folder; see `harness.testing.run`."""
    return functools.partial(harness.testing.run, cwd=tmp_path)
