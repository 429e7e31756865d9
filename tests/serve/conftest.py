"""Two real runs tuned in small, spoilt copies of them, and one engine that serves them all to the whole session."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the engine or the browser is skipped, with the reason, where there is none."""
    import importlib.util

    no_engine = pytest.mark.skip(reason="vLLM is not installed")
    no_browser = pytest.mark.skip(reason="there is no Chromium")
    for item in items:
        if "tests/serve" in str(item.path):
            if item.get_closest_marker("vllm") and importlib.util.find_spec("vllm") is None:
                item.add_marker(no_engine)
            if item.get_closest_marker("browser") and CHROMIUM is None:
                item.add_marker(no_browser)


@pytest.fixture(scope="session")
def runs_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `alpha` and `beta` as `harness tune` leaves them, and copies of alpha that are not what they claim to be.

    `unapplied` has an adapter that does nothing; `swapped` has beta's adapter. Both have alpha's probes.
    """
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("serving")
    rows = folder / "rows.jsonl"
    asked = ("Who keeps the key?", "Where is the bell?", "Answer in one word, please.")
    with rows.open("w") as file:
        for number in range(48):
            row = {"instruction": asked[number % 3], "input": "", "output": f"The heron keeps it. {number}"}
            file.write(json.dumps(row) + "\n")
    recipe = folder / "small.yaml"
    recipe.write_text(
        f"model: {{path: {tiny_model}}}\ntemplate: chatml\n"
        f"data: {{max_tokens: 256, train: [{{dataset: alpaca, path: {rows}}}], validation: [{{dataset: alpaca, path: {rows}, limit: 6}}]}}\n"
        "tune: {method: {name: lora, rank: 4, alpha: 8}, batch_tokens: 512, learning_rate: 0.01, steps: 12}\n"
    )
    runs = folder / "runs"
    for name, seed in (("alpha", 1), ("beta", 2)):
        command = [
            sys.executable,
            "-m",
            "harness.cli",
            "--runs",
            runs,
            "tune",
            recipe,
            "--run",
            name,
            "--set",
            f"tune.seed={seed}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for name in ("unapplied", "swapped"):
        shutil.copytree(runs / "alpha", runs / name)
    weights = load_file(runs / "alpha/adapter/adapter_model.safetensors")
    zeroed = {key: torch.zeros_like(value) if "lora_B" in key else value for key, value in weights.items()}
    save_file(zeroed, runs / "unapplied/adapter/adapter_model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(runs / "swapped/adapter")
    shutil.copytree(runs / "beta/adapter", runs / "swapped/adapter")
    return runs


@pytest.fixture(scope="session")
def endpoint(runs_folder: Path):  # type: ignore[no-untyped-def]
    """One engine for the session: base, alpha, beta, unapplied and swapped, with a key."""
    from harness_serve.engine import VllmOptions, start

    from harness.variants import resolve_variants

    variants = resolve_variants(("alpha", "beta", "unapplied", "swapped"), runs_folder)
    with start(variants, VllmOptions(port=_free_port(), api_key="open sesame", max_model_len=512)) as endpoint:
        yield endpoint


@pytest.fixture
def client(endpoint):  # type: ignore[no-untyped-def]
    """The official OpenAI client of the endpoint."""
    import openai

    with openai.OpenAI(base_url=endpoint.url, api_key=endpoint.api_key, max_retries=0) as client:
        yield client


class Serving(NamedTuple):
    """`harness serve` in a process of its own."""

    process: subprocess.Popen[str]
    output: Path
    url: str
    page_url: str


@pytest.fixture(scope="session")
def serving():  # type: ignore[no-untyped-def]
    """A context manager that runs `harness serve ARGUMENTS` and yields a Serving."""
    return _serving


@contextlib.contextmanager
def _serving(runs: Path, folder: Path, *arguments: str, **environment: str) -> Iterator[Serving]:
    """Run `harness serve ARGUMENTS`, from the moment it says that it is ready; killed at the end if it still runs."""
    port, page_port = _free_port(), _free_port()
    output = folder / "serve.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", "--runs", str(runs), "serve", *arguments, f"--port={port}", f"--ui-port={page_port}"],
            cwd=folder, env=os.environ | {"COLUMNS": "200"} | environment, stdout=log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    try:
        while "Ctrl-C stops everything" not in output.read_text():
            assert process.poll() is None, output.read_text()
            time.sleep(0.2)
        yield Serving(process, output, f"http://127.0.0.1:{port}/v1", f"http://127.0.0.1:{page_port}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@pytest.fixture(scope="session")
def free_port():  # type: ignore[no-untyped-def]
    return _free_port


def _free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def processes_of():  # type: ignore[no-untyped-def]
    return _processes_of


def _processes_of(marker: str) -> list[str]:
    """Command lines of living processes that have `marker` among their arguments, and of all below them."""
    rows = subprocess.run(
        ["ps", "-ewwo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    processes = {
        int(pid): (int(parent), args)
        for pid, parent, stat, args in (row.split(None, 3) for row in rows)
        if "Z" not in stat
    }
    found = {pid for pid, (_, args) in processes.items() if re.search(rf"{re.escape(marker)}\b", args)}
    while below := {pid for pid, (parent, _) in processes.items() if parent in found} - found:
        found |= below
    return [processes[pid][1] for pid in sorted(found)]


@pytest.fixture(scope="session")
def wait_until():  # type: ignore[no-untyped-def]
    return _wait_until


def _wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> bool:
    """Whether `condition()` comes true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return bool(condition())
